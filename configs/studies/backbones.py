"""A folder of photos with few masks: what a pretrained backbone is worth on two CPU cores.

    python main.py --config=configs/studies/backbones.py --workdir=runs/one  # or backbones.py:CELL
    STUDY=configs/studies/backbones.py
    python studies/study.py --study=$STUDY --output=runs/backbones --tables=backbones --jobs=2
    python studies/study.py --study=$STUDY --output=runs/backbones --report

They are started in a folder of photos of VOC's 21 classes (images/, labels/, classes.txt) that also
has lists of labelled images, lists/draw{0,1,2}/{42,84,168,336}.txt; the paths of main.py and of the
study are then those of this repository.

A cell is METHOD-LABELS-SEED. The seed chooses the list of labelled images, the initial parameters
and the order of the images. Apart from what METHOD changes, a cell has the settings of
`configs/folder_small.py`, without unlabelled images.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import camvid_eighth, folder_small

NUM_CLASSES = 21
FROZEN = {"unsup_weight": 0.0, "data.unlabeled_split": ""}
TUNED = FROZEN | {"model.freeze_backbone": False, "backbone_lr_multiplier": 0.1}
METHODS: dict[str, dict[str, Any]] = {
    "frozen": FROZEN,
    "frozen_lr_0.5": FROZEN | {"learning_rate": 5e-4},
    "frozen_lr_2": FROZEN | {"learning_rate": 2e-3},
    "tuned": TUNED,
    # The network of the CamVid study, with its learning rate.
    "scratch": FROZEN
    | {"init_from": "", "model.freeze_backbone": False, "backbone_lr_multiplier": 1.0}
    | {"learning_rate": camvid_eighth.get_config().learning_rate}
    | {f"model.{key}": value for key, value in camvid_eighth.get_config().model.items()},
}


def row(*methods: str, labels: int = 84, seeds: int = 3) -> list[str]:
    """The cells of some methods with a number of labelled images."""
    return [f"{method}-{labels}-{seed}" for seed in range(seeds) for method in methods]


TABLES: dict[str, list[str]] = {
    "learning_rate": row("frozen", "frozen_lr_0.5", "frozen_lr_2", seeds=1),
    "backbones": row("frozen", "scratch", "tuned"),
}


def get_config(cell: str = "frozen-84-0") -> ConfigDict:
    """The config of a cell, METHOD-LABELS-SEED."""
    method, labels, seed = cell.split("-")
    config = folder_small.get_config()
    config.seed = int(seed)
    config.data.dir = "."
    config.data.num_classes = NUM_CLASSES
    config.data.labeled_split = f"lists/draw{seed}/{labels}.txt"
    config.update_from_flattened_dict(METHODS[method])
    return config
