"""rc2l_jax/models/extent.py: what is predicted for an image does not depend on its padding."""

from __future__ import annotations

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_dinov2 import TINY as TINY_DINO
from test_models import TINY, random_variables, tiny_config

from rc2l_jax.models import build_model, dinov2, efficientnet, resnet, swin
from rc2l_jax.models.extent import cell_mask
from rc2l_jax.models.position import masked_sine_position, sine_position
from rc2l_jax.structs import Predictions

SHAPE = (96, 128)
EXTENTS = np.array([[64, 96], [96, 32]], np.int32)
# (backbone, stem, norm, dtype): every stem and norm of a ResNet occurs. In float64 rounding cannot
# hide errors: what is left is the rounding of the float32 logits (2e-7 measured). In float32 an
# image in another shape is summed in another order, which makes up to 1.1e-5 (resnet18, deeplab,
# frozen).
NETWORKS = [
    ("resnet18", "basic", "group", "float64"),
    ("resnet18", "deeplab", "frozen", "float64"),
    ("tiny_bottleneck", "basic", "batch", "float64"),
    ("tiny_bottleneck", "deeplab", "group", "float64"),
    ("tiny_bottleneck", "deeplab", "group", "float32"),
    ("tiny_dino", "basic", "frozen", "float64"),
    ("tiny_dino_registers", "basic", "frozen", "float64"),
    ("tiny_dino_registers", "basic", "frozen", "float32"),
    ("tiny_efficientnet", "basic", "frozen", "float64"),
    ("tiny_swin", "basic", "frozen", "float64"),
    ("tiny_swin", "basic", "frozen", "float32"),
]
# Windows of 7 fill up no image's map, and another number of rows and columns than the batch's.
TINY_SWIN = swin.Architecture(8, (2, 2, 1, 2), (1, 2, 2, 4), window=7)
TINY_EFFICIENTNET = efficientnet.Scaling(width=0.25, depth=0.3)
TOLERANCE = {"float64": 1e-6, "float32": 1e-5}  # relative to the largest value


@pytest.fixture(autouse=True)
def tiny_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, architecture in TINY.items():
        monkeypatch.setitem(resnet.BACKBONES, name, architecture)
    for name, architecture in TINY_DINO.items():
        monkeypatch.setitem(dinov2.BACKBONES, name, architecture)
    monkeypatch.setitem(swin.BACKBONES, "tiny_swin", TINY_SWIN)
    monkeypatch.setitem(efficientnet.BACKBONES, "tiny_efficientnet", TINY_EFFICIENTNET)


def randomized(variables: dict) -> dict:
    """Draws every scale, bias and statistic, so that it shows where one is added or left out."""
    rng = np.random.default_rng(1)
    flat = flax.traverse_util.flatten_dict(variables)
    for path, value in flat.items():
        if path[-1] in ("scale", "var"):
            flat[path] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        elif path[-1] in ("bias", "mean"):
            flat[path] = rng.normal(0, 0.3, value.shape).astype(np.float32)
    return flax.traverse_util.unflatten_dict(flat)


def padded(images: list[np.ndarray], fill: np.ndarray) -> np.ndarray:
    for plane, image in zip(fill, images):
        plane[: image.shape[0], : image.shape[1]] = image
    return fill


def parts(predictions: Predictions, i: int, grid: np.ndarray) -> dict[str, np.ndarray]:
    """The predictions for image i, on its part (height, width) of the mask grid."""
    h, w = grid
    return {
        "class_logits": predictions.class_logits[:, i],
        "mask_logits": predictions.mask_logits[:, i, :, :h, :w],
        "pixel_features": predictions.pixel_features[i, :h, :w],
    }


@pytest.mark.parametrize(("backbone", "stem", "norm", "dtype"), NETWORKS)
def test_padded_images_are_predicted_as_if_alone(backbone, stem, norm, dtype):
    config = tiny_config(backbone=backbone, stem=stem, norm=norm, num_decoder_layers=2)
    variables = randomized(random_variables(config))
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(*extent, 3)).astype(np.float32) for extent in EXTENTS]
    garbage = 1e6 * rng.normal(size=(2, *SHAPE, 3)).astype(np.float32)
    with jax.enable_x64(dtype == "float64"):
        model = build_model(config).clone(dtype=jnp.dtype(dtype))
        run = jax.jit(lambda v, x, extent: model.apply(v, x, train=False, extent=extent))
        together = run(variables, padded(images, garbage), EXTENTS)
        zeros = run(variables, padded(images, np.zeros_like(garbage)), EXTENTS)
        alone = [run(variables, image[None], None) for image in images]
    for i, extent in enumerate(EXTENTS):
        found, unseen = (parts(x, i, extent // 4) for x in (together, zeros))
        for name, want in parts(alone[i], 0, extent // 4).items():
            assert np.std(want) > 0.05, "the comparison would be vacuous"
            error = np.abs(found[name] - want).max() / np.abs(want).max()
            assert error < TOLERANCE[dtype], (name, error)
            # What the padding holds changes no bit.
            np.testing.assert_array_equal(found[name], unseen[name])


def test_positions_are_those_of_the_image_alone():
    mask = np.zeros((2, 4, 5), bool)
    mask[0, :3, :5], mask[1, :1, :2] = True, True
    codes = np.asarray(masked_sine_position(mask, 16)).reshape(2, 4, 5, 16)
    for i, (h, w) in enumerate([(3, 5), (1, 2)]):
        alone = np.asarray(sine_position(h, w, 16)).reshape(h, w, 16)
        np.testing.assert_array_equal(codes[i, :h, :w], alone)


def test_images_with_an_extent_must_fit_the_coarsest_stride():
    with pytest.raises(ValueError, match=r"images of \(48, 64\) .* multiples of 32"):
        cell_mask(EXTENTS, (48, 64))
