"""rc2l_jax/suggestion/: photos that differ, that have no mask, and that the run knows least.

Distances, regions and features are compared with what numpy, a person and PyTorch compute.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import jax
import labelled_scenes as scenes
import numpy as np
import pytest
from etils import epath
from PIL import Image
from pycocotools.coco import COCO
from test_efficientnet import NAME as EFFICIENTNET
from test_efficientnet import OUTPUTS, peer_features
from trained import unpack

from configs import folder_small
from data.errors import DataError
from data.shapes import drawing
from rc2l_jax.input_pipeline.subsets import open_subsets
from rc2l_jax.prediction import inputs, photos
from rc2l_jax.prediction.files import Prediction, describe_segments
from rc2l_jax.run.config import ConfigError
from rc2l_jax.run.stored_config import run_config, stored_class_names
from rc2l_jax.suggestion.choice import (
    NEAR_DUPLICATE,
    are_near,
    choose,
    directions,
    similarity,
    stands_for,
)
from rc2l_jax.suggestion.errors import SuggestError
from rc2l_jax.suggestion.features import features, open_backbone
from rc2l_jax.suggestion.sheet import write_sheet
from rc2l_jax.suggestion.suggest import suggest_photos
from rc2l_jax.suggestion.uncertainty import doubt_of, rarity

SIDE = 64
LAST = OUTPUTS[EFFICIENTNET][-1:]


@pytest.fixture(autouse=True, scope="module")
def one_device():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_device_count", lambda: 1)
        yield


# The choice.


def blobs(sizes: list[int], spread: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around as many directions that are at right angles, and the blob of each."""
    rng = np.random.default_rng(seed)
    blob = np.repeat(np.arange(len(sizes)), sizes)
    points = 10 * np.eye(len(sizes), 24)[blob]
    noise = rng.normal(size=points.shape)
    return (points + 10 * spread * noise).astype(np.float32), blob


def test_one_of_each_blob_is_chosen_the_largest_blob_first():
    points, blob = blobs([30, 5, 12, 8])
    chosen = choose(points, 4, seed=0)
    assert blob[chosen].tolist() == [0, 2, 3, 1]
    # The one in the middle stands for its blob: no other is much nearer to the blob's mean.
    for i in chosen:
        own = points[blob == blob[i]]
        far = np.linalg.norm(own - own.mean(0), axis=1)
        assert np.linalg.norm(points[i] - own.mean(0)) <= np.quantile(far, 0.4)
    around = directions(points, points.mean(0))
    assert stands_for(around, chosen).tolist() == [30, 12, 8, 5]


def test_a_seed_decides_and_no_photo_comes_twice():
    points, _ = blobs([40, 40], spread=1.0)
    chosen = choose(points, 30, seed=3)
    assert len(set(chosen.tolist())) == 30
    np.testing.assert_array_equal(chosen, choose(points, 30, seed=3))


def test_weights_draw_the_choice_to_where_they_are_large():
    points, blob = blobs([40, 40], spread=0.5)
    even = blob[choose(points, 20, seed=0)]
    uneven = blob[choose(points, 20, seed=0, weights=np.where(blob == 1, 1.0, 0.01))]
    assert 7 <= (even == 1).sum() <= 13
    assert (uneven == 1).sum() >= 16
    assert uneven[0] == 1
    nothing = choose(points, 20, seed=0, weights=np.zeros(80))
    np.testing.assert_array_equal(nothing, choose(points, 20, seed=0))


def test_what_looks_like_a_labelled_photo_comes_last_and_a_copy_never():
    points, blob = blobs([20, 20, 20], spread=0.3)
    labeled = points[blob == 1][:10]
    chosen = choose(points, 6, seed=0, labeled=labeled)
    assert {0, 2} == set(blob[chosen[:2]])
    assert (blob[chosen] == 1).sum() <= 1
    every = choose(points, 60, seed=0, labeled=labeled)
    assert len(every) == 50 and not set(every) & set(np.flatnonzero(blob == 1)[:10])


def test_near_duplicates_are_left_out_and_others_take_their_place():
    points, _ = blobs([6, 6], spread=0.5)
    copies = np.concatenate([points, points, points + 1e-3])
    chosen = choose(copies, 12, seed=0)
    assert sorted(chosen % 12) == list(range(12))
    assert len(choose(copies, 30, seed=0)) == 12  # there are no others
    assert len(choose(np.ones((7, 5), np.float32), 3, seed=0)) == 1
    assert len(choose(points[:0], 3, seed=0)) == 0


