"""What a run tells people: progress lines, TensorBoard, evaluations.jsonl, results.json, figures.

Only process 0 speaks and writes; on the others every call does nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import platform
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import flax
import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rc2l_jax.reports.pictures import save_png
from rc2l_jax.run.directory import write_json, write_text
from rc2l_jax.run.storage import storage_errors
from rc2l_jax.structs import TrainState


class Writer(Protocol):
    """The part of `clu.metric_writers.MetricWriter` that is used here."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes named numbers."""

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes named pictures, [1, H, W, 3]."""


def say(message: str, *, everywhere: bool = False) -> None:
    """Prints a line with the time, at once: on process 0, or on all of them with their number."""
    index = jax.process_index()
    if index == 0 or everywhere:
        who = f" [{index}]" if jax.process_count() > 1 else ""
        print(f"{datetime.datetime.now():%H:%M:%S}{who} {message}", flush=True)


def describe_run(config: ConfigDict, workdir: epath.Path, state: TrainState) -> None:
    """Prints what runs where."""
    device = jax.devices()[0]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    now = datetime.datetime.now().astimezone()
    say(
        f"{now:%Y-%m-%d %H:%M:%S %Z}, host {socket.gethostname()}, pid {os.getpid()}, "
        f"process {jax.process_index()} of {jax.process_count()}",
        everywhere=True,
    )
    say(f"run directory {workdir}")
    say(
        f"{jax.device_count()} x {device.device_kind} ({device.platform}), "
        f"{jax.process_count()} process(es); Python {platform.python_version()}, "
        f"jax {jax.__version__}, flax {flax.__version__}"
    )
    say(f"{config.model.backbone} MaskFormer, {parameters:,} parameters")


def finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Replaces what JSON cannot hold (nan, infinities) by None."""
    return {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}


def losses_of(metrics: dict[str, float | None]) -> dict[str, float | None]:
    """Returns every loss term of a log, by its name."""
    prefix = "loss/"
    terms = {name: value for name, value in metrics.items() if name.startswith(prefix)}
    return finite({name.removeprefix(prefix): value for name, value in terms.items()})


class Clock:
    """Training speed: steps a second since the last `restart`, so that nothing else counts."""

    def __init__(self, step: int, num_steps: int):
        """Starts at `step` of `num_steps`."""
        self._num_steps = num_steps
        self.restart(step)

    def restart(self, step: int) -> None:
        """Counts from `step` and from now on."""
        self._step, self._time = step, time.perf_counter()

    def rate(self, step: int) -> float | None:
        """Returns steps a second since the last restart, or None if there was no step."""
        steps = step - self._step
        return steps / (time.perf_counter() - self._time) if steps else None

    def line(self, step: int, loss: float) -> str:
        """Returns the progress line of `step`."""
        rate, left = self.rate(step), self._num_steps - step
        line = f"step {step}/{self._num_steps}  {100 * step // self._num_steps}%  loss {loss:.4g}"
        if rate is None:
            return line
        eta = datetime.timedelta(seconds=round(left / rate))
        return f"{line}  steps/s {rate:.3g}  ETA {eta}"


