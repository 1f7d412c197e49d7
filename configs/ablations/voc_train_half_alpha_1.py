"""`voc_train_half.py` with alpha = 1.0: Table 4 of the paper.

    python main.py --config=configs/ablations/voc_train_half_alpha_1.py \
        --workdir=runs/voc_train_half_alpha_1

Hardware: 4 V100 in the paper. Time: 120,000 steps take 33 hours at one second a step.
Score: mIoU 75.65 in the paper (alpha = 2.0: 77.06); not measured here.
"""

from ml_collections import ConfigDict

from configs import voc_train_half


def get_config() -> ConfigDict:
    config = voc_train_half.get_config()
    config.unsup_weight = 1.0
    return config
