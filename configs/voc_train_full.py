"""PASCAL VOC 2012 Train, all 1,464 labels (1.4k), SBD's images unlabelled: Table 1.

    python main.py --config=configs/voc_train_full.py --workdir=runs/voc_train_full

Hardware: 4 V100 in the paper. Time: 120,000 steps are 33 hours for every second that a step takes.
Score: mIoU 79.33 in the paper, of the supervised baseline 73.71; not measured here.

Table 1 has this column below "VOC Aug" (160,000 steps, alpha 1), section 4.2 reports it with VOC
Train (120,000, alpha 2). [D] It is the latter here: the labelled images are VOC Train's.
"""

from ml_collections import ConfigDict

from configs import voc_train_half


def get_config() -> ConfigDict:
    config = voc_train_half.get_config()
    config.data.labeled_split = "train"
    config.data.unlabeled_split = "aug"  # the 9,118 others of VOC Aug
    config.data.num_labeled = 1_464
    return config
