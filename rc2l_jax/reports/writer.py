"""Writes what a run reports: TensorBoard events, evaluations.jsonl, results.json and figures.

Only process 0 writes; on the others every call does nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from etils import epath

from data.whole_files import write_text
from rc2l_jax.reports.history import confusions_path, read_evaluations
from rc2l_jax.reports.log import say
from rc2l_jax.reports.page import PAGE, write_page
from rc2l_jax.reports.photo_ranking import RANKING, Row, write_ranking
from rc2l_jax.reports.pictures import save_png
from rc2l_jax.reports.tables import describe
from rc2l_jax.run.storage import finite, storage_errors, write_json


class Writer(Protocol):
    """The part of `clu.metric_writers.MetricWriter` that is used here."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes named numbers."""

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes named pictures, [1, H, W, 3]."""


class Report:
    """Writes a run's numbers and pictures into its directory.

    Attributes:
      workdir: the run directory.
    """

    def __init__(self, workdir: epath.Path, writer: Writer | None):
        """Writes into `workdir`, and to `writer` (TensorBoard) if there is one."""
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
          name: the picture's name. Its file is step_XXXXXXXX_NAME.png.
          picture: uint8 [H, W, 3]; None writes nothing.
          of_run: True for a picture of the whole run. Its file is NAME.png, and replaces the former
            one.
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
        """Writes figures/step_XXXXXXXX_confusion.json, which `history.read_confusions` reads.

        Args:
          step: steps done.
          confusions: {network: int64 [K, K]}, rows are true classes, columns predicted ones.
          class_names: K names.
          **about: further entries of the file: what was evaluated on.
        """
        if not self._active:
            return
        counts = {name: confusion.tolist() for name, confusion in confusions.items()}
        document = {"step": step, **about, "class_names": list(class_names), "confusion": counts}
        with storage_errors(self.workdir):
            # Not indented: that would give each of the K * K numbers a line of its own.
            write_text(confusions_path(self.workdir, step), json.dumps(document) + "\n")

    def evaluation(
        self, step: int, scores: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Prints an evaluation and adds it to TensorBoard and evaluations.jsonl.

        Args:
          step: steps done.
          scores: {"student": ..., "teacher": ...}, as `scores.score` returns each.
          metrics: means over the steps of the last log.
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
            # The whole file is written again, since a file in a bucket cannot be appended to.
            self._write_evaluations([*read_evaluations(self.workdir), line])

    def rewind(self, step: int) -> None:
        """Removes evaluations after `step`, which will be made again, from evaluations.jsonl."""
        if not self._active or not self._evaluations.is_file():
            return
        kept = [line for line in read_evaluations(self.workdir) if line["step"] <= step]
        self._write_evaluations(kept)

    def results(self, results: Mapping[str, Any]) -> None:
        """Writes results.json."""
        self.document("results.json", results)

    def document(self, name: str, value: Any) -> None:
        """Writes a JSON file in the run directory; a reader never sees half of it."""
        if self._active:
            with storage_errors(self.workdir):
                write_json(self.workdir / name, value)

    def page(self, document: Mapping[str, Any]) -> None:
        """Writes report.html; see `page.page_text`."""
        if self._active:
            with storage_errors(self.workdir):
                write_page(self.workdir / PAGE, document)

    def ranking(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Writes ranking.csv; see `photo_ranking.ranking_text`."""
        if self._active:
            with storage_errors(self.workdir):
                write_ranking(self.workdir / RANKING, columns, rows)

    def _write_evaluations(self, lines: list[dict[str, Any]]) -> None:
        with storage_errors(self.workdir):
            write_text(self._evaluations, "".join(json.dumps(line) + "\n" for line in lines))

    @property
    def _evaluations(self) -> epath.Path:
        return self.workdir / "evaluations.jsonl"


@contextlib.contextmanager
def create_writer(workdir: epath.Path, folder: str = "") -> Iterator[Writer]:
    """Opens a TensorBoard writer on process 0, and one that writes nothing on the others.

    Args:
      workdir: the run directory.
      folder: the folder in it where the events go; "" for the run directory itself.

    Raises:
      StorageError: the run directory cannot be written.
    """
    # Imported here, since clu loads TensorFlow, which other users of this module do not need. Those
    # who train have configured it by now (`data.host_tf`).
    from clu import metric_writers

    if jax.process_index():
        yield metric_writers.MultiWriter([])
        return
    with storage_errors(workdir):
        writer = metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir / folder)))
    try:
        yield writer
    except BaseException:
        with contextlib.suppress(Exception):  # a second error must not replace the first
            writer.close()
        raise
    with storage_errors(workdir):
        writer.close()
