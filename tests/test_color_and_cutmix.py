"""rc2l_jax/method/color.py, cutmix.py and keys.py, and rc2l_jax/models/pixels.py.

Colours are compared with colorsys, pixel by pixel. CutMix boxes have the sizes that were asked for.
Neither depends on the number of devices.
"""

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rc2l_jax.method import color, cutmix, keys
from rc2l_jax.method.segments import nearest_downsample
from rc2l_jax.models.pixels import normalize
from rc2l_jax.structs import AXIS

color_augment = jax.jit(color.color_augment)
distort_color = jax.jit(color.distort_color)
cutmix_boxes = jax.jit(cutmix.cutmix_boxes, static_argnames="size")
image_keys = jax.jit(keys.image_keys)


def test_normalize():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3)).astype(np.uint8)
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # Detectron's, RGB
    for x in (images, images.astype(np.float32)):
        got = normalize(x)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, (images - np.array(mean)) / np.array(std), atol=1e-6)


# --- Colour ---


def ssd(pixel, brightness, contrast, saturation, hue, contrast_first):
    """SSD's operations on one RGB pixel, through colorsys."""

    def clip(p):
        return [min(max(c, 0.0), 255.0) for c in p]

    def change_contrast(p):
        return clip([c * contrast for c in p])

    def change_hsv(p):
        h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in p))
        return [255 * c for c in colorsys.hsv_to_rgb((h + hue) % 1.0, min(s * saturation, 1.0), v)]

    p = clip([c + brightness for c in pixel])
    order = [change_contrast, change_hsv] if contrast_first else [change_hsv, change_contrast]
    for change in order:
        p = change(p)
    return p


def test_color_equals_colorsys():
    rng = np.random.default_rng(0)
    corners = list(itertools.product([0, 90, 255], repeat=3))  # greys, ties, clipped channels
    pixels = np.concatenate([corners, rng.integers(0, 256, (40, 3))]).astype(np.float32)
    for brightness, contrast, saturation, hue, first in itertools.product(
        [-32.0, 0.0, 20.0], [0.5, 1.0, 1.4], [0.6, 1.0, 1.5], [-0.1, 0.0, 0.07], [True, False]
    ):
        factors = {
            "brightness": brightness,
            "contrast": contrast,
            "saturation": saturation,
            "hue": hue,
            "contrast_first": first,
        }
        expected = [ssd(pixel, **factors) for pixel in pixels]
        got = distort_color(pixels, **factors)
        np.testing.assert_allclose(got, expected, atol=2e-3, err_msg=str(factors))
    np.testing.assert_allclose(
        distort_color(
            pixels, brightness=0.0, contrast=1.0, saturation=1.0, hue=0.0, contrast_first=True
        ),
        pixels,
        atol=1e-4,
    )


@pytest.fixture(scope="module")
def draws():
    """A grey and a reddish pixel after `color_augment`, drawn 4096 times: [4096, 1, 2, 3]."""
    image = np.array([[[100, 100, 100], [120, 80, 80]]], np.uint8)
    number = 4096
    keys = image_keys(jax.random.PRNGKey(0), np.arange(number))
    images = np.broadcast_to(image, (number, *image.shape))
    return np.asarray(color_augment(keys, images, np.ones(images.shape[:3], bool)))


def test_each_operation_is_drawn_with_chance_one_half(draws):
    grey = draws[:, 0, 0]
    np.testing.assert_allclose(grey, grey[:, :1] * np.ones(3), atol=1e-3)  # grey stays grey
    unchanged = np.abs(grey[:, 0] - 100) < 1e-3  # neither brightness nor contrast
    np.testing.assert_allclose(unchanged.mean(), 1 / 4, atol=0.03)
    red = draws[:, 0, 1]
    value, chroma = red.max(-1), red.max(-1) - red.min(-1)
    # Both pixels together tell contrast a from brightness d, as the grey pixel is a (100 + d) and
    # the largest channel of the red one is a (120 + d). Saturation scales the red one's chroma.
    contrast = (value - grey[:, 0]) / 20
    brightness = grey[:, 0] / contrast - 100
    saturation = chroma / (40 * contrast)  # no channel is clipped
    for factor, still, low, high in (
        (brightness, 0, -32, 32),
        (contrast, 1, 0.5, 1.5),
        (saturation, 1, 0.5, 1.5),
    ):
        moved = np.abs(factor - still) > 1e-3 * (high - low)
        np.testing.assert_allclose(moved.mean(), 1 / 2, atol=0.03)
        slack = 1e-3 * (high - low)
        assert low - slack < factor.min() < low + 0.05 * (high - low)
        assert high + slack > factor.max() > high - 0.05 * (high - low)
        np.testing.assert_allclose(factor[moved].mean(), (low + high) / 2, atol=0.03 * (high - low))


