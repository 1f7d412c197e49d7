"""A run's config.json: written, read back, and compared with the config a run is to go on with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from configs import base
from data.whole_files import write_text
from rc2l_jax import __version__
from rc2l_jax.run.checkpoints import CheckpointError
from rc2l_jax.run.classes import describe_class_changes
from rc2l_jax.run.config import dotted
from rc2l_jax.run.storage import write_json

# What config.json has besides the config's own keys.
_SPLITS, _VERSION, _CLASSES = "splits", "version", "class_names"


def run_config(workdir: epath.Path) -> ConfigDict:
    """Reads the config that a run was trained with.

    Keys that did not exist then get their default; keys that no longer exist are left out.

    Raises:
      CheckpointError: the run directory has no config.json, or one that cannot be read.
    """
    path, config = workdir / "config.json", base.get_config()
    known = dotted(config)
    remedy = (
        "so it is no run directory: train first, or give the run's --config (an exported folder or "
        "other weights go with --model)"
    )
    try:
        stored = json.loads(path.read_text())
        found = {k: v for k, v in dotted(stored).items() if k in known}
        config.update_from_flattened_dict(found)
    except FileNotFoundError as error:
        raise CheckpointError(f"{workdir} has no config.json, {remedy}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not a run's config ({error}): give the run's --config"
        ) from error
    if "data" not in stored:  # it is another program's, such as transformers'
        raise CheckpointError(f"{path} is not a run's config, {remedy}")
    return config


def stored_config(workdir: epath.Path) -> dict[str, Any]:
    """Returns all of config.json, as `write_run_config` wrote it; {} if it cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads((workdir / "config.json").read_text()))
    return {}


def stored_class_names(workdir: epath.Path) -> list[str]:
    """Returns the class names that a run directory keeps; [] if it keeps none.

    Older runs have none in config.json; theirs are in results.json, from their last evaluation.
    """
    with contextlib.suppress(LookupError, TypeError):
        return list(stored_config(workdir)[_CLASSES])
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return list(json.loads((workdir / "results.json").read_text())["teacher"]["iou"])
    return []


def evaluated_images(workdir: epath.Path) -> str:
    """The checksum of the images and masks that a run evaluates on; "" if it keeps none."""
    with contextlib.suppress(LookupError, TypeError):
        return str(stored_config(workdir)[_SPLITS]["evaluation"]["content"])
    return ""


def write_run_config(
    workdir: epath.Path, config: ConfigDict, used: Mapping[str, Any], class_names: Sequence[str]
) -> None:
    """Writes config.json: the config, the run's images and classes, and this program's version.

    Args:
      workdir: the run directory.
      config: the run's config.
      used: the images that the run uses, as `subsets.describe_subsets` describes them.
      class_names: K names.
    """
    beside = {_SPLITS: dict(used), _CLASSES: list(class_names), _VERSION: __version__}
    write_json(workdir / "config.json", config.to_dict() | beside)


# Keys that may change when a run goes on: they change nothing that is learned. The exception is
# `num_steps`, which prolongs a run; from there on the learning rate follows the new value.
CHANGEABLE = frozenset(
    {
        "num_steps",
        "log_every_steps",
        "eval_every_steps",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "max_nonfinite_steps",
        "on_bad_example",
        "max_bad_examples",
        "num_pictures",
        "compilation_cache",
        "profile",
        "eval_batch_size",
        "eval.scales",
        "eval.flip",
        "eval.window",
        "eval.window_stride",
        "eval.max_shapes",
        "data.dir",
        "data.unlabeled_dir",
        "data.prepared_dir",
    }
)


def keep_former_config(workdir: epath.Path, step: int) -> None:
    """Copies config.json to config_until_step_XXXXXXXX.json before a changed config replaces it."""
    path = workdir / f"config_until_step_{step:08d}.json"
    if not path.exists():
        write_text(path, (workdir / "config.json").read_text())


