"""notebooks/: executed on a CPU in a reduced form; what they show is what the runs' files hold."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import tiny
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import ExifTags, Image
from test_models import peer_model, randomize

from rc2l_jax.reports import class_charts, run_curves
from rc2l_jax.reports.history import read_confusions, read_evaluations

ROOT = Path(__file__).parents[1]
NAMES = ("quickstart", "own_images", "evaluate", "huggingface")
TINY = tiny.COMMAND_LINE | {
    "num_steps": 6,
    "batch_size": 2,
    "unlabeled_batch_size": 2,
    "log_every_steps": 3,
    "eval_every_steps": 3,
    "num_pictures": 2,
    "data.shapes.num_train": 12,
}


def read(name: str) -> NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


# What is committed.


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_committed_clean(name):
    notebook = read(name)
    nbformat.validate(notebook)
    ids = [cell["id"] for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert len(code) / len(ids) < 0.7, "prose between the cells"
    assert max(cell.source.count("\n") for cell in code) < 35

    title = notebook.cells[0]
    assert title.cell_type == "markdown" and title.source.startswith("# ")
    assert notebook.cells[1]["id"] == "install"
    assert "git clone" in code[0].source and "pip install" in code[0].source
    further = "    %pip install --quiet transformers torch scikit-learn\n"
    first = read("quickstart").cells[1].source
    assert code[0].source.replace(further, "") == first, "one way to install"
    assert [c["id"] for c in code if "parameters" in c.metadata.get("tags", ())] == ["parameters"]


def test_notebooks_and_readme_name_each_other():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(NAMES)
    readme = (ROOT / "README.md").read_text()
    for name in NAMES:
        assert f"](notebooks/{name}.ipynb)" in readme
        for link in re.findall(r"\((\w+\.ipynb)\)", "".join(c.source for c in read(name).cells)):
            assert (ROOT / "notebooks" / link).is_file()


def run_first_cell(name: str) -> dict[str, Any]:
    """Executes a notebook's first cell of code without a kernel; returns the variables it sets."""
    (source,) = (cell.source for cell in read(name).cells if cell["id"] == "install")
    names: dict[str, Any] = {}
    exec(compile(TransformerManager().transform_cell(source), name, "exec"), names)
    return names


@pytest.mark.parametrize("where", [".", "notebooks", "docs/extending"])
@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_makes_a_checkout_importable(name, where, monkeypatch):
    monkeypatch.chdir(ROOT / where)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert run_first_cell(name)["ROOT"].samefile(ROOT)
    assert Path(sys.path[0]).samefile(ROOT)


@pytest.mark.parametrize("name", NAMES)
def test_outside_of_a_checkout_the_first_cell_says_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^no checkout here: git clone .*%cd into it[^\n]*$"):
        run_first_cell(name)


# What they show.


@dataclasses.dataclass(frozen=True)
class Executed:
    """The outputs of an executed notebook, by the ids of its cells."""

    outputs: dict[str, list[NotebookNode]]

    def data(self, cell: str, kind: str) -> list[Any]:
        return [o["data"][kind] for o in self.outputs[cell] if kind in o.get("data", {})]

    def picture(self, cell: str) -> np.ndarray:
        """The last picture, uint8 [H, W, 3]."""
        content = base64.b64decode(self.data(cell, "image/png")[-1])
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    def text(self, cell: str) -> str:
        return "".join(o["text"] for o in self.outputs[cell] if o.get("name") == "stdout")

    def table(self, cell: str) -> dict[str, list[float | None]]:
        """The last Markdown table: text in the first column -> numbers in the others."""
        lines = self.data(cell, "text/markdown")[-1].splitlines()
        rows = [[field.strip(" *") for field in line.strip("|").split("|")] for line in lines]
        return {title: [float(x) if x else None for x in rest] for title, *rest in rows[2:]}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder that links to this checkout's, so that notebooks write nothing into this one."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "data", "rc2l_jax"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "notebooks").mkdir()
    return folder


def execute(name: str, checkout: Path, where: str = ".", **parameters: object) -> Executed:
    """Runs a notebook in a kernel of its own.

    Args:
      name: of the notebook.
      checkout: the folder to work in, from the fixture of this name.
      where: the kernel's working directory, below `checkout`.
      **parameters: variables to set after the cell that is tagged "parameters".
    """
    notebook = read(name)
    at = [cell["id"] for cell in notebook.cells].index("parameters") + 1
    lines = [f"{key} = {value!r}\n" for key, value in parameters.items()]
    source = "".join(["from pathlib import PosixPath\n", *lines])
    notebook.cells.insert(at, nbformat.v4.new_code_cell(source, id="injected"))
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        # One device, unlike the tests' own process. Compiled programs are shared with the forked
        # runs of other test files: the folder is that of tests/conftest.py.
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "IPYTHONDIR": str(checkout / "ipython"),
    }
    client = NotebookClient(notebook, timeout=900, kernel_name="python3")
    try:
        client.execute(cwd=str(checkout / where), env=environment)
    finally:
        nbformat.write(notebook, checkout / f"{name}.ipynb")  # to look at after a failure
    return Executed({c["id"]: c.outputs for c in notebook.cells if c.cell_type == "code"})


