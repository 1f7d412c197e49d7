"""CamVid: does RC²L help on real road scenes? Each cell of the study's tables is one config.

    python main.py --config=configs/studies/camvid.py --workdir=runs/one  # or camvid.py:CELL
    STUDY=configs/studies/camvid.py
    python studies/study.py --study=$STUDY --output=runs/camvid --tables=partitions --jobs=2
    python studies/study.py --study=$STUDY --output=runs/camvid --report

A cell is METHOD-PARTITION-SEED. The seed decides which images are labelled (the same for every
method), the initial parameters and the order of the images. Apart from what METHOD changes, a cell
has the network, steps and learning rate of `configs/camvid_eighth.py`. `--config.data.dir=DIR` says
where CamVid is.
"""

import functools
from typing import Any

from ml_collections import ConfigDict

from configs import camvid_eighth
from configs.studies import cells
from configs.studies.cells import consistency, without

PARTITIONS = {"full": 367, "half": 183, "quarter": 91, "eighth": 46, "sixteenth": 23}
COMPARED: dict[str, dict[str, Any]] = {
    "supervised": {"unsup_weight": 0.0},
    "consistency": consistency(),
    "rc2l": {},
}
# Other choices where the paper is silent or can be read in several ways.
READINGS: dict[str, dict[str, Any]] = {
    "union_semantic": {"unsup.union": "semantic"},
    "union_max": {"unsup.union": "max"},
    "paper_denominator": {"unsup.contrast_denominator": "paper"},
    "query_segments": {"pseudo.source": "query"},
    "query_segments_unmerged": {"pseudo.source": "query", "pseudo.merge_same_class": False},
    "threshold_0.5": {"pseudo.pixel_threshold": 0.5},
    "threshold_0.9": {"pseudo.pixel_threshold": 0.9},
    # Uncovered pixels as negatives, for settings that leave pixels uncovered.
    "query_segments_negative": {"pseudo.source": "query", "pseudo.uncovered": "negative"},
    "threshold_0.9_negative": {"pseudo.pixel_threshold": 0.9, "pseudo.uncovered": "negative"},
    # L_mask in Eq. 10 with the weights that it has in Eq. 1.
    "mask_loss_20": {"unsup.focal_weight": 20.0, "unsup.dice_weight": 1.0},
    "no_alignment": {"pseudo.class_alignment": 0.0},
    "no_burn_in": {"unsup_start_step": 0},
    "burn_in_2500": {"unsup_start_step": 2_500},
    "ema_0.95": {"ema_decay": 0.95},
    "ema_0.999": {"ema_decay": 0.999},
    "tau_0.1": {"unsup.rmc_temperature": 0.1, "unsup.rfc_temperature": 0.1},
    "tau_1": {"unsup.rmc_temperature": 1.0, "unsup.rfc_temperature": 1.0},
}
# Half and twice the usual learning rate, for each of the compared methods.
LEARNING_RATES = {"lr_0.5": {"learning_rate": 1e-3}, "lr_2": {"learning_rate": 4e-3}}
QUERIES = {f"queries_{n}": {"model.num_queries": n} for n in (12, 32)}
METHODS: dict[str, dict[str, Any]] = {
    **COMPARED,
    # Table 3.
    "smc": without("rcc", "rmc", "rfc"),
    "smc_rcc": without("rmc", "rfc"),
    "smc_rcc_rmc": without("rfc"),
    # Table 4.
    "alpha_0.5": {"unsup_weight": 0.5},
    "alpha_1.5": {"unsup_weight": 1.5},
    "alpha_2": {"unsup_weight": 2.0},
    # Table 5.
    **QUERIES,
    **{f"supervised_{name}": COMPARED["supervised"] | n for name, n in QUERIES.items()},
    **READINGS,
    **{f"{m}_{lr}": COMPARED[m] | LEARNING_RATES[lr] for m in COMPARED for lr in LEARNING_RATES},
}


row = functools.partial(cells.row, partition="eighth")  # the cells of some methods
TABLES: dict[str, list[str]] = {
    "learning_rate": row(*COMPARED, *(f"{m}_{lr}" for lr in LEARNING_RATES for m in COMPARED)),
    "partitions": [
        *row(*COMPARED, seeds=3),
        *row(*COMPARED, partition="sixteenth"),
        *row(*COMPARED, partition="quarter"),
        *row(*COMPARED, partition="half"),
        *row("supervised", partition="full"),
    ],
    "terms": row("supervised", "consistency", "smc", "smc_rcc", "smc_rcc_rmc", "rc2l"),
    "alpha": row("alpha_0.5", "rc2l", "alpha_1.5", "alpha_2"),
    "queries": row("supervised", *(f"supervised_{q}" for q in QUERIES), "rc2l", *QUERIES),
    "readings": row("rc2l", *READINGS),
}


def get_config(cell: str = "rc2l-eighth-0") -> ConfigDict:
    """The config of a cell, METHOD-PARTITION-SEED."""
    method, partition, seed = cell.split("-")
    config = camvid_eighth.get_config()
    config.seed = int(seed)
    count = PARTITIONS[partition]
    labeled = f"train#{count}@{seed}"
    config.data.labeled_split = "train" if partition == "full" else labeled
    config.data.unlabeled_split = "" if partition == "full" else labeled.replace("#", "#rest")
    config.update_from_flattened_dict(METHODS[method])
    return config
