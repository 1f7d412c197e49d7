"""rc2l_jax/prediction/: predictions are those that evaluation counts; bad input stops nothing."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import time
import types
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from ml_collections import ConfigDict
from PIL import Image
from safetensors.numpy import save_file
from shared import shared
from test_class_scores import MEAN, STD, torch_scores
from test_data import folder_config
from test_evaluate import camvid_network, use_tiny_model
from test_models import TINY, peer_model, peer_predictions, randomize, tiny_config
from transformers import AutoImageProcessor, MaskFormerForInstanceSegmentation

from configs import base
from data.errors import DataError
from rc2l_jax.evaluation import label_resolution
from rc2l_jax.evaluation.evaluate import evaluate
from rc2l_jax.input_pipeline import eval_batches, geometry
from rc2l_jax.input_pipeline.subsets import open_split
from rc2l_jax.method.optimizer import create_optimizer
from rc2l_jax.method.state import initial_state
from rc2l_jax.models import build_model, resnet
from rc2l_jax.prediction import network as networks
from rc2l_jax.prediction import photos, predict, stream
from rc2l_jax.prediction.frames import OpenFrames
from rc2l_jax.prediction.network import Network, open_network
from rc2l_jax.prediction.predict import PredictError, predict_folder, predict_images
from rc2l_jax.reports import pictures
from rc2l_jax.reports.painting import Painter
from rc2l_jax.run import stored_config
from rc2l_jax.run.checkpoints import CheckpointError, Checkpoints
from rc2l_jax.run.config import ConfigError
from rc2l_jax.run.config_values import CHOICES
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.storage import write_json
from rc2l_jax.structs import EvalBatch
from rc2l_jax.weights import WeightsError, export
from rc2l_jax.weights.export import export_checkpoint
from rc2l_jax.weights.from_transformers import describe_processing
from rc2l_jax.weights.load import start_from
from rc2l_jax.weights.stablehlo import export_stablehlo, load_exported

NUM_CLASSES = 11
DOCUMENT = Path(__file__).parents[1] / "docs" / "predict.md"


@pytest.fixture(autouse=True, scope="module")
def tiny_world():
    """Tiny backbones; one device, unless a test asks for more."""
    with pytest.MonkeyPatch.context() as patch:
        for name, architecture in TINY.items():
            patch.setitem(resnet.BACKBONES, name, architecture)
        patch.setitem(CHOICES, "model.backbone", (*CHOICES["model.backbone"], *TINY))
        patch.setattr(jax, "local_device_count", lambda: 1)
        # Configs of tiny networks are not checked.
        patch.setattr(networks, "validate", lambda config, num_devices: None)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_world) -> types.SimpleNamespace:
    """A run directory whose network predicts several classes, and images of CamVid for it."""
    scratch = tmp_path_factory.mktemp("run")
    root, rng = scratch / "data", np.random.default_rng(0)
    for kind in ("images", "labels"):
        for split in ("train", "val"):
            (root / kind / split).mkdir(parents=True)
    camvid = shared("camvid")
    chosen = sorted((camvid / "images" / "val").iterdir())[:3]
    for split in ("train", "val"):
        for image in chosen[: 3 if split == "val" else 1]:
            shutil.copy(image, root / "images" / split)
            shutil.copy(camvid / "labels" / "val" / f"{image.stem}.png", root / "labels" / split)
    for i, size in enumerate([(70, 41), (40, 133)]):  # and drawn images of other sizes
        for kind, shape in (("images", (*size, 3)), ("labels", size)):
            pixels = rng.integers(0, 256 if kind == "images" else NUM_CLASSES, shape, np.uint8)
            Image.fromarray(pixels).save(root / kind / "val" / f"drawn{i}.png")
    config = folder_config(
        root, scratch / "prepared", labeled_split="train", unlabeled_split="", eval_short_edge=72
    )
    use_tiny_model(config)
    config.unsup_weight, config.eval_batch_size, config.eval.max_shapes = 0.0, 2, 2
    weights = camvid_network(config)
    state = jax.eval_shape(
        lambda: initial_state(build_model(config), create_optimizer(config), config)
    )
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)
    state = start_from(state, {"batch_stats": {}} | weights)
    stored = json.loads(json.dumps(config.to_dict()))
    workdir = scratch / "workdir"
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(state, {"config": stored, "best": None, "metrics": {}})
    write_json(workdir / "config.json", stored | {"splits": {}})
    return types.SimpleNamespace(
        workdir=workdir,
        config=config,
        weights=weights,
        images=root / "images" / "val",
        network=open_network(workdir=workdir),
        class_names=open_split(config).dataset.class_names,
    )


@pytest.fixture(scope="module")
def output(run, tmp_path_factory) -> Path:
    """What the command wrote for the evaluation's images."""
    folder = tmp_path_factory.mktemp("predicted") / "out"
    count = predict_folder(str(run.images), folder, workdir=run.workdir, probabilities=True)
    assert count == 5
    return folder


def read_mask(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image)


def test_masks_are_what_evaluation_counts(run, output):
    seen = {}

    def observe(batch, predictions) -> bool:
        for at in np.ndindex(batch.index.shape):
            if batch.index[at] >= 0:
                height, width = batch.label_size[at]
                seen[int(batch.index[at])] = predictions["teacher"][at][:height, :width]
        return True

    batches = eval_batches.eval_batches(run.config, open_split(run.config), 1)
    evaluate(build_model(run.config), {"teacher": run.weights}, batches, run.config, observe)
    split = open_split(run.config)
    ids = [split.id(i) for i in range(len(split.keys))]
    assert len(seen) == len(ids) == 5
    said = set()
    for position, name in enumerate(ids):
        mask = read_mask(output / "masks" / f"{name}.png")
        said |= set(np.unique(mask))
        assert mask.shape == seen[position].shape
        assert (mask != seen[position]).sum() <= 1, "a pixel may tie"
    assert len(said) > 3, "the predictions must vary"


