"""The quickstart's labelled images alone: the supervised baseline that RC²L is compared with.

python main.py --config=configs/shapes_supervised.py --workdir=runs/shapes_supervised
"""

from ml_collections import ConfigDict

from configs import shapes


def get_config() -> ConfigDict:
    config = shapes.get_config()
    config.unsup_weight = 0.0
    return config
