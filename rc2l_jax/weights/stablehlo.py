"""Exports a trained network as a StableHLO program, and loads it again.

The folder needs nothing else: `load_exported` uses neither the model's code nor its config.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from rc2l_jax.models.maskformer import MaskFormer, build_model, semantic_inference
from rc2l_jax.models.pixels import normalize
from rc2l_jax.structs import STRIDE
from rc2l_jax.weights import WeightsError
from rc2l_jax.weights.files import new_folder

PLATFORMS = ("cpu", "cuda", "tpu")
_PROGRAM, _WEIGHTS, _DESCRIPTION = "inference.stablehlo", "weights.safetensors", "model.json"


def predict(model: MaskFormer, variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Runs MaskFormer's semantic inference at the images' own resolution.

    As in evaluation, normalised images are padded with zeros to a multiple of the coarsest stride.

    Args:
      model: the network.
      variables: its "params" and "batch_stats".
      images: uint8 [B, H, W, 3], RGB.

    Returns:
      Class ids uint8 [B, H, W]; and each class's share of the scores at each pixel,
      float32 [B, K, H, W]: they add up to 1 over the classes.
    """
    height, width = images.shape[1:3]
    padding = [(0, 0), (0, -height % STRIDE), (0, -width % STRIDE), (0, 0)]
    padded = jnp.pad(normalize(images), padding)
    predictions = model.apply(variables, padded, train=False, every_layer=False)
    last = predictions.class_logits[-1], predictions.mask_logits[-1]
    scores = semantic_inference(*last, padded.shape[1:3])[:, :, :height, :width]
    total = jnp.maximum(scores.sum(1, keepdims=True), jnp.finfo(scores.dtype).tiny)  # no 0 / 0
    return scores.argmax(1).astype(jnp.uint8), scores / total


def export_stablehlo(
    variables: Any,
    config: ConfigDict,
    class_names: tuple[str, ...],
    output: Path,
    size: tuple[int, int],
) -> Path:
    """Writes `predict` as a program for CPU, CUDA and TPU, and the weights beside it.

    The program takes batches of any size.

    Args:
      variables: {"params", "batch_stats"} of the student or the teacher.
      config: the run's config.
      class_names: K names.
      output: a folder that does not exist yet, or is empty.
      size: (H, W) of the images that the program takes; it takes no others.

    Returns:
      The folder.

    Raises:
      WeightsError: the folder is not empty, or cannot be written.
    """
    with new_folder(output) as folder:
        _fill(folder, variables, config, class_names, size)
    return output


def _fill(
    folder: Path,
    variables: Any,
    config: ConfigDict,
    class_names: tuple[str, ...],
    size: tuple[int, int],
) -> None:
    model = build_model(config)
    flat = by_path(variables)
    shapes = {key: jax.ShapeDtypeStruct(x.shape, jnp.float32) for key, x in flat.items()}
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8)
    run = jax.jit(lambda weights, images: predict(model, by_collection(weights), images))
    program = export.export(run, platforms=PLATFORMS)(shapes, images).serialize()
    (folder / _PROGRAM).write_bytes(program)
    save_file(flat, folder / _WEIGHTS)
    description = {"size": size, "class_names": class_names, "platforms": PLATFORMS}
    (folder / _DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def load_exported(
    folder: str | Path,
) -> tuple[Callable[[Any], tuple[jax.Array, jax.Array]], dict[str, Any]]:
    """Opens a folder that `export_stablehlo` wrote.

    Returns:
      A function from images uint8 [B, H, W, 3] to what `predict` returns; and
      {"size": [H, W], "class_names", "platforms"}.

    Raises:
      WeightsError: files are missing or damaged.
    """
    program, weights, description = open_program(folder)
    weights = jax.device_put(weights)
    return lambda images: program.call(weights, jnp.asarray(images, jnp.uint8)), description


def is_exported(folder: Path) -> bool:
    """Returns whether `export_stablehlo` wrote this folder."""
    return (folder / _PROGRAM).is_file()


def open_program(
    folder: str | Path,
) -> tuple[export.Exported, dict[str, np.ndarray], dict[str, Any]]:
    """Reads program, weights and description from a folder that `export_stablehlo` wrote.

    Returns:
      The program, its weights by path (see `by_path`), and {"size", "class_names", "platforms"}.

    Raises:
      WeightsError: files are missing or damaged.
    """
    folder = Path(folder).expanduser()
    for name in (_PROGRAM, _WEIGHTS, _DESCRIPTION):
        if not (folder / name).is_file():
            raise WeightsError(f"{folder}: has no {name}; is it a folder that export wrote?")
    try:
        program = export.deserialize(bytearray((folder / _PROGRAM).read_bytes()))
        weights = load_file(folder / _WEIGHTS)
        description = json.loads((folder / _DESCRIPTION).read_text())
    except Exception as error:  # damaged bytes can raise anything
        raise WeightsError(f"{folder}: damaged ({error}); export it again") from error
    return program, weights, description


def by_path(variables: Any) -> dict[str, np.ndarray]:
    """Flattens variables to {"params/backbone/...": float32 array on the host}."""
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    return {path: np.ascontiguousarray(value, np.float32) for path, value in flat.items()}


def by_collection(flat: dict[str, Any]) -> dict[str, Any]:
    """Makes variables of what `by_path` returned; "batch_stats" is there even if it is empty."""
    return {"batch_stats": {}} | flax.traverse_util.unflatten_dict(flat, sep="/")
