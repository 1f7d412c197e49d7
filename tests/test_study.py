"""Studies: their cells are configs, and their tables say what the run directories hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import study
from configs import camvid_eighth
from configs.studies import camvid, camvid_resnet50
from rc2l_jax.config import validate

ROOT = Path(__file__).parents[1]
CELLS = sorted({cell for cells in camvid.TABLES.values() for cell in cells})


STEPS = camvid_eighth.get_config().num_steps


def write_run(folder: Path, student: float, teacher: float, ious, step: int = STEPS, **metrics):
    """A run directory as far as reports read it."""
    folder.mkdir(parents=True)
    scores = {"student_miou": student, "teacher_miou": teacher, "teacher_iou": ious}
    first = {"step": 500, "student_miou": 0.0, "teacher_miou": 0.0, "metrics": {}}
    last = {"step": step, **scores, "metrics": {f"pseudo/{k}": v for k, v in metrics.items()}}
    (folder / "evaluations.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(last)}\n")


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_is_a_config_that_can_be_run(cell):
    method, partition, seed = cell.split("-")
    config = camvid.get_config(cell)
    validate(config, 1)
    labels = camvid.PARTITIONS[partition]
    assert config.data.labeled_split == ("train" if labels == 367 else f"train#{labels}@{seed}")
    assert config.seed == int(seed)
    same = camvid_eighth.get_config()
    for shared in ("num_steps", "batch_size", "unlabeled_batch_size", "warmup_steps"):
        assert config[shared] == same[shared]
    assert (config.unsup_weight == 0) == method.startswith("supervised")
    validate(camvid_resnet50.get_config(cell), 1)


def test_the_middle_cell_is_the_config_of_the_readme():
    assert camvid.get_config() == camvid_eighth.get_config() == camvid.get_config("rc2l-eighth-0")


def test_the_report_gives_means_deviations_and_gains_of_the_same_seed(tmp_path):
    ious = {"sky": 0.9, "pole": None}
    for seed, (baseline, ours) in enumerate([(0.30, 0.36), (0.40, 0.42), (0.35, 0.43)]):
        write_run(tmp_path / f"supervised-eighth-{seed}", baseline - 0.01, baseline, ious)
        write_run(tmp_path / f"rc2l-eighth-{seed}", ours, ours, ious, accuracy=0.5 + seed / 10)
    write_run(tmp_path / "rc2l-sixteenth-0", 0.2, 0.21, ious)
    write_run(tmp_path / "rc2l-half-0", 0.5, 0.51, ious, step=STEPS - 1)  # not at its end
    tables = {name: camvid.TABLES[name] for name in ("partitions", "terms", "alpha")}
    lines = study.report(tables, tmp_path, camvid).splitlines()
    assert "| rc2l | 0.403 ± 0.038 (gain 0.053 ± 0.031) | 0.210 (gain ) |" in lines
    assert "| supervised | 0.350 ± 0.050 |  |" in lines
    assert "| sky | 0.900 ± 0.000 | 0.900 ± 0.000 |" in lines and "| pole |  |  |" in lines
    # The terms are of seed 0 alone; no deviation, no accuracy of a run without unlabelled images.
    assert "| supervised | 1 | 0.290 | 0.300 | 0.000 |  |  |  |" in lines
    assert "| rc2l | 1 | 0.360 | 0.360 | 0.060 | 0.500 |  |  |" in lines
    assert "0.51" not in "\n".join(lines)


def test_finished_cells_are_not_run_again_and_failed_ones_are_named(tmp_path):
    output = tmp_path / "runs"
    for cell in camvid.TABLES["queries"][1:]:
        write_run(output / cell, 0.3, 0.3, {})
    command = [sys.executable, "benchmarks/study.py", "--study=configs/studies/camvid.py"]
    command += [f"--output={output}", "--tables=queries", "--", "--config.num_steps=-1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == "queries_12-eighth-0: status 1\n"
    assert f"queries_12-eighth-0 (status 1, see {output}/queries_12-eighth-0.log)" in done.stderr
    assert "num_steps" in (output / "queries_12-eighth-0.log").read_text()
