"""Cityscapes, 1/8 of the labels (372 of 2,975): Table 2 of the paper.

    python main.py --config=configs/cityscapes_eighth.py --workdir=runs/cityscapes_eighth \
        --config.data.dir=DIR

Hardware: 8 V100 in the paper. Time: 120,000 steps are 33 hours for every second that a step takes.
Score: mIoU 74.04 in the paper, of the supervised baseline 71.53; not measured here.
"""

from ml_collections import ConfigDict

from configs import cityscapes_quarter


def get_config() -> ConfigDict:
    config = cityscapes_quarter.get_config()
    config.data.labeled_split = "train#372@0"
    config.data.unlabeled_split = "train#rest372@0"
    config.data.num_labeled = 372
    return config
