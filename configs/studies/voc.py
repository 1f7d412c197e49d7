"""Photos with few masks and a pretrained network, on PASCAL VOC: the paper's tables in miniature.

    python main.py --config=configs/studies/voc.py --workdir=runs/one \
        --config.data.dir=DIR  # or voc.py:CELL
    STUDY=configs/studies/voc.py
    python studies/study.py --study=$STUDY --output=runs/voc --tables=partitions --jobs=2 \
        -- --config.data.dir=DIR
    python studies/study.py --study=$STUDY --output=runs/voc --report --figures

DIR is a folder of photos of VOC's 21 classes: images/{train,val,unlabeled}, labels/{train,val},
classes.txt, and lists of labelled images, lists/draw{0,1,2}/{42,84,168,336}.txt.

A cell is METHOD-LABELS-SEED. The seed chooses the list of labelled images, the initial parameters
and the order of the images. Apart from what METHOD changes, a cell is `configs/folder_small.py`.
"""

import functools
from typing import Any

from ml_collections import ConfigDict

from configs import camvid_eighth, folder_small
from configs.studies import cells
from configs.studies.cells import consistency, of_paper, without

NUM_CLASSES = 21
# Each of the frequent classes is shown by 60 or more of the 663 labelled photos, no other class by
# as many as 50.
CLASS_GROUPS = {
    "frequent": ("cat", "dog", "cow", "horse", "sheep", "person"),
    "others": (
        *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "chair", "diningtable"),
        *("motorbike", "pottedplant", "sofa", "train", "tvmonitor"),
    ),
}
SUPERVISED = {"unsup_weight": 0.0, "data.unlabeled_split": ""}
COMPARED: dict[str, dict[str, Any]] = {
    "supervised": SUPERVISED,
    "consistency": consistency(),
    # Views, segments, losses and teacher of `configs/paper.py`.
    "printed": of_paper(
        *("unsup_weight", "unsup_start_step", "unsup_ramp_steps", "ema_decay"),
        *("weak_color", "strong_color", "pseudo", "cutmix", "unsup"),
    ),
    "rc2l": {},
}
LEARNING_RATES = {"lr_0.5": {"learning_rate": 5e-4}, "lr_2": {"learning_rate": 2e-3}}
QUERIES = {f"queries_{n}": {"model.num_queries": n} for n in (21, 50)}
TUNED = {"model.freeze_backbone": False, "backbone_lr_multiplier": 0.1}
BACKBONES = {
    "tuned": SUPERVISED | TUNED,
    "tuned_rc2l": TUNED,
    # The network of the CamVid study, with its learning rate.
    "scratch": SUPERVISED
    | {"init_from": "", "model.freeze_backbone": False, "backbone_lr_multiplier": 1.0}
    | {"learning_rate": camvid_eighth.get_config().learning_rate}
    | {f"model.{key}": value for key, value in camvid_eighth.get_config().model.items()},
}
# Other choices where the paper is silent or can be read in several ways.
READINGS: dict[str, dict[str, Any]] = {
    "no_prototype_check": {"pseudo.prototype_check": False},
    "one_threshold": {"pseudo.threshold_by_class": False},
    "query_segments": {"pseudo.source": "query", "pseudo.threshold_by_class": False},
    "threshold_0.7": {"pseudo.pixel_threshold": 0.7},
    "alignment_1": {"pseudo.class_alignment": 1.0},
    "uncovered_negative": {"pseudo.uncovered": "negative"},
    "same_colors": {"strong_color": "same"},
    "paper_denominator": {"unsup.contrast_denominator": "paper"},
    "union_semantic": {"unsup.union": "semantic"},
    "tau_0.1": {"unsup.rmc_temperature": 0.1, "unsup.rfc_temperature": 0.1},
    "ema_0.999": {"ema_decay": 0.999},
    "no_burn_in": {"unsup_start_step": 0},
    "matched_only": {"unsup.rcc_no_object": False},
}
SAMPLED = {"data.class_sampling": 0.2}
HEAD = {"model.backbone_head": True}
LONGER = {"num_steps": 6_000}
METHODS: dict[str, dict[str, Any]] = {
    **COMPARED,
    "sampled": SUPERVISED | SAMPLED,
    "sampled_rc2l": SAMPLED,
    "head": SUPERVISED | HEAD,
    "head_rc2l": HEAD,
    "longer": SUPERVISED | LONGER,
    "longer_rc2l": LONGER,
    **BACKBONES,
    # Table 3.
    "smc": without("rcc", "rmc", "rfc"),
    "smc_rcc": without("rmc", "rfc"),
    "smc_rcc_rmc": without("rfc"),
    # Table 4.
    **{f"alpha_{alpha}": {"unsup_weight": alpha} for alpha in (0.25, 1.0, 2.0)},
    # Table 5.
    **QUERIES,
    **{f"supervised_{name}": SUPERVISED | n for name, n in QUERIES.items()},
    **READINGS,
    "printed_unknown": COMPARED["printed"] | {"pseudo.uncovered": "unknown"},
    **{f"{m}_{lr}": COMPARED[m] | LEARNING_RATES[lr] for m in COMPARED for lr in LEARNING_RATES},
}