def test_near_duplicates_are_those_of_a_large_cosine():
    angles = np.arccos(NEAR_DUPLICATE) * np.array([0.0, 0.98, 1.02, 3.0])
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * [[1], [5], [0.1], [2]]
    points = directions(points + 7, np.full(2, 7))  # lengths do not matter
    np.testing.assert_array_equal(are_near(points, points[:1]), [True, True, False, False])
    np.testing.assert_allclose(similarity(points, points[:1]), np.cos(angles), atol=1e-9)
    assert not are_near(points, points[:0]).any()


# Features.


def small_config(**data: object):
    config = folder_small.get_config()
    config.eval_batch_size, config.data.eval_short_edge = 3, SIDE
    config.data.update(data)
    return config


@pytest.fixture(scope="module")
def backbone(one_device):
    return open_backbone(small_config())


def test_features_are_the_means_of_pytorchs_whatever_is_in_the_batch(backbone):
    rng = np.random.default_rng(0)
    sizes = [(64, 96), (96, 64), (64, 64), (64, 160), (64, 96)]  # which are not resized
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    failed: dict[int, str] = {}

    def read(i: int) -> np.ndarray:
        if i == 2:
            raise photos.PhotoError("damaged")
        return images[i]

    found = features(backbone, sizes, read, failed)
    assert failed == {2: "damaged"} and np.isnan(found[2]).all()
    for i in (0, 1, 3, 4):
        last, _ = peer_features(
            images[i][None].astype(np.float32), OUTPUTS["efficientnet_lite0"][-1:]
        )
        np.testing.assert_allclose(found[i], last.detach().mean((0, 2, 3)).numpy(), atol=1e-3)


def test_a_backbone_that_learned_nothing_compares_nothing():
    config = small_config()
    config.init_from = ""
    with pytest.raises(ConfigError, match="init_from is empty"):
        open_backbone(config)


# What a network does not know.


def test_each_region_counts_the_same_and_rare_classes_more():
    ids = np.zeros((100, 100), np.uint8)
    ids[:3, :3] = 1  # small, but no speck
    ids[99, 99] = 2  # a speck: nothing is left out by mistake
    confidence = np.where(ids == 1, 0.4, 0.9).astype(np.float16)
    names = ["background", "cat", "dog"]
    description = describe_segments(Prediction(ids, confidence, None), names)
    rare = rarity(np.array([8, 3, 0]))
    np.testing.assert_allclose(rare, [1 / 3, 1 / 2, 1])
    doubt = doubt_of(description, rare)
    parts = [0.1 / 3, 0.6 / 2, 0.1]
    assert doubt.weight == pytest.approx(np.mean(parts), abs=1e-3)
    assert doubt.classes == ["cat", "dog", "background"]
    not_finite = np.full((100, 100), np.nan, np.float16)
    description = describe_segments(Prediction(ids * 0, not_finite, None), names)
    assert doubt_of(description, rare) == (pytest.approx(1 / 3), ["background"])


# The mode.


