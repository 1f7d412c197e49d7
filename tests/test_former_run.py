"""A run of an earlier version can be read, has the same score, and continues.

`former_run.zip` is a small run of the quickstart after 700 steps, from commit 5a502e2, which had no
folders of modules yet. Its `expected.json` has the results of the same commit when it made the run
two steps longer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from trained import unpack

from rc2l_jax.reports.history import read_evaluations

ROOT = Path(__file__).parents[1]
GO_ON = """
import json, sys
from data import catalog
from rc2l_jax.input_pipeline import subsets
from rc2l_jax.run.stored_config import run_config
from rc2l_jax.run.directory import run_path
from rc2l_jax.training.train import train_and_evaluate

opened = []
subsets.open_dataset = lambda data: opened.append(data) or catalog.open_dataset(data)
workdir, prepared, steps = sys.argv[1:]
config = run_config(run_path(workdir))
config.data.prepared_dir = prepared
config.num_steps = config.eval_every_steps = int(steps)
train_and_evaluate(config, workdir)
print("opened", len(opened))
"""

EVALUATE = """
import json, sys
from data.host_tf import tf
from rc2l_jax.evaluation.evaluate_run import evaluate_checkpoint, restore_results
from rc2l_jax.run.directory import chosen_step, run_path
from rc2l_jax.run.stored_config import run_config

workdir = run_path(sys.argv[1])
config = run_config(workdir)
config.data.prepared_dir = sys.argv[2]
folders = []
for flip, split, step in ((False, "val", "best"), (True, "val", "700"), (False, "val#2@0", None)):
    config.eval.flip, config.data.eval_split = flip, split
    folders.append(evaluate_checkpoint(config, workdir, chosen_step(workdir, step))["folder"])
config.data.eval_split = "val"
folders.append(evaluate_checkpoint(config, workdir)["folder"])
(workdir / "results.json").rename(workdir / "of_training.json")
restore_results(config, workdir)
print(json.dumps(folders))
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return unpack(tmp_path / "run")


def python(*arguments: str) -> str:
    """Runs Python with one device, as the former run had; returns what it prints."""
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def results_of(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def test_it_is_scored_to_the_last_bit_as_before(run):
    before = results_of(run)
    assert 0.2 < before["teacher"]["miou"] < 0.9  # some pixels are right, and some are wrong
    prepared = f"--config.data.prepared_dir={run.parent / 'prepared'}"
    python("main.py", f"--workdir={run}", "--mode=eval", prepared)
    (evaluated,) = (run / "eval").iterdir()
    after = results_of(evaluated)
    for network in ("student", "teacher"):
        for key in before[network]:  # since then there are more
            assert after[network][key] == before[network][key]
    assert results_of(run) == before  # of training


def test_each_evaluation_keeps_its_own_answer_and_training_its_files(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    printed = python("-c", EVALUATE, str(run), str(run.parent / "prepared"))
    first, flipped, part, again = json.loads(printed.splitlines()[-1])
    assert first == again and len({first, flipped, part}) == 3
    assert {f"eval/{path.name}" for path in (run / "eval").iterdir()} == {first, flipped, part}
    answers = {name: results_of(run / name) for name in (first, flipped, part)}
    assert [answers[x]["config"]["eval.flip"] for x in answers] == [False, True, False]
    assert [answers[x]["images"]["examples"] for x in answers] == [4, 4, 2]
    assert len({json.dumps(answer["teacher"]) for answer in answers.values()}) == 3
    of_training = json.loads(before.pop(run / "results.json"))
    for key, network in (("iou", "student"), ("miou", "teacher")):
        assert answers[first][network][key] == of_training[network][key]
    for path, content in before.items():
        assert path.read_bytes() == content, path
    restored = results_of(run)  # was deleted, and is made anew
    assert restored["best"] == of_training["best"] and restored["losses"] == of_training["losses"]
    assert restored["teacher"]["iou"] == of_training["teacher"]["iou"]


def test_it_goes_on_as_it_would_have_and_opens_the_data_once(run):
    expected = json.loads((run / "expected.json").read_text())
    printed = python("-c", GO_ON, str(run), str(run.parent / "prepared"), str(expected["step"]))
    assert len(read_evaluations(run)) == 2 and printed.endswith("opened 1\n")
    results = results_of(run)
    assert results["step"] == expected["step"]
    assert results["losses"] == pytest.approx(expected["losses"], rel=1e-3, abs=1e-6)
    for network in ("student", "teacher"):
        assert results[network]["miou"] == pytest.approx(expected[network]["miou"], abs=0.005)
