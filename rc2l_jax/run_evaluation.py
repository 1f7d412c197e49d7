"""Evaluation of a run's networks: scores, pictures and results.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rc2l_jax import eval_pipeline, input_pipeline
from rc2l_jax.compilation import keep_compiled_programs
from rc2l_jax.config import validate
from rc2l_jax.evaluate import better, build_results, evaluate, score
from rc2l_jax.interruption import StopRequest
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.report import Report, describe, losses_of, say
from rc2l_jax.rundir import run_path
from rc2l_jax.structs import EvalBatch
from rc2l_jax.trained import restore_run
from rc2l_jax.visualize import EvaluationPictures


def start(config: ConfigDict) -> None:
    """Validates a config, and lets JAX keep what it compiles."""
    validate(config, jax.device_count())
    keep_compiled_programs(config.compilation_cache)


def topology() -> tuple[int, int, int]:
    """Returns local devices, this process's index and the number of processes."""
    return jax.local_device_count(), jax.process_index(), jax.process_count()


def evaluate_networks(
    model: MaskFormer,
    networks: dict[str, Any],
    config: ConfigDict,
    class_names: tuple[str, ...],
    stop: StopRequest | None = None,
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Scores several networks in one pass over `data.eval_split`.

    Args:
      model: of all of them.
      networks: {"student": {"params": ..., "batch_stats": ...}, "teacher": ...}.
      config: see `configs/base.py`.
      class_names: K names.
      stop: ends the evaluation, between two batches or in the wait for one.

    Returns:
      {network: see `evaluate.score`}, and a picture of examples.

    Raises:
      Interrupted: `stop` asked for it.
    """
    pictures = EvaluationPictures(config.num_pictures)
    observe = pictures.observe if config.num_pictures else None
    batches = eval_pipeline.eval_batches(config, config.data.eval_split, *topology())
    if stop is not None:
        batches = _stoppable(batches, stop)
    confusions = evaluate(model, networks, batches, config, observe)
    return {name: score(x, class_names) for name, x in confusions.items()}, pictures.picture()


def _stoppable(batches: Iterator[EvalBatch], stop: StopRequest) -> Iterator[EvalBatch]:
    while True:
        stop.check()
        with stop.at_once():  # a disk may let us wait for long
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def evaluate_checkpoint(
    config: ConfigDict, workdir: epath.PathLike, step: int | None = None
) -> dict[str, Any]:
    """Evaluates student and teacher of one checkpoint and writes results.json.

    Args:
      config: the run's; how and on what to evaluate may differ.
      workdir: the run directory.
      step: which checkpoint; the newest if None.

    Returns:
      What results.json holds.

    Raises:
      ConfigError, DataError: see `train.train_and_evaluate`.
      CheckpointError: there is no such checkpoint, or it is of another model.
      StorageError: the run directory cannot be written.
    """
    workdir = run_path(workdir)
    start(config)
    model, step, networks, metadata = restore_run(config, workdir, step)
    report = Report(workdir, writer=None)
    class_names = input_pipeline.dataset_info(config).class_names
    scores, picture = evaluate_networks(model, networks, config, class_names)
    report.picture(step, "evaluation", picture)
    best = metadata["best"] or better(None, step, scores)
    results = build_results(config, step, scores, best, losses_of(metadata["metrics"]))
    report.results(results)
    say(f"{workdir}, step {step}, {config.data.name} {config.data.eval_split}: {describe(scores)}")
    return results
