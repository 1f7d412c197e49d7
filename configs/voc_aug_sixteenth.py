"""PASCAL VOC 2012 Aug, 1/16 of the labels (662 of 10,582): Table 1 of the paper.

    python main.py --config=configs/voc_aug_sixteenth.py --workdir=runs/voc_aug_sixteenth

Hardware: 4 V100 GPUs in the paper. Time: 160,000 steps, 44 hours if each takes a second.
Score: mIoU 75.56 in the paper (supervised baseline: 67.12); not measured here.
"""

from ml_collections import ConfigDict

from configs import voc_aug_half


def get_config() -> ConfigDict:
    config = voc_aug_half.get_config()
    # [P] pretrained on COCO for this partition; [D] on COCO-Stuff
    config.init_from = "facebook/maskformer-resnet101-coco-stuff"
    config.data.labeled_split = "trainaug#662@0"
    config.data.unlabeled_split = "trainaug#rest662@0"
    config.data.num_labeled = 662
    return config
