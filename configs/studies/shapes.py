"""Drawn images: does RC²L help the quickstart's network, and which of its parts?

    python main.py --config=configs/studies/shapes.py --workdir=runs/one  # or shapes.py:CELL
    STUDY=configs/studies/shapes.py
    python studies/study.py --study=$STUDY --output=runs/study --tables=few_labels,terms --jobs=2
    python studies/study.py --study=$STUDY --output=runs/study --report

A cell is METHOD-LABELS-SEED. The seed decides which images are labelled (the same for every method
but all_labels), the initial parameters and the order of the images. Apart from what METHOD changes,
a cell is `configs/shapes.py`.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import shapes
from configs.studies.cells import TERMS, consistency, of_paper, row, without

STEPS = {"16": 900, "128": 1_200}  # by the number of labelled images
SUPERVISED = {"unsup_weight": 0.0}
WEIGHTS = [f"unsup.{term}_weight" for term in TERMS]
METHODS: dict[str, dict[str, Any]] = {
    "supervised": SUPERVISED,
    "all_labels": SUPERVISED | {"data.labeled_split": "train"},
    "consistency": consistency(),
    "rc2l": {},
    **{f"without_{term}": without(term) for term in TERMS},
    # The paper's weights alone, and with its other choices.
    "paper_weights": of_paper(*WEIGHTS),
    "printed": of_paper(
        *WEIGHTS,
        "unsup.union",
        "unsup.contrast_denominator",
        "unsup.rcc_no_object",
        "weak_color",
        "strong_color",
        "pseudo.source",
        "pseudo.uncovered",
        "pseudo.class_alignment",
    ),
    "no_alignment": {"pseudo.class_alignment": 0.0},
    "query_segments": {"pseudo.source": "query"},
    "uncovered_negative": {"pseudo.uncovered": "negative"},
}
READINGS = ("paper_weights", "printed", "no_alignment", "query_segments", "uncovered_negative")
TABLES: dict[str, list[str]] = {
    "few_labels": row("supervised", "consistency", "rc2l", "all_labels", partition="16", seeds=3),
    "terms": row(
        "supervised", "rc2l", *(f"without_{term}" for term in TERMS), partition="16", seeds=3
    ),
    "readings": row("supervised", "rc2l", *READINGS, partition="16", seeds=3),
    "more_labels": row("supervised", "rc2l", partition="128", seeds=3),
}


def get_config(cell: str = "rc2l-16-0") -> ConfigDict:
    """The config of a cell, METHOD-LABELS-SEED."""
    method, labels, seed = cell.split("-")
    config = shapes.get_config()
    config.seed = int(seed)
    config.num_steps = STEPS[labels]
    config.eval_every_steps = STEPS[labels] // 2
    config.data.labeled_split = f"train#{labels}@{seed}"
    config.data.unlabeled_split = f"train#rest{labels}@{seed}"
    config.update_from_flattened_dict(METHODS[method])
    return config