def overrides(checkout: Path, **other: object) -> dict[str, object]:
    return TINY | {"data.prepared_dir": str(checkout / "prepared")} | other


@pytest.fixture(scope="module")
def quickstart(checkout) -> Executed:
    return execute(
        "quickstart", checkout, "notebooks", NUM_LABELED=4, OVERRIDES=overrides(checkout)
    )


def results_of(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "results.json").read_text())


def assert_table_is(table: dict[str, list[float | None]], *scores: dict[str, Any]) -> None:
    """Asserts that each column of a table has the scores of one network, as in results.json."""
    for place, score in enumerate(scores):
        for name, value in (score["iou"] | {"mean": score["miou"]}).items():
            assert table[name][place] == (
                value if value is None else pytest.approx(value, abs=5e-4)
            )


@pytest.mark.slow
def test_quickstart(quickstart, checkout):
    runs = checkout / "runs" / "quickstart"
    for cell in ("data", "legend", "train", "pseudo"):
        assert quickstart.data(cell, "image/png"), cell
    results, baseline = results_of(runs / "rc2l"), results_of(runs / "supervised")
    assert "step 6/6  100%" in quickstart.text("train")
    assert "ETA" in quickstart.text("train")
    assert_table_is(quickstart.table("scores"), results["student"], results["teacher"])
    assert_table_is(quickstart.table("compare"), baseline["teacher"], results["teacher"])
    # Columns are image, ground truth and the two runs; below them are the names of the classes.
    height, width, _ = quickstart.picture("differing").shape
    assert width == 4 + 4 * (256 + 4) and 20 + 4 * (256 + 4) < height < 20 + 4 * (256 + 4) + 60
    histories = {"supervised": "supervised", "RC²L": "rc2l"}
    chart = run_curves.runs_chart(
        {name: read_evaluations(runs / x) for name, x in histories.items()}
    )
    np.testing.assert_array_equal(quickstart.picture("curve"), chart)


@pytest.fixture(scope="module")
def own_overrides(checkout) -> dict[str, object]:
    changed = overrides(checkout, num_steps=4, eval_every_steps=4)
    return {k: v for k, v in changed.items() if not k.startswith("data.shapes.")}


@pytest.fixture(scope="module")
def own_images(checkout, own_overrides) -> Executed:
    counts = {"train": 4, "unlabeled": 6, "val": 3}
    return execute("own_images", checkout, "notebooks", OVERRIDES=own_overrides, COUNTS=counts)


def assert_segments_are(said: str, predictions: Path, names: set[str]) -> None:
    """Asserts that there is one line for each photo, with the segments in its JSON file."""
    lines = dict(line.split(": ", 1) for line in said.splitlines())
    assert set(lines) == names
    for name, line in lines.items():
        written = json.loads((predictions / "segments" / f"{name}.json").read_text())
        assert all(f"{x['class']} {x['share']:.0%}" in line for x in written["segments"])


@pytest.mark.slow
def test_own_images(own_images, checkout):
    folder = checkout / "runs" / "own_images"
    assert (folder / "data" / "classes.txt").read_text().endswith("\n"), "as editors leave it"
    assert own_images.text("folder").endswith("data holds classes.txt, images, labels\n")
    said = own_images.text("check")
    assert "labeled: 4 examples" in said and "unlabeled: 6 examples" in said
    assert "config and data are fine" in said and "star" in said
    kept = json.loads((folder / "example" / "config.json").read_text())
    assert kept["data"]["num_classes"] == len(kept["class_names"]) == 7
    results = results_of(folder / "example")
    assert_table_is(own_images.table("train"), results["student"], results["teacher"])

    predictions = folder / "example" / "predictions"
    assert len(list((predictions / "masks").glob("*.png"))) == 3
    assert {path.suffix for path in (folder / "new").iterdir()} == {".jpg", ".png", ".webp"}
    for cell in ("overlays", "legend"):
        assert own_images.data(cell, "image/png"), cell
    names = {f"new_{i}" for i in range(3)}
    assert_segments_are(own_images.text("segments"), predictions, names)


