"""What the configs of the paper's cells on DINOv2 share. All else is as in the cells themselves.

Source [U]: UniMatch V2 (arXiv 2410.10777) and the config of its code for PASCAL VOC. Its crops are
518 = 37 x 14 pixels; here they stay the paper's 512, of which DINOv2 sees 448 = 32 x 14.
"""

from ml_collections import ConfigDict


def on_dinov2(config: ConfigDict) -> ConfigDict:
    """Changes the config of a cell: DINOv2-B as the backbone, and the learning rates that it needs.

    Returns:
      The same config.
    """
    config.init_from = "facebook/dinov2-base"
    config.model.backbone = "dinov2_base"
    # [U] 5e-6 for the backbone and 40 times as much for all else; AdamW's weight decay is 0.01 (on
    # norms, too; here not), and the rates fall by poly with power 0.9.
    config.learning_rate = 2e-4
    config.backbone_lr_multiplier = 1 / 40
    config.weight_decay = 0.01
    return config
