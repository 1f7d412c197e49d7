"""Cityscapes, 1/8 of the labels (372 of 2,975): Table 2 of the paper.

    python main.py --config=configs/cityscapes_eighth.py --workdir=runs/cityscapes_eighth \
        --config.data.dir=DIR

Hardware: 8 V100 GPUs in the paper. Time: 120,000 steps, 33 hours if each takes a second.
Score: mIoU 74.04 in the paper (supervised baseline: 71.53); not measured here.
"""

from ml_collections import ConfigDict

from configs import cityscapes_quarter


def get_config() -> ConfigDict:
    config = cityscapes_quarter.get_config()
    config.data.labeled_split = "train#372@0"
    config.data.unlabeled_split = "train#rest372@0"
    config.data.num_labeled = 372
    return config
