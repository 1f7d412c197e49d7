"""PASCAL VOC 2012 Train, 1/2 of the labels (732 of 1,464): Table 1 of the paper.

    python main.py --config=configs/voc_train_half.py --workdir=runs/voc_train_half

Hardware: 4 V100 GPUs in the paper. Time: 120,000 steps, 33 hours if each takes a second.
Score: mIoU 77.06 in the paper (supervised baseline: 67.67); not measured here.
"""

from ml_collections import ConfigDict

from configs import paper


def get_config() -> ConfigDict:
    config = paper.get_config()
    config.init_from = "microsoft/resnet-101"  # [P] ImageNet for this partition
    config.data.name = "voc_semseg"
    config.data.labeled_split = "train#732@0"
    # [D] The rest of VOC Train. The paper does not say whether the other images of VOC Aug are
    # unlabelled images here, too.
    config.data.unlabeled_split = "train#rest732@0"
    config.data.num_labeled = 732
    return config
