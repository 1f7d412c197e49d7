"""The command line: one clear line for each mistake, and modes that need no training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

import main
from rc2l_jax import __version__

ROOT = Path(__file__).parents[1]
SHAPES = "--config=configs/shapes.py"

# Arguments, and what the one line on stderr says.
MISTAKES = {
    "no_config": ([], "--config is missing"),
    "no_file": (
        ["--config=configs/none.py"],
        "No such file or directory: 'configs/none.py'",
    ),
    "unknown_key": (
        [SHAPES, "--mode=check", "--config.learning_rat=1", "--config.matcher=gpu"],
        "config: unknown key 'learning_rat': did you mean 'learning_rate'?; "
        "matcher = 'gpu' is not one of host, device",
    ),
    "unknown_group": (
        [SHAPES, "--config.modle.num_queries=3"],
        "config: unknown key 'modle.num_queries': did you mean 'model.num_queries'?",
    ),
    "wrong_type": ([SHAPES, "--config.batch_size=many"], "--config.batch_size=many"),
    "scales": (
        [SHAPES, "--mode=check", "--config.eval.scales=0.5,-1"],
        "eval.scales = (0.5, -1) must be one or more numbers greater than 0",
    ),
    "one_scale": ([SHAPES, "--mode=check", "--config.eval.scales=0"], "eval.scales = (0,) must be"),
    "no_workdir": ([SHAPES], "--workdir is missing"),
    "no_mode": ([SHAPES, "--mode=fly"], "<train|eval|predict|export|check|prepare>"),
    "no_output": ([SHAPES, "--mode=export", "--workdir={tmp}"], "--output is missing"),
    "bad_size": (
        [SHAPES, "--mode=export", "--workdir={tmp}", "--output={tmp}/o", "--size=12"],
        "--size=12: give height,width",
    ),
    "no_input": (["--mode=predict", "--workdir={tmp}", "--output={tmp}/o"], "--input is missing"),
    "no_predictions_folder": (
        ["--mode=predict", "--workdir={tmp}", "--input=."],
        "--output is miss",
    ),
    "no_network": (
        ["--mode=predict", "--input=.", "--output={tmp}/o"],
        "either --workdir=RUN or --model=FOLDER_OR_NAME",
    ),
    "two_networks": (
        ["--mode=predict", "--input=.", "--output={tmp}/o", "--workdir={tmp}", "--model={tmp}"],
        "either --workdir=RUN or --model=FOLDER_OR_NAME",
    ),
    "again_and_on": (
        [
            "--mode=predict",
            "--input=.",
            "--output={tmp}/o",
            "--model={tmp}",
            "--resume",
            "--overwrite",
        ],
        "--overwrite does again what --resume leaves out",
    ),
    "results_among_images": (
        ["--mode=predict", "--input=docs", "--output=.", "--model={tmp}", "--overwrite"],
        "is the folder of --input=docs, or above it",
    ),
    "step_of_no_run": (
        ["--mode=predict", "--input=.", "--output={tmp}/o", "--model={tmp}", "--step=3"],
        "--step and --network choose among a run's",
    ),
    "nothing_to_predict": (
        ["--mode=predict", "--input={tmp}/none", "--output={tmp}/o", "--workdir={tmp}"],
        "/none: no such file or folder",
    ),
    "no_run": (
        ["--mode=predict", "--input=docs", "--output={tmp}/o", "--workdir={tmp}"],
        "has no config.json, so it is no run directory",
    ),
    "no_checkpoint": ([SHAPES, "--mode=eval", "--workdir={tmp}/none"], "holds no checkpoint"),
    "no_data": (
        [SHAPES, "--mode=prepare", "--config.data.name=dogs"],
        "config.data.name = 'dogs' is not a data set",
    ),
}


@pytest.fixture
def command_line(monkeypatch, tmp_path):
    """Runs main.py's functions in this process, as `app.run` does, on flags nobody has parsed."""
    monkeypatch.chdir(ROOT)

    def run(arguments: list[str]) -> None:
        argv = ["main.py", *(argument.format(tmp=tmp_path) for argument in arguments)]
        monkeypatch.setattr(sys, "argv", argv)  # ml_collections looks for overrides there
        main.main(main.parse_flags(argv))

    yield run
    for name in list(flags.FLAGS):
        if name.startswith("config."):
            delattr(flags.FLAGS, name)
    for name in (
        "config", "version", "workdir", "mode", "step", "output", "size", "input", "model",
        "overwrite", "resume",
    ):  # fmt: skip
        flags.FLAGS[name].unparse()
    flags.FLAGS.unparse_flags()


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line(command_line, capsys, name):
    arguments, words = MISTAKES[name]
    with pytest.raises(SystemExit) as error:
        command_line(arguments)
    assert error.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_a_mistake_leaves_no_traceback():
    arguments, words = MISTAKES["unknown_key"]
    command = [sys.executable, "main.py", *arguments]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stdout == ""
    *others, last = result.stderr.strip().splitlines()
    assert last.startswith("error: ") and words in last, result.stderr
    # A new or busy machine makes libraries talk (a cache of fonts is built, say): seen once in CI.
    assert not any(x.startswith(("error: ", "Traceback", "  File")) for x in others), result.stderr


def test_version(command_line, capsys):
    with pytest.raises(SystemExit) as error:
        command_line(["--version"])
    assert error.value.code == 0
    assert capsys.readouterr().out == f"rc2l_jax {__version__}\n"


def test_check_counts_examples_and_classes(command_line, capsys):
    small = [
        "--config.data.shapes.num_train=130",
        "--config.data.shapes.num_val=3",
        "--config.data.prepared_dir={tmp}",
    ]
    command_line([SHAPES, "--mode=check", *small])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("labeled: 16 examples (train#16@0)") for line in lines)
    assert any(line.startswith("unlabeled: 114 examples") for line in lines)
    shares = {
        line.split()[0]: [float(x.rstrip("%")) for x in line.split()[1:]]
        for line in lines
        if line.endswith("%")
    }
    assert {"background", "disk", "cross", "(void)"} < shares.keys()
    for column in zip(*shares.values()):
        assert sum(column) == pytest.approx(100, abs=0.01)
    assert lines[-1] == "config and data are fine"
