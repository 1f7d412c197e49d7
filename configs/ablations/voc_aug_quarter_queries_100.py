"""`voc_aug_quarter.py` with 100 queries: Table 5 of the paper.

    python main.py --config=configs/ablations/voc_aug_quarter_queries_100.py \
        --workdir=runs/voc_aug_quarter_queries_100

Hardware: 4 V100 in the paper. Time: 160,000 steps take 44 hours at one second a step.
Score: mIoU 75.83 in the paper (50 queries: 79.71); not measured here.
"""

from ml_collections import ConfigDict

from configs import voc_aug_quarter


def get_config() -> ConfigDict:
    config = voc_aug_quarter.get_config()
    config.model.num_queries = 100
    return config
