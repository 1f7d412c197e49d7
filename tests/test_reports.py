"""rc2l_jax/reports/ (log.py, writer.py, history.py, tables.py): lines, files and tables.

A resumed run does not write anything twice.
"""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from rc2l_jax.evaluation.scores import losses_of, score
from rc2l_jax.reports import history, log, tables
from rc2l_jax.reports import writer as report


class Writer:
    """Stands for TensorBoard's writer, and keeps what it is given."""

    def __init__(self):
        self.scalars: dict = {}
        self.images: dict = {}

    def write_scalars(self, step, scalars):
        self.scalars[step] = scalars

    def write_images(self, step, images):
        self.images[step] = images


def scores(student: float) -> dict:
    return {
        "student": {"miou": student, "iou": {"sky": student, "road": None}},
        "teacher": {"miou": None, "iou": {"sky": None, "road": None}},
    }


def test_progress_line(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(log.time, "perf_counter", lambda: now[0])
    clock = log.Clock(100, 1500)
    assert clock.line(100, 2.0) == "step 100/1500  6%  loss 2"
    now[0] += 25.0
    assert clock.rate(300) == 8.0
    line = "step 300/1500  20%  loss 1.234  steps/s 8  ETA 0:02:30"
    assert clock.line(300, 1.2341) == line
    clock.restart(300)
    assert clock.rate(300) is None


def test_evaluations_are_appended_and_taken_back(tmp_path, capsys):
    writer = Writer()
    run = report.Report(tmp_path, writer)
    run.rewind(0)  # nothing there yet
    for step in (1, 2, 3):
        run.evaluation(step, scores(step / 10), {"loss/total": float("nan"), "grad_norm": 1.0})
    assert "step 2  student mIoU 0.2000  teacher mIoU none" in capsys.readouterr().out
    assert writer.scalars[3] == {"eval/student/miou": 0.3, "eval/student/iou/sky": 0.3}
    with (tmp_path / "evaluations.jsonl").open("a") as file:
        file.write('{"step": 4, "stud')  # a crash in the middle of a line
    run.rewind(2)
    lines = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert lines == history.read_evaluations(tmp_path)
    assert lines[1] == {
        "step": 2,
        "student_miou": 0.2,
        "teacher_miou": None,
        "student_iou": {"sky": 0.2, "road": None},
        "teacher_iou": {"sky": None, "road": None},
        "metrics": {"loss/total": None, "grad_norm": 1.0},
    }


def test_pictures_go_to_a_file_and_to_the_writer(tmp_path):
    writer = Writer()
    run = report.Report(tmp_path, writer)
    picture = np.zeros((4, 5, 3), np.uint8)
    run.picture(7, "evaluation", picture)
    run.picture(8, "evaluation", None)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == [
        "step_00000007_evaluation.png"
    ]
    assert writer.images.keys() == {7}
    assert writer.images[7]["figures/evaluation"].shape == (1, 4, 5, 3)


def test_losses_are_named_without_their_prefix():
    metrics = {"loss/total": 1.0, "loss/label_dice": float("inf"), "grad_norm": 3.0}
    assert losses_of(metrics) == {"total": 1.0, "label_dice": None}


def test_confusion_matrices_come_back_and_a_picture_of_the_run_is_replaced(tmp_path):
    run = report.Report(tmp_path, None)
    counts = {"student": np.array([[2**40, 1], [0, 3]]), "teacher": np.eye(2, dtype=np.int64)}
    run.confusions(7, counts, ("sky", "Straße"), dataset="camvid", split="val")
    found, names = history.read_confusions(tmp_path, 7)
    assert names == ("sky", "Straße") and found.keys() == counts.keys()
    for name, confusion in counts.items():
        assert found[name].dtype == np.int64
        np.testing.assert_array_equal(found[name], confusion)
    document = json.loads((tmp_path / "figures" / "step_00000007_confusion.json").read_text())
    assert (document["step"], document["dataset"], document["split"]) == (7, "camvid", "val")

    for step, size in ((7, 4), (8, 5)):
        run.picture(step, "curves", np.zeros((size, 3, 3), np.uint8), of_run=True)
    (picture,) = (tmp_path / "figures").glob("*.png")
    assert picture.name == "curves.png"
    with Image.open(picture) as image:
        assert image.size == (3, 5)


def test_the_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(report.jax, "process_index", lambda: 1)
    run = report.Report(tmp_path, Writer())
    run.confusions(7, {"student": np.eye(2, dtype=int)}, ("a", "b"))
    run.picture(7, "curves", np.zeros((2, 2, 3), np.uint8), of_run=True)
    with report.create_writer(tmp_path, "eval") as writer:
        writer.write_images(7, {"a": np.zeros((1, 2, 2, 3), np.uint8)})
    assert not list(tmp_path.iterdir())


def test_scores_become_a_table():
    given = scores(0.25)
    assert tables.iou_table({"a": given["student"], "b": given["teacher"]}).splitlines() == [
        "| IoU      |         a |   b |",
        "| -------- | --------: | --: |",
        "| sky      |     0.250 |     |",
        "| road     |           |     |",
        "| **mean** | **0.250** |     |",
    ]
    entry = score(np.array([[3, 1], [0, 0]]), ("sky", "road"))
    assert tables.measures_table("teacher", entry).splitlines() == [
        "| teacher  |       IoU | Dice (F1) | precision |    recall |",
        "| -------- | --------: | --------: | --------: | --------: |",
        "| sky      |     0.750 |     0.857 |     1.000 |     0.750 |",
        "| road     |     0.000 |     0.000 |     0.000 |     0.000 |",
        "| **mean** | **0.375** | **0.429** | **0.500** | **0.375** |",
    ]
