"""rc2l_jax/reports/pictures.py and examples.py: pictures show what they should, and where."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rc2l_jax.evaluation.confusion import image_miou
from rc2l_jax.reports import examples, painting, pictures
from rc2l_jax.reports.colors import class_colors
from rc2l_jax.reports.painting import Painter
from rc2l_jax.structs import VOID, EvalBatch, EvalView


def count(picture: np.ndarray, color) -> int:
    """Pixels of one colour, below the captions."""
    return int((picture[16:] == color).all(-1).sum())


NAMES = ["background", "cat", "dog"]

# How people see linear RGB who lack long, middle or short cones (Machado et al. 2009, severity 1).
CONES = {
    "all": np.eye(3),
    "no long": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "no middle": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
    "no short": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip


def cielab(rgb: np.ndarray, cones: str) -> np.ndarray:
    """CIELAB (D65) of sRGB colours [N, 3] in 0..255, as some people see them."""
    x = rgb / 255.0
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.clip(linear @ CONES[cones].T, 0, 1) @ np.transpose(to_xyz) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("cones", CONES)
def test_thirty_classes_can_be_told_apart(cones):
    colors = class_colors([f"class {i}" for i in range(30)])[:30].astype(float)
    lab = cielab(colors, cones)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    # 2.3 is the least difference that people notice between two fields side by side.
    assert apart.min() > (24 if cones == "all" else 12)
    assert apart[:10, :10].min() > (40 if cones == "all" else 20), "the first are farther apart"


def test_only_a_class_that_is_called_background_is_black():
    assert class_colors(NAMES)[0].tolist() == [0, 0, 0]
    of_sky = class_colors(["sky", "building"])
    assert of_sky[0].any() and (of_sky[0] == class_colors(NAMES)[1]).all()
    assert class_colors(["cat", "_background_"])[1].tolist() == [0, 0, 0]
    assert len({tuple(color) for color in class_colors(["a"] * 150)[:90]}) == 90


def test_overlay_leaves_the_background_as_it_is_and_outlines_the_rest():
    image = np.full((40, 60, 3), 100, np.uint8)
    label = np.zeros((40, 60), np.uint8)
    label[10:30, 20:50] = 1
    painted = Painter(NAMES).overlay(image, label)
    color = class_colors(NAMES)[1]
    np.testing.assert_array_equal(painted[label == 0], image[label == 0])
    inner = np.zeros_like(label, bool)
    inner[11:29, 21:49] = True
    np.testing.assert_array_equal(painted[inner], np.rint(50 + color / 2)[None].repeat(18 * 28, 0))
    np.testing.assert_array_equal(painted[(label == 1) & ~inner], color[None].repeat(96, 0))
    of_sky = Painter(["sky", "cat"]).overlay(image, label)
    assert (of_sky != image).any(axis=-1).all(), "sky is a class like any other"


def test_void_is_hatched_and_not_a_colour():
    image = np.full((64, 64, 3), 100, np.uint8)
    label = np.full((8, 8), VOID, np.uint8)
    painted = Painter(NAMES).overlay(image, label)
    assert {tuple(x) for x in painted.reshape(-1, 3).tolist()} == {(100,) * 3, (0,) * 3, (255,) * 3}
    for value, share in ((100, 0.5), (0, 0.25), (255, 0.25)):
        assert (painted == value).all(-1).mean() == pytest.approx(share, abs=0.02)
    np.testing.assert_array_equal(painted[1:, :-1], painted[:-1, 1:])  # stripes are diagonal


def test_a_large_overlay_is_mixed_like_a_small_one():
    """It is painted some rows at a time, and no seam may show."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (600, 30, 3), np.uint8)
    label = rng.integers(0, 21, (60, 3), np.uint8)
    label[:, 0] = VOID
    painter = Painter([f"class {i}" for i in range(21)])
    whole = painter.overlay(image, label)
    label = painting.resize_label(label, (600, 30))
    shifted = painter.overlay(image[100:], label[100:])
    np.testing.assert_array_equal(whole[110:, 10:], shifted[10:, 10:])  # beside the hatching


def test_errors_are_marked_where_truth_is_known():
    image = np.full((8, 12, 3), 100, np.uint8)
    label, prediction = np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint8)
    label[0, 0], prediction[0, 1], prediction[1, 2], label[1, 2] = 1, 2, 1, VOID
    marked = Painter(NAMES).errors(image, label, prediction)
    wrong = (marked == painting.WRONG).all(-1)
    assert wrong[:4, :8].all() and wrong.sum() == 32
    assert {*marked[4:, 8:].ravel().tolist()} > {0, 255}, "void is hatched"
    assert (marked[4:, :4] == marked[4, 0]).all() and marked[4, 0, 0] > 150, "right ones fade"


