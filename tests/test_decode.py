"""rc2l_jax/input_pipeline/decode.py and geometry.py: decoding a part equals decoding the whole."""

import io

import numpy as np
import pytest
from PIL import Image
from test_data import folder_config, write_folder

from data import DataError
from data.dataset import Dataset
from data.host_tf import tf
from rc2l_jax.input_pipeline import geometry, train_batches
from rc2l_jax.input_pipeline.decode import decode_image
from rc2l_jax.input_pipeline.geometry import Crop
from rc2l_jax.input_pipeline.subsets import open_subsets

KINDS = {
    "444": {"subsampling": 0},
    "422": {"subsampling": 1},
    "420": {"subsampling": 2},
    "420 progressive": {"subsampling": 2, "progressive": True},
    "grey": {"mode": "L"},
    "cmyk": {"mode": "CMYK"},
}


def photo(height, width, detail=6):
    """Soft blobs of strong colours, `detail` pixels wide, so that chroma changes everywhere."""
    cells = (max(height // detail, 2), max(width // detail, 2), 3)
    noise = np.random.default_rng(0).integers(0, 256, cells, np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image, mode="RGB", **options):
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


def random_crop(rng, size, shrink):
    """A random window of the image shrunk by `shrink`; some touch its border, some fill it."""
    resized = np.maximum(np.floor(np.array(size) / shrink + 0.5).astype(int), 1)
    first, second = (rng.integers(-3, resized + 4) for _ in range(2))
    low = np.clip(np.minimum(first, second), 0, resized - 1)
    high = np.clip(np.maximum(first, second), low + 1, resized)
    return Crop(*(tf.constant(part, tf.int32) for part in (resized, low, high - low)))


def in_part(encoded, size, crop):
    return geometry.resample_encoded(tf.constant(encoded), tf.constant(size), crop).numpy()


def from_whole(encoded, crop):
    return geometry.resample_image(decode_image(encoded), *crop).numpy()


@pytest.fixture
def decoded_extents(monkeypatch):
    """Records (height, width, ratio) of every JPEG window that is decoded."""
    seen = []
    decode = tf.image.decode_and_crop_jpeg

    def spy(encoded, window, channels, ratio):
        pixels = decode(encoded, window, channels=channels, ratio=ratio)
        seen.append((*pixels.shape[:2], ratio))
        return pixels

    monkeypatch.setattr(tf.image, "decode_and_crop_jpeg", spy)
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(151, 203), (96, 64)])
def test_a_window_of_a_jpeg_equals_the_window_of_the_whole(kind, size, decoded_extents):
    encoded = jpeg(photo(*size), **KINDS[kind])
    rng = np.random.default_rng(1)
    for shrink in (0.37, 0.5, 0.73, 1.0, 1.31, 1.9):
        for _ in range(12):
            crop = random_crop(rng, size, shrink)
            whole = from_whole(encoded, crop)
            part = in_part(encoded, size, crop)
            assert part.shape == whole.shape == (*crop.window.numpy(), 3)
            assert np.abs(part.astype(int) - whole).max() <= 1, (shrink, crop)
    assert all(ratio == 1 for *_, ratio in decoded_extents)
    areas = [height * width for height, width, _ in decoded_extents]
    assert np.median(areas) < 0.5 * size[0] * size[1]  # most windows were decoded in part


@pytest.mark.parametrize("kind", ["RGB", "L", "P"])
def test_a_window_of_a_png_equals_the_window_of_the_whole(kind):
    size = (61, 83)
    buffer = io.BytesIO()
    photo(*size).convert(kind).save(buffer, "PNG")
    encoded = buffer.getvalue()
    rng = np.random.default_rng(2)
    for shrink in (0.4, 1.0, 1.7, 2.5, 9.0):
        for _ in range(10):
            crop = random_crop(rng, size, shrink)
            difference = in_part(encoded, size, crop).astype(int) - from_whole(encoded, crop)
            assert np.abs(difference).max() <= 1