class Report:
    """Writes a run's numbers and pictures into its directory.

    Attributes:
      workdir: the run directory.
    """

    def __init__(self, workdir: epath.Path, writer: Writer | None):
        """Writes under `workdir`, and to `writer` (TensorBoard) if there is one."""
        self.workdir = workdir
        self._active = jax.process_index() == 0
        self._writer = writer if self._active else None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers to TensorBoard."""
        if self._writer:
            with storage_errors(self.workdir):
                self._writer.write_scalars(step, dict(values))

    def picture(
        self, step: int, name: str, picture: np.ndarray | None, *, of_run: bool = False
    ) -> None:
        """Writes a picture to figures/ and TensorBoard.

        Args:
          step: steps done.
          name: of the file, after the step.
          picture: uint8 [H, W, 3]; None writes nothing.
          of_run: it shows the whole run: its file has no step, and replaces the former one.
        """
        if not self._active or picture is None:
            return
        file = f"{name}.png" if of_run else f"step_{step:08d}_{name}.png"
        with storage_errors(self.workdir):
            save_png(self.workdir / "figures" / file, picture)
            if self._writer:
                self._writer.write_images(step, {f"figures/{name}": picture[None]})

    def confusions(
        self,
        step: int,
        confusions: Mapping[str, np.ndarray],
        class_names: Sequence[str],
        **about: str,
    ) -> None:
        """Writes figures/step_XXXXXXXX_confusion.json; `read_confusions` reads it.

        Args:
          step: steps done.
          confusions: {network: int64 [K, K]}, rows are true classes, columns predicted ones.
          class_names: K names.
          **about: what was evaluated on.
        """
        if not self._active:
            return
        counts = {name: confusion.tolist() for name, confusion in confusions.items()}
        document = {"step": step, **about, "class_names": list(class_names), "confusion": counts}
        with storage_errors(self.workdir):
            # On one line: indented, each of K * K numbers would have a line of its own.
            write_text(confusions_path(self.workdir, step), json.dumps(document) + "\n")

    def evaluation(
        self, step: int, scores: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Prints an evaluation and adds it to TensorBoard and evaluations.jsonl.

        Args:
          step: steps done.
          scores: {"student": see `evaluate.score`, "teacher": ...}.
          metrics: of the last logged steps.
        """
        say(f"step {step}  " + describe(scores))
        values = {}
        for name, entry in scores.items():
            values[f"eval/{name}/miou"] = entry["miou"]
            values |= {f"eval/{name}/iou/{label}": x for label, x in entry["iou"].items()}
        self.scalars(step, {key: value for key, value in values.items() if value is not None})
        if self._active:
            line = {"step": step}
            line |= {f"{name}_miou": entry["miou"] for name, entry in scores.items()}
            line |= {f"{name}_iou": entry["iou"] for name, entry in scores.items()}
            line |= {"metrics": finite(metrics)}
            # Whole, for a bucket has no files to append to.
            self._write_evaluations([*read_evaluations(self.workdir), line])

    def rewind(self, step: int) -> None:
        """Takes out of evaluations.jsonl what a resume from `step` does again."""
        if not self._active or not self._evaluations.is_file():
            return
        kept = [line for line in read_evaluations(self.workdir) if line["step"] <= step]
        self._write_evaluations(kept)

    def results(self, results: Mapping[str, Any]) -> None:
        """Writes results.json."""
        self.document("results.json", results)

    def document(self, name: str, value: Any) -> None:
        """Writes a JSON file of the run directory, whole."""
        if self._active:
            with storage_errors(self.workdir):
                write_json(self.workdir / name, value)

    def _write_evaluations(self, lines: list[dict[str, Any]]) -> None:
        with storage_errors(self.workdir):
            write_text(self._evaluations, "".join(json.dumps(line) + "\n" for line in lines))

    @property
    def _evaluations(self) -> epath.Path:
        return self.workdir / "evaluations.jsonl"


def confusions_path(workdir: epath.Path, step: int) -> epath.Path:
    """Where the confusion matrices of an evaluation are."""
    return workdir / "figures" / f"step_{step:08d}_confusion.json"


def read_confusions(
    workdir: epath.PathLike, step: int
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns an evaluation's {network: int64 [K, K]}, rows are true classes, and K class names."""
    document = json.loads(confusions_path(epath.Path(workdir), step).read_text())
    counts = {name: np.array(rows, np.int64) for name, rows in document["confusion"].items()}
    return counts, tuple(document["class_names"])


@contextlib.contextmanager
def create_writer(workdir: epath.Path, folder: str = "") -> Iterator[Writer]:
    """A TensorBoard writer on process 0, and one that writes nothing elsewhere.

    Args:
      workdir: the run directory.
      folder: in it, where the events go.
    """
    # It loads TensorFlow. Whoever reads reports does without; whoever trains has configured it.
    from clu import metric_writers

    if jax.process_index():
        yield metric_writers.MultiWriter([])
        return
    with storage_errors(workdir):
        writer = metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir / folder)))
    try:
        yield writer
    except BaseException:
        with contextlib.suppress(Exception):  # what the writer has to add would hide the error
            writer.close()
        raise
    with storage_errors(workdir):
        writer.close()


def read_evaluations(workdir: epath.Path) -> list[dict[str, Any]]:
    """Returns every evaluation of a run, in order; a line cut off by a crash is left out."""
    path = workdir / "evaluations.jsonl"
    evaluations = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            evaluations.append(json.loads(line))
        except ValueError:
            continue
    return evaluations


def describe(scores: Mapping[str, Any]) -> str:
    """Returns scores as a phrase: "student mIoU 0.3441  teacher mIoU 0.3502"."""
    number = lambda x: "none" if x is None else f"{x:.4f}"  # noqa: E731
    return "  ".join(f"{name} mIoU {number(entry['miou'])}" for name, entry in scores.items())


def iou_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns scores as an aligned Markdown table: a row a class, and last their mean.

    Args:
      scores: {column's title: see `evaluate.score`}, of networks with the same classes.
    """
    number = lambda x, mark="": "" if x is None else f"{mark}{x:.3f}{mark}"  # noqa: E731
    columns = list(scores.values())
    rows = [["IoU", *scores]]
    for name in columns[0]["iou"]:
        rows.append([name, *(number(column["iou"][name]) for column in columns)])
    rows.append(["**mean**", *(number(column["miou"], "**") for column in columns)])
    first, *others = (max(3, *map(len, cells)) for cells in zip(*rows))
    rule = ["-" * first, *("-" * (width - 1) + ":" for width in others)]
    line = lambda title, *cells: " | ".join(  # noqa: E731
        [title.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others))]
    )
    return "\n".join(f"| {line(*cells)} |" for cells in (rows[0], rule, *rows[1:]))
