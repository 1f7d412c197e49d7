"""PASCAL VOC 2012 Aug, 1/2 of the labels (5,291 of 10,582): Table 1 of the paper.

    python main.py --config=configs/voc_aug_half.py --workdir=runs/voc_aug_half

Hardware: 4 V100 GPUs in the paper. Time: 160,000 steps, 44 hours if each takes a second.
Score: mIoU 80.43 in the paper (supervised baseline: 76.02); not measured here.
"""

from ml_collections import ConfigDict

from configs import voc_train_half


def get_config() -> ConfigDict:
    config = voc_train_half.get_config()
    config.num_steps = 160_000  # [P]
    config.unsup_weight = 1.0  # [P] Table 4, on 1/4; [D] on the other partitions
    config.data.labeled_split = "trainaug#5291@0"
    config.data.unlabeled_split = "trainaug#rest5291@0"
    config.data.num_labeled = 5_291
    return config
