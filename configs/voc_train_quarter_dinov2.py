"""PASCAL VOC 2012 Train, 1/4 of the labels (366 of 1,464): that cell of Table 1 on DINOv2-B.

    python main.py --config=configs/voc_train_quarter_dinov2.py \
        --workdir=runs/voc_train_quarter_dinov2

Hardware: 4 GPUs, which is not tried yet. Time: 120,000 steps; not measured here.
Score: mIoU not measured here. The paper has no DINOv2; with ResNet-101 it has 72.24.
"""

from ml_collections import ConfigDict

from configs import voc_train_quarter
from configs.dinov2 import on_dinov2


def get_config() -> ConfigDict:
    return on_dinov2(voc_train_quarter.get_config())
