"""Opens trained networks to predict images with.

A network comes from a run directory, from the weights of a whole MaskFormer (a file, a folder, or a
name on the Hugging Face hub), or from a program that `--mode=export --format=stablehlo` wrote.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from configs import base
from data.catalog import open_dataset
from data.errors import DataError
from data.host_tf import tf
from rc2l_jax.evaluation.class_scores import predict_pixels
from rc2l_jax.evaluation.label_resolution import class_ids, describe_in_strips
from rc2l_jax.evaluation.windows import InferenceOptions
from rc2l_jax.input_pipeline.geometry import Resize
from rc2l_jax.models.maskformer import MaskFormer, abstract_variables, build_model
from rc2l_jax.reports.log import say
from rc2l_jax.run.config import ConfigError, validate, validate_options
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.restore import restore_run, run_classes
from rc2l_jax.run.startup import prepare_devices
from rc2l_jax.run.stored_config import run_config
from rc2l_jax.structs import AXIS, EvalBatch
from rc2l_jax.weights import WeightsError, files, load_pretrained, stablehlo
from rc2l_jax.weights.from_transformers import describe_network, describe_processing

# Class ids uint8 [D, B, Hl, Wl]; the predicted class's share of the sum of scores, float16
# [D, B, Hl, Wl]; and, if asked for, the shares of all classes, float16 [D, B, K, Hl, Wl].
Outputs = tuple[jax.Array, ...]


class FitInto(NamedTuple):
    """Computes the largest size that fits into a program's only one and keeps the proportions."""

    height: int
    width: int

    def __call__(self, size: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Maps sizes of images [..., 2] to those that they are resized to, int32 [..., 2]."""
        extent = tf.cast(size, tf.float64)
        ratio = tf.reduce_min(tf.cast(self, tf.float64) / extent, -1, keepdims=True)
        return tf.maximum(tf.cast(tf.floor(extent * ratio + 0.5), tf.int32), 1)


class StretchTo(NamedTuple):
    """Gives the one size to which every image is resized, whatever its proportions."""

    height: int
    width: int

    def __call__(self, size: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Maps sizes of images [..., 2] to those that they are resized to, int32 [..., 2]."""
        return tf.broadcast_to(tf.constant(self, tf.int32), tf.shape(size))


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network, and how its images are prepared.

    Attributes:
      title: says where it is from, for people.
      class_names: K names.
      resizes: for each view a function from image sizes [..., 2] to the sizes in that view.
      shape: (H, W) of the images if the network takes no others; None if it takes any.
      batch_size: images in a batch, at most.
      max_shapes: how many shapes images of mixed sizes are padded to, at most.
      run: a function of a batch [D, B, ...], for D devices, and whether the shares of all classes
        are wanted.
    """

    title: str
    class_names: tuple[str, ...]
    resizes: tuple[Callable[[Any], tf.Tensor], ...]
    shape: tuple[int, int] | None
    batch_size: int
    max_shapes: int
    run: Callable[[EvalBatch, bool], Outputs]


def open_network(
    model: str | Path = "",
    *,
    workdir: str | Path = "",
    config: ConfigDict | None = None,
    network: str = "teacher",
    step: int | None = None,
) -> Network:
    """Opens a trained network. Give either `model` or `workdir`.

    Args:
      model: a folder that `--mode=export` wrote, in either format; or the weights of a whole
        MaskFormer: a folder, a file, or a name on the Hugging Face hub.
      workdir: a run directory.
      config: with `workdir`, the run's config; None for the one it was trained with. With `model`,
        how to predict (`eval`, `eval_batch_size`); weights without a config.json beside them need
        it for the network's shape and classes, too.
      network: with `workdir`: "teacher" or "student".
      step: with `workdir`: the checkpoint's step; None for the newest.

    Raises:
      CheckpointError: the run has no such checkpoint, or it cannot be read.
      WeightsError: `model` cannot be found, read or built.
      ConfigError: the config is not valid, or asks for what the network cannot do.
      DataError: the class names are those of a data set that cannot be opened.
    """
    if bool(model) == bool(workdir):
        raise WeightsError("give either --workdir=RUN or --model=FOLDER_OR_NAME")
    if workdir:
        return from_run(run_path(workdir), config, network, step)
    folder = Path(model).expanduser()
    if (folder / "checkpoints").is_dir():
        raise WeightsError(f"--model={model} is a run directory: give it as --workdir")
    if config is not None:
        validate_options(config)
    if stablehlo.is_exported(folder):
        return from_program(folder, base.get_config() if config is None else config)
    return from_weights(str(model), config)


def from_run(
    workdir: epath.Path, config: ConfigDict | None, network: str, step: int | None
) -> Network:
    """Opens a network of a run directory; arguments and errors as for `open_network`."""
    config = run_config(workdir) if config is None else config
    validate(config, num_devices=1)  # prediction fits its batches to the devices
    model, step, networks, _ = restore_run(config, workdir, step)
    title = f"{workdir}, step {step}, {network}"
    return _network(model, networks[network], config, run_classes(workdir, config), title)


def from_weights(name: str, given: ConfigDict | None) -> Network:
    """Opens a whole MaskFormer's weights.

    Args:
      name: a folder, a file, or a name on the Hugging Face hub.
      given: how to predict, and the network's shape if no config.json says it; or None.

    Raises:
      WeightsError, ConfigError, DataError: as for `open_network`.
    """
    path, description = files.find(name, "--model")
    config = base.get_config() if given is None else given.copy_and_resolve_references()
    config.init_from, size = name, None
    try:
        if description:
            names = describe_network(description, config, str(path.parent / "config.json"))
            where = str(path.parent / "preprocessor_config.json")
            size = describe_processing(files.read_processor(path), config.data, where)
        else:
            names = _described_by_user(path, None if given is None else config)
        model = build_model(config)
        variables, report = load_pretrained(abstract_variables(model), config)
    except (WeightsError, ConfigError, DataError):
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise WeightsError(f"{path}: describes a network that cannot be built: {error}") from error
    if report.left_out:
        say(f"{path}: {report.left_out}")
    if report.reinitialized or report.cut:
        raise WeightsError("\n".join([f"{path}: not a whole network", *report.lines()[1:]]))
    return _network(model, variables, config, names, os.path.abspath(path), size)


def _described_by_user(path: Path, config: ConfigDict | None) -> Sequence[str]:
    """Returns the class names of the given config's data set, for weights without a config.json."""
    if config is None and (path.parent / "config.json").is_file():
        raise WeightsError(
            f"{path}: config.json lies beside these weights: give the folder: --model={path.parent}"
        )
    if config is None:
        raise WeightsError(
            f"{path}: no config.json lies beside these weights: give --config, which says what "
            "the network looks like"
        )
    validate(config, num_devices=1)
    return open_dataset(config.data).class_names


def _network(
    model: MaskFormer,
    variables: Any,
    config: ConfigDict,
    names: Sequence[str],
    title: str,
    size: tuple[int, int] | None = None,
) -> Network:
    """Makes a `Network`; `size` is that to which all images are stretched, if there is one."""
    prepare_devices(config)
    options = InferenceOptions.from_config(config)
    variables = _on_all_devices(variables)
    data, scales = config.data, config.eval.scales
    resizes: Any = (Resize(data.eval_short_edge, data.max_long_edge, x) for x in scales)
    if size is not None:
        resizes = (StretchTo(*(max(round(x * edge), 1) for edge in size)) for x in scales)

    def run(batch: EvalBatch, shares: bool) -> Outputs:
        return _model_step(model, options, shares)(variables, batch)

    sizes = config.eval_batch_size, config.eval.max_shapes
    return Network(title, tuple(names), tuple(resizes), None, *sizes, run)


def from_program(folder: Path, config: ConfigDict) -> Network:
    """Opens a folder that `export_stablehlo` wrote.

    The program takes images of one size only, so images are resized to fit into it, and padded.
    Therefore only images of this size are predicted as in evaluation.

    Args:
      folder: the exported folder.
      config: says how to predict: `eval_batch_size` and `eval.max_shapes`.

    Raises:
      WeightsError: files are missing or damaged.
      ConfigError: the config asks for several scales, mirrored views or windows.
    """
    _check_plain(config, folder)
    prepare_devices(config)
    program, weights, description = stablehlo.open_program(folder)
    weights = _on_all_devices(weights)
    shape = tuple(description["size"])
    steps = {shares: _program_step(program, shares) for shares in (False, True)}

    def run(batch: EvalBatch, shares: bool) -> Outputs:
        return steps[shares](weights, batch)

    names = tuple(description["class_names"])
    sizes = config.eval_batch_size, config.eval.max_shapes
    return Network(os.path.abspath(folder), names, (FitInto(*shape),), shape, *sizes, run)


def _check_plain(config: ConfigDict, folder: Path) -> None:
    """Refuses scales, mirrored views and windows: a program sees each image once and whole."""
    given, plain = config.eval, base.get_config().eval
    if tuple(given.scales) == plain.scales and (given.flip, given.window) == (False, 0):
        return
    raise ConfigError(
        [
            f"{folder} is a program, which sees each image once and whole: leave out eval.scales, "
            "eval.flip and eval.window, or give the run itself (--workdir)"
        ]
    )


def _on_all_devices(variables: Any) -> Any:
    """Copies a tree of arrays to every local device, so that it is not copied with each batch."""
    mesh = jax.sharding.Mesh(jax.local_devices(), (AXIS,))
    return jax.device_put(variables, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


@functools.lru_cache(maxsize=4)
def _model_step(
    model: MaskFormer, options: InferenceOptions, shares: bool
) -> Callable[[Any, EvalBatch], Outputs]:
    """Maps prediction over devices. Cached, so that it compiles once for each shape of batches."""

    def step(variables: Any, batch: EvalBatch) -> Outputs:
        return predict_pixels(model, variables, batch, options, _description(shares))

    return jax.pmap(step, in_axes=(None, 0))


def _program_step(program: Any, shares: bool) -> Callable[[Any, EvalBatch], Outputs]:
    def step(weights: Any, batch: EvalBatch) -> Outputs:
        (view,) = batch.views
        _, scores = program.call(weights, view.image)

        def one(i: jax.Array) -> Outputs:
            views = [(scores[i][None], view.size[i])]
            shape = batch.label.shape[-2:]
            return describe_in_strips(views, batch.label_size[i], shape, _description(shares))

        return jax.lax.map(one, jnp.arange(len(scores)))

    return jax.pmap(step, in_axes=(None, 0))


def _description(shares: bool) -> Callable[[jax.Array], Outputs]:
    """Returns a function from class scores [K, H, W] to what `Outputs` holds for them."""

    def describe(scores: jax.Array) -> Outputs:
        total = jnp.maximum(scores.sum(0), jnp.finfo(scores.dtype).tiny)  # no 0 / 0
        confidence = (scores.max(0) / total).astype(jnp.float16)
        every = ((scores / total).astype(jnp.float16),) if shares else ()
        return class_ids(scores), confidence, *every

    return describe