def test_a_part_is_pillows_crop_of_pillows_resized_image():
    size, resized = (150, 200), (222, 296)
    encoded = jpeg(photo(*size), subsampling=0)
    # Pillow decodes more precisely than TensorFlow by default. Both resample TensorFlow's pixels,
    # so that only the resampling is compared.
    pixels = Image.fromarray(decode_image(encoded).numpy())
    expected = np.asarray(pixels.resize(resized[::-1], Image.Resampling.BILINEAR))[70:170, 31:280]
    crop = Crop(*(tf.constant(part) for part in (resized, (70, 31), (100, 249))))
    assert np.abs(in_part(encoded, size, crop).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("shape", [(188, 188), (375, 500), (64, 1), (1, 130), (200, 131)])
@pytest.mark.parametrize("scale", [0.31, 1.0, 2.73])
def test_resampling_by_axis_equals_the_op_for_both_axes(shape, scale):
    """Equal in every bit, as evaluation is defined by TensorFlow's op."""
    image = np.random.default_rng(3).integers(0, 256, (*shape, 3), np.uint8)
    resized = np.maximum(np.round(np.array(shape) * scale).astype(np.int32), 1)
    offset = resized // 5
    window = resized - 2 * offset
    expected = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=window,
        scale=resized.astype(np.float32) / np.array(shape, np.float32),
        translation=-offset.astype(np.float32),
        kernel_type="triangle",
        antialias=True,
    )[0]
    expected = np.clip(np.round(expected.numpy()), 0, 255).astype(np.uint8)
    actual = geometry.resample_image(
        *(tf.constant(part) for part in (image, resized, offset, window))
    )
    np.testing.assert_array_equal(actual, expected)


# Shrinking while decoding.


@pytest.mark.parametrize(
    ("shrink", "ratio"), [(1.99, 1), (2.0, 2), (3.9, 2), (4.0, 4), (7.9, 4), (8.0, 8), (20.0, 8)]
)
def test_the_decoder_shrinks_only_by_what_is_asked_for(shrink, ratio, decoded_extents):
    size = (1600, 2000)
    encoded = jpeg(photo(*size))
    resized = tf.constant([round(extent / shrink) for extent in size])
    crop = Crop(resized, tf.constant([0, 0]), resized)
    assert in_part(encoded, size, crop).shape == (*resized.numpy(), 3)
    assert decoded_extents == [(1600 // ratio, 2000 // ratio, ratio)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shrink", [2.05, 2.6, 4.3, 8.1])
def test_shrinking_in_the_decoder_is_close_to_the_filter(kind, shrink):
    """Tested with odd sizes, random windows, and detail 8 output pixels wide."""
    size = (451, 603)
    encoded = jpeg(photo(*size, detail=int(8 * shrink)), **KINDS[kind])
    limit = 4 if kind == "422" else 2  # shrunk to an eighth, 4:2:2 chroma is not interpolated
    rng = np.random.default_rng(4)
    for _ in range(6):
        crop = random_crop(rng, size, shrink)
        whole, part = from_whole(encoded, crop), in_part(encoded, size, crop)
        assert 0 < np.abs(part.astype(float) - whole).mean() < limit


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shrink", [2.05, 2.3, 4.1, 6.5, 8.1])
def test_shrinking_in_the_decoder_moves_nothing(axis, shrink, decoded_extents):
    """A ramp's values tell where each pixel was, to a fraction of an output pixel."""
    size = (643, 901)
    rising = np.round(250 / size[axis] * np.indices(size)[axis]).astype(np.uint8)
    resized = np.floor(np.array(size) / shrink).astype(np.int32)
    offset = resized // 7
    window = resized - 2 * offset
    crop = Crop(*map(tf.constant, (resized, offset, window)))
    up, down = (
        in_part(jpeg(Image.fromarray(ramp)), size, crop)[..., 1].astype(float)
        for ramp in (rising, 250 - rising)
    )
    assert all(ratio > 1 for *_, ratio in decoded_extents)
    place = ((up - down) / 500 + 0.5) * size[axis]  # the difference cancels the decoder's bias
    step = size[axis] / resized[axis]
    centres = (np.indices(window)[axis] + offset[axis] + 0.5) * step - 0.5
    error = (place - centres) / step  # in output pixels
    assert abs(error.mean()) < 0.1  # half a pixel of the shrunk image would be 0.25 or more


# Damage.


def test_a_jpeg_that_ends_early_is_an_error_where_it_is_seen(tmp_path, monkeypatch):
    config = folder_config(write_folder(tmp_path / "data", size=(64, 64)), tmp_path / "prepared")
    config.data.min_scale = config.data.max_scale = 1.0  # the crop shows everything
    whole = jpeg(photo(64, 64))
    fetch = Dataset.fetch

    def damaged(self, keys, *, labels):
        images, masks = fetch(self, keys, labels=labels)
        return [whole[: int(0.7 * len(whole))] for _ in images], masks

    batches = train_batches.train_batches(config, open_subsets(config), 0, 1)
    monkeypatch.setattr(Dataset, "fetch", damaged)
    with pytest.raises(DataError, match=r"^train/train\d cannot be decoded"):
        next(batches)