@pytest.mark.parametrize("count_of_classes", [1, 33, 150])
def test_legend_shows_every_colour_beside_its_name(count_of_classes):
    painter = Painter([f"class {i}" for i in range(count_of_classes)])
    picture = pictures.legend(painter)
    for color in painter.colors[:count_of_classes]:
        assert (picture == color).all(-1).sum() >= 24 * 16  # letters have shades of grey
    assert (picture < 128).all(-1).sum() > 100 * count_of_classes, "no name was written"
    assert pictures.legend(Painter(["x" * 200])).shape[1] > 500


def test_indexed_images_keep_their_ids(tmp_path):
    ids = np.array([[0, 1, 20], [254, 255, 7]], np.uint8)
    painter = Painter(NAMES)
    pictures.save_image(tmp_path / "a.png", painter.indexed(ids))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), ids)
        shown = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(shown, painter.colors[ids])


def test_grid_holds_every_cell_and_caption():
    rows = [
        [np.full((200, 100, 3), 10, np.uint8), np.full((200, 120, 3), 20, np.uint8)],
        [np.full((90, 100, 3), 30, np.uint8), np.full((90, 120, 3), 40, np.uint8)],
    ]
    picture = pictures.grid(rows, ["left", "right"])
    for value, area in ((10, 200 * 100), (20, 200 * 120), (30, 90 * 100), (40, 90 * 120)):
        assert count(picture, value) == area
    band = picture[:16]
    assert (band < 128).any(), "no caption was drawn"


@pytest.mark.parametrize(
    ("size", "shown"),
    [((64, 64), (256, 256)), ((160, 213), (320, 426)), ((300, 400), (300, 400))],
)
def test_small_pictures_are_enlarged(size, shown):
    assert painting.fit(np.zeros((*size, 3), np.uint8)).shape == (*shown, 3)


def test_a_note_is_written_into_its_cell():
    cell = np.full((100, 200, 3), 10, np.uint8)
    picture = pictures.grid([[cell, cell]], ["a", "b"], [["", "mIoU 0.50"]])
    assert count(picture[:, :204], 10) == 100 * 200
    box = picture[20:37, 208:300]
    assert (box == 255).all(-1).any() and (box < 128).all(-1).any()


@pytest.mark.parametrize("rows", [[], [[np.zeros((2, 2, 3), np.uint8)]]])
def test_grid_refuses_what_does_not_fit(rows):
    with pytest.raises(ValueError, match="2 columns"):
        pictures.grid(rows, ["a", "b"])


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


def evaluation_pictures(number: int) -> examples.EvaluationPictures:
    score = functools.partial(image_miou, num_classes=len(NAMES))
    return examples.EvaluationPictures(number, NAMES, score)


def test_evaluation_pictures_crop_padding_and_leave_out_fill():
    shown = evaluation_pictures(5)
    assert shown.picture() is None
    batch = eval_batch()
    assert shown.observe(batch, {"student": np.zeros_like(batch.label)}), "3 rows are missing"
    picture = shown.picture()
    area = 2 * 20 * 25 * 11**2  # 25 pixels are enlarged to 275
    # The photos, cropped, and the students' predictions of background, less a note on each.
    assert count(picture, 200) == pytest.approx(2 * area, rel=0.05)
    inner = np.rint(100 + class_colors(NAMES)[1] / 2)
    assert count(picture, inner) == pytest.approx(area, rel=0.05)  # the truth; no outlines
    assert count(picture, painting.WRONG) == area, "every pixel is wrong"


def test_evaluation_pictures_stop_at_the_number_asked_for():
    shown = evaluation_pictures(1)
    batch = eval_batch()
    assert not shown.observe(batch, {"student": np.zeros_like(batch.label)})
    assert count(shown.picture(), painting.WRONG) == 20 * 25 * 11**2


def test_unlabeled_picture_shows_ground_truth_only_where_it_is_known():
    views = np.full((1, 64, 64, 3), 90.4, np.float32)
    labels = np.full((1, 16, 16), VOID, np.uint8)
    unknown = np.full((1, 64, 64), VOID, np.uint8)
    without = examples.unlabeled_picture(views, labels, views, labels, unknown, NAMES)
    truth = unknown * 0
    with_truth = examples.unlabeled_picture(views, labels, views, labels, truth, NAMES)
    assert with_truth.shape[1] > without.shape[1]
    # Two photos, and half of what is hatched.
    assert count(without, 90) == 3 * 256 * 256
    assert count(with_truth, 90) == 4 * 256 * 256