def draw(folder: Path, numbers: range, seed: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        image, _ = drawing.draw(seed, "train", number, SIDE)
        Image.fromarray(image).save(folder / f"photo{number}.png")
    return folder


def table(output: Path) -> list[dict[str, str]]:
    with (output / "suggested.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_photos_alone_are_enough(tmp_path, capsys):
    source = draw(tmp_path / "mine", range(9))
    (source / "deep").mkdir()
    for i in (0, 1):
        shutil.copy(source / f"photo{i}.png", source / "deep" / f"copy{i}.png")
    (source / "broken.jpg").write_bytes((source / "photo0.png").read_bytes()[:300])
    (source / "notes.txt").write_text("no photo")
    assert suggest_photos(str(source), tmp_path / "out", count=4, config=small_config()) == 4
    rows = table(tmp_path / "out")
    assert [row["like_labeled"] + row["uncertainty"] + row["classes"] for row in rows] == [""] * 4
    assert [row["number"] for row in rows] == ["1", "2", "3", "4"]
    assert sum(int(row["stands_for"]) for row in rows) == 11
    names = [row["photo"] for row in rows]
    assert (tmp_path / "out" / "suggested.txt").read_text() == "".join(f"mine/{x}\n" for x in names)
    sheet = Image.open(tmp_path / "out" / "suggested.jpg")
    assert sheet.size[0] > 4 * 200 and sheet.size[1] > SIDE
    said = capsys.readouterr()
    assert "4 of 11 photos" in said.out
    assert "2 files skipped" in said.err and "broken.jpg" in said.err and "notes.txt" in said.err
    # All that differ, when more are asked for.
    assert suggest_photos(str(source), tmp_path / "all", count=80, config=small_config()) == 9
    numbers = ["".join(filter(str.isdigit, row["photo"])) for row in table(tmp_path / "all")]
    assert sorted(numbers) == list("012345678")  # one of a photo and its copy
    assert "--count=80, but the other photos look the same" in capsys.readouterr().out


def labelled_folder(root: Path) -> Path:
    """A folder of 6 photos with Labelme's files, two of which are to measure with, and 8 others."""
    for split, numbers in (("train", range(4)), ("val", range(4, 6))):
        draw(root / "images" / split, numbers)
        for number in numbers:
            name = f"photo{number}"
            scenes.write(
                root / "labels" / split / f"{name}.json",
                scenes.labelme(f"{name}.png", 0) | {"imageHeight": SIDE, "imageWidth": SIDE},
            )
    draw(root / "images" / "unlabeled", range(6, 14))
    return root


def test_the_list_is_what_to_train_on_once_it_is_labelled(tmp_path):
    root = labelled_folder(tmp_path / "mine")
    config = small_config(dir=str(root), prepared_dir=str(tmp_path / "prepared"))
    # Photos with masks are not suggested, although they lie among the others.
    count = suggest_photos(str(root / "images"), tmp_path / "out", count=20, config=config)
    rows = table(tmp_path / "out")
    assert count == 8 and {row["photo"][:10] for row in rows} == {"unlabeled/"}
    assert all(-1 < float(row["like_labeled"]) < NEAR_DUPLICATE for row in rows)
    unlabeled = str(root / "images" / "unlabeled")
    assert suggest_photos(unlabeled, tmp_path / "three", count=3, config=config) == 3
    suggested = [row["photo"] for row in table(tmp_path / "three")]
    assert len(set(suggested)) == 3

    # A person labels them where they are.
    for name in suggested:
        stem = name.removesuffix(".png")
        file = root / "labels" / "unlabeled" / f"{stem}.json"
        shape = {"imageHeight": SIDE, "imageWidth": SIDE}
        scenes.write(file, scenes.labelme(name, 0) | shape)
    config.data.labeled_split = str(tmp_path / "three" / "suggested.txt")
    data = open_subsets(config)
    ids = [data.dataset.ids.id(key) for key in data.subsets.labeled]
    assert sorted(ids) == sorted(x.removesuffix(".png") for x in suggested)
    assert len(data.subsets.unlabeled) == 5
    assert not data.dataset.errors(data.subsets.labeled)
    # The next ones are others.
    suggest_photos(unlabeled, tmp_path / "next", count=8, config=config)
    following = {row["photo"] for row in table(tmp_path / "next")}
    assert len(following) == 5 and not following & set(suggested)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A trained run on drawn images, of which 192 are labelled."""
    return unpack(tmp_path_factory.mktemp("run"))


def config_of(run: Path, prepared: Path):
    config = run_config(epath.Path(run))
    config.data.prepared_dir = str(prepared)
    return config


def test_a_run_says_what_it_does_not_know_and_draws_what_to_correct(run, tmp_path, capsys):
    source = draw(tmp_path / "new", range(12), seed=5)
    for number in range(6):  # of its own, all but a few of which are labelled
        image, _ = drawing.draw(0, "train", number, SIDE)
        Image.fromarray(image).save(source / f"own{number}.png")
    config = config_of(run, tmp_path / "prepared")
    arguments = {"count": 5, "config": config, "workdir": run, "annotations": "coco"}
    assert suggest_photos(str(source), tmp_path / "out", **arguments) == 5
    rows = table(tmp_path / "out")
    names = [row["photo"] for row in rows]
    assert all(0 < float(row["uncertainty"]) < 1 and row["classes"] for row in rows)
    assert all(float(row["like_labeled"]) < NEAR_DUPLICATE for row in rows)
    classes = stored_class_names(epath.Path(run))
    # What is written for the tool is of these photos, and is what the masks show.
    predictions = tmp_path / "out" / "predictions"
    coco = COCO(predictions / "annotations" / "coco" / "annotations.json")
    assert sorted(x["file_name"] for x in coco.loadImgs(coco.getImgIds())) == sorted(names)
    for image in coco.loadImgs(coco.getImgIds()):
        stem = Path(image["file_name"]).stem
        mask = np.asarray(Image.open(predictions / "masks" / f"{stem}.png"))
        drawn = np.zeros_like(mask)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            (category,) = coco.loadCats(annotation["category_id"])
            drawn[coco.annToMask(annotation) > 0] = classes.index(category["name"])
        assert (mask == drawn).mean() > 0.95
        row = rows[names.index(image["file_name"])]
        assert set(row["classes"].split("; ")) <= {classes[i] for i in np.unique(mask)}
    assert "5 of 18 photos" in capsys.readouterr().out


# Mistakes.


def mistakes(tmp_path: Path, source: Path) -> dict[str, tuple[dict, str]]:
    other = tmp_path / "a page"
    other.mkdir()
    (other / "report.html").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jpg").write_text("text")
    (tmp_path / "file").write_text("")
    return {
        "no_photo": ({"source": "empty"}, "empty: holds no photo to suggest"),
        "no_folder": ({"source": "none"}, "none: no such file or folder"),
        "only_texts": ({"source": "texts"}, "a.jpg: not an image of a known kind"),
        "output_of_another": ({"output": "a page"}, "a page is not empty: choose another folder"),
        "output_is_a_file": ({"output": "file"}, "file is a file: choose another folder"),
        "output_is_the_input": ({"output": source}, "is the folder of --input="),
        "count": ({"count": 0}, "--count=0: choose at least one photo"),
        "no_network": ({"annotations": "coco"}, "needs a network that draws them"),
    }


@pytest.mark.parametrize(
    "name",
    ["no_photo", "no_folder", "only_texts", "output_of_another", "output_is_a_file",
     "output_is_the_input", "count", "no_network"],
)  # fmt: skip
def test_a_mistake_is_said_in_a_line_before_a_network_is_opened(tmp_path, monkeypatch, name):
    source = draw(tmp_path / "mine", range(1))
    changes, words = mistakes(tmp_path, source)[name]
    paths = {"source": source, "output": tmp_path / "out"}
    paths |= {key: tmp_path / changes[key] for key in paths if key in changes}
    changes = {"count": 1} | {k: v for k, v in changes.items() if k not in paths}
    monkeypatch.setattr("rc2l_jax.suggestion.suggest.open_backbone", pytest.fail)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SuggestError) as error:
        suggest_photos(str(paths["source"]), paths["output"], config=small_config(), **changes)
    assert words in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_paths_that_cannot_be_looked_at_are_said_in_a_line(tmp_path):
    source, long = draw(tmp_path / "mine", range(1)), tmp_path / ("n" * 256)
    for paths in ((source, long), (long, tmp_path / "out")):
        with pytest.raises(SuggestError, match=r"cannot be looked at \(File name too long"):
            suggest_photos(str(paths[0]), paths[1], config=small_config(), count=1)


def test_what_has_masks_already_is_not_suggested_again(tmp_path):
    root = labelled_folder(tmp_path / "mine")
    config = small_config(dir=str(root), prepared_dir=str(tmp_path / "prepared"))
    for split in ("train", "val"):
        with pytest.raises(SuggestError, match="each photo there has a mask already"):
            suggest_photos(str(root / "images" / split), tmp_path / "o", count=2, config=config)
    config.data.dir = str(tmp_path / "none")
    with pytest.raises(DataError, match="none: no such folder"):
        suggest_photos(str(root / "images"), tmp_path / "o", count=2, config=config)


def test_a_run_of_other_classes_is_refused(run, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    stored = json.loads((other / "config.json").read_text())
    stored["class_names"][1] = "wheel"
    (other / "config.json").write_text(json.dumps(stored))
    source = draw(tmp_path / "new", range(2))
    config = config_of(other, tmp_path / "prepared")
    with pytest.raises(SuggestError, match=r"knows other classes \(background, wheel, .*\) than"):
        suggest_photos(str(source), tmp_path / "out", count=1, config=config, workdir=other)


def test_a_sheet_has_a_place_for_each_photo_also_one_that_is_gone(tmp_path):
    source = draw(tmp_path / "mine", range(10))
    found = inputs.find(str(source), tmp_path / "out").photos
    gone = dataclasses.replace(found[3], path=tmp_path / "gone.png")
    write_sheet(tmp_path / "sheet.jpg", [*found[:3], gone, *found[4:]])
    sheet = np.asarray(Image.open(tmp_path / "sheet.jpg")).astype(int)
    rows = np.flatnonzero((sheet < 200).any((1, 2)))
    assert np.count_nonzero(np.diff(rows) > 1) >= 1  # two rows of photos
    first = np.asarray(Image.open(found[0].path)).astype(int)
    shown = sheet[24 : 24 + SIDE - 4, 4 : 4 + SIDE]  # below the name, as JPEG keeps it
    assert np.abs(shown - first[4:]).mean() < 60
