"""The pages of a run and of an answer of `--mode=eval`, and the ranking of its photos."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from data.errors import counted
from rc2l_jax.evaluation.photo_scores import COLUMNS, PhotoScores, order
from rc2l_jax.evaluation.verdict import verdict
from rc2l_jax.reports import alarms
from rc2l_jax.reports.gallery import MOST_CARDS, Card, Cards, describe_gallery
from rc2l_jax.reports.history import read_evaluations
from rc2l_jax.reports.photo_ranking import Row
from rc2l_jax.reports.run_page import describe_run_page, describe_scores, number
from rc2l_jax.reports.writer import Report
from rc2l_jax.run.distributed import gathered
from rc2l_jax.run.restore import NETWORKS

_ORDER = "lowest mIoU first"


def write_run_page(report: Report, config: ConfigDict) -> None:
    """Writes the page of a finished run, from its results.json and figures.

    Args:
      report: writes into the run directory.
      config: the run's config.
    """
    if jax.process_index() != 0:
        return
    results = json.loads((report.workdir / "results.json").read_text())
    evaluations = read_evaluations(report.workdir)
    names = [name for name in NETWORKS if name in results] if evaluations else []
    collapsed = alarms.collapses(evaluations, config.data.num_classes)
    notes = filter(None, (collapsed, *(verdict(evaluations, name) for name in names)))
    data = config.data
    splits = [f"labelled: {data.labeled_split}"]
    splits += [f"unlabelled: {data.unlabeled_split}"] if data.unlabeled_split else []
    facts = [
        ["Data", ", ".join([data.name, *splits])],
        ["Network", f"{config.model.backbone}, {counted(config.num_steps, 'step')}"],
    ]
    report.page(describe_run_page(report.workdir, results, list(notes), facts))


def write_answer_page(report: Report, results: Mapping[str, Any], photos: PhotoScores) -> None:
    """Writes ranking.csv and report.html of an evaluation. Every process must call it.

    Args:
      report: writes into the answer's folder.
      results: what the folder's results.json holds.
      photos: what this process has seen.
    """
    rows = sorted((row for part in gathered(photos.rows) for row in part), key=order)
    # A process has only a part of the photos. It sends the cards of those that are shown, so that
    # together they are no more than a page holds.
    shown = {row["photo"] for row in rows[:MOST_CARDS]}
    mine = [(row, card) for row, card in photos.cards.ranked() if row["photo"] in shown]
    cards = Cards(order)
    for part in gathered(mine):
        for row, card in part:
            cards.add(row, Card(*card))
    texts = ((_texts(row), card) for row, card in cards.ranked())
    report.ranking(COLUMNS, rows)
    report.page(
        {
            "title": f"{results['dataset']} {results['split']}, step {results['step']}",
            "lead": describe_scores(results),
            "facts": [["Folder", str(report.workdir)]],
            "gallery": describe_gallery(texts, photos.painter, len(rows), _ORDER),
        }
    )


def _texts(row: Row) -> dict[str, Any]:
    """Returns what a card says."""
    scores = [["mIoU", number(row["miou"])], ["pixels right", _percent(row["pixel_accuracy"])]]
    if row["disagreement"] is not None:
        scores.append(["networks differ", _percent(row["disagreement"])])
    if row["lowest_class"] is not None:
        scores.append(["worst class", f"{row['lowest_class']} {number(row['lowest_class_iou'])}"])
    return {"name": row["photo"], "bar": row["miou"], "scores": scores}


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"
