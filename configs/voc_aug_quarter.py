"""PASCAL VOC 2012 Aug, 1/4 of the labels (2,646 of 10,582): Table 1 of the paper.

    python main.py --config=configs/voc_aug_quarter.py --workdir=runs/voc_aug_quarter

Hardware: 4 V100 GPUs in the paper. Time: 160,000 steps, 44 hours if each takes a second.
Score: mIoU 79.71 in the paper (supervised baseline: 75.23); not measured here.
"""

from ml_collections import ConfigDict

from configs import voc_aug_half


def get_config() -> ConfigDict:
    config = voc_aug_half.get_config()
    config.data.labeled_split = "trainaug#2646@0"
    config.data.unlabeled_split = "trainaug#rest2646@0"
    config.data.num_labeled = 2_646
    return config