def test_hue_turns_at_most_a_tenth_of_the_circle(draws):
    """OpenCV's circle has 180 steps and SSD turns it by at most 18."""
    hue = np.array([colorsys.rgb_to_hsv(*(pixel / 255))[0] for pixel in draws[:, 0, 1]])
    turn = (hue + 0.5) % 1.0 - 0.5
    np.testing.assert_allclose((np.abs(turn) > 1e-4).mean(), 1 / 2, atol=0.03)
    assert 0.095 < turn.max() < 0.1001
    assert -0.1001 < turn.min() < -0.095


def test_color_depends_on_the_position_and_not_on_the_number_of_devices():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 4, 5, 3)).astype(np.uint8)
    images[1] = images[0]
    valid = np.ones((8, 4, 5), bool)
    valid[:, 3] = valid[2] = False
    key = jax.random.PRNGKey(3)
    whole = color_augment(image_keys(key, np.arange(8)), images, valid)
    halves = [
        color_augment(image_keys(key, first + np.arange(4)), images[first:][:4], valid[first:][:4])
        for first in (0, 4)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    assert (np.asarray(whole)[~valid] == 128).all()
    assert np.abs(whole[0, :3] - whole[1, :3]).max() > 1  # the same image, another position
    assert len(np.unique(image_keys(key, np.arange(100)), axis=0)) == 100
    again = color_augment(image_keys(jax.random.PRNGKey(4), np.arange(8)), images, valid)
    assert np.abs(whole[0, :3] - again[0, :3]).max() > 1


# --- CutMix ---

BOXES = {"probability": 1.0, "min_area": 0.25, "max_area": 0.5, "max_aspect": 2.0}


def drawn_boxes(number, size, **changed):
    keys = image_keys(jax.random.PRNGKey(1), np.arange(number))
    boxes = np.asarray(cutmix_boxes(keys, size=size, **(BOXES | changed)))
    assert boxes.shape == (number, *size)
    rows, columns = boxes.any(2), boxes.any(1)
    np.testing.assert_array_equal(boxes, rows[:, :, None] & columns[:, None, :])  # a rectangle
    for side in (rows, columns):  # in one piece
        assert (np.abs(np.diff(side.astype(int), axis=1)).sum(1) <= 2).all()
        assert not (side[:, 0] & side[:, -1] & ~side.all(1)).any()
    return boxes, rows, columns


@pytest.mark.parametrize("size", [(128, 128), (64, 96)])
def test_areas_and_aspects_lie_in_their_bounds(size):
    boxes, rows, columns = drawn_boxes(1000, size)
    area = boxes.mean((1, 2))
    tall, wide = rows.mean(1), columns.mean(1)
    rounding = 1 / min(size)
    assert 0.25 - rounding < area.min() < 0.27
    assert 0.48 < area.max() < 0.5 + rounding
    np.testing.assert_allclose(area.mean(), 0.375, atol=0.01)  # uniform
    aspect = np.log2(tall / wide)
    assert -1 - 4 * rounding < aspect.min() < -0.95
    assert 0.95 < aspect.max() < 1 + 4 * rounding
    np.testing.assert_allclose(aspect.mean(), 0, atol=0.06)  # log-uniform, either way
    np.testing.assert_allclose((np.abs(aspect) < 0.5).mean(), 0.5, atol=0.06)
    # Boxes lie anywhere: every row and column is in a box about as often as its mirror image.
    np.testing.assert_allclose(rows.mean(0), rows.mean(0)[::-1], atol=0.08)
    np.testing.assert_allclose(columns.mean(0), columns.mean(0)[::-1], atol=0.08)
    assert rows[:, 0].any()
    assert rows[:, -1].any()
    assert columns[:, 0].any()
    assert columns[:, -1].any()


def test_a_large_box_gives_up_its_aspect_and_not_its_area():
    boxes, _, _ = drawn_boxes(1000, (64, 96), min_area=0.7, max_area=0.8, max_aspect=3.0)
    area = boxes.mean((1, 2))
    assert area.min() > 0.7 - 1 / 64
    assert area.max() < 0.8 + 1 / 64


def test_chance_of_a_box():
    boxes, _, _ = drawn_boxes(1000, (64, 96), probability=0.3)
    np.testing.assert_allclose(boxes.any((1, 2)).mean(), 0.3, atol=0.05)
    assert not drawn_boxes(1000, (64, 96), probability=0.0)[0].any()


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_the_next_image_of_the_global_batch_is_pasted(devices):
    images = np.arange(8 * 3).reshape(8, 3)
    tree = {"number": images, "even": images % 2 == 0}
    shared = jax.tree.map(lambda x: x.reshape(devices, 8 // devices, 3), tree)
    got = jax.pmap(cutmix.next_images, axis_name=AXIS)(shared)
    expected = np.roll(images, -1, axis=0)
    np.testing.assert_array_equal(np.concatenate(got["number"]), expected)
    np.testing.assert_array_equal(np.concatenate(got["even"]), expected % 2 == 0)


def test_a_single_image_is_its_own_next():
    alone = np.arange(3).reshape(1, 1, 3)
    np.testing.assert_array_equal(jax.pmap(cutmix.next_images, axis_name=AXIS)(alone), alone)


def test_images_and_labels_are_cut_by_the_same_box():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 16, 24, 3)).astype(np.float32)
    labels = rng.integers(0, 9, (3, 16, 24)).astype(np.uint8)
    keys = image_keys(jax.random.PRNGKey(5), np.arange(3))
    box = np.asarray(cutmix_boxes(keys, size=(4, 6), **BOXES))
    partner = np.array([2, 0, 1], np.int32)

    def cut(images):
        return cutmix.cutmix_images(images, images[partner], box)

    expected_image, expected_label = images.copy(), labels.copy()
    for b, (row, column) in itertools.product(range(3), np.ndindex(16, 24)):
        if box[b, row // 4, column // 4]:
            expected_image[b, row, column] = images[partner[b], row, column]
            expected_label[b, row, column] = labels[partner[b], row, column]
    np.testing.assert_array_equal(cut(images), expected_image)
    mixed = cut(labels)
    np.testing.assert_array_equal(mixed, expected_label)
    assert mixed.dtype == jnp.uint8
    # Mixing first and sampling the mask grid then is exactly the same as the other way round.
    small = nearest_downsample(labels, (4, 6))
    np.testing.assert_array_equal(
        nearest_downsample(mixed, (4, 6)), np.where(box, small[partner], small)
    )


JITTER = {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.25}


def test_jitter_changes_colours_only_with_its_probability_and_keeps_padding_grey():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    valid = np.ones((4, 8, 8), bool)
    valid[:, :, 6:] = False
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    jitter = jax.jit(color.color_jitter)
    never = np.asarray(jitter(keys, images, valid, probability=0.0, grayscale=0.0, **JITTER))
    np.testing.assert_array_equal(never[:, :, :6], images[:, :, :6])
    always = np.asarray(jitter(keys, images, valid, probability=1.0, grayscale=0.0, **JITTER))
    assert (np.abs(always - never)[:, :, :6].mean((1, 2, 3)) > 5).all()
    assert always.min() >= 0 and always.max() <= 255
    for result in (never, always):
        assert (result[:, :, 6:] == 128).all()


def test_a_greyscale_image_has_pillows_luminance():
    from PIL import Image

    image = np.random.default_rng(1).integers(0, 256, (1, 6, 5, 3), dtype=np.uint8)
    keys = jax.random.split(jax.random.PRNGKey(0), 1)
    valid = np.ones((1, 6, 5), bool)
    gray = color.color_jitter(keys, image, valid, probability=0.0, grayscale=1.0, **JITTER)
    expected = np.asarray(Image.fromarray(image[0]).convert("L"), np.float32)
    np.testing.assert_allclose(gray[0], np.repeat(expected[..., None], 3, -1), atol=1.0)
