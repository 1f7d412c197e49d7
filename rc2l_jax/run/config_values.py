"""The values that each config key allows on its own; `rc2l_jax.run.config` checks them."""

import math

from rc2l_jax.method.losses.region import DENOMINATORS, NORMALIZERS, UNIONS
from rc2l_jax.method.matching import MATCHERS
from rc2l_jax.method.pseudo_segments import SOURCES
from rc2l_jax.method.views import STRONG_COLORS, UNCOVERED
from rc2l_jax.models.backbones import BACKBONES
from rc2l_jax.models.maskformer import DTYPES
from rc2l_jax.models.normalization import NORMS
from rc2l_jax.models.resnet import STEMS

CHOICES = {
    "init_queries": ("first", "fresh"),
    "matcher": MATCHERS,
    "dtype": DTYPES,
    "matmul_precision": ("default", "high", "highest"),
    "optimizer_dtype": DTYPES,
    "on_bad_example": ("error", "skip"),
    "strong_color": STRONG_COLORS,
    "pseudo.source": SOURCES,
    "pseudo.uncovered": UNCOVERED,
    "unsup.contrast_denominator": DENOMINATORS,
    "unsup.normalizer": NORMALIZERS,
    "unsup.union": UNIONS,
    "model.backbone": BACKBONES,
    "model.stem": STEMS,
    "model.norm": NORMS,
}

# (smallest, largest), both of them allowed.
RANGES = {
    "num_steps": (1, math.inf),
    "batch_size": (1, math.inf),
    "accumulate_steps": (1, math.inf),
    "unlabeled_batch_size": (0, math.inf),
    "eval_batch_size": (1, math.inf),
    "log_every_steps": (1, math.inf),
    "eval_every_steps": (1, math.inf),
    "checkpoint_every_steps": (1, math.inf),
    "keep_checkpoints": (1, math.inf),
    "max_nonfinite_steps": (1, math.inf),
    "max_bad_examples": (0, math.inf),
    "num_pictures": (0, math.inf),
    "eval.window": (0, math.inf),
    "eval.window_stride": (0.1, 1),  # above 1, windows would leave gaps
    "eval.max_shapes": (1, math.inf),
    "learning_rate": (0, math.inf),
    "weight_decay": (0, math.inf),
    "backbone_lr_multiplier": (0, math.inf),
    "poly_power": (0, math.inf),
    "warmup_steps": (0, math.inf),
    "unsup_weight": (0, math.inf),
    "unsup_start_step": (0, math.inf),
    "unsup_ramp_steps": (0, math.inf),
    "ema_decay": (0, 1),
    "max_segments": (1, math.inf),
    "match.class_weight": (0, math.inf),
    "match.focal_weight": (0, math.inf),
    "match.dice_weight": (0, math.inf),
    "loss.class_weight": (0, math.inf),
    "loss.focal_weight": (0, math.inf),
    "loss.dice_weight": (0, math.inf),
    "loss.no_object_weight": (0, math.inf),
    "loss.focal_alpha": (0, 1),
    "loss.focal_gamma": (0, math.inf),
    "pseudo.score_threshold": (0, 1),
    "pseudo.mask_threshold": (0, 1),
    "pseudo.pixel_threshold": (0, 1),
    "pseudo.class_alignment": (0, 1),
    "pseudo.min_area": (0, math.inf),
    "jitter.probability": (0, 1),
    "jitter.brightness": (0, 1),
    "jitter.contrast": (0, 1),
    "jitter.saturation": (0, 1),
    "jitter.hue": (0, 0.5),
    "jitter.grayscale": (0, 1),
    "cutmix.probability": (0, 1),
    "cutmix.max_area": (0, 1),
    "cutmix.max_aspect": (1, math.inf),
    "unsup.rcc_weight": (0, math.inf),
    "unsup.smc_weight": (0, math.inf),
    "unsup.rmc_weight": (0, math.inf),
    "unsup.rfc_weight": (0, math.inf),
    "unsup.consistency_weight": (0, math.inf),
    "unsup.focal_weight": (0, math.inf),
    "unsup.dice_weight": (0, math.inf),
    "model.backbone_width": (1, math.inf),
    "model.num_queries": (1, math.inf),
    "model.pixel_dim": (1, math.inf),
    "model.mask_dim": (1, math.inf),
    "model.hidden_dim": (1, math.inf),
    "model.num_heads": (1, math.inf),
    "model.ffn_dim": (1, math.inf),
    "model.num_decoder_layers": (1, math.inf),
    "model.dropout": (0, 0.99),  # with 1, nothing would be left to scale up
    "data.num_classes": (2, 254),
    "data.class_sampling": (0, 1),
    "data.num_labeled": (0, math.inf),
    "data.prepared_short_edge": (32, math.inf),
    "data.crop_size": (32, math.inf),
    "data.max_long_edge": (1, math.inf),
    "data.eval_short_edge": (0, math.inf),
    "data.shapes.image_size": (1, math.inf),
    "data.shapes.num_train": (1, math.inf),
    "data.shapes.num_val": (1, math.inf),
}

# Keys that may be 0 as well, which stands for what the data set has.
OR_ZERO = ("data.num_classes", "data.prepared_short_edge")

# Keys whose value must be greater than 0.
POSITIVE = (
    "grad_clip_norm",
    "unsup.rmc_temperature",
    "unsup.rfc_temperature",
    "cutmix.min_area",
    "data.min_scale",
    "data.max_scale",
)

NOT_EMPTY = ("data.name", "data.labeled_split", "data.eval_split")

# The backbone's coarsest stride is 32.
MULTIPLES_OF_32 = ("data.crop_size", "eval.window")
