"""The 46 labelled images of `camvid_eighth.py` alone: its supervised baseline.

    python main.py --config=configs/camvid_eighth_supervised.py --workdir=runs/camvid_supervised \
        --config.data.dir=DIR

Hardware and score: see `camvid_eighth.py`. Time: half of its.
"""

from ml_collections import ConfigDict

from configs import camvid_eighth


def get_config() -> ConfigDict:
    config = camvid_eighth.get_config()
    config.unsup_weight = 0.0
    return config
