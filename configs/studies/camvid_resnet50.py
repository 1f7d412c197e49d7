"""The study of `camvid.py` at a size for one GPU: ResNet-50, crops of 320 pixels.

    python main.py --config=configs/studies/camvid_resnet50.py --workdir=runs/one  # or ...py:CELL
    STUDY=configs/studies/camvid_resnet50.py
    python studies/study.py --study=$STUDY --output=runs/camvid_resnet50
    python studies/study.py --study=$STUDY --output=runs/camvid_resnet50 --report

Cells and tables are those of `camvid.py`. Runs start from scratch; with
`-- --config.init_from=microsoft/resnet-50 --config.model.norm=frozen
--config.backbone_lr_multiplier=0.1` they start from ImageNet. This study has not been run yet.
"""

from ml_collections import ConfigDict

from configs.studies import camvid

TABLES = camvid.TABLES


def get_config(cell: str = "rc2l-eighth-0") -> ConfigDict:
    """The config of a cell, METHOD-PARTITION-SEED."""
    config = for_one_gpu(camvid.get_config(cell))
    config.data.eval_short_edge = 360
    return config


def for_one_gpu(config: ConfigDict) -> ConfigDict:
    """A small experiment with ResNet-50, crops of 320 pixels and batches of 8."""
    config.dtype = "bfloat16"
    config.batch_size = 8
    config.unlabeled_batch_size = 8
    config.learning_rate *= 0.15  # relative, as the cell may have changed it
    config.eval_batch_size = 4

    config.model.backbone = "resnet50"
    config.model.backbone_width = 64
    config.model.pixel_dim = 256
    config.model.mask_dim = 256
    config.model.hidden_dim = 256
    config.model.num_heads = 8
    config.model.ffn_dim = 1024

    config.data.crop_size = 320
    config.data.min_scale = 0.7
    config.data.max_scale = 1.5
    return config
