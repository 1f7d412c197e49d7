"""PASCAL VOC 2012 Train, all 1,464 labels (1.4k), SBD's images unlabelled: Table 1.

    python main.py --config=configs/voc_train_full.py --workdir=runs/voc_train_full

Hardware: 4 V100 GPUs in the paper. Time: 120,000 steps, 33 hours if each takes a second.
Score: mIoU 79.33 in the paper (supervised baseline: 73.71); not measured here.

Table 1 has this column below "VOC Aug" (160,000 steps, alpha 1), but section 4.2 reports it with
VOC Train (120,000 steps, alpha 2). [D] Here it has the latter, as its labelled images are VOC
Train's.
"""

from ml_collections import ConfigDict

from configs import voc_train_half


def get_config() -> ConfigDict:
    config = voc_train_half.get_config()
    config.data.labeled_split = "train"
    config.data.unlabeled_split = "aug"  # the other 9,118 images of VOC Aug
    config.data.num_labeled = 1_464
    return config
