"""What the page of a run shows, from the files of its directory."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from rc2l_jax.reports.page import embedded
from rc2l_jax.run.restore import NETWORKS

_PICTURES = {
    "curves": "Curves over the run",
    "pseudo_labels": "What the teacher said of the same images, step by step",
}


def describe_run_page(
    workdir: epath.Path,
    results: Mapping[str, Any],
    notes: Sequence[str],
    facts: Sequence[Sequence[str]],
) -> dict[str, Any]:
    """Describes a finished run for `page.page_text`.

    Args:
      workdir: the run directory, with its figures and, if there was one, its init.json.
      results: what results.json holds.
      notes: sentences about the run, such as a verdict on its curve.
      facts: pairs of a title and a text, shown after the scores.
    """
    scores = {name: results[name] for name in NETWORKS if name in results}
    step = f"at step {results['step']}"
    found = {
        caption: workdir / "figures" / f"{name}.png"
        for name, caption in _PICTURES.items()
        if (workdir / "figures" / f"{name}.png").exists()
    }
    return {
        "title": f"Run {workdir}",
        "lead": f"{describe_scores(results)} on {results['dataset']} {results['split']}, {step}",
        "notes": list(notes),
        "facts": [*_best(results), *facts, *_loaded(workdir)],
        "commands": _commands(str(workdir)),
        "bars": {"networks": list(scores), "rows": _rows(scores)},
        "pictures": [[caption, embedded(path)] for caption, path in found.items()],
    }


def _best(results: Mapping[str, Any]) -> list[list[str]]:
    best = results.get("best")
    if not best:
        return []
    scores = ", ".join(
        f"{name} {number(best[f'{name}_miou'])}" for name in NETWORKS if f"{name}_miou" in best
    )
    return [["Best evaluation", f"step {best['step']}: {scores}"]]


def _loaded(workdir: epath.Path) -> list[list[str]]:
    """Says what init.json holds."""
    if not (workdir / "init.json").exists():
        return [["Loaded before training", "nothing: every weight began at random"]]
    init = json.loads((workdir / "init.json").read_text())
    text = f"{len(init['loaded'])} arrays of {init['file']} ({init['family']})"
    if count := len(init["reinitialized"]):
        modules = sorted({path.split("/")[0] for path in init["reinitialized"]})
        text += f"; {count} began at random, in {', '.join(modules)}"
    return [["Loaded before training", text]]


def _commands(workdir: str) -> list[list[str]]:
    run = f"python main.py --workdir={shlex.quote(workdir)}"
    return [
        ["Predict photos", f"{run} --mode=predict --input=PHOTOS --output=OUT"],
        ["Score it photo by photo", f"{run} --mode=eval"],
        [
            "Which photos to label next",
            f"{run} --mode=suggest --input=PHOTOS --count=20 --output=NEXT",
        ],
        ["Train it for longer", f"{run} --config.num_steps=STEPS"],
    ]


def _rows(scores: Mapping[str, Any]) -> list[list[Any]]:
    """Returns for each class its name and each network's IoU, the best class first."""
    if not scores:
        return []
    first = next(iter(scores.values()))["iou"]
    rows = [[name, *(entry["iou"][name] for entry in scores.values())] for name in first]
    return sorted(rows, key=lambda row: (row[1] is None, -(row[1] or 0.0)))


def describe_scores(results: Mapping[str, Any]) -> str:
    """Returns the networks' mIoU in one line."""
    found = [name for name in NETWORKS if name in results]
    return ", ".join(f"{name} mIoU {number(results[name]['miou'])}" for name in found)


def number(value: float | None) -> str:
    """Returns a score as text."""
    return "unknown" if value is None else f"{value:.3f}"
