"""rc2l_jax/evaluation/compare.py and compare_runs.py: pictures and tables of several runs."""

from __future__ import annotations

import collections
import errno
import json
import os
import shutil

import jax
import numpy as np
import pytest
import tiny
from etils import epath
from test_data import folder_config, write_folder

from data.errors import DataError
from rc2l_jax.evaluation import compare, compare_runs
from rc2l_jax.evaluation.compare_runs import CompareError
from rc2l_jax.evaluation.evaluate import evaluate
from rc2l_jax.evaluation.ranking import best_and_worst
from rc2l_jax.input_pipeline import eval_batches as eval_pipeline
from rc2l_jax.input_pipeline.eval_batches import eval_batches
from rc2l_jax.input_pipeline.subsets import open_split
from rc2l_jax.method.state import create_train_state
from rc2l_jax.reports.painting import fit
from rc2l_jax.run.checkpoints import CheckpointError, Checkpoints
from rc2l_jax.run.config import ConfigError
from rc2l_jax.structs import VOID

CLASSES = 11


def run_directory(folder, name: str, **overrides):
    """A run directory as training leaves it, but of an untrained network."""
    config = folder_config(folder / "files", folder / "prepared", eval_short_edge=32)
    data = config.data.copy_and_resolve_references()
    config.update(tiny.config(**overrides))
    config.data.update(data)
    config.eval_batch_size = 2
    workdir = folder / name
    model, _, state = create_train_state(config)
    rng = np.random.default_rng(list(name.encode()))

    def noise(x):
        return np.asarray(x + rng.normal(0, 0.3, x.shape), x.dtype)

    state = state.replace(
        step=np.int32(20), teacher_params=jax.tree.map(noise, state.teacher_params)
    )
    best = {"step": 20, "student_miou": 0.1, "teacher_miou": 0.2}
    with Checkpoints(workdir, 1) as checkpoints:
        checkpoints.save(state, {"config": config.to_dict(), "best": best})
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    lines = [line(10, 0.3, 0.1), line(20, 0.1, 0.2)]
    (workdir / "evaluations.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    teacher = {"params": state.teacher_params, "batch_stats": state.teacher_batch_stats}
    return workdir, config, model, teacher


def line(step: int, student: float, teacher: float | None) -> dict:
    iou = {"student": student, "teacher": teacher}
    scores = {f"{name}_miou": value for name, value in iou.items()}
    classes = {f"{n}_iou": {f"c{i}": v for i in range(CLASSES)} for n, v in iou.items()}
    return {"step": step, **scores, **classes, "metrics": {}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two run directories; their networks differ in size."""
    folder = tmp_path_factory.mktemp("compare")
    write_folder(folder / "files", num_val=5)
    return [
        run_directory(folder, "one"),
        run_directory(folder, "other", model__num_queries=9, model__mask_dim=16),
    ]


def counted(masks: compare.Masks, config) -> np.ndarray:
    """The confusion matrix of masks, counted pixel by pixel."""
    counts = np.zeros((CLASSES, CLASSES), np.int64)
    for example in compare.split_examples(config, open_split(config)):
        known = example.label != VOID
        predicted = masks[example.position]
        assert predicted.shape == example.label.shape
        np.add.at(counts, (example.label[known], predicted[known]), 1)
    return counts


@pytest.mark.slow
def test_masks_are_those_that_the_evaluation_counts_and_the_grid_shows_them(runs):
    opened = [compare.open_run(f"run {i}", run[0]) for i, run in enumerate(runs)]
    config, everything = runs[0][1], []
    for run, (_, own, model, teacher) in zip(opened, runs):
        masks = compare.predict_split(run, open_split(config))
        batches = eval_batches(own, open_split(own), 1)
        expected = evaluate(model, {"teacher": teacher}, batches, own)["teacher"]
        np.testing.assert_array_equal(counted(masks, config), expected)
        everything.append(masks)
    assert any((everything[0][i] != everything[1][i]).any() for i in range(5))

    # The grid shows the first two examples, or those on which the runs differ most.
    first = compare.comparison_grid(opened, 2)
    examples = {x.position: x for x in compare.split_examples(config, open_split(config))}
    one, other = everything
    shares = {i: (one[i] != other[i])[x.label != VOID].mean() for i, x in examples.items()}
    chosen = compare.most_different(iter(examples.values()), everything, 2)
    ranked = sorted(shares, key=lambda i: (-shares[i], i))
    assert [x.position for x in chosen] == ranked[:2]
    differing = compare.comparison_grid(opened, 2, differing=True)
    assert first.shape[1] == differing.shape[1]
    for picture, positions in ((first, [0, 1]), (differing, ranked[:2])):
        for row, position in enumerate(positions):
            image = examples[position].image
            shown = fit(image)
            height, width = shown.shape[:2]
            cell = picture[20 + row * (height + 4) :, 4:][:height, :width]
            np.testing.assert_array_equal(cell, shown)


def test_each_run_multiplies_as_its_own_config_says(runs, monkeypatch):
    _, config, model, teacher = runs[0]
    precise, seen = config.copy_and_resolve_references(), []
    precise.matmul_precision = "highest"
    monkeypatch.setattr(
        compare, "evaluate", lambda *_: seen.append(jax.config.jax_default_matmul_precision)
    )
    before = jax.config.jax_default_matmul_precision
    for own in (precise, config):
        run = compare.Opened("a", own, model, teacher, 20, ())
        compare.predict_split(run, open_split(config))
    assert seen == ["highest", before] and jax.config.jax_default_matmul_precision == before


def test_only_the_images_that_are_shown_are_read(runs, monkeypatch):
    read, load = [], eval_pipeline.load
    monkeypatch.setattr(
        eval_pipeline,
        "load",
        lambda view, data, keys, **x: read.extend(keys) or load(view, data, keys, **x),
    )
    whole = {
        example.position: example
        for example in compare.split_examples(runs[0][1], open_split(runs[0][1]))
    }
    assert len(whole) == 5 and len(set(read)) == 5
    read.clear()
    (first,) = compare.split_examples(runs[0][1], open_split(runs[0][1]), 1)
    assert len(read) == 2, "of the five images no more than one batch"
    np.testing.assert_array_equal(first.image, whole[0].image)
    np.testing.assert_array_equal(first.label, whole[0].label)
    some = list(compare.split_examples(runs[0][1], open_split(runs[0][1]), 3))
    assert sorted(example.position for example in some) == [0, 1, 2]


def test_runs_of_another_machine_are_shown_on_the_images_that_are_here(runs, tmp_path):
    stored = json.loads((runs[0][0] / "config.json").read_text())
    shutil.copytree(runs[0][0], tmp_path / "copy")
    here = stored["data"]["dir"]
    stored["data"]["dir"] = str(tmp_path / "elsewhere")
    (tmp_path / "copy" / "config.json").write_text(json.dumps(stored))
    with pytest.raises(DataError, match="elsewhere"):
        open_split(compare.open_run("a", tmp_path / "copy").config)
    opened = compare.open_run("a", tmp_path / "copy", data_dir=here)
    (example,) = compare.split_examples(opened.config, open_split(opened.config), 1)
    assert example.image.size


def test_difference_counts_annotated_pixels_on_which_not_all_agree():
    label = np.array([[0, 1, VOID, 2]], np.uint8)
    one, other = np.array([[0, 1, 0, 2]], np.uint8), np.array([[0, 0, 1, 2]], np.uint8)
    assert compare.difference(label, [one, other]) == pytest.approx(1 / 3)
    assert compare.difference(label, [one, one]) == 0
    assert compare.difference(label, [other]) == pytest.approx(1 / 3)
    third = np.array([[0, 1, 0, 1]], np.uint8)
    assert compare.difference(label, [one, other, third]) == pytest.approx(2 / 3)
    assert compare.difference(np.full_like(label, VOID), [one, other]) == 0


def test_the_best_evaluation_is_that_of_the_better_network():
    history = [line(10, 0.3, 0.1), line(20, 0.1, None), line(30, 0.1, 0.2)]
    assert compare.evaluation_of(history, "best")["step"] == 10
    assert compare.evaluation_of(history, "newest")["step"] == 30
    scores = compare_runs.scores({"a": history[0]}, "student")
    assert scores == {"a, step 10": {"miou": 0.3, "iou": history[0]["student_iou"]}}


def test_runs_of_other_classes_are_not_compared(runs):
    (_, config, model, teacher), _ = runs
    other = config.copy_and_resolve_references()
    other.data.num_classes = 3
    named = (("a", config), ("b", other))
    pair = [compare.Opened(n, c, model, teacher, 20, ()) for n, c in named]
    with pytest.raises(ConfigError, match=r"a has data.num_classes = 11 and b 3"):
        compare.check_same_classes(*pair)


def test_runs_of_other_classes_are_refused_before_anything_is_written(tmp_path, capsys):
    for name, classes in (("a", ["sky", "road"]), ("b", ["sky", "cow"])):
        (tmp_path / name).mkdir()
        scores = {"teacher_iou": dict.fromkeys(classes, 0.5)} | {"step": 1}
        (tmp_path / name / "evaluations.jsonl").write_text(json.dumps(scores) + "\n")
    named = [f"{name}={tmp_path / name}" for name in "ab"]
    with pytest.raises(CompareError, match=r"^b has other classes than a \(cow, road\): leave"):
        compare_runs.compare_runs(named, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not capsys.readouterr().out


def with_config(workdir, copy, **changes):
    """Copies a run directory; its config.json gets other values."""
    shutil.copytree(workdir, copy)
    stored = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(stored | changes))
    return copy


def blank() -> np.ndarray:
    """The prediction of one image of `write_folder`."""
    return np.zeros((24, 32), np.uint8)


def test_images_whose_classes_have_another_order_are_refused_before_anything_is_written(
    runs, tmp_path, capsys, monkeypatch
):
    first, second, *others = open_split(runs[0][1]).dataset.class_names
    copy = with_config(runs[0][0], tmp_path / "run", class_names=[second, first, *others])
    with pytest.raises(CheckpointError, match=r"^b has other class ids .*reordered"):
        compare_runs.compare_runs([f"a={runs[0][0]}", f"b={copy}"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match=r"run has other class ids"):
        best_and_worst(runs[0][1], copy)
    renamed = with_config(runs[0][0], tmp_path / "renamed", class_names=[first, "new", *others])
    monkeypatch.setattr(compare, "predict_split", lambda *_: collections.defaultdict(blank))
    compare_runs.compare_runs([f"c={renamed}"], tmp_path / "out", images=1)
    assert capsys.readouterr().out.count("note: classes were renamed: class 1 was 'new'") == 1


def test_the_grid_shows_the_evaluation_of_the_table_where_its_checkpoint_is_kept(
    runs, tmp_path, monkeypatch
):
    workdir, config, *_ = runs[0]
    later, latest = tmp_path / "later", tmp_path / "latest"
    for folder in (later, latest):
        shutil.copytree(workdir, folder)
        _, _, state = create_train_state(config)
        with Checkpoints(folder, 2) as checkpoints:  # every 10 steps, an evaluation every 20
            metadata = {"config": config.to_dict(), "best": None}
            checkpoints.save(state.replace(step=np.int32(30)), metadata)
    (latest / "evaluations.jsonl").write_text(json.dumps(line(25, 0.1, 0.2)) + "\n")
    opened = [compare.open_run("a", later), compare.open_run("b", latest)]
    assert [run.step for run in opened] == [20, 30], "of 25 there is no checkpoint"
    first, second = (jax.tree.leaves(run.variables) for run in opened)
    assert any((x != y).any() for x, y in zip(first, second))

    captions = []
    monkeypatch.setattr(compare, "predict_split", lambda *_: collections.defaultdict(blank))
    draw = compare.grid
    monkeypatch.setattr(compare, "grid", lambda *x: captions.extend(x[1]) or draw(*x))
    compare.comparison_grid(opened, 1)
    assert captions == ["image", "ground truth", "a, step 20", "b, step 30"]


def test_paths_that_cannot_be_looked_at_are_said_in_a_line(runs, tmp_path, monkeypatch):
    def refuse(path) -> None:  # root may look everywhere
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    for method, said in (("iterdir", tmp_path), ("read_text", runs[0][0])):
        with monkeypatch.context() as patch:
            patch.setattr(type(epath.Path(tmp_path)), method, refuse)
            with pytest.raises(CompareError, match=rf"^{said}.*: Permission denied"):
                compare_runs.compare_runs([f"a={runs[0][0]}"], tmp_path, images=0)


def test_runs_that_were_scored_in_other_ways_are_not_called_ahead(runs, tmp_path):
    stored = json.loads((runs[0][0] / "config.json").read_text())
    scored = {"flip": True, "max_shapes": stored["eval"]["max_shapes"] + 1}
    copies = {
        "b": {"eval": stored["eval"] | scored},
        "c": {"data": stored["data"] | {"eval_short_edge": 48}},
        "d": {"dtype": "bfloat16", "eval": stored["eval"] | {"max_shapes": 9}},
    }
    named = [f"a={runs[0][0]}"]
    for name, changes in copies.items():
        named.append(f"{name}={with_config(runs[0][0], tmp_path / name, **changes)}")
    text = compare_runs.compare_runs(named)
    for name, differing in (("b", "eval.flip"), ("c", "data.eval_short_edge")):
        assert f"\n{name} was scored with another {differing} than a, so " in text
    assert "d and a differ by +0.000" in text


def test_runs_may_lie_in_a_bucket():
    (folder,) = compare_runs._folders(["a=gs://bucket/runs/a"]).values()
    assert str(folder) == "gs://bucket/runs/a"


@pytest.mark.slow
def test_a_comparison_writes_its_four_files_and_no_others(runs, tmp_path, capsys):
    named = [f"RC²L {i}={run[0]}" for i, run in enumerate(runs)]
    output = tmp_path / "out"
    compare_runs.compare_runs(named, output, images=1, differing=True)
    printed = capsys.readouterr().out
    assert "| 20 | 0.100 / 0.200 | 0.100 / 0.200 |" in printed
    assert (output / "table.md").read_text() == printed
    assert {path.name for path in output.iterdir()} == set(compare_runs.FILES)
    compare_runs.compare_runs(named, output, images=0)  # it replaces files of its own
    assert not (output / "grid.png").exists(), "it would be of other runs than the table"

    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CompareError, match=r"notes\.txt.*: Not a directory"):
        compare_runs.compare_runs(named, tmp_path / "notes.txt" / "out", images=0)
    with pytest.raises(CompareError, match="no empty folder"):
        compare_runs.compare_runs(named, tmp_path)
    with pytest.raises(CompareError, match="two runs are called 'RC²L 0'"):
        compare_runs.compare_runs([named[0], named[0]])
    with pytest.raises(CompareError, match=r"'runs/a' is not NAME=RUN"):
        compare_runs.compare_runs(["runs/a"])
    with pytest.raises(CompareError, match=r"runs/nothing: no evaluations"):
        compare_runs.compare_runs(["a=runs/nothing"])
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text("{}")
    with pytest.raises(CompareError, match="begun: no evaluations yet; go on with the run"):
        compare_runs.compare_runs([f"a={tmp_path}/begun"])
    assert (tmp_path / "notes.txt").read_text() == "mine"