def test_png_comes_back(tmp_path):
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    pictures.save_png(tmp_path / "a" / "b.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a" / "b.png")), picture)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.png"]


def test_letters_that_are_not_ascii_are_drawn():
    cell = np.full((192, 192, 3), 10, np.uint8)
    captions = ["?", "ß", "²", "Ж", "λ", "ő"]
    bands = [pictures.grid([[cell]], [caption])[:16] for caption in captions]
    for i, band in enumerate(bands):
        assert (band < 128).any()
        for other in bands[:i]:
            assert (band != other).any(), "two letters look the same: a box stands for both"


def test_a_key_names_the_classes_that_occur():
    picture = np.full((30, 300, 3), 10, np.uint8)
    painter = Painter([f"class {i}" for i in range(21)])
    shown = pictures.with_key(picture, painter, [2, 20, 2, VOID])
    np.testing.assert_array_equal(shown[:30, :300], picture)
    for index in range(21):
        area = (shown[30:] == painter.colors[index]).all(-1).sum()
        assert area == (24 * 16 if index in (2, 20) else 0)
    assert (shown[30:] == painting._UNPAINTED).all(-1).sum() == 24 * 16 / 2, "void is hatched"
    assert shown.shape[0] - 30 < 2 * (16 + 4) + 4 + 1, "three fit into two lines"
    np.testing.assert_array_equal(pictures.with_key(picture, painter, []), picture)
    assert pictures.with_key(picture[:, :20], painter, [1]).shape[1] > 20


def test_large_images_are_shrunk_by_whole_factors():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    half = painting.fit(image, 3)
    assert half.shape == (2, 3, 3)
    block = image[:2, :2].reshape(-1, 3).astype(float)
    assert np.abs(half[0, 0] - block.mean(0)).max() <= 0.5
    assert painting.fit(image, 5).shape == (2, 3, 3)


def test_pseudo_labels_have_a_column_a_step():
    images = np.full((2, 64, 64, 3), 200, np.uint8)
    unknown = np.full((2, 64, 64), VOID, np.uint8)
    one, two = np.full((16, 16), 1, np.uint8), np.full((16, 16), 2, np.uint8)
    columns = {100: [one, two], 300: [two, None]}
    picture = examples.pseudo_label_picture(images, unknown, columns, NAMES)
    first, second = np.rint(100 + class_colors(NAMES)[1:3] / 2)
    area = 256 * 256
    assert count(picture, first) == area
    assert count(picture, second) == 2 * area
    assert count(picture[: 2 * 256 + 24], 200) == 2 * area
    last = picture[2 * 256 + 24 - 256 : 2 * 256 + 24, -4 - 256 : -4]
    assert (last == 255).all(), "what is not known is left empty"
    known = examples.pseudo_label_picture(images, unknown * 0, columns, NAMES)
    assert known.shape[1] == picture.shape[1] + 260
    assert count(known[: 2 * 256 + 24], 200) == 4 * area


def test_the_pictures_of_large_images_are_small():
    """In full size, eight images of Cityscapes would make a picture of 8,212 x 8,244 pixels."""
    size = (1024, 2048)
    batch = EvalBatch(
        views=(EvalView(np.full((1, 1, *size, 3), 200, np.uint8), np.array([[size]], np.int32)),),
        label=np.full((1, 1, *size), 1, np.uint8),
        label_size=np.array([[size]], np.int32),
        index=np.array([[0]], np.int32),
    )
    shown = evaluation_pictures(1)
    shown.observe(batch, {"teacher": np.zeros_like(batch.label)})
    picture = shown.picture()
    assert picture.shape == (20 + 256 + 4 + 24, 4 + 4 * (512 + 4), 3)
    assert count(picture, painting.WRONG) == 512 * 256

    views = np.full((1, 768, 768, 3), 90.4, np.float32)
    labels, truth = np.full((1, 192, 192), VOID, np.uint8), np.zeros((1, 768, 768), np.uint8)
    picture = examples.unlabeled_picture(views, labels, views, labels, truth, NAMES)
    assert picture.shape[1] == 4 + 5 * (384 + 4)
    columns = dict.fromkeys(range(8), labels)
    picture = examples.pseudo_label_picture(views.astype(np.uint8), truth, columns, NAMES)
    assert picture.shape[1] == 4 + 10 * (256 + 4)


def test_training_needs_no_matplotlib():
    program = "import sys, rc2l_jax.reports.pictures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
