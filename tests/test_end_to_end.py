"""main.py as a user runs it: train, be killed, continue, evaluate, predict, export; mistakes."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faults.runs import RC2L, ROOT, Runs, newest_state, same_bits, saved_steps
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_profiling import steps_in_trace

from rc2l_jax.evaluation.scores import score
from rc2l_jax.reports import pictures as visualize
from rc2l_jax.reports.history import read_confusions
from rc2l_jax.reports.painting import Painter
from rc2l_jax.reports.tables import measures_table
from rc2l_jax.training.pseudo_label_history import read_labels
from rc2l_jax.weights.stablehlo import load_exported

SETTINGS = RC2L | {
    "num_steps": 12,
    "batch_size": 2,
    "unlabeled_batch_size": 2,
    "log_every_steps": 4,
    "eval_every_steps": 12,
    "checkpoint_every_steps": 2,
    "keep_checkpoints": 10,
    "model.norm": "batch",  # with this norm and width, transformers can hold the network
    "model.pixel_dim": 32,
    "data.shapes.num_train": 12,
    "data.labeled_split": "train#4@0",
    "data.unlabeled_split": "train#rest4@0",
}
PICTURES = {"num_pictures": 2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Starts runs by forking, under a folder of this file's own."""
    started = Runs(tmp_path_factory.mktemp("end_to_end"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def scratch(runs) -> Path:
    return runs.scratch


def run(runs: Runs, workdir: Path, *arguments: str, **overrides: object) -> tuple[int, str]:
    """Runs main.py to its end; returns exit status and output."""
    process = runs.start(workdir, *arguments, **SETTINGS | overrides)
    return process.wait(), process.output()


@pytest.fixture(scope="module")
def whole(runs, scratch) -> Path:
    """A run that nothing disturbed, in a process of its own."""
    result = subprocess.run(
        [sys.executable, "main.py", *runs.arguments(scratch / "whole", **SETTINGS | PICTURES)],
        cwd=ROOT,
        env=runs.environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    assert "steps/s" in result.stdout and "ETA" in result.stdout
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in result.stdout.splitlines()]
    compiles = [line.partition(" (")[0] for line in lines if line.startswith("compiling")]
    assert compiles == ["compiling the training step", "compiling the evaluation"]
    assert re.search("compiling the training step.*\n.*first step, with comp", result.stdout)
    workdir = scratch / "whole"
    assert lines[-2:] == [
        f"report.html, results.json, figures/, checkpoints/ are in {workdir}. To predict photos:",
        f"python main.py --workdir={workdir} --mode=predict --input=PHOTOS --output=OUT",
    ]
    return workdir


@pytest.mark.slow
def test_a_run_leaves_what_the_readme_says(whole):
    results = json.loads((whole / "results.json").read_text())
    assert results["step"] == SETTINGS["num_steps"]
    for network in ("student", "teacher"):
        assert 0 <= results[network]["miou"] <= 1
        assert "disk" in results[network]["iou"]
    assert {"total", "label_class", "unlabel_smc"} <= set(results["losses"])
    assert list(whole.glob("events.out.*"))
    at_step = [f"step_00000012_{n}.png" for n in ("evaluation", "unlabeled", "confusion", "iou")]
    of_run = ("curves.png", "pseudo_labels.png", "legend.png")
    figures = {*at_step, "step_00000012_confusion.json", *of_run}
    assert (whole / "report.html").read_text().count("data:image/png;base64,") >= 2, "as pictures"
    assert {path.name for path in (whole / "figures").iterdir()} == figures | {"pseudo_labels"}
    kept = json.loads((whole / "config.json").read_text())["splits"]
    numbers = {
        file.stem: len(file.read_text().splitlines()) for file in (whole / "lists").iterdir()
    }
    assert numbers == {name: used["examples"] for name, used in kept.items()}
    confusions, names = read_confusions(whole, 12)
    for network, confusion in confusions.items():
        assert score(confusion, names) == results[network]
    assert list(read_labels(whole)) == [12]
    with Image.open(whole / "figures" / "legend.png") as legend:
        np.testing.assert_array_equal(np.asarray(legend), visualize.legend(Painter(names)))


def shown_in_tensorboard(folder: Path) -> dict[str, dict[int, np.ndarray]]:
    """The pictures that TensorBoard shows: {tag: {step: uint8 [H, W, 3]}}."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    pictures = {}
    for tag in events.PluginTagToContent("images"):
        found = {x.step: x.tensor_proto.string_val for x in events.Tensors(tag)}
        pictures[tag] = {  # width, height and one PNG
            step: np.asarray(Image.open(io.BytesIO(png))) for step, (_, _, png) in found.items()
        }
    return pictures


@pytest.mark.slow
def test_tensorboard_shows_the_pictures_of_the_run(whole):
    shown, folder = shown_in_tensorboard(whole), whole / "figures"
    paths = {path: path.stem.removeprefix("step_00000012_") for path in folder.glob("*.png")}
    assert shown.keys() == {f"figures/{name}" for name in paths.values()} and len(shown) == 7
    for path, name in paths.items():
        assert shown[f"figures/{name}"].keys() == {12}
        np.testing.assert_array_equal(shown[f"figures/{name}"][12], np.asarray(Image.open(path)))


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(runs, whole):
    workdir = runs.scratch / "killed"
    killed = runs.start(workdir, **SETTINGS | PICTURES)
    killed.until(lambda: saved_steps(workdir))
    killed.signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (workdir / "results.json").exists(), "killed too late to show anything"

    status, output = run(runs, workdir, **PICTURES)
    assert status == 0 and "resuming from the checkpoint" in output, output
    assert same_bits(newest_state(whole), newest_state(workdir))
    one, other = (json.loads((d / "results.json").read_text()) for d in (whole, workdir))
    assert one["losses"] == other["losses"] and one["student"] == other["student"]
    for name in ("pseudo_labels.png", "curves.png", "step_00000012_iou.png"):
        pictures = [(folder / "figures" / name).read_bytes() for folder in (whole, workdir)]
        assert pictures[0] == pictures[1], name


@pytest.mark.slow
def test_a_profiled_run_leaves_a_trace_and_is_the_same_run(runs, whole):
    assert not (whole / "plugins").exists()
    workdir = runs.scratch / "profiled"
    status, output = run(runs, workdir, profile=True)
    assert status == 0, output
    assert f"trace of steps 8 to 12: {workdir}/plugins/profile/" in output
    assert steps_in_trace(workdir) == [8, 9, 10, 11, 12]
    one, other = (json.loads((d / "results.json").read_text()) for d in (whole, workdir))
    assert one["losses"] == other["losses"] and one["student"] == other["student"]


@pytest.mark.slow
def test_evaluation_of_a_checkpoint_and_a_finished_run(runs, whole):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    training = json.loads((whole / "results.json").read_text())
    status, output = run(runs, whole, "--mode=eval", **PICTURES)
    assert status == 0, output
    (folder,) = (whole / "eval").iterdir()
    same = ("evaluation.png", "confusion.png", "confusion.json", "iou.png")
    names = {*(f"step_00000012_{name}" for name in same), "legend.png"}
    assert {path.name for path in (folder / "figures").iterdir()} == names
    for name in names:
        assert (folder / "figures" / name).read_bytes() == before[whole / "figures" / name], name
    pictures = ("evaluation", "legend", "confusion", "iou")
    assert shown_in_tensorboard(folder).keys() == {f"figures/{name}" for name in pictures}

    with (folder / "ranking.csv").open() as file:
        scores = [float(row["miou"]) for row in csv.DictReader(file)]
    assert scores == sorted(scores) and "val_0000" in (folder / "report.html").read_text()

    kept = json.loads((folder / "results.json").read_text())
    options, images = kept.pop("config"), kept.pop("images")
    assert kept == {k: training[k] for k in ("step", "dataset", "split", "student", "teacher")}
    assert options["eval.flip"] is False and options["eval.scales"] == [1.0]
    assert {"eval.window", "eval.window_stride", "data.eval_short_edge"} <= options.keys()
    stored = json.loads((whole / "config.json").read_text())
    assert images == stored["splits"]["evaluation"]
    student, teacher = (measures_table(name, kept[name]) for name in ("student", "teacher"))
    assert output.endswith(f" -> eval/{folder.name}\n{student}\n\n{teacher}\n"), output

    first = (folder / "results.json").read_bytes()
    for flags in ({"eval.flip": True}, {"data.eval_split": "val#4@0"}, {}):  # the last one again
        status, output = run(runs, whole, "--mode=eval", "--step=best", **PICTURES | flags)
        assert status == 0, output
    assert (folder / "results.json").read_bytes() == first
    assert len(list((whole / "eval").iterdir())) == 3, "an answer for each question"
    for path, content in before.items():
        assert path.read_bytes() == content, f"{path} is of training"

    status, output = run(runs, whole, **PICTURES)
    assert status == 0 and "Nothing to do" in output
    assert output.endswith("--mode=predict --input=PHOTOS --output=OUT\n")

    (whole / "results.json").unlink()
    status, output = run(runs, whole, **PICTURES)
    assert status == 0 and "-> results.json" in output, output
    assert json.loads((whole / "results.json").read_text()) == training


@pytest.mark.slow
def test_the_finished_run_says_what_is_in_photos(runs, scratch, whole):
    photos, output = scratch / "photos", scratch / "predicted"
    (photos / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    sizes = {"wide.jpg": (60, 40), "more/grey.png": (33, 50)}  # of images: width, height
    for name, (width, height) in sizes.items():
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        (image.convert("L") if "grey" in name else image).save(photos / name)
    (photos / "notes.txt").write_text("no image")

    arguments = [f"--workdir={whole}", "--mode=predict", f"--input={photos}", f"--output={output}"]
    process = runs.command(arguments, "predict")
    assert process.wait() == 0, process.output()
    assert "notes.txt" in process.output() and "2 images" in process.output(), process.output()
    for name, size in sizes.items():
        stem = name.rpartition(".")[0]
        with Image.open(output / "masks" / f"{stem}.png") as mask:
            assert mask.size == size and mask.mode == "P"
            found = set(np.unique(np.asarray(mask)).tolist())
        described = json.loads((output / "segments" / f"{stem}.json").read_text())
        assert {segment["id"] for segment in described["segments"]} == found
        assert (output / "overlays" / f"{stem}.jpg").exists()
        about = (described["image"], described["model"])
        assert about == (str(photos / name), f"{whole}, step 12, teacher")
    assert (output / "legend.png").exists() and (output / "report.html").exists()
    assert len((output / "ranking.csv").read_text().splitlines()) == 1 + len(sizes)
    names = json.loads((whole / "config.json").read_text())["class_names"]
    assert {segment["class"] for segment in described["segments"]} <= set(names)


MISTAKES = {
    "unknown key": ({"lerning_rate": 1}, "learning_rate"),
    "crop": ({"data.crop_size": 50}, "data.crop_size"),
    "slots": ({"max_segments": 9}, "max_segments"),
    "no folder": (
        {"data.name": "camvid", "data.dir": "nowhere", "data.num_classes": 11},
        "nowhere",
    ),
    "another config": ({"learning_rate": 0.5}, "--allow_config_change to go on"),
    "another model": ({"model.mask_dim": 16}, "and is now 16. Use another --workdir"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_overwrite_nothing(runs, scratch, whole, name):
    overrides, named = MISTAKES[name]
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()}
    workdir = scratch / "new" if name == "no folder" else whole
    status, output = run(runs, workdir, **PICTURES | overrides)
    assert not (scratch / "new").exists()
    assert status != 0
    (line,) = output.strip().splitlines()[-1:]
    assert line.startswith("error:") and named in line, output
    assert "Traceback" not in output
    assert before == {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_a_run_is_exported_and_another_starts_from_it(runs, scratch, whole):
    hlo = scratch / "hlo"
    arguments = ("--mode=export", "--format=stablehlo", f"--output={hlo}", "--size=32,48")
    status, output = run(runs, whole, *arguments, **PICTURES)
    assert status == 0, output
    program, description = load_exported(hlo)
    ids, _ = program(np.zeros((2, 32, 48, 3), np.uint8))
    assert ids.shape == (2, 32, 48) and "disk" in description["class_names"]

    folder, second = scratch / "folder", scratch / "second"
    export = ("--mode=export", f"--output={folder}")
    status, output = run(runs, whole, *export, **PICTURES)
    assert status == 0, output
    status, output = run(runs, second, init_from=folder)
    assert status == 0, output
    assert f"initialized from {folder}/model.safetensors" in output
    init = json.loads((second / "init.json").read_text())
    assert init["reinitialized"] == {} and len(init["loaded"]) > 100

    again = run(runs, whole, *export, **PICTURES)
    assert again[0] == 1 and "is not an empty folder" in again[1]
    wrong = run(runs, scratch / "third", init_from=hlo)
    assert wrong[0] == 1 and "neither model.safetensors nor" in wrong[1]
    assert not (scratch / "third" / "config.json").exists()
