"""PASCAL VOC 2012 Train, 1/4 of the labels (366 of 1,464): Table 1 of the paper.

    python main.py --config=configs/voc_train_quarter.py --workdir=runs/voc_train_quarter

Hardware: 4 V100 GPUs in the paper. Time: 120,000 steps, 33 hours if each takes a second.
Score: mIoU 72.24 in the paper (supervised baseline: 60.63); not measured here.
"""

from ml_collections import ConfigDict

from configs import voc_train_half


def get_config() -> ConfigDict:
    config = voc_train_half.get_config()
    # [P] pretrained on COCO for this partition; [D] on COCO-Stuff
    config.init_from = "facebook/maskformer-resnet101-coco-stuff"
    config.data.labeled_split = "train#366@0"
    config.data.unlabeled_split = "train#rest366@0"
    config.data.num_labeled = 366
    return config