@pytest.mark.slow
def test_photos_of_any_kind_are_shown_as_they_are_meant(
    own_images, checkout, own_overrides, tmp_path
):
    turned, pictures = np.zeros((300, 600, 3), np.uint8), tmp_path / "photos"
    turned[:, :300] = 255, 0, 0  # the left half as stored, the upper half as displayed
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    (pictures / "deep").mkdir(parents=True)
    Image.fromarray(turned).save(pictures / "a.jpeg", quality=95, exif=exif)
    Image.fromarray(np.full((90, 60), 99, np.uint8)).save(pictures / "deep" / "grey.png")
    (pictures / "no_photo.jpg").write_text("a")
    damaged = (pictures / "a.jpeg").read_bytes()
    (pictures / "damaged.jpg").write_bytes(damaged[: len(damaged) // 2])

    folder = checkout / "runs" / "own_images"
    executed = execute(
        "own_images",
        checkout,
        OVERRIDES=own_overrides,
        MY_FOLDER=str(folder / "data"),  # of the other test, whose run is finished
        SMALL=True,
        WORKDIR=folder / "example",
        MY_PHOTOS=str(pictures),
    )
    # The first photo is displayed as 600 x 300 and shrunk to half; the second is enlarged.
    shown = executed.picture("overlays")
    assert shown.shape == (20 + 300 + 4 + 270 + 4, 4 + 2 * (180 + 4), 3)
    assert shown[30, 50, 0] > 200 and shown[30, 50, 1] < 50 and shown[210, 50].max() < 50
    assert (shown[20 + 304 + 45, 30] == 99).all()
    new = executed.text("segments").splitlines()
    lines = "\n".join(line for line in new if not line.startswith("new_"))
    assert_segments_are(lines, folder / "example" / "predictions", {"a", "deep/grey"})


@pytest.mark.slow
def test_evaluate(quickstart, checkout):
    workdir = checkout / "runs" / "quickstart" / "rc2l"
    before = results_of(workdir)
    executed = execute("evaluate", checkout, NUM_IMAGES=2)
    assert "4@0 labelled, 6 steps" in executed.text("open")
    results = results_of(workdir)
    assert results["teacher"] == before["teacher"]
    assert f"teacher mIoU {results['teacher']['miou']:.4f}" in executed.text("scores")
    assert_table_is(executed.table("scores"), results["student"], results["teacher"])
    for cell in ("pictures", "worst", "best", "sure", "pseudo"):
        assert executed.data(cell, "image/png"), cell
    scores = {name: results[name] for name in ("student", "teacher")}
    drawn = {
        "bars": class_charts.iou_chart(scores),
        "confusion": class_charts.confusion_chart(*read_confusions(workdir, results["step"])),
        "curve": run_curves.curves_chart(read_evaluations(workdir)),
        "history": np.asarray(Image.open(workdir / "figures" / "pseudo_labels.png")),
    }
    for cell, picture in drawn.items():
        np.testing.assert_array_equal(executed.picture(cell), picture, err_msg=cell)

    def number(cell):
        return [float(x) for x in re.findall(r"mIoU ([\d.]+)", executed.text(cell))]

    worst, best = number("worst"), number("best")
    assert len(worst) == len(best) == 2
    assert worst[0] <= worst[1] <= best[1] <= best[0]


@pytest.fixture(scope="module")
def peer(tmp_path_factory) -> Path:
    """A folder as transformers saves it, with a small and untrained network."""
    config = tiny.config(
        model__norm="frozen", model__pixel_dim=32, model__num_queries=9, data__num_classes=5
    )
    model = peer_model(config)
    randomize(model)
    folder = tmp_path_factory.mktemp("peer")
    model.save_pretrained(folder)
    processor = {"size": {"shortest_edge": 64, "longest_edge": 128}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.mark.slow
def test_huggingface(peer, checkout):
    described = json.loads((peer / "config.json").read_text())
    changed = overrides(
        checkout,
        **{
            "data.labeled_split": "train#4@0",
            "data.unlabeled_split": "train#rest4@0",
            "unsup_weight": 0.0,  # compiles in half the time; the quickstart has the whole method
            "num_steps": 4,
            "eval_every_steps": 4,
            "data.crop_size": 64,  # with 32, the peer's group norm would refuse its single pixel
            "data.shapes.image_size": 64,
            "model.num_heads": 2,
            "model.pixel_dim": 32,
            "model.num_decoder_layers": described["decoder_config"]["decoder_layers"],
        },
    )
    executed = execute("huggingface", checkout, MODEL=str(peer), OVERRIDES=changed)
    for cell in ("predict", "figure"):
        assert executed.data(cell, "image/png"), cell
    assert re.search(r"LABEL_\d +[\d.]+%", executed.text("segments"))

    runs = checkout / "runs" / "huggingface"
    assert results_of(runs / "run")["step"] == 4
    init = json.loads((runs / "run" / "init.json").read_text())
    assert set(init["reinitialized"]) == {"class_head/kernel", "class_head/bias"}
    exported = json.loads((runs / "export" / "config.json").read_text())
    assert exported["id2label"]["1"] == "disk"
    found = re.findall(r"size ([\d.]+), largest difference (\S+)", executed.text("logits"))
    assert len(found) == 2
    for size, difference in found:
        assert float(size) > 0.1, "the comparison would be vacuous"
        assert float(difference) < 1e-4
    assert re.search(r"[\d.]+%", executed.text("pipeline"))
