"""CamVid, 1/8, twice the steps of `camvid.py`: what the unlabelled images are worth in the end.

    python main.py --config=configs/studies/camvid_longer.py --workdir=runs/one  # or ...py:CELL
    STUDY=configs/studies/camvid_longer.py
    python studies/study.py --study=$STUDY --output=runs/camvid_longer --jobs=2
    python studies/study.py --study=$STUDY --output=runs/camvid_longer --report

With 46 labelled images the supervised run no longer improves after step 3,000, but RC²L still does
at step 6,000, where the cells of `camvid.py` end. Everything else is as in `camvid.py`.
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
