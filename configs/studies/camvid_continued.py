"""CamVid, 1/8: terms, weights and readings, as short runs that start from one supervised run.

    python main.py --config=configs/studies/camvid_continued.py --workdir=runs/one  # or ...py:CELL
    STUDY=configs/studies/camvid_continued.py
    python studies/study.py --study=$STUDY --output=runs/camvid_continued --jobs=2
    python studies/study.py --study=$STUDY --output=runs/camvid_continued --report

All cells start from the teacher of the cell supervised-eighth-0 of `camvid.py`, which must be
finished (`-- --config.init_from=RUN` says where it is). So a cell takes a quarter of the steps that
it takes from scratch, and less of the difference between cells is chance. Seeds other than 0 change
the order of the images, but not which are labelled: they show how large that chance is. No cell
changes the number of queries, as the supervised run has learnt its own.
"""

from ml_collections import ConfigDict

from configs.studies import camvid

TABLES = {
    "terms": [*camvid.TABLES["terms"], *camvid.row("supervised", "rc2l", seeds=3)[2:]],
    "alpha": camvid.TABLES["alpha"],
    "readings": [
        *(cell for cell in camvid.TABLES["readings"] if "burn_in" not in cell),
        *camvid.row("threshold_0.9", "threshold_0.9_negative", seeds=2)[2:],
    ],
}


def get_config(cell: str = "rc2l-eighth-0") -> ConfigDict:
    """The config of a cell, METHOD-eighth-SEED."""
    method, partition, seed = cell.split("-")
    config = camvid.get_config(f"{method}-{partition}-0")
    config.seed = int(seed)
    config.init_from = "runs/camvid/supervised-eighth-0"
    config.num_steps = 1_500
    config.learning_rate /= 2
    config.unsup_start_step = 0
    config.unsup_ramp_steps = 200
    config.eval_every_steps = 500
    return config
