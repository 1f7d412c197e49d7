"""`voc_aug_quarter.py` with 20 queries: Table 5 of the paper.

    python main.py --config=configs/ablations/voc_aug_quarter_queries_20.py \
        --workdir=runs/voc_aug_quarter_queries_20

Hardware: 4 V100 in the paper. Time: 160,000 steps take 44 hours at one second a step.
Score: mIoU 78.37 in the paper (50 queries: 79.71); not measured here.
"""

from ml_collections import ConfigDict

from configs import voc_aug_quarter


def get_config() -> ConfigDict:
    config = voc_aug_quarter.get_config()
    config.model.num_queries = 20
    config.max_segments = 20  # so that each segment can get a query
    return config
