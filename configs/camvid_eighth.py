"""CamVid road scenes, 46 of the 367 training images labelled (1/8); a small network from scratch.

    python main.py --config=configs/camvid_eighth.py --workdir=runs/camvid --config.data.dir=DIR

DIR holds images/{train,val}/NAME.jpg and labels/{train,val}/NAME.png. Hardware: one CPU core.
Time: some 20 minutes. Score: docs/study_from_scratch.md has it for each method, after these 6,000
steps and after 12,000.
"""

from ml_collections import ConfigDict

from configs import small


def get_config() -> ConfigDict:
    config = small.get_config()
    config.num_steps = 6_000
    config.batch_size = 4
    config.unlabeled_batch_size = 4
    config.eval_every_steps = 1_000
    config.checkpoint_every_steps = 500
    config.warmup_steps = 100
    # mIoU of the teacher with seed 0 at 1e-3, 2e-3 and 4e-3: supervised 0.436, 0.438 and 0.447;
    # consistency 0.440, 0.456 and 0.466; RC²L 0.446, 0.474 and 0.482. That 4e-3 is ahead of 2e-3 is
    # within chance.
    config.learning_rate = 2e-3
    config.unsup_start_step = 1_000
    config.unsup_ramp_steps = 500
    config.max_segments = 12

    # With threshold 0 every pixel gets the class that the teacher finds best, so the student is not
    # left free anywhere. mIoU of the teacher, one seed: 0.474, and 0.468 with threshold 0.5.
    config.pseudo.pixel_threshold = 0.0
    config.pseudo.class_alignment = 0.5

    config.model.num_queries = 16

    config.data.name = "camvid"
    config.data.num_classes = 11
    config.data.labeled_split = "train#46@0"
    config.data.unlabeled_split = "train#rest46@0"
    config.data.crop_size = 96
    config.data.min_scale = 1.0
    config.data.max_scale = 1.5
    config.data.eval_short_edge = 96
    return config
