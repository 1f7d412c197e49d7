"""The study of `voc.py` at a size for one GPU: ResNet-50 of ImageNet, crops of 320 pixels.

    python main.py --config=configs/studies/voc_resnet50.py --workdir=runs/one \
        --config.data.dir=DIR  # or ...py:CELL
    STUDY=configs/studies/voc_resnet50.py
    python studies/study.py --study=$STUDY --output=runs/voc_resnet50 --tables=partitions \
        -- --config.data.dir=DIR
    python studies/study.py --study=$STUDY --output=runs/voc_resnet50 --report

DIR is a folder as `voc.py` describes it, with photos of a short edge of 320 pixels or more. Cells
are those of `voc.py`, tables those that do not compare its small networks. Where a GPU is lent for
ten minutes, `timeout 590` before the second command stops all cells with a checkpoint in time, and
the same command continues. This study has not been run yet.
"""

from ml_collections import ConfigDict

from configs.studies import voc
from configs.studies.camvid_resnet50 import for_one_gpu

CLASS_GROUPS = voc.CLASS_GROUPS
TABLES = {name: cells for name, cells in voc.TABLES.items() if name not in ("backbones", "head")}


def get_config(cell: str = "rc2l-84-0") -> ConfigDict:
    """The config of a cell, METHOD-LABELS-SEED."""
    config = for_one_gpu(voc.get_config(cell))
    config.init_from = "microsoft/resnet-50"
    config.model.freeze_backbone = False
    config.backbone_lr_multiplier = 0.1
    config.data.eval_short_edge = 320
    return config
