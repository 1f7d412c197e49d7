"""rc2l_jax/reports/pictures.py and examples.py: pictures show what they should, and where."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rc2l_jax.reports import examples
from rc2l_jax.reports import pictures as visualize
from rc2l_jax.structs import VOID, EvalBatch, EvalView


def count(picture: np.ndarray, color) -> int:
    """Pixels of one colour, below the captions."""
    return int((picture[16:] == color).all(-1).sum())


def test_palette_is_pascal_voc():
    colors = visualize.palette()
    expected = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    for label, color in expected.items():
        assert tuple(colors[label]) == color
    assert tuple(colors[VOID]) == visualize.VOID_COLOR
    assert len({tuple(color) for color in colors[:254]}) == 254


def test_overlay_mixes_image_and_label_at_any_label_size():
    image = np.full((4, 4, 3), 100, np.uint8)
    label = np.array([[0, 1], [2, VOID]], np.uint8)
    mixed = visualize.overlay(image, label, opacity=0.5)
    assert mixed.shape == image.shape
    np.testing.assert_array_equal(mixed[0, 0], [50, 50, 50])
    np.testing.assert_array_equal(mixed[1, 3], [114, 50, 50])
    np.testing.assert_array_equal(mixed[3, 0], [50, 114, 50])
    np.testing.assert_array_equal(mixed[3, 3], [162, 162, 162])
    np.testing.assert_array_equal(visualize.overlay(image, label, opacity=0.0), image)


def test_a_large_overlay_is_mixed_like_a_small_one():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (600, 3, 3), np.uint8)
    label = rng.integers(0, 21, (600, 3), np.uint8)
    colors = visualize.colorize(label).astype(np.float64)
    expected = np.rint(0.4 * image + 0.6 * colors)
    assert np.abs(visualize.overlay(image, label) - expected).max() <= 1  # rounding of halves
    assert (visualize.overlay(image, label) != expected).mean() < 0.01


@pytest.mark.parametrize("count_of_classes", [1, 33, 150])
def test_legend_shows_every_colour_beside_its_name(count_of_classes):
    names = [f"class {i}" for i in range(count_of_classes)]
    picture = visualize.legend(names)
    for color in visualize.palette()[1:count_of_classes]:
        assert (picture == color).all(-1).sum() >= 24 * 16  # letters have shades of grey
    assert (picture < 128).all(-1).sum() > 24 * 16, "no name was written"
    assert visualize.legend(["x" * 200]).shape[1] > 500


def test_indexed_images_keep_their_ids(tmp_path):
    ids = np.array([[0, 1, 20], [254, 255, 7]], np.uint8)
    visualize.save_image(tmp_path / "a.png", visualize.indexed(ids))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), ids)
        shown = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(shown, visualize.colorize(ids))


def test_grid_holds_every_cell_and_caption():
    rows = [
        [np.full((200, 100, 3), 10, np.uint8), np.full((200, 120, 3), 20, np.uint8)],
        [np.full((90, 100, 3), 30, np.uint8), np.full((90, 120, 3), 40, np.uint8)],
    ]
    picture = visualize.grid(rows, ["left", "right"])
    for value, area in ((10, 200 * 100), (20, 200 * 120), (30, 90 * 100), (40, 90 * 120)):
        assert count(picture, value) == area
    band = picture[:16]
    assert (band < 128).any(), "no caption was drawn"


def test_small_pictures_are_enlarged():
    picture = visualize.grid([[np.full((64, 64, 3), 10, np.uint8)]], ["x"])
    assert count(picture, 10) == 192 * 192


@pytest.mark.parametrize("rows", [[], [[np.zeros((2, 2, 3), np.uint8)]]])
def test_grid_refuses_what_does_not_fit(rows):
    with pytest.raises(ValueError, match="2 columns"):
        visualize.grid(rows, ["a", "b"])


def eval_batch() -> EvalBatch:
    label = np.full((1, 3, 64, 64), VOID, np.uint8)
    label[:, :, :40, :50] = 1
    view = EvalView(
        image=np.full((1, 3, 32, 32, 3), 200, np.uint8),
        size=np.array([[[20, 25], [20, 25], [0, 0]]], np.int32),
    )
    return EvalBatch(
        views=(view,),
        label=label,
        label_size=np.array([[[40, 50], [40, 50], [0, 0]]], np.int32),
        index=np.array([[0, 1, -1]], np.int32),
    )


def test_evaluation_pictures_crop_padding_and_leave_out_fill():
    pictures = examples.EvaluationPictures(5)
    assert pictures.picture() is None
    batch = eval_batch()
    assert pictures.observe(batch, {"student": np.zeros_like(batch.label)}), "3 rows are missing"
    picture = pictures.picture()
    factor = 192 // 25
    assert count(picture, 200) == 2 * 20 * 25 * factor**2  # two images, cropped
    truth, student = np.rint(0.4 * 200 + 0.6 * 128), np.rint(0.4 * 200)
    assert count(picture, [truth, student, student]) == 2 * 20 * 25 * factor**2
    assert count(picture, student) == 2 * 20 * 25 * factor**2


def test_evaluation_pictures_stop_at_the_number_asked_for():
    pictures = examples.EvaluationPictures(1)
    batch = eval_batch()
    assert not pictures.observe(batch, {"student": np.zeros_like(batch.label)})
    assert count(pictures.picture(), 200) == 20 * 25 * (192 // 25) ** 2


def test_unlabeled_picture_shows_ground_truth_only_where_it_is_known():
    views = np.full((1, 64, 64, 3), 90.4, np.float32)
    labels = np.full((1, 16, 16), VOID, np.uint8)
    unknown = np.full((1, 64, 64), VOID, np.uint8)
    without = examples.unlabeled_picture(views, labels, views, labels, unknown)
    with_truth = examples.unlabeled_picture(views, labels, views, labels, unknown * 0)
    assert with_truth.shape[1] > without.shape[1]
    assert count(without, 90) == 2 * 192 * 192


def test_png_comes_back(tmp_path):
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    visualize.save_png(tmp_path / "a" / "b.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a" / "b.png")), picture)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.png"]


def test_letters_that_are_not_ascii_are_drawn():
    cell = np.full((192, 192, 3), 10, np.uint8)
    captions = ["?", "ß", "²", "Ж", "λ", "ő"]
    bands = [visualize.grid([[cell]], [caption])[:16] for caption in captions]
    for i, band in enumerate(bands):
        assert (band < 128).any()
        for other in bands[:i]:
            assert (band != other).any(), "two letters look the same: a box stands for both"


def test_a_key_names_the_classes_that_occur():
    picture = np.full((30, 300, 3), 10, np.uint8)
    names = [f"class {i}" for i in range(21)]
    shown = visualize.with_key(picture, names, [2, 20, 2, VOID])
    np.testing.assert_array_equal(shown[:30, :300], picture)
    colors = visualize.palette()
    for index in range(1, 21):
        area = (shown[30:] == colors[index]).all(-1).sum()
        assert area == (24 * 16 if index in (2, 20) else 0)
    assert (shown[30:] == visualize.VOID_COLOR).all(-1).sum() >= 24 * 16
    assert shown.shape[0] - 30 < 2 * (16 + 4) + 4 + 1, "three fit into two lines"
    np.testing.assert_array_equal(visualize.with_key(picture, names, []), picture)
    assert visualize.with_key(picture[:, :20], names, [1]).shape[1] > 20


def test_large_images_are_shrunk_by_whole_factors():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    np.testing.assert_array_equal(visualize.shrink(image, 6), image)
    half = visualize.shrink(image, 3)
    assert half.shape == (2, 3, 3)
    block = image[:2, :2].reshape(-1, 3).astype(float)
    assert np.abs(half[0, 0] - block.mean(0)).max() <= 0.5
    assert visualize.shrink(image, 5).shape == (2, 3, 3)


def test_pseudo_labels_have_a_column_a_step():
    images = np.full((2, 64, 64, 3), 200, np.uint8)
    unknown = np.full((2, 64, 64), VOID, np.uint8)
    one, two = np.full((16, 16), 1, np.uint8), np.full((16, 16), 2, np.uint8)
    columns = {100: [one, two], 300: [two, None]}
    picture = examples.pseudo_label_picture(images, unknown, columns)
    first = [80, 80, 80] + 0.6 * visualize.palette()[1]
    second = [80, 80, 80] + 0.6 * visualize.palette()[2]
    area = 192 * 192
    assert count(picture, np.rint(first)) == area
    assert count(picture, np.rint(second)) == 2 * area
    assert count(picture, 200) == 2 * area
    last = picture[-4 - 192 : -4, -4 - 192 : -4]
    assert (last == 255).all(), "what is not known is left empty"
    known = examples.pseudo_label_picture(images, unknown * 0, columns)
    assert known.shape[1] == picture.shape[1] + 196
    assert count(known, 80) == 2 * area


def test_the_pictures_of_large_images_are_small():
    """In full size, eight images of Cityscapes would make a picture of 8,212 x 8,244 pixels."""
    size = (1024, 2048)
    batch = EvalBatch(
        views=(EvalView(np.full((1, 1, *size, 3), 200, np.uint8), np.array([[size]], np.int32)),),
        label=np.full((1, 1, *size), 1, np.uint8),
        label_size=np.array([[size]], np.int32),
        index=np.array([[0]], np.int32),
    )
    pictures = examples.EvaluationPictures(1)
    pictures.observe(batch, {"teacher": np.zeros_like(batch.label)})
    picture = pictures.picture()
    assert picture.shape == (20 + 256 + 4, 4 + 3 * (512 + 4), 3)
    truth = np.rint([0.4 * 200 + 0.6 * 128, 0.4 * 200, 0.4 * 200])
    for color in (200, truth, np.rint(0.4 * 200)):
        assert count(picture, color) == 512 * 256

    views = np.full((1, 768, 768, 3), 90.4, np.float32)
    labels, truth = np.full((1, 192, 192), VOID, np.uint8), np.zeros((1, 768, 768), np.uint8)
    picture = examples.unlabeled_picture(views, labels, views, labels, truth)
    assert picture.shape[1] == 4 + 5 * (384 + 4) and count(picture, 90) == 2 * 384**2
    columns = dict.fromkeys(range(8), labels)
    picture = examples.pseudo_label_picture(views.astype(np.uint8), truth, columns)
    assert picture.shape[1] == 4 + 10 * (256 + 4)


def test_training_needs_no_matplotlib():
    program = "import sys, rc2l_jax.reports.pictures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