def test_each_image_has_mask_overlay_segments_and_probabilities(run, output):
    files, painter = sorted(run.images.iterdir()), Painter(run.class_names)
    for kind, suffix in (("masks", "png"), ("overlays", "jpg"), ("segments", "json")):
        assert sorted(p.name for p in (output / kind).iterdir()) == [
            f"{file.stem}.{suffix}" for file in files
        ]
    for file in files:
        image = Image.open(file)
        mask = read_mask(output / "masks" / f"{file.stem}.png")
        assert mask.shape == image.size[::-1] and mask.max() < NUM_CLASSES
        expected = painter.overlay(np.asarray(image), mask)
        with Image.open(output / "overlays" / f"{file.stem}.jpg") as overlay:
            assert overlay.size == image.size
            error = np.abs(np.asarray(overlay, int) - expected).mean()
            assert error < (8 if file.suffix == ".jpg" else 40)  # JPEG changes noise a lot
        stored = np.load(output / "probabilities" / f"{file.stem}.npz")
        shares = stored["probabilities"]
        assert shares.dtype == np.float16 and shares.shape == (NUM_CLASSES, *mask.shape)
        np.testing.assert_allclose(shares.sum(0, dtype=np.float32), 1, atol=5e-3)
        picked = np.take_along_axis(shares, mask[None], 0)[0]
        assert (picked >= shares.max(0)).all()
        assert tuple(stored["class_names"]) == run.class_names
        described = json.loads((output / "segments" / f"{file.stem}.json").read_text())
        check_segments(described, mask, run)
        assert described["image"] == str(file)
        assert described["model"] == f"{run.workdir}, step 0, teacher"
    with Image.open(output / "masks" / f"{file.stem}.png") as image:
        colors = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(colors, painter.colors)
    legend = np.asarray(Image.open(output / "legend.png"))
    for color in painter.colors[1:NUM_CLASSES]:
        assert (legend == color).all(-1).sum() >= 300


def check_segments(described: dict, mask: np.ndarray, run) -> None:
    assert (described["height"], described["width"]) == mask.shape
    assert [segment["id"] for segment in described["segments"]] == list(np.unique(mask))
    for segment in described["segments"]:
        inside = mask == segment["id"]
        rows, columns = np.nonzero(inside)
        assert segment["class"] == run.class_names[segment["id"]]
        assert segment["area"] == inside.sum()
        assert segment["share"] == pytest.approx(inside.mean(), abs=1e-6)
        x, y, width, height = segment["box"]
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())
        assert 1 / NUM_CLASSES <= segment["score"] <= 1


# Any number, any size, any device.


