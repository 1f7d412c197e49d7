"""PASCAL VOC 2012 Train, 1/8 of the labels (183 of 1,464): Table 1 of the paper.

    python main.py --config=configs/voc_train_eighth.py --workdir=runs/voc_train_eighth

Hardware: 4 V100 GPUs in the paper. Time: 120,000 steps, 33 hours if each takes a second.
Score: mIoU 68.87 in the paper (supervised baseline: 53.03); not measured here.
"""

from ml_collections import ConfigDict

from configs import voc_train_half


def get_config() -> ConfigDict:
    config = voc_train_half.get_config()
    # [P] pretrained on COCO for this partition; [D] on COCO-Stuff
    config.init_from = "facebook/maskformer-resnet101-coco-stuff"
    config.data.labeled_split = "train#183@0"
    config.data.unlabeled_split = "train#rest183@0"
    config.data.num_labeled = 183
    return config
