"""A tiny config and batch for tests of whole steps."""

from __future__ import annotations

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import base
from rc2l_jax.structs import Batch

SIZE = 32
NUM_CLASSES = 3
# Overrides of configs/shapes.py that all runs of `main.py` on drawn images share.
COMMAND_LINE = {
    "warmup_steps": 2,
    "eval_batch_size": 4,
    "matcher": "device",  # has no host callback, so that compiled programs can be kept
    "unsup_start_step": 2,
    "unsup_ramp_steps": 2,
    "pseudo.pixel_threshold": 0.1,  # so that even such a teacher has segments
    "max_segments": 4,
    "model.backbone": "resnet10",
    "model.backbone_width": 4,
    "model.num_queries": 7,
    "model.pixel_dim": 8,
    "model.mask_dim": 8,
    "model.hidden_dim": 16,
    "model.ffn_dim": 16,
    "model.num_decoder_layers": 1,
    "model.dropout": 0.1,
    "data.crop_size": 32,
    "data.shapes.image_size": 32,
    "data.shapes.num_val": 6,
}


def config(**overrides: object) -> ConfigDict:
    """The base config with a network that compiles in seconds.

    Args:
      **overrides: dotted keys with "__" for the dot, such as `model__norm="batch"`.
    """
    result = base.get_config()
    result.update_from_flattened_dict(
        {
            "num_steps": 20,
            "batch_size": 8,
            "unlabeled_batch_size": 8,
            "learning_rate": 1e-3,
            "max_segments": 4,
            "pseudo.score_threshold": 0.0,  # so that even an untrained teacher has segments
            "pseudo.mask_threshold": 0.0,
            "model.backbone": "resnet10",
            "model.backbone_width": 4,
            "model.norm": "group",
            "model.num_queries": 6,
            "model.pixel_dim": 8,
            "model.mask_dim": 8,
            "model.hidden_dim": 16,
            "model.num_heads": 2,
            "model.ffn_dim": 16,
            "model.num_decoder_layers": 2,
            "model.dropout": 0.0,
            "data.num_classes": NUM_CLASSES,
            "data.crop_size": SIZE,
        }
        | {key.replace("__", "."): value for key, value in overrides.items()}
    )
    return result


def batch(num_devices: int, labeled: int = 8, unlabeled: int = 8, seed: int = 0) -> Batch:
    """A random batch [D, B/D, ...]: blocks of classes, two void rows, four padded columns."""
    rng = np.random.default_rng(seed)

    def images(n: int) -> np.ndarray:
        return rng.integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)

    def labels(n: int) -> np.ndarray:
        blocks = rng.integers(0, NUM_CLASSES, (n, SIZE // 8, SIZE // 8), dtype=np.uint8)
        label = blocks.repeat(8, 1).repeat(8, 2)
        label[:, :2] = 255
        label[:, :, -4:] = 255
        return label

    def valid(n: int) -> np.ndarray:
        mask = np.ones((n, SIZE, SIZE), bool)
        mask[:, :, -4:] = False
        return mask

    whole = Batch(
        image=images(labeled),
        label=labels(labeled),
        valid=valid(labeled),
        unlabeled_image=images(unlabeled),
        unlabeled_valid=valid(unlabeled),
        unlabeled_label=labels(unlabeled),
    )

    def split(x):
        return x.reshape(num_devices, x.shape[0] // num_devices, *x.shape[1:])

    return jax.tree.map(split, whole)
