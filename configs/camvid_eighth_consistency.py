"""`camvid_eighth.py` with the consistency baseline (Table 3, row 1): L_mask on matched pairs only.

    python main.py --config=configs/camvid_eighth_consistency.py --workdir=runs/camvid_consistency \
        --config.data.dir=DIR

Hardware, time and score: see `camvid_eighth.py`.
"""

from ml_collections import ConfigDict

from configs import camvid_eighth
from configs.studies.cells import consistency


def get_config() -> ConfigDict:
    config = camvid_eighth.get_config()
    config.update_from_flattened_dict(consistency())
    return config
