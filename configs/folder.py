"""Your own images: a folder of images/{train,val,unlabeled} and labels/{train,val}.

    python main.py --config=configs/folder.py --workdir=runs/mine --config.data.dir=DIR

`data/folder/folder_dataset_builder.py` says what the folder may hold, and docs/own_images.md how to
go on. Unlabelled images may lie in another folder (`data.unlabeled_dir`). This config has not been
trained yet on any images. Hardware: one GPU; the memory that it takes has not been measured. Time:
20,000 steps, 6 hours if each takes a second. Score: depends on the images.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.num_steps = 20_000
    config.batch_size = 8
    config.unlabeled_batch_size = 8
    config.eval_every_steps = 1_000
    config.dtype = "bfloat16"
    config.init_from = "facebook/maskformer-resnet101-coco-stuff"
    config.unsup_weight = 1.0

    config.data.name = "folder"
    config.data.num_classes = 0
    config.data.labeled_split = "train"
    config.data.unlabeled_split = "unlabeled"
    return config
