"""Which photos to label? The same number of labels, drawn at random or as --mode=suggest says.

    python main.py --config=configs/studies/suggested.py --workdir=runs/one \
        --config.data.dir=DIR  # or suggested.py:CELL
    STUDY=configs/studies/suggested.py
    python studies/study.py --study=$STUDY --output=runs/suggested --tables=84 \
        -- --config.data.dir=DIR
    python studies/study.py --study=$STUDY --output=runs/suggested --tables=84 --report

DIR is a folder of photos as `configs/folder.py` has it, all of whose photos in images/train have
masks; table 84 is for VOC's 663, table 46 for CamVid's 367. A run sees the masks of the chosen
ones; the others are its unlabelled photos. Before it starts, --mode=suggest makes the lists, in DIR
or in the working directory, as docs/study_photos.md says:

    lists/suggested84_SEED.txt  84 suggested without a network, with --config.seed=SEED
    lists/asked84_SEED.txt      42 that supervised-random42-SEED suggests, to go with its own 42

A cell is METHOD-CHOICE-SEED, CHOICE being random, suggested or asked with the number of labels.
Apart from that it is `configs/folder_small.py` in half of the steps.
"""

from ml_collections import ConfigDict

from configs import folder_small
from configs.studies.cells import row


def table(count: int) -> list[str]:
    """The cells with a number of labels."""
    choices = [f"random{count // 2}", f"random{count}", f"suggested{count}", f"asked{count}"]
    pairs = [*(("supervised", x) for x in choices), *(("rc2l", x) for x in choices[1:])]
    return [cell for method, x in pairs for cell in row(method, partition=x, seeds=3)]


TABLES = {"84": table(84), "46": table(46)}


def labeled(choice: str, seed: int) -> str:
    """The labelled split of a choice, such as random84."""
    rule = choice.rstrip("0123456789")
    count = int(choice.removeprefix(rule))
    if rule == "random":
        return f"train#{count}@{seed}"
    suggested = f"lists/{choice}_{seed}.txt"
    return suggested if rule == "suggested" else f"train#{count // 2}@{seed}+{suggested}"


def get_config(cell: str = "rc2l-random84-0") -> ConfigDict:
    """The config of a cell, METHOD-CHOICE-SEED."""
    method, choice, seed = cell.split("-")
    config = folder_small.get_config()
    config.seed = int(seed)
    config.num_steps = 1_000
    config.eval_every_steps = 1_000
    config.unsup_start_step = 250
    config.unsup_ramp_steps = 125
    config.data.unlabeled_split = "train"  # but for those that are labelled
    config.data.labeled_split = labeled(choice, int(seed))
    if method == "supervised":
        config.unsup_weight = 0.0
        config.data.unlabeled_split = ""
    return config