def images_of(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def test_arrays_in_predictions_out_in_order(run):
    images = images_of((70, 41), (40, 133), (71, 40))
    together = predict_images(run.network, images, probabilities=True)
    assert predict_images(run.network, []) == []
    for image, prediction in zip(images, together):
        assert prediction.ids.shape == prediction.confidence.shape == image.shape[:2]
        shares = prediction.probabilities
        np.testing.assert_allclose(shares.max(0), prediction.confidence, atol=1e-3)
    (alone,) = predict_images(run.network, images[:1])
    assert alone.probabilities is None
    assert (alone.ids != together[0].ids).sum() <= 1
    for wrong in (images[0].astype(np.float32), images[0][..., 0], images[0][:0]):
        with pytest.raises(ValueError, match=r"image 1 is .* not uint8 \[H, W, 3\]"):
            predict_images(run.network, [images[0], wrong])


def test_devices_share_the_work_and_change_nothing(run, monkeypatch):
    images = images_of((70, 41), (68, 40), (70, 39))
    one = predict_images(run.network, images)
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    two = predict_images(open_network(workdir=run.workdir), images)
    for a, b in zip(one, two):
        assert (a.ids != b.ids).sum() <= 1


def test_mixed_sizes_share_a_few_shapes_and_huge_images_have_small_batches(run):
    sizes = np.random.default_rng(0).integers(20, 200, (50, 2)).tolist()
    network = dataclasses.replace(run.network, batch_size=8, max_shapes=3)
    jobs = stream._plan(network, sizes, False)
    assert sorted(i for job in jobs for i in job.positions) == list(range(50))
    for job in jobs:
        assert len(job.positions) <= job.size <= 8
        for i in job.positions:
            assert all(np.less_equal(sizes[i], job.group.label))
    # The network is compiled once for each of these.
    assert 1 < len({(job.group.views, job.group.label, job.size) for job in jobs}) <= 3
    (job,) = stream._plan(network, [(4000, 5000)], False)
    assert job.size == 1
    assert {job.size for job in stream._plan(network, [(4000, 5000)] * 9, False)} == {1}
    assert {job.size for job in stream._plan(network, [(1000, 1000)] * 9, False)} == {8}
    assert {job.size for job in stream._plan(network, [(1000, 1000)] * 9, True)} == {4}


def test_strips_are_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    views = [
        (rng.random((2, 3, 32, 64), np.float32), np.array([20, 50])),
        (rng.random((2, 3, 64, 96), np.float32), np.array([40, 96])),
    ]
    label_size, shape = np.array([95, 120]), (97, 130)

    def described() -> tuple[np.ndarray, ...]:
        def describe(scores):
            return (label_resolution.class_ids(scores), scores)

        run = jax.jit(
            lambda: label_resolution.describe_in_strips(views, label_size, shape, describe)
        )
        return tuple(np.asarray(array) for array in run())

    whole = described()
    for rows in (1, 7, 96):
        monkeypatch.setattr(label_resolution, "_STRIP", 3 * 130 * rows)
        for a, b in zip(whole, described()):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_images_are_read_when_they_are_due(run, tmp_path, monkeypatch):
    for i in range(60):
        Image.fromarray(images_of((40, 40))[0]).save(tmp_path / f"{i:02}.png")
    begun, largest = [], 0

    def read(photo: photos.Photo, frames: OpenFrames) -> np.ndarray:
        nonlocal largest
        begun.append(photo)
        written = len(list((tmp_path / "out" / "segments").glob("*")))
        largest = max(largest, len(begun) - written)
        return original(photo, frames)

    original = photos.read
    monkeypatch.setattr(photos, "read", read)
    monkeypatch.setattr("rc2l_jax.input_pipeline.threads._num_cores", lambda: 1)
    assert predict_folder(str(tmp_path), tmp_path / "out", workdir=run.workdir) == 60
    assert largest <= 20, "batches of 2: 3 ahead, 2 on the device, 3 images being written"


# What happens between images and files, with a network that needs no computing.


@pytest.fixture
def no_network(monkeypatch, tiny_world) -> Network:
    """A network for one image at a time, which predicts class 1; `predict_folder` opens it."""

    def run(batch: EvalBatch, shares: bool) -> tuple[np.ndarray, ...]:
        shape = batch.label.shape
        halves = np.full((*shape[:2], 2, *shape[2:]), 0.5, np.float16)
        return np.ones(shape, np.uint8), halves[:, :, 0], *([halves] if shares else [])

    resizes = (geometry.Resize(32, 64, 1.0),)
    network = Network("none", ("field", "wood"), resizes, None, 1, 2, run)
    monkeypatch.setattr(predict, "open_network", lambda *_, **__: network)
    return network


def folder_of(path: Path, names: Sequence[str]) -> Path:
    path.mkdir()
    for name in names:
        Image.fromarray(images_of((30, 40))[0]).save(path / f"{name}.png")
    return path


def stems(output: Path, kind: str = "segments") -> list[str]:
    return sorted(path.stem for path in (output / kind).iterdir())


@pytest.mark.parametrize("probabilities", [False, True])
def test_on_many_cores_little_waits_in_memory(no_network, tmp_path, monkeypatch, probabilities):
    source = folder_of(tmp_path / "in", [f"{i:02}" for i in range(25)])
    begun, written, largest = [], [], 0
    read, write = photos.read, predict.write_prediction

    def count_read(photo: photos.Photo, frames: OpenFrames) -> np.ndarray:
        nonlocal largest
        begun.append(photo)
        largest = max(largest, len(begun) - len(written))
        return read(photo, frames)

    def count_written(output: Path, name: str, *rest: Any) -> dict[str, Any]:
        time.sleep(0.01)
        description = write(output, name, *rest)
        written.append(name)
        return description

    monkeypatch.setattr("rc2l_jax.input_pipeline.threads._num_cores", lambda: 8)
    monkeypatch.setattr(photos, "read", count_read)
    monkeypatch.setattr(predict, "write_prediction", count_written)
    assert predict_folder(str(source), tmp_path / "free", probabilities=probabilities) == 25
    assert largest > 8
    for module in (predict, stream):
        monkeypatch.setattr(module, "WAITING_BYTES", 1)
    begun, written, largest = [], [], 0
    predict_folder(str(source), tmp_path / "tight", probabilities=probabilities)
    assert largest <= 2, "one is prepared while the one before is at the network or written"


def test_a_huge_result_is_gone_before_the_next_is_made(no_network, tmp_path, monkeypatch):
    source, alive = folder_of(tmp_path / "in", "abcd"), []

    def run(batch: EvalBatch, shares: bool) -> tuple[np.ndarray, ...]:
        give_up = time.monotonic() + 5
        while any(made() is not None for made in alive) and time.monotonic() < give_up:
            time.sleep(0.01)  # the thread that wrote the result may need a moment to free it
        assert not any(made() is not None for made in alive)
        outputs = no_network.run(batch, shares)
        alive.extend(weakref.ref(array) for array in outputs)
        return outputs

    network = dataclasses.replace(no_network, run=run)
    monkeypatch.setattr(predict, "open_network", lambda *_, **__: network)
    for module in (predict, stream):
        monkeypatch.setattr(module, "WAITING_BYTES", 1)
    assert predict_folder(str(source), tmp_path / "out") == 4
    assert len(alive) == 8


def test_what_waits_is_weighed(no_network):
    for job in stream._plan(no_network, [(4000, 5000)] * 3, True):
        ((height, width),) = job.group.views
        # The decoded image twice, and the resized one.
        assert job.weight == 6 * 4000 * 5000 + 3 * height * width
    (image,) = images_of((30, 40))

    def read(_):
        return image

    # Bytes a pixel: 3 of colours, 1 of the id, 2 of the confidence; and 2 for each of two classes.
    for probabilities, pixel in ((False, 6), (True, 10)):
        (result,) = stream.predict_stream(no_network, [(30, 40)], read, probabilities)
        assert result.weight == 30 * 40 * pixel


def test_a_moving_image_is_opened_once_a_thread(no_network, tmp_path, monkeypatch):
    frames = [Image.fromarray(np.full((30, 40, 3), 5 * i, np.uint8)) for i in range(40)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    opened, original = [], Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or original(path))
    monkeypatch.setattr("rc2l_jax.input_pipeline.threads._num_cores", lambda: 4)
    assert predict_folder(str(tmp_path / "clip.gif"), tmp_path / "out") == 40
    assert len(opened) <= 1 + 4, "measured once, then read"
    assert stems(tmp_path / "out") == [f"clip_{i:06}" for i in range(40)]


def test_the_documents_python_runs(no_network, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(images_of((30, 40))[0]).save("photo.jpg")
    monkeypatch.setattr(networks, "open_network", lambda workdir: no_network)
    exec(compile(code, str(DOCUMENT), "exec"), {})
    assert capsys.readouterr().out == "wood 0.5\n"


def test_a_bar_tells_how_far_it_is(no_network, tmp_path, capsys):
    source = folder_of(tmp_path / "in", "abc")
    (source / "notes.txt").write_text("no image")
    predict_folder(str(source), tmp_path / "out")
    said = capsys.readouterr().err.split("\r")
    bar = said[-1].splitlines()[0]
    assert bar.startswith("100%") and "3/3" in bar and "image" in bar
    assert "warning: 1 file skipped\n" in said[-1]
    # It compiles once, as all images have one shape, and before any image is done.
    (compiling,) = [line for line in said if line.startswith("compiling")]
    assert compiling.startswith("compiling for 30x40: ") and "0/3" in compiling
    (source / "a.png").rename(tmp_path / "a.png")
    predict_folder(str(tmp_path / "a.png"), tmp_path / "one")
    assert "none: 1 image -> " in capsys.readouterr().out


def test_results_keep_their_photo_when_others_come_or_go(no_network, tmp_path, capsys, monkeypatch):
    source, out = folder_of(tmp_path / "in", "ab"), tmp_path / "out"
    predict_folder(str(source), out)
    before = {path: path.read_bytes() for path in out.rglob("[ab].*")}
    shutil.copy(source / "a.png", source / "a.bmp")  # now both keep their suffix in new results
    assert predict_folder(str(source), out, resume=True) == 1
    assert stems(out) == ["a", "a.bmp", "b"], "a.png was there already, as a"
    assert before == {path: path.read_bytes() for path in before}
    (source / "a.png").unlink()
    (source / "b.png").rename(source / "b.bmp")
    with pytest.raises(
        PredictError, match=r"segments/a\.json is of .*in/a\.png, and not of .*a\.bmp"
    ):
        predict_folder(str(source / "a.bmp"), out, resume=True)
    with pytest.raises(PredictError, match=r"choose another --output, or --overwrite"):
        predict_folder(str(source), out, resume=True)
    assert before == {path: path.read_bytes() for path in before}

    # Cameras count from 1 again: a photo of this name in another folder is another photo.
    other = folder_of(tmp_path / "day2", "b")
    with pytest.raises(
        PredictError, match=r"segments/b\.json is of .*in/b\.png, and not of .*day2"
    ):
        predict_folder(str(other), out, resume=True)

    # A photo is recognised however it is named, from any working directory.
    monkeypatch.chdir(source)
    write_json(out / "segments" / "b.json", {"image": str(source / "b.bmp")})
    assert predict_folder("b.bmp", out, resume=True) == 0
    monkeypatch.chdir(other)
    with pytest.raises(PredictError, match=r"in/b\.bmp, and not of b\.png"):
        predict_folder("b.png", out, resume=True)

    # A list that does not name its image, as earlier versions wrote it, is accepted.
    old = out / "segments" / "b.json"
    write_json(old, {k: v for k, v in json.loads(old.read_text()).items() if k != "image"})
    assert predict_folder(str(source / "b.bmp"), out, resume=True) == 0


@pytest.mark.parametrize("name", ["mine", "mine/deeper"])
def test_an_output_that_cannot_be_is_said_before_the_network_is_opened(tmp_path, name):
    (tmp_path / "mine").write_text("keep")
    source = folder_of(tmp_path / "in", "a")
    with pytest.raises(PredictError, match=rf"--output={tmp_path}/{name}.*choose .*folder"):
        predict_folder(str(source), tmp_path / name, model="none", overwrite=True)
    assert (tmp_path / "mine").read_text() == "keep"


@pytest.mark.parametrize("method", ["exists", "is_dir"])
def test_paths_that_cannot_be_looked_at_are_said_in_a_line(
    no_network, tmp_path, monkeypatch, method
):
    source, out = folder_of(tmp_path / "in", "a"), tmp_path / "out"
    original = getattr(Path, method)

    def refuse(path: Path) -> bool:  # root may look everywhere
        if path.name in ("locked", "out"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return original(path)

    monkeypatch.setattr(Path, method, refuse)
    for paths in ((source, out), (tmp_path / "locked", tmp_path / "new")):
        with pytest.raises(
            PredictError, match=r"^/.*(out|locked) cannot be looked at \(Permission"
        ):
            predict_folder(str(paths[0]), paths[1])
    long = tmp_path / ("n" * 256)
    for paths in ((source, long), (long, tmp_path / "new")):
        with pytest.raises(PredictError, match=r"nnn cannot be looked at \(File name too long"):
            predict_folder(str(paths[0]), paths[1])


def test_a_link_to_itself_stops_nothing(no_network, tmp_path, capsys, monkeypatch):
    source, loop = folder_of(tmp_path / "in", "a"), tmp_path / "loop"
    for link in (loop, source / "b.png"):
        link.symlink_to(link)
    original = Path.resolve

    def resolve(path: Path, strict: bool = False) -> Path:  # as Python does until 3.12
        try:
            return original(path, strict)
        except OSError as error:
            raise RuntimeError("Symlink loop") from error

    monkeypatch.setattr(Path, "resolve", resolve)
    assert predict_folder(str(source), tmp_path / "out") == 1
    assert "b.png: cannot be opened (Too many levels" in capsys.readouterr().err
    with pytest.raises(PredictError, match=r"loop"):
        predict_folder(str(source), loop)
    with pytest.raises(PredictError, match=r"loop: no such file"):
        predict_folder(str(loop), tmp_path / "out")


def test_no_probabilities_of_another_network_stay(no_network, tmp_path):
    source, out = folder_of(tmp_path / "in", "ab"), tmp_path / "out"
    assert predict_folder(str(source), out, probabilities=True) == 2
    assert stems(out, "probabilities") == ["a", "b"]
    assert predict_folder(str(source / "a.png"), out, overwrite=True) == 1
    assert stems(out, "probabilities") == ["b"]
    assert predict_folder(str(source), out, probabilities=True, resume=True) == 1
    assert stems(out, "probabilities") == ["a", "b"]


def test_a_name_that_is_too_long_stops_nothing(no_network, tmp_path, capsys):
    longest = "n" * 242  # with 13 bytes of ".json.partial", 255, which is all a name may have
    source = folder_of(tmp_path / "longest", [longest])
    assert predict_folder(str(source), tmp_path / "whole") == 1
    assert stems(tmp_path / "whole") == [longest]
    long = longest + "n"
    source = folder_of(tmp_path / "in", ["a", long, "z"])
    assert predict_folder(str(source), tmp_path / "out") == 2
    warning = capsys.readouterr().err
    assert f"{long}.png: its results cannot be written (File name too long)" in warning
    for kind in ("masks", "overlays", "segments"):
        assert stems(tmp_path / "out", kind) == ["a", "z"]
    (tmp_path / "again" / "masks" / "a.png").mkdir(parents=True)
    assert predict_folder(str(source), tmp_path / "again", overwrite=True) == 1
    assert "a.png: its results cannot be written (Is a directory)" in capsys.readouterr().err
    with pytest.raises(PredictError, match=r"holds no image to predict\n.*File name too long"):
        predict_folder(str(source / f"{long}.png"), tmp_path / "third")


def stop_at(monkeypatch, name: str) -> None:
    """Makes the disk seem full when the results of this image, or a later one, are written."""
    original = predict.write_prediction

    def write(output: Path, written: str, *rest: Any) -> dict[str, Any]:
        if written >= name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(output / written))
        return original(output, written, *rest)

    monkeypatch.setattr(predict, "write_prediction", write)


def test_what_a_full_disk_stopped_goes_on(no_network, tmp_path, capsys, monkeypatch):
    source, out = folder_of(tmp_path / "in", "abcde"), tmp_path / "out"
    (source / "notes.txt").write_text("no image")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, "c")
        patch.setattr(predict, "WAITING_BYTES", 1)  # no thread still writes when the patch ends
        with pytest.raises(PredictError, match=r"out/.: No space left on device.*--resume goes on"):
            predict_folder(str(source), out)
    assert "notes.txt: not an image" in capsys.readouterr().err, "what was skipped is said before"
    assert stems(out) == ["a", "b"]
    (out / "masks" / "c.png").write_text("half a result")  # without a list it does not count
    before = {path: path.stat().st_mtime_ns for path in out.rglob("[ab].*")}
    assert predict_folder(str(source), out, resume=True) == 3
    said = capsys.readouterr()
    assert "2 of 5 images already in" in said.out and "3/3" in said.err
    assert stems(out) == [*"abcde"] and read_mask(out / "masks" / "c.png").shape == (30, 40)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, "c")
        patch.setattr(predict, "WAITING_BYTES", 1)
        with pytest.raises(PredictError, match=r"mend that, and the same command begins anew") as e:
            predict_folder(str(source), out, overwrite=True)
        assert "--resume" not in str(e.value), "results may be of another network before it"
    assert predict_folder(str(source), out, overwrite=True) == 5
    before = {path: path.stat().st_mtime_ns for path in out.rglob("[ab].*")}
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("[ab].*")}
    assert predict_folder(str(source), out, resume=True) == 0
    other = dataclasses.replace(no_network, title="another")
    with monkeypatch.context() as patch:
        patch.setattr(predict, "open_network", lambda *_, **__: other)
        with pytest.raises(PredictError, match=r"a\.json is by none, and .* go on with another: "):
            predict_folder(str(source), out, resume=True)
        with pytest.raises(PredictError, match=r"a\.json is by none, and .* go on with another: "):
            predict_folder(str(source), out, resume=True, probabilities=True)
        shutil.copy(source / "a.png", source / "a.bmp")  # now a.png would be called so
        with pytest.raises(PredictError, match=r"a\.json is by none, and .* go on with another: "):
            predict_folder(str(source), out, resume=True, probabilities=True)
        (source / "a.bmp").unlink()
    assert not (out / "probabilities").exists()
    assert predict_folder(str(source), out, resume=True, probabilities=True) == 5
    assert stems(out, "probabilities") == [*"abcde"]
    with pytest.raises(PredictError, match="--overwrite does again what --resume leaves out"):
        predict_folder(str(source), out, resume=True, overwrite=True)


