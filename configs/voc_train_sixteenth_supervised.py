"""The 92 labelled images of `voc_train_sixteenth.py` alone: the supervised baseline of Table 1.

    python main.py --config=configs/voc_train_sixteenth_supervised.py \
        --workdir=runs/voc_train_sixteenth_supervised

Hardware: 4 V100 GPUs in the paper. Time: 120,000 steps, 33 hours if each takes a second.
Score: mIoU 40.31 in the paper; not measured here.
"""

from ml_collections import ConfigDict

from configs import voc_train_sixteenth


def get_config() -> ConfigDict:
    config = voc_train_sixteenth.get_config()
    config.unsup_weight = 0.0
    return config
