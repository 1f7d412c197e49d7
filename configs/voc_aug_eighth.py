"""PASCAL VOC 2012 Aug, 1/8 of the labels (1,323 of 10,582): Table 1 of the paper.

    python main.py --config=configs/voc_aug_eighth.py --workdir=runs/voc_aug_eighth

Hardware: 4 V100 GPUs in the paper. Time: 160,000 steps, 44 hours if each takes a second.
Score: mIoU 77.49 in the paper (supervised baseline: 72.87); not measured here.
"""

from ml_collections import ConfigDict

from configs import voc_aug_half


def get_config() -> ConfigDict:
    config = voc_aug_half.get_config()
    config.data.labeled_split = "trainaug#1323@0"
    config.data.unlabeled_split = "trainaug#rest1323@0"
    config.data.num_labeled = 1_323
    return config
