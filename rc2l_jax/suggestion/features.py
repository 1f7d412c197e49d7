"""A vector for each photo, by which photos are compared: a pretrained backbone's mean features."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from rc2l_jax.evaluation.class_scores import padded
from rc2l_jax.input_pipeline.geometry import Resize
from rc2l_jax.models import pixels
from rc2l_jax.models.backbones import create_backbone
from rc2l_jax.models.extent import cell_mask, inside, pixel_mask
from rc2l_jax.models.maskformer import abstract_variables, build_model
from rc2l_jax.prediction import photos
from rc2l_jax.prediction.frames import OpenFrames
from rc2l_jax.prediction.network import Network, Outputs
from rc2l_jax.prediction.photos import Photo
from rc2l_jax.prediction.stream import prepared_batches
from rc2l_jax.reports.log import say
from rc2l_jax.run.config import ConfigError
from rc2l_jax.run.restore import restore_run, teacher_of_run
from rc2l_jax.structs import EvalBatch
from rc2l_jax.weights.load import load_pretrained


def photo_features(items: Sequence[Photo], backbone: Network, failed: dict[int, str]) -> np.ndarray:
    """Computes the features of photos on disk; `items` are the photos, otherwise as `features`."""
    with contextlib.closing(OpenFrames()) as frames:
        sizes = [photo.size for photo in items]
        return features(backbone, sizes, lambda i: photos.read(items[i], frames), failed)


def features(
    backbone: Network,
    sizes: Sequence[tuple[int, int]],
    read: Callable[[int], np.ndarray],
    failed: dict[int, str],
    title: str = "photos",
) -> np.ndarray:
    """Computes the features of images, of which few are in memory at a time.

    Args:
      backbone: as `open_backbone` or `backbone_of_run` returns it.
      sizes: (H, W) of each image.
      read: maps a position to its image, as for `predict_stream`.
      failed: gets {position: reason} of the images that cannot be read, whose rows are NaN.
      title: says in the progress bar what the images are.

    Returns:
      float32 [N, C].
    """
    rows: dict[int, np.ndarray] = {}
    with tqdm(total=len(sizes), desc=title, unit="photo") as progress:
        for ready in prepared_batches(backbone, sizes, read):
            failed.update(ready.failed)
            if ready.images:
                (values,) = backbone.run(ready.batch, False)
                values = np.asarray(values).reshape(-1, values.shape[-1])
                at = ready.batch.index.ravel()
                rows.update((int(i), row) for i, row in zip(at, values) if i >= 0)
            progress.update(len(ready.images) + len(ready.failed))
    width = len(next(iter(rows.values()), ()))
    missing = np.full(width, np.nan, np.float32)
    return np.array([rows.get(i, missing) for i in range(len(sizes))]).reshape(len(sizes), width)


def open_backbone(config: ConfigDict) -> Network:
    """Opens the backbone that `config.init_from` names.

    Args:
      config: reads `model`, `init_from`, `eval_batch_size`, `eval.max_shapes`, and how images are
        resized in evaluation (`data.eval_short_edge`, `data.max_long_edge`).

    Raises:
      ConfigError: there is none.
      WeightsError, CheckpointError: its weights cannot be found or read.
    """
    if not config.init_from:
        raise ConfigError(
            [
                "init_from is empty: a backbone that has learned nothing cannot compare photos; "
                "give --config=configs/folder_small.py, or a run as --workdir"
            ]
        )
    config = config.copy_and_resolve_references()
    config.data.num_classes = 1  # of the head, which is not used
    shapes = abstract_variables(build_model(config))
    variables, report = load_pretrained(shapes, config, teacher_of_run(config.init_from))
    if report.left_out:
        say(f"{report.file}: {report.left_out}")
    return _backbone(variables, config, config.init_from)


def backbone_of_run(
    config: ConfigDict, workdir: epath.Path, network: str, step: int | None
) -> Network:
    """Opens the backbone of a run's network; arguments and errors as for `restore_run`."""
    _, step, networks, _ = restore_run(config, workdir, step)
    return _backbone(networks[network], config, f"{workdir}, step {step}, {network}")


def _backbone(variables: Any, config: ConfigDict, title: str) -> Network:
    """Makes a `Network` of a model's backbone, whose `run` returns features [D, B, C].

    Args:
      variables: {"params", "batch_stats"} of the model.
      config: see `open_backbone`; `init_from` is not read.
      title: says where it is from, for people.
    """
    keys, data = config.model, config.data
    module = create_backbone(
        keys.backbone,
        width=keys.backbone_width,
        stem=keys.stem,
        norm=keys.norm,
        head=False,  # `choice.NEAR_DUPLICATE` was measured on the last block's features
        dtype=jnp.dtype(config.dtype),
        axis_name=None,
        remat=False,
    )
    own = {name: tree["backbone"] for name, tree in variables.items() if "backbone" in tree}
    step = jax.pmap(lambda own, batch: (_mean_features(module, own, batch),), in_axes=(None, 0))

    def run(batch: EvalBatch, shares: bool) -> Outputs:
        del shares
        return step(own, batch)

    resize = Resize(data.eval_short_edge, data.max_long_edge, 1.0)
    return Network(title, (), (resize,), None, config.eval_batch_size, config.eval.max_shapes, run)


def _mean_features(module: Any, variables: Any, batch: EvalBatch) -> jax.Array:
    """Returns the mean of the coarsest feature map over each image's own positions, [B, C]."""
    (view,) = batch.views
    shape = view.image.shape[1:3]
    images = jnp.where(inside(view.size, shape)[..., None], pixels.normalize(view.image), 0.0)
    mask = cell_mask(padded(view.size), shape)
    last = module.apply(variables, images, train=False, mask=mask)[-1]
    return jnp.mean(last.astype(jnp.float32), (1, 2), where=pixel_mask(last, mask))
