"""`--mode=suggest`: which photos to label next."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from data.errors import counted, some
from rc2l_jax.prediction import inputs
from rc2l_jax.prediction.inputs import Photos
from rc2l_jax.prediction.network import Network, open_network
from rc2l_jax.prediction.output_folder import check_place, warn_if_inside, warn_of
from rc2l_jax.prediction.photos import PhotoError
from rc2l_jax.prediction.predict import predict_photos
from rc2l_jax.reports.log import say
from rc2l_jax.run.config import validate
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.startup import prepare_devices
from rc2l_jax.suggestion.choice import choose
from rc2l_jax.suggestion.errors import SuggestError
from rc2l_jax.suggestion.features import backbone_of_run, open_backbone
from rc2l_jax.suggestion.files import SHEET, write_suggestions
from rc2l_jax.suggestion.labeled import Labeled, open_labeled
from rc2l_jax.suggestion.pool import Pool, look_at

PREDICTIONS = "predictions"  # the folder of what the run predicts of the suggested photos


def suggest_photos(
    source: str,
    output: str | Path,
    *,
    count: int,
    config: ConfigDict,
    workdir: str | Path = "",
    network: str = "teacher",
    step: int | None = None,
    annotations: str | None = None,
) -> int:
    """Chooses photos to label next; docs/own_images.md lists what `output` then holds.

    Args:
      source: an image, a folder (searched with all folders in it) or a glob.
      output: the folder to make.
      count: how many photos to choose.
      config: says which backbone compares photos, where the photos with masks lie (`data`), and the
        seed. With `workdir`, the run's.
      workdir, network, step: name the trained network, as for `open_network`; or none is given.
      annotations: a key of `annotations.FORMATS`, to write what a labelling tool opens, too.

    Returns:
      How many photos were chosen.

    Raises:
      SuggestError: there are no photos to choose from, or `output` cannot be used or written.
      PredictError, CheckpointError, WeightsError, ConfigError, DataError: output, network, backbone
        or data set cannot be used.
    """
    _check_flags(count, bool(workdir), annotations)
    output = Path(output).expanduser().absolute()
    found = _find(source, output)
    opened = None
    if workdir:
        opened = open_network(workdir=workdir, config=config, network=network, step=step)
        backbone = backbone_of_run(config, run_path(workdir), network, step)
    else:
        validate(config, num_devices=1)
        prepare_devices(config)
        backbone = open_backbone(config)
    labeled = open_labeled(config.data) if workdir or config.data.dir else None
    if opened and labeled:
        _check_classes(opened, labeled)
    pool = look_at(found, backbone, labeled, opened)
    if not found.photos:
        raise _nothing(found, source)
    chosen = choose(pool.features, count, config.seed, pool.weights, pool.labeled)
    if not len(chosen):
        raise SuggestError(
            f"--input={source}: each photo there has a mask already, or looks the "
            "same as one that has: give other photos"
        )
    _write(output, pool, chosen, opened, annotations)
    warn_of(found)
    _say_result(output, len(chosen), count, len(found.photos))
    return len(chosen)


def _write(
    output: Path, pool: Pool, chosen: np.ndarray, network: Network | None, annotations: str | None
) -> None:
    """Writes the suggestions, and predictions of them where a labelling tool is to open these."""
    try:
        write_suggestions(output, pool, chosen)
        if network and annotations:
            suggested = Photos([pool.photos[i] for i in chosen], {})
            predict_photos(suggested, network, output / PREDICTIONS, annotations=annotations)
    except OSError as error:
        raise SuggestError(
            f"{error.filename or output}: {error.strerror or error}; mend that, delete {output} "
            "and start again"
        ) from error


def _check_flags(count: int, has_network: bool, annotations: str | None) -> None:
    if jax.process_count() > 1:
        raise SuggestError("--mode=suggest runs in one process: start it on one host")
    if count < 1:
        raise SuggestError(f"--count={count}: choose at least one photo")
    if annotations and not has_network:
        raise SuggestError(
            f"--annotations={annotations} needs a network that draws them: give --workdir=RUN, or "
            "leave it out"
        )


def _find(source: str, output: Path) -> Photos:
    """Finds the photos, once the output folder is known to be of use."""
    try:
        inputs.check_apart(source, output)
        with inputs.readable_paths():
            if output.exists() and (not output.is_dir() or any(output.iterdir())):
                what = "not empty" if output.is_dir() else "a file"
                raise SuggestError(f"--output={output} is {what}: choose another folder")
        check_place(output)
        warn_if_inside(source, output)
        found = inputs.find(source, output)
    except PhotoError as error:
        raise SuggestError(str(error)) from error
    if not found.photos:
        raise _nothing(found, source)
    return found


def _nothing(found: Photos, source: str) -> SuggestError:
    reasons = [f"{path}: {reason}" for path, reason in found.skipped.items()]
    return SuggestError("\n".join([f"--input={source}: holds no photo to suggest", *reasons]))


def _check_classes(network: Network, labeled: Labeled) -> None:
    """Refuses a run of other classes than those of the labels."""
    theirs, ours = network.class_names, labeled.dataset.class_names
    if tuple(theirs) != tuple(ours):
        raise SuggestError(
            f"{network.title} knows other classes ({some(theirs)}) than the labels of "
            f"config.data.dir ({some(ours)}): give the data set of that run, or another run"
        )


def _say_result(output: Path, number: int, wanted: int, total: int) -> None:
    if number < wanted:
        say(
            f"note: --count={wanted}, but the other photos look the same as one of these {number} "
            "or as one with a mask"
            if number < total
            else f"note: --count={wanted}, but there are {total} photos"
        )
    say(f"{number} of {counted(total, 'photo')} -> {output}; look at {output / SHEET}")
