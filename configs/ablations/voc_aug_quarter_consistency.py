"""`voc_aug_quarter.py` with only the mask consistency of matched pairs: Table 3 of the paper.

    python main.py --config=configs/ablations/voc_aug_quarter_consistency.py \
        --workdir=runs/voc_aug_quarter_consistency

Hardware: 4 V100 in the paper. Time: 160,000 steps take 44 hours at one second a step.
Score: mIoU 75.26 in the paper (all four losses: 79.71); not measured here.
"""

from ml_collections import ConfigDict

from configs import voc_aug_quarter
from configs.studies.cells import consistency


def get_config() -> ConfigDict:
    config = voc_aug_quarter.get_config()
    config.update_from_flattened_dict(consistency())
    return config
