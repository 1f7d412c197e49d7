"""Your own images on a CPU: a frozen EfficientNet-Lite0, pretrained on ImageNet, and a small head.

    python main.py --config=configs/folder_small.py --workdir=runs/mine --config.data.dir=DIR

DIR holds what it does for `configs/folder.py`, and docs/own_images.md says how to go on. The
backbone's weights come with requirements.txt; nothing else is downloaded. Images are shrunk to a
short edge of 160 pixels (160 to 240 in training). Hardware: one CPU core. Time: 10 to 25 minutes.
Score: depends on the images; docs/study.md has that of VOC and CamVid.
"""

from ml_collections import ConfigDict

from configs import folder, small


def get_config() -> ConfigDict:
    config = small.get_config()
    config.num_steps = 2_000
    config.batch_size = 4
    config.unlabeled_batch_size = 4
    config.eval_every_steps = 500
    config.checkpoint_every_steps = 250
    config.warmup_steps = 100
    # alpha: 0.349 with 0.25, 0.339 with 0.5, 0.305 with 1 and 0.311 with 2, on 84 photos of VOC's
    # classes (docs/study.md).
    config.unsup_weight = 0.5
    config.unsup_start_step = 500
    config.unsup_ramp_steps = 250
    config.max_segments = 12
    config.strong_color = "jitter"
    config.pseudo.threshold_by_class = True
    config.pseudo.class_alignment = 0.0
    config.pseudo.prototype_check = True

    config.init_from = "efficientnet_lite0"
    config.model.backbone = "efficientnet_lite0"
    config.model.backbone_width = 64
    config.model.norm = "frozen"
    config.model.freeze_backbone = True
    config.model.num_queries = 32
    config.model.pixel_dim = 64
    config.model.mask_dim = 64
    config.model.hidden_dim = 128
    config.model.ffn_dim = 256

    of_folder = folder.get_config().data
    for key in ("name", "dir", "num_classes", "labeled_split", "unlabeled_split"):
        config.data[key] = of_folder[key]
    config.data.diagnostic_labels = False  # unlabelled photos have none
    config.data.crop_size = 160
    config.data.min_scale = 1.0
    config.data.max_scale = 1.5
    config.data.eval_short_edge = 160
    return config