def differing_keys(stored: Mapping[str, Any], config: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Returns {dotted key: (stored value, new value)}; "absent" stands for a missing key.

    A key of `configs/base.py` that the stored config lacks did not exist then. It has its default,
    which is how runs were before.
    """
    new, default = (
        dotted(json.loads(json.dumps(x.to_dict()))) for x in (config, base.get_config())
    )
    old = {key: value for key, value in default.items() if key in new} | dotted(stored)
    pairs = {key: (old.get(key, "absent"), new.get(key, "absent")) for key in {**old, **new}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def check_run_config(
    workdir: epath.Path,
    config: ConfigDict,
    used: Mapping[str, Any],
    allow_changes: bool = False,
    class_names: Sequence[str] = (),
) -> list[str]:
    """Refuses to go on with a run if its config or its images have changed. Writes nothing.

    Args:
      workdir: the run directory, which need not exist. Without a checkpoint in it there is nothing
        to go on with, and anything may have changed.
      config: the config of the run to start or go on with.
      used: the images that it uses, as `subsets.describe_subsets` describes them.
      allow_changes: True allows any key and the images to change. A model whose weights do not fit
        is then found only when the checkpoint is read.
      class_names: the data set's K names; none if they are not to be compared.

    Returns:
      A line for each changed key, for changed classes, and for each split with other images, that
      is let pass.

    Raises:
      CheckpointError: config.json is damaged; or, without `allow_changes`, a key that is not in
        `CHANGEABLE`, a class's name or the images have changed.
    """
    path = workdir / "config.json"
    if not path.exists() or not any((workdir / "checkpoints").glob("*")):
        return []
    try:
        stored = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): use another --workdir") from error
    before = stored.pop(_SPLITS, {})
    stored.pop(_VERSION, None)  # a newer version may go on; its changelog says what it changes
    classes = describe_class_changes(stored.pop(_CLASSES, ()), class_names)
    differing = differing_keys(stored, config)
    phrases = {key: describe_change(key, *pair) for key, pair in differing.items()}
    refused = [phrase for key, phrase in phrases.items() if key not in CHANGEABLE]
    if refused and not allow_changes:
        do = "Use another --workdir, or that run's config"
        if not any(key.startswith("model.") for key in differing):  # its weights would not fit
            do += "; or --allow_config_change to go on with the new one"
        raise CheckpointError(
            f"{workdir} belongs to a run of another config: {'; '.join(refused)}. {do}"
        )
    if classes and not allow_changes:
        raise CheckpointError(
            f"{workdir}: {classes}. The order in classes.txt says which id a class has in the "
            "masks: restore the former file, or use another --workdir; or, if the same things have "
            "new names only, --allow_config_change to go on with these"
        )
    former, seen = before or used, slice(2 if classes else None)  # names are part of the content
    changed = [n for n in used if _images(former, n)[seen] != _images(used, n)[seen]]
    if changed and not allow_changes:
        raise CheckpointError(
            f"{workdir} belongs to a run on other images: {', '.join(changed)}. The list file or "
            "the data set has changed since; use another --workdir, or the former ones; or "
            "--allow_config_change to go on with the new ones"
        )
    notes = [*phrases.values(), *([classes] if classes else [])]
    return [*notes, *(f"the images of {name} are others" for name in changed)]


def _images(used: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    entry = used.get(name, {})
    return entry.get("examples"), entry.get("checksum"), entry.get("content")


def describe_change(key: str, old: Any, new: Any) -> str:
    """Returns a phrase that says what a key was and is now."""
    return f"{key} was {old!r} and is now {new!r}"


def check_same_model(stored: Mapping[str, Any], config: ConfigDict, workdir: epath.Path) -> None:
    """Raises CheckpointError if `config` describes another network than the `stored` config."""
    decisive = ("model.", "data.name", "data.num_classes")
    changes = [
        describe_change(key, *pair)
        for key, pair in differing_keys(stored, config).items()
        if key.startswith(decisive) and key != "model.dropout"
    ]
    if changes:
        raise CheckpointError(
            f"the checkpoint in {workdir} was trained with another model: {'; '.join(changes)}. "
            "Leave --config out: the run knows its own"
        )
