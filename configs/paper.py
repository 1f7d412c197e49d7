"""What all cells of the paper's tables share: its losses as printed.

Where it is silent, or can be read in two ways, they have the readings of `configs/base.py`, [D].
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()  # which is the protocol of VOC Train
    config.dtype = "bfloat16"  # [D] for the time it takes
    config.unsup.contrast_denominator = "paper"
    config.unsup.rcc_no_object = False
    config.pseudo.uncovered = "negative"  # [D] masks of 0 and 1, compared everywhere
    config.unsup.union = "semantic"  # [D] "merging regions with the same class", as [M] infers
    return config
