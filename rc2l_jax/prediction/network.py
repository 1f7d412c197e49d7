"""Trained networks from wherever they are kept, ready to predict images.

A network comes from a run directory, from a folder or name with a MaskFormer of transformers, or
from a program that `--mode=export --format=stablehlo` wrote.
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
from rc2l_jax.models.maskformer import MaskFormer, build_model
from rc2l_jax.run.config import ConfigError, validate, validate_options
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.restore import restore_run, run_classes
from rc2l_jax.run.startup import keep_compiled_programs
from rc2l_jax.run.stored_config import run_config
from rc2l_jax.structs import AXIS, EvalBatch
from rc2l_jax.weights import WeightsError, files, load_pretrained, stablehlo
from rc2l_jax.weights.from_transformers import describe_network, describe_processing

# Class ids uint8 and the predicted class's share of all scores float16, [D, B/D, Hl, Wl] each; and
# the shares of all classes float16 [D, B/D, K, Hl, Wl], if asked for.
Outputs = tuple[jax.Array, ...]


class FitInto(NamedTuple):
    """Resizes so that an image just fits into a program's only size."""

    height: int
    width: int

    def __call__(self, size: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Maps image sizes [..., 2] to int32 [..., 2]."""
        extent = tf.cast(size, tf.float64)
        ratio = tf.reduce_min(tf.cast(self, tf.float64) / extent, -1, keepdims=True)
        return tf.maximum(tf.cast(tf.floor(extent * ratio + 0.5), tf.int32), 1)


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network and how its images are prepared.

    Attributes:
      title: where it is from, for people.
      class_names: K names.
      resizes: one a view: image sizes [..., 2] to the view's.
      shape: (H, W) of the images if it takes no other, or None.
      batch_size: images a batch, at most.
      max_shapes: to so many shapes images of mixed sizes are padded, at most.
      run: predicts a batch [D, B/D, ...] on D devices, with the shares of all classes or without.
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
    """Opens a trained network.

    Args:
      model: a folder that `--mode=export` wrote, in either format; a folder, file or name on the
        Hugging Face hub with a whole MaskFormer.
      workdir: or a run directory.
      config: of a run: by default the one it was trained with. For `model`: how to predict (`eval`,
        `eval_batch_size`); a file of weights needs it for the network's shape, too.
      network: of a run: "teacher" or "student".
      step: of a run: which checkpoint; the newest if None.

    Raises:
      CheckpointError, WeightsError, ConfigError, DataError: it cannot be used; says why.
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
    """Opens a network of a run directory; see `open_network`."""
    config = run_config(workdir) if config is None else config
    validate(config, num_devices=1)  # batches are made to fit the devices
    model, step, networks, _ = restore_run(config, workdir, step)
    title = f"{workdir}, step {step}, {network}"
    return _network(model, networks[network], config, run_classes(workdir, config), title)


def from_weights(name: str, given: ConfigDict | None) -> Network:
    """Opens a whole MaskFormer's weights; see `open_network`."""
    path, description = files.find(name, "--model")
    config = base.get_config() if given is None else given.copy_and_resolve_references()
    config.init_from = name
    try:
        if description:
            names = describe_network(description, config, str(path.parent / "config.json"))
            where = str(path.parent / "preprocessor_config.json")
            describe_processing(files.read_processor(path), config.data, where)
        else:
            names = _described_by_user(path, given)
        model = build_model(config)

        def init(key: jax.Array) -> Any:
            return model.init(key, jnp.zeros((1, 64, 64, 3)), train=False)

        variables, report = load_pretrained(jax.eval_shape(init, jax.random.key(0)), config)
    except (WeightsError, ConfigError, DataError):
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise WeightsError(f"{path}: describes a network that cannot be built: {error}") from error
    if report.reinitialized or report.cut:
        raise WeightsError("\n".join([f"{path}: not a whole network", *report.lines()[1:]]))
    return _network(model, variables, config, names, os.path.abspath(path))


def _described_by_user(path: Path, config: ConfigDict | None) -> Sequence[str]:
    """Class names for weights beside which nothing says what they are."""
    if config is None:
        raise WeightsError(
            f"{path}: no config.json lies beside these weights: give --config, which says what "
            "the network looks like"
        )
    validate(config, num_devices=1)
    return open_dataset(config.data).class_names


def _network(
    model: MaskFormer, variables: Any, config: ConfigDict, names: Sequence[str], title: str
) -> Network:
    keep_compiled_programs(config.compilation_cache)
    options = InferenceOptions.from_config(config)
    variables = _on_all_devices(variables)
    data = config.data
    resizes = (Resize(data.eval_short_edge, data.max_long_edge, x) for x in config.eval.scales)

    def run(batch: EvalBatch, shares: bool) -> Outputs:
        return _model_step(model, options, shares)(variables, batch)

    sizes = config.eval_batch_size, config.eval.max_shapes
    return Network(title, tuple(names), tuple(resizes), None, *sizes, run)


def from_program(folder: Path, config: ConfigDict) -> Network:
    """Opens what `export_stablehlo` wrote.

    Images are made to fit into its only size and padded as in training; so scores are those of
    evaluation only for images of that size.

    Raises:
      WeightsError: the folder is not whole.
      ConfigError: the config asks for what a program cannot do.
    """
    _check_plain(config, folder)
    keep_compiled_programs(config.compilation_cache)
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
    """Refuses what a program cannot do: it sees each image once and whole."""
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
    """Copies a tree to every local device once, rather than with each batch."""
    mesh = jax.sharding.Mesh(jax.local_devices(), (AXIS,))
    return jax.device_put(variables, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


@functools.lru_cache(maxsize=4)
def _model_step(
    model: MaskFormer, options: InferenceOptions, shares: bool
) -> Callable[[Any, EvalBatch], Outputs]:
    """Lifts prediction over devices; cached, so that it compiles once for each shape."""

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
    """What `Outputs` says about class scores [K, H, W]."""

    def describe(scores: jax.Array) -> Outputs:
        total = jnp.maximum(scores.sum(0), jnp.finfo(scores.dtype).tiny)  # no 0 / 0
        confidence = (scores.max(0) / total).astype(jnp.float16)
        every = ((scores / total).astype(jnp.float16),) if shares else ()
        return class_ids(scores), confidence, *every

    return describe
