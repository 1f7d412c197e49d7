"""The quickstart: drawn images, 16 of 1,000 labelled; a small network from scratch.

    python main.py --config=configs/shapes.py --workdir=runs/shapes

Hardware: a CPU core or two. Time and score: see the README.
"""

from ml_collections import ConfigDict

from configs import small


def get_config() -> ConfigDict:
    config = small.get_config()
    config.num_steps = 900
    config.batch_size = 8
    config.unlabeled_batch_size = 8
    config.eval_every_steps = 300
    config.checkpoint_every_steps = 300
    config.warmup_steps = 50
    config.unsup_start_step = 300  # from scratch, the teacher must learn something first
    config.unsup_ramp_steps = 100
    config.max_segments = 8

    config.model.num_queries = 8

    config.data.name = "shapes"
    config.data.num_classes = 7
    config.data.labeled_split = "train#16@0"
    config.data.unlabeled_split = "train#rest16@0"
    config.data.crop_size = 64
    config.data.min_scale = 0.8
    config.data.max_scale = 1.5
    config.data.eval_short_edge = 0
    config.eval_batch_size = 40
    return config