def cards_of(output: Path) -> list[dict[str, Any]]:
    text = (output / "report.html").read_text()
    document = re.search(r'<script id="document" [^>]*>(.*?)</script>', text)
    return json.loads(document[1])["gallery"]["cards"]


def test_a_name_that_is_not_text_is_linked_by_its_bytes(no_network, tmp_path):
    source = folder_of(tmp_path / "in", "a")
    (source / "a.png").rename(source / os.fsdecode(b"\xff.png"))
    predict_folder(str(source), tmp_path / "out")
    assert [card["link"] for card in cards_of(tmp_path / "out")] == ["overlays/%FF.jpg"]


def test_a_ranking_is_the_same_whether_prediction_was_stopped_or_not(
    no_network, tmp_path, monkeypatch
):
    def run(batch: EvalBatch, shares: bool) -> tuple[np.ndarray, ...]:
        """The brighter a photo, the surer, in steps that float16 and JSON hold exactly."""
        shape, light = batch.label.shape, float(batch.views[0].image[0, 0, 0, 0, 0]) / 256
        return np.ones(shape, np.uint8), np.full(shape, light, np.float16)

    surer = dataclasses.replace(no_network, run=run)
    monkeypatch.setattr(predict, "open_network", lambda *_, **__: surer)
    source, whole, stopped = tmp_path / "in", tmp_path / "whole", tmp_path / "stopped"
    source.mkdir()
    for name, light in {"a": 192, "b": 64, "c": 128, "d<b>": 32}.items():
        Image.new("RGB", (40, 30), (light,) * 3).save(source / f"{name}.png")
    predict_folder(str(source), whole)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, "c")
        patch.setattr(predict, "WAITING_BYTES", 1)
        with pytest.raises(PredictError, match="No space left"):
            predict_folder(str(source), stopped)
    assert not (stopped / "ranking.csv").exists(), "half a ranking says nothing"
    assert predict_folder(str(source), stopped, resume=True) == 2
    table = (stopped / "ranking.csv").read_text()
    assert table == (whole / "ranking.csv").read_text()
    assert table.splitlines()[1:3] == ["d<b>,0.125,wood,0.125,wood", "b,0.25,wood,0.25,wood"]
    cards = cards_of(stopped)
    assert cards == cards_of(whole) and [card["name"] for card in cards] == ["d<b>", *"bca"]
    assert (stopped / "overlays" / "d<b>.jpg").is_file()
    assert cards[0]["link"] == "overlays/d%3Cb%3E.jpg"

    (stopped / "segments" / "a.json").write_text("{}")  # still counts as written, as it is there
    assert predict_folder(str(source), stopped, resume=True) == 0
    first = (stopped / "ranking.csv").read_text().splitlines()[1]
    assert first == "a,,,,", "what cannot be read is looked at first"
    assert "delete segments/a.json" in cards_of(stopped)[0]["scores"][0][1]


