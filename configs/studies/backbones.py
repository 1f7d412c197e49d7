"""A folder of photos with few masks: what a pretrained backbone is worth on two CPU cores.

    cd DIR  # images/, labels/, classes.txt, and lists/draw{0,1,2}/{42,84,168,336}.txt
    STUDY=REPOSITORY/configs/studies/backbones.py
    python REPOSITORY/studies/study.py --study=$STUDY --output=runs --tables=backbones --jobs=2
    python REPOSITORY/studies/study.py --study=$STUDY --output=runs --report

A cell is METHOD-LABELS-SEED. The seed chooses the list of labelled images, the initial parameters
and the order of the images. Apart from what METHOD changes, a cell has the settings of
`configs/folder_small.py`, without unlabelled images.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import folder_scratch, folder_small

LABELS = (42, 84, 168, 336)
NUM_CLASSES = 21
FROZEN = {"unsup_weight": 0.0, "data.unlabeled_split": ""}
TUNED = FROZEN | {"model.freeze_backbone": False, "backbone_lr_multiplier": 0.1}
METHODS: dict[str, dict[str, Any]] = {
    "frozen": FROZEN,
    "frozen_lr_0.5": FROZEN | {"learning_rate": 5e-4},
    "frozen_lr_2": FROZEN | {"learning_rate": 2e-3},
    "frozen_longer": FROZEN | {"num_steps": 4_000, "eval_every_steps": 1_000},
    "tuned": TUNED,
    # The network of `configs/folder_scratch.py`, with its learning rate.
    "scratch": FROZEN
    | {"init_from": "", "model.freeze_backbone": False, "backbone_lr_multiplier": 1.0}
    | {"learning_rate": folder_scratch.get_config().learning_rate}
    | {f"model.{key}": value for key, value in folder_scratch.get_config().model.items()},
}


def row(*methods: str, labels: int = 84, seeds: int = 3) -> list[str]:
    """The cells of some methods with a number of labelled images."""
    return [f"{method}-{labels}-{seed}" for seed in range(seeds) for method in methods]


TABLES: dict[str, list[str]] = {
    "learning_rate": row("frozen", "frozen_lr_0.5", "frozen_lr_2", seeds=1),
    "backbones": row("frozen", "scratch", "tuned"),
    "steps": row("frozen_longer"),
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