row = functools.partial(cells.row, partition="84")  # the cells of some methods
TABLES: dict[str, list[str]] = {
    "partitions": [
        *row(*COMPARED, seeds=3),
        *row(*COMPARED, partition="42", seeds=3),
        *row(*COMPARED, partition="168"),
        *row(*COMPARED, partition="336"),
    ],
    "prototype_check": [
        *row("supervised", "no_prototype_check", "rc2l", partition="42", seeds=3),
        *row("supervised", "no_prototype_check", "rc2l", seeds=3),
    ],
    "backbones": [
        *row("supervised", "scratch", "tuned", seeds=3),
        *row("rc2l", "tuned_rc2l"),
    ],
    "class_sampling": [
        *row("supervised", "rc2l", "sampled_rc2l", partition="42", seeds=3),
        *row("supervised", "sampled", "rc2l", "sampled_rc2l", seeds=3),
    ],
    "head": row("supervised", "head", "rc2l", "head_rc2l", seeds=3),
    "longer": [
        *row("supervised", "longer", "rc2l", "longer_rc2l", partition="42"),
        *row("supervised", "longer", "rc2l", "longer_rc2l"),
    ],
    "learning_rate": row(*COMPARED, *(f"{m}_{lr}" for lr in LEARNING_RATES for m in COMPARED)),
    "terms": row("supervised", "consistency", "smc", "smc_rcc", "smc_rcc_rmc", "rc2l"),
    "alpha": row("supervised", "alpha_0.25", "rc2l", "alpha_1.0", "alpha_2.0"),
    "alpha_0.25": [
        *row("supervised", "alpha_0.25", "rc2l", partition="42", seeds=3),
        *row("supervised", "alpha_0.25", "rc2l", seeds=3),
        *row("supervised", "alpha_0.25", "rc2l", partition="336"),
    ],
    "queries": row("supervised", *(f"supervised_{q}" for q in QUERIES), "rc2l", *QUERIES),
    "readings": row("supervised", "rc2l", *READINGS),
    "uncovered": [
        *row("supervised", "printed", "printed_unknown", "rc2l", seeds=3),
        *row("uncovered_negative"),
    ],
}


def get_config(cell: str = "rc2l-84-0") -> ConfigDict:
    """The config of a cell, METHOD-LABELS-SEED."""
    method, labels, seed = cell.split("-")
    config = folder_small.get_config()
    config.seed = int(seed)
    config.data.num_classes = NUM_CLASSES
    config.data.labeled_split = f"lists/draw{seed}/{labels}.txt"
    config.update_from_flattened_dict(METHODS[method])
    return config