@pytest.mark.parametrize("name", ["report.html", "ranking.csv"])
def test_a_report_of_somebody_else_is_not_replaced(no_network, tmp_path, name):
    source, out = folder_of(tmp_path / "in", "a"), tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(PredictError, match="is not empty"):
        predict_folder(str(source), out)
    with pytest.raises(PredictError, match=rf"{name} is not by --mode=predict: .*--overwrite"):
        predict_folder(str(source), out, resume=True)
    assert (out / name).read_text() == "mine"
    assert predict_folder(str(source), out, overwrite=True) == 1
    assert predict_folder(str(source), out, resume=True) == 0


def test_a_list_of_segments_is_there_only_if_all_is_new(no_network, tmp_path, monkeypatch):
    source, out = folder_of(tmp_path / "in", "a"), tmp_path / "out"
    predict_folder(str(source), out)

    def fail(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(pictures, "save_image", fail)
    with pytest.raises(PredictError, match=r"masks/a\.png: No space left"):
        predict_folder(str(source), out, overwrite=True)
    assert stems(out) == []


# Bad input.


def test_what_is_no_image_is_named_and_stops_nothing(run, tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    whole = images_of((60, 90))[0]
    Image.fromarray(whole).save(source / "good.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(whole).save(source / "turned.jpg", exif=exif)
    (source / "cut.png").write_bytes((source / "good.png").read_bytes()[:5000])
    (source / "notes.txt").write_text("no image")
    assert predict_folder(str(source), tmp_path / "out", workdir=run.workdir) == 2
    warning = capsys.readouterr().err
    assert "warning: 2 files skipped" in warning
    assert f"{source}/cut.png: damaged" in warning
    assert f"{source}/notes.txt: not an image" in warning
    assert read_mask(tmp_path / "out" / "masks" / "turned.png").shape == (90, 60)
    with Image.open(tmp_path / "out" / "overlays" / "turned.jpg") as overlay:
        assert overlay.size == (60, 90) and not overlay.getexif()
    assert not list((tmp_path / "out").rglob("cut*"))
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_no_image_at_all_is_an_error(run, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(PredictError, match="no such file or folder"):
        predict_folder(str(tmp_path / "none"), out, workdir=run.workdir)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(PredictError, match=r"clip\.mp4: a video; .*ffmpeg -i clip\.mp4"):
        predict_folder(str(tmp_path / "clip.mp4"), out, workdir=run.workdir)
    Image.fromarray(images_of((60, 90))[0]).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:5000])
    with pytest.raises(PredictError, match=r"holds no image to predict\n.*cut\.png: damaged"):
        predict_folder(str(tmp_path / "cut.png"), out, workdir=run.workdir)
    assert not out.exists()


def test_nothing_is_lost_in_an_output_that_is_there(run, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    source.mkdir()
    for name in ("a", "c"):
        Image.fromarray(images_of((40, 40))[0]).save(source / f"{name}.png")
    for name in ("a.png", "b.png"):
        (out / "masks" / name).write_text("mine")
    with pytest.raises(PredictError, match=f"--output={out} is not empty: .*--overwrite"):
        predict_folder(str(source), out, workdir=run.workdir)
    assert (out / "masks" / "a.png").read_text() == "mine"
    # An error that --overwrite does not mend is reported first.
    with pytest.raises(PredictError, match=r"is the folder of --input="):
        predict_folder(str(source), source, workdir=run.workdir)
    assert predict_folder(str(source), out, workdir=run.workdir, overwrite=True) == 2
    assert read_mask(out / "masks" / "a.png").shape == (40, 40)
    assert (out / "masks" / "b.png").read_text() == "mine"
    with pytest.raises(PredictError, match="is a file"):
        predict_folder(str(source), source / "a.png", workdir=run.workdir, overwrite=True)


def test_results_below_the_images_are_warned_of(no_network, tmp_path, capsys):
    source = folder_of(tmp_path / "in", "a")
    predict_folder(str(source), source / "out")
    assert f"warning: {source}/out lies inside the input folder" in capsys.readouterr().err
    predict_folder(str(source / "a.png"), source / "one")  # the input is a file: no warning
    predict_folder(str(source), tmp_path / "out")
    assert "lies inside" not in capsys.readouterr().err


# Where networks come from.


def test_a_run_needs_config_and_checkpoint(run, tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.json, so it is no run directory"):
        open_network(workdir=tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not a run's config"):
        open_network(workdir=tmp_path)
    shutil.copy(run.workdir / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        open_network(workdir=tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint of step 7, only 0"):
        open_network(workdir=run.workdir, step=7)
    with pytest.raises(WeightsError, match="is a run directory: give it as --workdir"):
        open_network(run.workdir)
    for arguments in ({}, {"model": tmp_path, "workdir": tmp_path}):
        with pytest.raises(WeightsError, match="either --workdir=RUN or --model="):
            open_network(**arguments)


def test_a_runs_class_names_outlive_its_data(run, tmp_path, monkeypatch):
    shutil.copytree(run.workdir, tmp_path / "copy")
    stored = json.loads((tmp_path / "copy" / "config.json").read_text())
    stored["data"] |= {"dir": str(tmp_path / "gone"), "prepared_dir": str(tmp_path / "gone")}
    write_json(tmp_path / "copy" / "config.json", stored)
    names = [f"class {i}" for i in range(NUM_CLASSES)]
    write_json(tmp_path / "copy" / "results.json", {"teacher": {"iou": dict.fromkeys(names)}})
    assert open_network(workdir=tmp_path / "copy").class_names == tuple(names)
    (tmp_path / "copy" / "results.json").unlink()  # stopped before its first evaluation
    with pytest.raises(DataError):
        open_network(workdir=tmp_path / "copy")
    write_json(tmp_path / "copy" / "config.json", stored | {"class_names": names})
    assert open_network(workdir=tmp_path / "copy").class_names == tuple(names)

    given = {}
    # The config of the tiny network is not checked.
    monkeypatch.setattr(export, "validate", lambda config, num_devices: None)
    monkeypatch.setattr(
        export, "export_stablehlo", lambda *arguments: given.update(names=arguments[2])
    )
    config = stored_config.run_config(run_path(tmp_path / "copy"))
    to = tmp_path / "program"
    export_checkpoint(config, tmp_path / "copy", to, file_format="stablehlo")
    assert given == {"names": names}


@pytest.fixture(scope="module")
def peer(tmp_path_factory, tiny_world) -> types.SimpleNamespace:
    """A folder as transformers saves it."""
    config = tiny_config(backbone="tiny_bottleneck", norm="frozen")
    model = peer_model(config)
    randomize(model)
    folder = tmp_path_factory.mktemp("peer")
    model.save_pretrained(folder)
    processor = {"size": {"shortest_edge": 64, "longest_edge": 300}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return types.SimpleNamespace(model=model, folder=folder)


def test_weights_of_transformers_predict_what_they_predict_there(peer):
    network = open_network(peer.folder)
    assert network.class_names == tuple(f"LABEL_{i}" for i in range(5))
    assert network.title == open_network(os.path.relpath(peer.folder)).title
    (image,) = images_of((64, 96))  # of the size to which images are resized
    (prediction,) = predict_images(network, [image])
    normalized = ((image - MEAN) / STD).astype(np.float32)[None]
    out = peer_predictions(peer.model, normalized)
    scores = torch_scores(out.class_logits[-1], out.mask_logits[-1], (64, 96))
    scores = scores / scores.sum(1, keepdim=True)
    differ = prediction.ids != scores[0].argmax(0).numpy()
    assert differ.sum() <= 2
    np.testing.assert_allclose(prediction.confidence, scores[0].max(0).values, atol=1e-3)
    (large,) = predict_images(network, images_of((128, 192)))
    assert large.ids.shape == (128, 192)


def test_classes_without_names_have_those_of_transformers(tmp_path, tiny_world):
    config = tiny_config(backbone="tiny_bottleneck", norm="frozen")
    config.data.num_classes = 2
    peer_model(config).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content.pop("id2label", None)  # transformers 4 leaves them out, as they are its default
    content.pop("label2id", None)
    (tmp_path / "config.json").write_text(json.dumps(content))
    theirs = MaskFormerForInstanceSegmentation.from_pretrained(tmp_path).config.id2label
    assert open_network(tmp_path).class_names == tuple(theirs.values()) == ("LABEL_0", "LABEL_1")


def test_images_are_stretched_to_the_height_and_width_that_a_preprocessor_gives(peer, tmp_path):
    size = {"size": {"height": 64, "width": 128}, "size_divisor": 0}
    kind = {"image_processor_type": "MaskFormerImageProcessor"}
    folder = altered(peer.folder, tmp_path / "copy", "preprocessor_config.json", **size, **kind)
    network = open_network(folder)
    (image,) = images_of((96, 96))
    (prediction,) = predict_images(network, [image])
    processor = AutoImageProcessor.from_pretrained(folder)
    inputs = processor(Image.fromarray(image), return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 64, 128)
    with torch.no_grad():
        out = peer.model.eval()(inputs["pixel_values"])
    (theirs,) = processor.post_process_semantic_segmentation(out, target_sizes=[(96, 96)])
    assert prediction.ids.shape == (96, 96)
    assert (prediction.ids == theirs.numpy()).mean() > 0.97  # Pillow rounds resized pixels
    data = ConfigDict({"eval_short_edge": 7, "max_long_edge": 8})
    assert describe_processing(size, data, "") == (64, 128)
    assert describe_processing(size | {"do_resize": False}, data, "") is None
    assert data.eval_short_edge == 0


def altered(folder: Path, copy: Path, file: str, **values: object) -> Path:
    shutil.copytree(folder, copy)
    content = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(content | values))
    return copy


WRONG_WEIGHTS = {
    "kind": ("config.json", {"model_type": "resnet"}, "prediction needs a whole MaskFormer"),
    "backbone": ("config.json", {"backbone_config": {"model_type": "vit"}}, "only ResNet and Swin"),
    "depths": (
        "config.json",
        {"backbone_config": {"depths": [1, 2, 3, 4]}},
        r"depths \[1, 2, 3, 4\] is none of resnet10",
    ),
    "widths": ("config.json", {"mask_feature_size": 99}, "does not fit the model"),
    "heads": ("config.json", {"decoder_config": {"d_model": 39}}, "cannot be built|does not fit"),
    "gaps": ("config.json", {"id2label": {"0": "a", "2": "b"}}, "must name the classes 0, 1, 2"),
    "many": ("config.json", {"id2label": {str(i): "x" for i in range(300)}}, "at most 254"),
    "fewer": ("config.json", {"id2label": {"0": "a", "1": "b"}}, "not a whole network"),
    "mean": ("preprocessor_config.json", {"image_mean": [0.5] * 3}, "only ImageNet's"),
    "size": ("preprocessor_config.json", {"size": {"max_height": 5}}, "must give shortest"),
    "pixels": ("preprocessor_config.json", {"do_normalize": False}, "do_normalize = False"),
    "255": ("preprocessor_config.json", {"do_rescale": False}, "do_rescale = False"),
    "127": ("preprocessor_config.json", {"rescale_factor": 1 / 127.5}, "rescale_factor = 0.0078"),
    "unnamed": ("config.json", {"id2label": None}, "2 classes instead of 5"),
}


@pytest.mark.parametrize("case", WRONG_WEIGHTS)
def test_weights_that_cannot_be_used_say_why(peer, tmp_path, case):
    file, values, message = WRONG_WEIGHTS[case]
    if "backbone_config" in values or "decoder_config" in values:
        (key, changed) = next(iter(values.items()))
        whole = json.loads((peer.folder / file).read_text())[key]
        values = {key: whole | changed}
    with pytest.raises(WeightsError, match=message):
        open_network(altered(peer.folder, tmp_path / "copy", file, **values))


def test_weights_alone_need_a_config(peer, tmp_path, run):
    file = tmp_path / "weights.safetensors"
    shutil.copy(peer.folder / "model.safetensors", file)
    with pytest.raises(WeightsError, match="lies beside these weights: give --config"):
        open_network(file)
    with pytest.raises(WeightsError, match=rf"safetensors: .* the folder: --model={peer.folder}$"):
        open_network(peer.folder / "model.safetensors")
    config = run.config.copy_and_resolve_references()
    config.model.update(norm="frozen", num_queries=7)
    with pytest.raises(WeightsError, match="does not fit the model"):
        open_network(file, config=config)
    few = tiny_config(backbone="tiny_bottleneck", norm="frozen", num_queries=4).model
    config.model.update(few)
    config.max_segments = 4
    with pytest.raises(WeightsError, match=r"4 of 7 queries \(model.num_queries = 7 takes all\)"):
        open_network(file, config=config)
    with pytest.raises(WeightsError, match="--model = 'nothing': no such file or folder"):
        open_network("nothing")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="none of MaskFormer of transformers"):
        open_network(tmp_path / "other.pth", config=run.config)
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(WeightsError):
        open_network(tmp_path / "empty.safetensors", config=run.config)


def test_an_exported_program_predicts_images_of_any_size(run, tmp_path):
    export_stablehlo(run.weights, run.config, run.class_names, tmp_path / "hlo", (72, 96))
    network = open_network(os.path.relpath(tmp_path / "hlo"))
    assert network.class_names == run.class_names
    assert network.title == str(tmp_path / "hlo"), "however it was given"
    exact, smaller, tall = images_of((72, 96), (36, 48), (100, 60))
    predictions = predict_images(network, [exact, smaller, tall])
    ids, shares = load_exported(tmp_path / "hlo")[0](exact[None])
    np.testing.assert_array_equal(predictions[0].ids, ids[0])
    # 72 is no multiple of 32, to which evaluation pads; nor is the run's image resized.
    (want,) = predict_images(run.network, [exact], probabilities=True)
    np.testing.assert_allclose(shares[0], want.probabilities, atol=2e-3)  # float16
    assert (ids[0] == want.ids).mean() > 0.999
    assert predictions[1].ids.shape == (36, 48)
    assert predictions[2].ids.shape == (100, 60)
    for key, value, message in (
        ("flip", True, "is a program, which sees each image once and whole"),
        ("max_shapes", 0, "eval.max_shapes = 0 must be at least 1"),
        ("flp", True, "did you mean 'eval.flip'"),
    ):
        config = base.get_config()
        with config.unlocked():
            config.eval[key] = value
        with pytest.raises(ConfigError, match=message):
            open_network(tmp_path / "hlo", config=config)
    (tmp_path / "hlo" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="damaged"):
        open_network(tmp_path / "hlo")
