"""Does RC²L help? Supervised, consistency and RC²L on `shapes` with few labels, over seeds.

    python studies/shapes_study.py --output=runs/shapes_study
    python studies/shapes_study.py --output=runs/shapes_study --table

Every row is `configs/shapes.py` with the overrides below. A seed decides which images are labelled,
the initial parameters and the order. All rows of a seed have the same steps and learning rate, and
(except "supervised, all labels") the same labelled images. Finished (row, seed) pairs are kept in
results.jsonl and not run again, so --rows can split the work over several processes. --table prints
the results so far, as Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

# Imported before JAX, because these modules keep TensorFlow off the accelerator.
from rc2l_jax.input_pipeline import eval_batches, train_batches

# isort: split
import jax

from configs import paper, shapes
from rc2l_jax.evaluation.evaluate import evaluate
from rc2l_jax.evaluation.scores import score
from rc2l_jax.input_pipeline.subsets import OpenSplit, open_subsets
from rc2l_jax.method.state import create_train_state
from rc2l_jax.run.config import dotted
from rc2l_jax.training.averages import accumulate, summarize
from rc2l_jax.training.devices import parallel_train_step, replicate
from studies.study_report import spread

NUM_LABELED = 16
WEIGHTS = tuple(f"unsup.{term}_weight" for term in ("rcc", "smc", "rmc", "rfc"))
READINGS = (
    "unsup.union",
    "unsup.contrast_denominator",
    "unsup.rcc_no_object",
    "weak_color",
    "strong_color",
    "pseudo.source",
    "pseudo.uncovered",
    "pseudo.class_alignment",
)
NO_TERMS = dict.fromkeys(WEIGHTS, 0.0)


def of_paper(*keys: str) -> dict[str, Any]:
    """Values of some keys in `configs/paper.py`, the base of the configs of the paper's tables."""
    values = dotted(paper.get_config())
    return {key: values[key] for key in keys}


ROWS: dict[str, dict[str, Any]] = {
    "supervised, few labels": {"unsup_weight": 0.0},
    "supervised, all labels": {"unsup_weight": 0.0, "data.labeled_split": "train"},
    "consistency baseline": NO_TERMS | {"unsup.consistency_weight": 20.0},
    "RC²L as printed": of_paper(*WEIGHTS, *READINGS),
    "RC²L, paper's weights": of_paper(*WEIGHTS),
    "RC²L": {},
    "RC²L without RCC": {"unsup.rcc_weight": 0.0},
    "RC²L without SMC": {"unsup.smc_weight": 0.0},
    "RC²L without RMC": {"unsup.rmc_weight": 0.0},
    "RC²L without RFC": {"unsup.rfc_weight": 0.0},
    "RC²L without class alignment": {"pseudo.class_alignment": 0.0},
    "RC²L, queries' segments": {"pseudo.source": "query"},
    "RC²L, uncovered pixels negative": {"pseudo.uncovered": "negative"},
}
PSEUDO = ("pseudo/accuracy", "pseudo/pixel_accuracy", "pseudo/coverage")


def main() -> None:
    """Runs the rows that are asked for and not finished yet, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="directory of results.jsonl")
    parser.add_argument("--rows", default="", help="comma-separated numbers; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="print the results so far, and stop")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "results.jsonl"
    if arguments.table:
        print(table(read(path)))
        return
    names = list(ROWS)
    wanted = [names[int(i)] for i in arguments.rows.split(",")] if arguments.rows else names
    for name in wanted:
        done = {r["seed"] for r in read(path) if r["row"] == name}
        run_row(name, [seed for seed in range(arguments.seeds) if seed not in done], path)


def common(seed: int) -> dict[str, Any]:
    """What all rows of a seed share."""
    return {
        "seed": seed,
        "num_steps": 900,
        "eval_every_steps": 450,
        "data.labeled_split": f"train#{NUM_LABELED}@{seed}",
        "data.unlabeled_split": f"train#rest{NUM_LABELED}@{seed}",
    }


def run_row(name: str, seeds: list[int], path: Path) -> None:
    """Trains one row's seeds with one compiled step, and appends a line for each to `path`."""
    step_fn = None
    for seed in seeds:
        config = shapes.get_config()
        config.update_from_flattened_dict(common(seed) | ROWS[name])
        model, optimizer, state = create_train_state(config)
        step_fn = step_fn or parallel_train_step(model, optimizer, config)
        state, total, start = replicate(state, 1), None, time.perf_counter()
        data = open_subsets(config)
        batches = train_batches.train_batches(config, data, 0, 1)
        for step, batch in zip(range(1, config.num_steps + 1), batches):
            if step % config.eval_every_steps == 1:
                total = None  # so that the means are those of the run's last part
            state, metrics = step_fn(state, batch)
            total = accumulate(total, metrics)
        result = {
            "row": name,
            "seed": seed,
            **evaluate_state(model, state, config, data.evaluation),
        }
        result["seconds"] = time.perf_counter() - start
        result["metrics"] = summarize(total)
        with path.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps({k: v for k, v in result.items() if k != "metrics"}), flush=True)


def evaluate_state(model: Any, state: Any, config: Any, split: OpenSplit) -> dict[str, float]:
    """mIoU of student and teacher on the validation split."""
    networks = {
        "student": {"params": state.params, "batch_stats": state.batch_stats},
        "teacher": state.teacher,
    }
    batches = eval_batches.eval_batches(config, split, jax.local_device_count())
    confusions = evaluate(model, networks, batches, config)
    names = split.dataset.class_names
    return {network: score(x, names)["miou"] for network, x in confusions.items()}


def read(path: Path) -> list[dict[str, Any]]:
    """Lines of results.jsonl; none if there is no such file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(results: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, as Markdown.

    The gain is the teacher's mIoU minus that of the supervised row with the same seed.
    """
    rows = defaultdict(list)
    for result in results:
        rows[result["row"]].append(result)
    lines = [
        "| | seeds | student | teacher | gain | segments right | pixels right | covered |",
        "|---|---|---|---|---|---|---|---|",
    ]
    baseline = {r["seed"]: r["teacher"] for r in rows[next(iter(ROWS))]}
    for name in (name for name in ROWS if name in rows):
        runs = rows[name]
        cells = [spread([r[network] for r in runs]) for network in ("student", "teacher")]
        paired = [r["teacher"] - baseline[r["seed"]] for r in runs if r["seed"] in baseline]
        cells.append(spread(paired) if paired else "")
        for metric in PSEUDO:
            values = [r["metrics"][metric] for r in runs if metric in r["metrics"]]
            cells.append(f"{mean(values):.2f}" if values else "")
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
