"""main.py: one clear line for each mistake on the command line; modes that need no training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

import main
from configs import shapes
from rc2l_jax import __version__
from rc2l_jax.run.stored_config import write_run_config

ROOT = Path(__file__).parents[1]
SHAPES = "--config=configs/shapes.py"
SMALL = "--config=configs/folder_small.py"

# Name of a mistake -> (arguments, words in the one line on stderr).
MISTAKES = {
    "no_config": ([], "--config is missing"),
    "no_file": (
        ["--config=configs/none.py"],
        "--config=configs/none.py: no such file; the experiments are in configs/",
    ),
    "unknown_key": (
        [SHAPES, "--mode=check", "--config.learning_rat=1", "--config.matcher=gpu"],
        "config: unknown key 'learning_rat': did you mean 'learning_rate'?; "
        "matcher = 'gpu' is not one of host, device",
    ),
    "overrides_first": (
        ["--config.matcher=gpu", "--mode=check", "--config", "configs/shapes.py"],
        "config: matcher = 'gpu' is not one of host, device",
    ),
    "unknown_group": (
        [SHAPES, "--config.modle.num_queries=3"],
        "config: unknown key 'modle.num_queries': did you mean 'model.num_queries'?",
    ),
    "key_without_config": (["--data.dir=x"], "did you mean --config.data.dir?"),
    "override_of_nothing": (
        ["--mode=eval", "--workdir={tmp}", "--config.eval.flip=True"],
        "is no run (it has no config.json), and --config is missing",
    ),
    "typo_in_workdir": (["--mode=eval", "--workdir={tmp}/rnu"], "/rnu is no run (it has no config"),
    "glob_without_quotes": (
        ["--mode=predict", "--output={tmp}/o", "--model={tmp}", "--input=a.jpg", "b.jpg"],
        "'b.jpg': flags start with --; put a glob in quotes: --input='photos/*.jpg'",
    ),
    "record": (["--config={tmp}/config.json"], "give its folder as --workdir"),
    "wrong_type": ([SHAPES, "--config.batch_size=many"], "--config.batch_size=many"),
    "scales": (
        [SHAPES, "--mode=check", "--config.eval.scales=0.5,-1"],
        "eval.scales = (0.5, -1) must be one or more numbers greater than 0",
    ),
    "one_scale": ([SHAPES, "--mode=check", "--config.eval.scales=0"], "eval.scales = (0,) must be"),
    "no_workdir": ([SHAPES], "--workdir is missing"),
    "no_mode": (
        [SHAPES, "--mode=fly"],
        "<train|eval|predict|suggest|export|compare",
    ),
    "no_step": (
        [SHAPES, "--mode=eval", "--workdir={tmp}", "--step=last"],
        "give a number, or best",
    ),
    "no_best_step": (
        [SHAPES, "--mode=eval", "--workdir={tmp}", "--step=best"],
        "/results.json is missing or names no best step, as before the first evaluation",
    ),
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
    "flag_of_another_mode": (
        ["--mode=compare", "--output={tmp}/o", "--runs=a=runs/a", "--step=best"],
        "--step is for --mode=eval or export or predict or suggest, and not for compare",
    ),
    "resume_of_training": (
        [SHAPES, "--workdir={tmp}", "--resume"],
        "--resume is for --mode=predict",
    ),
    "exported_folder_as_run": (
        ["--mode=predict", "--input=docs", "--output={tmp}/o", "--workdir={tmp}/exported"],
        "/exported/config.json is not a run's config, so it is no run directory",
    ),
    "unknown_labelling_tool": (
        ["--mode=predict", "--input=.", "--output={tmp}/o", "--model={tmp}", "--annotations=voc"],
        "<coco|labelme|yolo|cvat|labelstudio>",
    ),
    "nothing_to_predict": (
        ["--mode=predict", "--input={tmp}/none", "--output={tmp}/o", "--workdir={tmp}"],
        "/none: no such file or folder",
    ),
    "no_run": (
        ["--mode=predict", "--input=docs", "--output={tmp}/o", "--workdir={tmp}"],
        "has no config.json, so it is no run directory",
    ),
    "nothing_to_suggest_from": (
        [SMALL, "--mode=suggest", "--output={tmp}/o", "--count=3"],
        "--input is missing: the photos to choose from",
    ),
    "no_count": (
        [SMALL, "--mode=suggest", "--output={tmp}/o", "--input=docs"],
        "--count is missing: how many photos to choose, such as --count=80",
    ),
    "no_photo_to_suggest": (
        [SMALL, "--mode=suggest", "--output={tmp}/o", "--input={tmp}/none", "--count=3"],
        "/none: no such file or folder",
    ),
    "nothing_to_compare_photos_with": (
        ["--mode=suggest", "--output={tmp}/o", "--input=docs"],
        "--config is missing",
    ),
    "no_runs": (["--mode=compare", "--output={tmp}/o"], "--runs is missing"),
    "no_name_of_a_run": (["--mode=compare", "--runs=a=runs/a,runs/b"], "'runs/b' is not NAME=RUN"),
    "no_evaluations": (
        ["--mode=compare", "--runs=a={tmp}/none"],
        "/none: no evaluations; is it a run",
    ),
    "no_checkpoint": ([SHAPES, "--mode=eval", "--workdir={tmp}/none"], "holds no checkpoint"),
    "no_data": (
        [SHAPES, "--mode=prepare", "--config.data.name=dogs"],
        "config.data.name = 'dogs' is not a data set",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line(command_line, capsys, tmp_path, name):
    arguments, words = MISTAKES[name]
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "config.json").write_text('{"model_type": "maskformer"}')
    with pytest.raises(SystemExit) as error:
        command_line(arguments)
    assert error.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_each_flag_is_of_some_mode_or_of_all():
    of_all = {"config", "workdir", "version", "mode", "distributed", "coordinator"}
    of_all |= {"num_processes", "process_id"}
    own = {flag.name for flag in flags.FLAGS.flags_by_module_dict()["main"]}
    assert own == of_all | main.FLAGS_OF_MODES.keys()
    assert {mode for modes in main.FLAGS_OF_MODES.values() for mode in modes} <= {*main.MODES}


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
    # Other lines are allowed: on a new machine a library may say that it builds a cache of fonts.
    assert not any(x.startswith(("error: ", "Traceback", "  File")) for x in others), result.stderr


@pytest.fixture
def kept(tmp_path):
    """A run directory with a config of its own."""
    config = shapes.get_config()
    config.data.labeled_split = "train#5@0"
    config.data.unlabeled_split = "train#rest5@0"
    config.model.backbone_width = 8
    write_run_config(tmp_path, config, {}, ["a"] * config.data.num_classes)
    return tmp_path


def test_a_run_directory_knows_its_config_and_overrides_change_it(command_line, capsys, kept):
    small = ["--config.data.shapes.num_train=12", "--config.data.shapes.num_val=3"]
    prepared = "--config.data.prepared_dir={tmp}/records"
    command_line(["--workdir={tmp}", "--mode=check", *small, prepared])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("labeled: 5 examples (train#5@0)") for line in lines)
    assert any(line.startswith("unlabeled: 7 examples") for line in lines)


def test_another_network_is_named_by_its_keys(command_line, capsys, kept):
    with pytest.raises(SystemExit):
        command_line([SHAPES, "--workdir={tmp}", "--mode=eval"])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith(
        "was trained with another model: model.backbone_width was 8 and is now 16. "
        "Leave --config out: the run knows its own"
    )


def test_a_damaged_record_of_a_run_is_one_clear_line(command_line, capsys, kept):
    (kept / "config.json").write_text("{")
    with pytest.raises(SystemExit):
        command_line(["--workdir={tmp}", "--mode=eval"])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and "config.json is not a run's config" in line


def test_version(command_line, capsys):
    with pytest.raises(SystemExit) as error:
        command_line(["--version"])
    assert error.value.code == 0
    assert capsys.readouterr().out == f"rc2l_jax {__version__}\n"


def test_ctrl_c_leaves_no_traceback():
    program = (
        "import main\n"
        "def interrupted(*_): raise KeyboardInterrupt\n"
        "main.run = interrupted\n"
        "main.app.run(main.main, flags_parser=main.parse_flags)"
    )
    arguments = ["--mode=predict", "--model=x", "--input=.", "--output=o"]
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 130
    assert result.stderr.endswith("stopped: with --resume the same command goes on\n")
    assert "Traceback" not in result.stderr


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
        line.split()[0]: [float(x.rstrip("%")) for x in line.split()[1:] if x.endswith("%")]
        for line in lines
        if "%" in line and "MiB" not in line
    }
    assert {"background", "disk", "cross", "(void)"} < shares.keys()
    for column in zip(*shares.values()):
        assert sum(column) == pytest.approx(100, abs=0.01)
    assert lines[-1] == "config and data are fine"
