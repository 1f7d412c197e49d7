"""A run of an earlier version is read, scored alike, and goes on.

`former_run.zip` is the quickstart in small, as commit 5a502e2 left it: before the modules lay in
folders, and before parameters were updated as vectors. `expected.json` in it is what that commit
went on to: the losses of the two next steps, each logged, and the evaluation after them.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from data import catalog
from rc2l_jax.evaluation.evaluate_run import evaluate_checkpoint
from rc2l_jax.input_pipeline import subsets
from rc2l_jax.reports.history import read_evaluations
from rc2l_jax.run.stored_config import run_config
from rc2l_jax.training.train import train_and_evaluate

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with zipfile.ZipFile(Path(__file__).with_name("former_run.zip")) as archive:
        archive.extractall(tmp_path / "run")
    return tmp_path / "run"


def config_of(run: Path):
    config = run_config(run)
    config.data.prepared_dir = str(run.parent / "prepared")
    return config


def test_it_is_scored_to_the_last_bit_as_before(run):
    before = json.loads((run / "results.json").read_text())
    results = evaluate_checkpoint(config_of(run), run)
    assert 0.3 < before["teacher"]["miou"] < 0.9  # several classes, and not all right
    for key in ("step", "student", "teacher", "best", "losses"):
        assert results[key] == before[key], key


def test_training_goes_on_as_it_would_have_and_opens_the_data_once(run, monkeypatch):
    opened = []
    monkeypatch.setattr(
        subsets, "open_dataset", lambda data: opened.append(data) or catalog.open_dataset(data)
    )
    expected = json.loads((run / "expected.json").read_text())
    config = config_of(run)
    config.num_steps, config.eval_every_steps = expected["step"], 1
    results = train_and_evaluate(config, run)
    assert len(read_evaluations(run)) == 3 and len(opened) == 1
    assert results["step"] == expected["step"]
    # Other programs of XLA's round otherwise, and the schedule is steep at a run's end.
    assert results["losses"] == pytest.approx(expected["losses"], rel=1e-3)
    for network in ("student", "teacher"):
        assert results[network]["miou"] == pytest.approx(expected[network]["miou"], abs=0.02)
