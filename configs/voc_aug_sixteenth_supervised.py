"""The 662 labelled images of `voc_aug_sixteenth.py` alone: the supervised baseline of Table 1.

    python main.py --config=configs/voc_aug_sixteenth_supervised.py \
        --workdir=runs/voc_aug_sixteenth_supervised

Hardware: 4 V100 GPUs in the paper. Time: 160,000 steps, 44 hours if each takes a second.
Score: mIoU 67.12 in the paper; not measured here.
"""

from ml_collections import ConfigDict

from configs import voc_aug_sixteenth


def get_config() -> ConfigDict:
    config = voc_aug_sixteenth.get_config()
    config.unsup_weight = 0.0
    return config
