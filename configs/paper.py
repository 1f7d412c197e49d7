"""What all cells of the paper's tables share: its losses as printed.

Where it is silent they have the defaults of `configs/base.py`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()  # which is the protocol of VOC Train
    config.dtype = "bfloat16"
    config.unsup.contrast_denominator = "paper"
    config.unsup.rcc_no_object = False
    return config
