"""CamVid, 1/8, with twice the steps of `camvid.py`: what unlabelled images are worth in the end.

    python main.py --config=configs/studies/camvid_longer.py --workdir=runs/one  # or ...py:CELL
    STUDY=configs/studies/camvid_longer.py
    python studies/study.py --study=$STUDY --output=runs/camvid_longer --jobs=2
    python studies/study.py --study=$STUDY --output=runs/camvid_longer --report

With 46 labelled images supervised runs reach their best between steps 3,000 and 6,000, while RC²L
still rises at step 6,000, where the cells of `camvid.py` end. All else is as there.
"""

from ml_collections import ConfigDict

from configs.studies import camvid

TABLES = {"eighth": camvid.row(*camvid.COMPARED, seeds=3)}


def get_config(cell: str = "rc2l-eighth-0") -> ConfigDict:
    """The config of a cell, METHOD-PARTITION-SEED."""
    config = camvid.get_config(cell)
    config.num_steps = 12_000
    config.eval_every_steps = 1_500
    return config
