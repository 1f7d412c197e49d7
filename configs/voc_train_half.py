"""PASCAL VOC 2012 Train, 1/2 of the labels (732 of 1464): the paper's Table 1.

    python main.py --config=configs/voc_train_half.py --workdir=runs/voc_train_half

Hardware: the paper used 4 V100. Score: mIoU 77.06 in the paper; not measured here.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()  # which is this protocol: VOC Train, alpha 2, 120k steps
    config.init_from = "microsoft/resnet-101"  # the paper: ImageNet for this partition
    config.dtype = "bfloat16"

    # The paper's method as printed, where the defaults are our readings.
    config.unsup.contrast_denominator = "paper"
    config.unsup.rcc_no_object = False

    config.data.name = "voc_semseg"
    config.data.num_classes = 21
    config.data.labeled_split = "train#732@0"
    config.data.unlabeled_split = "train#rest732@0"
    return config
