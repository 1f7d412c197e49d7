"""`main.py` as a user runs it: train, be killed, go on, evaluate; and what it says of mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
from faults.runs import XLA_FLAGS
from test_profiling import steps_in_trace

from rc2l_jax.evaluate import score
from rc2l_jax.exported import load_exported
from rc2l_jax.pseudo_labels import read_labels
from rc2l_jax.report import read_confusions

ROOT = Path(__file__).parents[1]
TINY = tiny.COMMAND_LINE | {
    "num_steps": 12,
    "batch_size": 2,
    "unlabeled_batch_size": 2,
    "log_every_steps": 4,
    "eval_every_steps": 12,
    "checkpoint_every_steps": 2,
    "keep_checkpoints": 10,
    "num_pictures": 2,
    "data.shapes.num_train": 12,
    "data.labeled_split": "train#4@0",
    "data.unlabeled_split": "train#rest4@0",
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("end_to_end")


def command(scratch: Path, workdir: Path, *arguments: str, **overrides) -> list[str]:
    values = TINY | {"data.prepared_dir": scratch / "tfds"} | overrides
    flags = [f"--config.{key}={value}" for key, value in values.items()]
    config = "--config=configs/shapes.py"
    return [sys.executable, "main.py", config, f"--workdir={workdir}", *flags, *arguments]


def environment(scratch: Path) -> dict[str, str]:
    return os.environ | {
        "XLA_FLAGS": XLA_FLAGS,
        "JAX_COMPILATION_CACHE_DIR": str(scratch / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def run(scratch: Path, workdir: Path, *arguments: str, **overrides) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(scratch, workdir, *arguments, **overrides),
        cwd=ROOT,
        env=environment(scratch),
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def whole(scratch) -> Path:
    """A run that nothing disturbed."""
    result = run(scratch, scratch / "whole")
    assert result.returncode == 0, result.stderr
    assert "steps/s" in result.stdout and "ETA" in result.stdout
    return scratch / "whole"


def final_state(workdir: Path):
    from rc2l_jax.checkpoints import Checkpoints
    from rc2l_jax.config import ConfigDict
    from rc2l_jax.train_state import create_train_state

    config = ConfigDict(json.loads((workdir / "config.json").read_text()))
    _, _, template = create_train_state(config)
    with Checkpoints(workdir, config.keep_checkpoints) as checkpoints:
        return checkpoints.restore(template)[0]


@pytest.mark.slow
def test_a_run_leaves_what_the_readme_says(whole):
    results = json.loads((whole / "results.json").read_text())
    assert results["step"] == TINY["num_steps"]
    for network in ("student", "teacher"):
        assert 0 <= results[network]["miou"] <= 1
        assert "disk" in results[network]["iou"]
    assert {"total", "label_class", "unlabel_smc"} <= set(results["losses"])
    assert list(whole.glob("events.out.*"))
    at_step = [f"step_00000012_{n}.png" for n in ("evaluation", "unlabeled", "confusion", "iou")]
    figures = {*at_step, "step_00000012_confusion.json", "curves.png", "pseudo_labels.png"}
    assert {path.name for path in (whole / "figures").iterdir()} == figures | {"pseudo_labels"}
    confusions, names = read_confusions(whole, 12)
    for network, confusion in confusions.items():
        assert score(confusion, names) == results[network]
    assert list(read_labels(whole)) == [12]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(scratch, whole):
    workdir = scratch / "killed"
    process = subprocess.Popen(
        command(scratch, workdir),
        cwd=ROOT,
        env=environment(scratch),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not any(p.name.isdigit() for p in (workdir / "checkpoints").glob("*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (workdir / "results.json").exists(), "killed too late to show anything"

    again = run(scratch, workdir)
    assert again.returncode == 0, again.stderr
    assert "resuming from the checkpoint" in again.stdout
    import jax

    for a, b in zip(jax.tree.leaves(final_state(whole)), jax.tree.leaves(final_state(workdir))):
        assert np.array_equal(a, b)
    one, other = (json.loads((d / "results.json").read_text()) for d in (whole, workdir))
    assert one["losses"] == other["losses"] and one["student"] == other["student"]
    for name in ("pseudo_labels.png", "curves.png", "step_00000012_iou.png"):
        pictures = [(folder / "figures" / name).read_bytes() for folder in (whole, workdir)]
        assert pictures[0] == pictures[1], name


@pytest.mark.slow
def test_a_profiled_run_leaves_a_trace_and_is_the_same_run(scratch, whole):
    assert not (whole / "plugins").exists()
    workdir = scratch / "profiled"
    result = run(scratch, workdir, profile=True)
    assert result.returncode == 0, result.stderr
    assert f"trace of steps 8 to 12: {workdir}/plugins/profile/" in result.stdout
    assert steps_in_trace(workdir) == [8, 9, 10, 11, 12]
    one, other = (json.loads((d / "results.json").read_text()) for d in (whole, workdir))
    assert one["losses"] == other["losses"] and one["student"] == other["student"]


@pytest.mark.slow
def test_evaluation_of_a_checkpoint_and_a_finished_run(scratch, whole):
    before = json.loads((whole / "results.json").read_text())
    for path in (whole / "figures").glob("step_*"):
        path.unlink()
    result = run(scratch, whole, "--mode=eval")
    assert result.returncode == 0, result.stderr
    assert len(list((whole / "figures").glob("step_00000012_*.png"))) == 3
    assert list((whole / "eval").glob("events.out.*")) and read_confusions(whole, 12)
    after = json.loads((whole / "results.json").read_text())
    assert after["student"] == before["student"] and after["teacher"] == before["teacher"]
    result = run(scratch, whole)
    assert result.returncode == 0 and "Nothing to do" in result.stdout


MISTAKES = {
    "unknown key": ({"lerning_rate": 1}, "learning_rate"),
    "crop": ({"data.crop_size": 50}, "data.crop_size"),
    "slots": ({"max_segments": 9}, "max_segments"),
    "no folder": (
        {"data.name": "camvid", "data.dir": "nowhere", "data.num_classes": 11},
        "nowhere",
    ),
    "another config": ({"learning_rate": 0.5}, "learning_rate"),
    "another model": ({"model.mask_dim": 16}, "mask_dim"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_overwrite_nothing(scratch, whole, name):
    overrides, named = MISTAKES[name]
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()}
    workdir = scratch / "new" if name == "no folder" else whole
    result = run(scratch, workdir, **overrides)
    assert not (scratch / "new").exists()
    assert result.returncode != 0
    (line,) = result.stderr.strip().splitlines()[-1:]
    assert line.startswith("error:") and named in line, result.stderr
    assert "Traceback" not in result.stderr
    assert before == {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_a_run_is_exported_and_another_starts_from_it(scratch, whole):
    hlo = scratch / "hlo"
    arguments = ("--mode=export", "--format=stablehlo", f"--output={hlo}", "--size=32,48")
    result = run(scratch, whole, *arguments)
    assert result.returncode == 0, result.stderr
    program, description = load_exported(hlo)
    ids, _ = program(np.zeros((2, 32, 48, 3), np.uint8))
    assert ids.shape == (2, 32, 48) and "disk" in description["class_names"]

    peers = {"model.norm": "batch", "model.pixel_dim": 32, "num_steps": 4, "eval_every_steps": 4}
    first, folder, second = (scratch / name for name in ("first", "folder", "second"))
    assert run(scratch, first, **peers).returncode == 0
    result = run(scratch, first, "--mode=export", f"--output={folder}", **peers)
    assert result.returncode == 0, result.stderr
    result = run(scratch, second, **peers, init_from=folder)
    assert result.returncode == 0, result.stderr
    assert f"initialized from {folder}/model.safetensors" in result.stdout
    init = json.loads((second / "init.json").read_text())
    assert init["reinitialized"] == {} and len(init["loaded"]) > 100

    again = run(scratch, first, "--mode=export", f"--output={folder}", **peers)
    assert again.returncode == 1 and "is not an empty folder" in again.stderr
    wrong = run(scratch, scratch / "third", **peers, init_from=hlo)
    assert wrong.returncode == 1 and "neither model.safetensors nor" in wrong.stderr
    assert not (scratch / "third" / "config.json").exists()
