"""rc2l_jax/evaluation/class_scores.py and label_resolution.py, and `semantic_inference`.

Inference and its test-time options agree with the peer's network and torch.
"""

from __future__ import annotations

import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from test_models import TINY, converted, peer_model, peer_predictions, randomize, tiny_config
from transformers import MaskFormerForInstanceSegmentation, MaskFormerImageProcessor

from rc2l_jax.evaluation.class_scores import (
    InferenceOptions,
    Logits,
    image_scores,
    predict_labels,
    view_logits,
)
from rc2l_jax.evaluation.label_resolution import label_rows, resize_valid_part
from rc2l_jax.models import build_model, resnet
from rc2l_jax.models.maskformer import semantic_inference
from rc2l_jax.structs import EvalBatch, EvalView

NUM_CLASSES = 3


def logits(batch: int = 2, queries: int = 5, grid: tuple[int, int] = (8, 12)):
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(batch, queries, NUM_CLASSES + 1)).astype(np.float32)
    masks = 3 * rng.normal(size=(batch, queries, *grid)).astype(np.float32)
    return classes, masks


def torch_scores(classes: np.ndarray, masks: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """MaskFormer's inference, written a second time in torch: [B, K, H, W]."""
    masks = torch.nn.functional.interpolate(
        torch.tensor(masks), size=size, mode="bilinear", align_corners=False
    )
    classes = torch.tensor(classes).softmax(-1)[..., :-1]
    return torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid())


def test_semantic_inference_is_maskformers():
    classes, masks = logits()
    scores = jax.jit(semantic_inference, static_argnums=2)(classes, masks, (32, 48))
    np.testing.assert_allclose(scores, torch_scores(classes, masks, (32, 48)), atol=2e-6)


def test_semantic_inference_picks_the_classes_transformers_picks():
    classes, masks = logits()
    outputs = types.SimpleNamespace(
        class_queries_logits=torch.from_numpy(classes), masks_queries_logits=torch.from_numpy(masks)
    )
    # Without target sizes transformers keeps the masks' own resolution.
    expected = MaskFormerImageProcessor().post_process_semantic_segmentation(outputs)
    scores = semantic_inference(classes, masks, masks.shape[-2:])
    np.testing.assert_array_equal(scores.argmax(1), np.stack(expected))


@pytest.mark.parametrize(
    ("size", "out_size"),
    [((32, 48), (32, 48)), ((20, 31), (50, 77)), ((29, 48), (11, 13)), ((1, 1), (5, 4))],
)
def test_resize_of_the_valid_part_is_torchs(size, out_size):
    scores = np.random.default_rng(1).normal(size=(2, 32, 48)).astype(np.float32)
    poisoned = np.full_like(scores, np.nan)  # what lies outside `size` must not be read
    poisoned[:, : size[0], : size[1]] = scores[:, : size[0], : size[1]]
    resize = jax.jit(resize_valid_part, static_argnums=3)
    out = resize(poisoned, jnp.array(size), jnp.array(out_size), (64, 80))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(scores[None, :, : size[0], : size[1]]),
        size=out_size,
        mode="bilinear",
        align_corners=False,
    )[0]
    assert out.shape == (2, 64, 80)
    assert np.isfinite(out).all()
    np.testing.assert_allclose(out[:, : out_size[0], : out_size[1]], expected, atol=1e-5)


# All the way from pixels to scores at label resolution, against the peer's network in torch.

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
LABEL_SIZES = ((61, 40), (50, 90))
# Two views, each of both images: the sizes to which the host would resize the images.
VIEWS = (((70, 46), (60, 108)), ((35, 23), (30, 54)))
# (options, number of views, number of cells of 32 pixels to pad beyond what the images need).
CASES = {
    "MaskFormer": (InferenceOptions(flip=False, window=0, window_stride=1.0), 1, 0),
    "scales and flip": (InferenceOptions(flip=True, window=0, window_stride=1.0), 2, 0),
    # The images have up to 2 x 3 windows, but the padded plane has 3 x 4.
    "scales, flip, windows": (InferenceOptions(flip=True, window=64, window_stride=0.5), 2, 1),
}


@pytest.fixture(autouse=True, scope="module")
def tiny_backbones():
    with pytest.MonkeyPatch.context() as patch:
        for name, architecture in TINY.items():
            patch.setitem(resnet.BACKBONES, name, architecture)
        yield


@pytest.fixture(scope="module")
def peer(tiny_backbones) -> types.SimpleNamespace:
    config = tiny_config()
    theirs = peer_model(config)
    randomize(theirs)
    return types.SimpleNamespace(
        model=theirs, ours=build_model(config), variables=converted(theirs, config)
    )


def resized_images() -> list[list[np.ndarray]]:
    """For each view a list with both images, uint8 [h, w, 3]."""
    rng = np.random.default_rng(0)
    return [[rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes] for sizes in VIEWS]


def make_batch(images: list[list[np.ndarray]], label_sizes, extra: int = 0) -> EvalBatch:
    """Pads images to multiples of 32 that fit all, plus `extra` cells of 32; labels likewise."""
    views = []
    for view in images:
        sizes = np.array([image.shape[:2] for image in view], np.int32)
        shape = (-(-sizes.max(0) // 32) + extra) * 32
        plane = np.full((len(view), *shape, 3), 128, np.uint8)
        for i, image in enumerate(view):
            plane[i, : image.shape[0], : image.shape[1]] = image
        views.append(EvalView(image=plane, size=sizes))
    label_sizes = np.array(label_sizes, np.int32)
    label = np.zeros((len(label_sizes), *(label_sizes.max(0) + extra)), np.uint8)
    return EvalBatch(
        views=tuple(views), label=label, label_size=label_sizes, index=np.arange(len(label_sizes))
    )


def label_scores(
    logits: list[Logits], batch: EvalBatch, i: int, options: InferenceOptions
) -> jax.Array:
    """An image's class scores over all views, float32 [K, Hl, Wl]; outside its label anything."""
    scores = image_scores(logits, batch, i, options)
    return label_rows(scores, batch.label_size[i], batch.label.shape[-2:], 0)


def our_scores(peer, batch: EvalBatch, options: InferenceOptions) -> list[np.ndarray]:
    """Our scores of each image, float32 [K, Hl, Wl], cropped to its label's size."""

    @jax.jit
    def run(variables: dict, batch: EvalBatch) -> tuple[list[jax.Array], jax.Array]:
        logits = [view_logits(peer.ours, variables, view, options) for view in batch.views]
        images = range(len(batch.index))
        labels = predict_labels(peer.ours, variables, batch, options)
        return [label_scores(logits, batch, i, options) for i in images], labels

    scores, labels = run(peer.variables, batch)
    for one, label, (h, w) in zip(scores, labels, batch.label_size):
        np.testing.assert_array_equal(one.argmax(0)[:h, :w], label[:h, :w])
    return [np.asarray(x)[:, :h, :w] for x, (h, w) in zip(scores, batch.label_size)]


def alone(network: MaskFormerForInstanceSegmentation, image: np.ndarray) -> torch.Tensor:
    """MaskFormer's inference on one normalised image, float32 [h, w, 3]: scores [1, K, h, w]."""
    h, w = image.shape[:2]
    padded = np.pad(image, ((0, -h % 32), (0, -w % 32), (0, 0)))
    out = peer_predictions(network, padded[None])
    scores = torch_scores(out.class_logits[-1], out.mask_logits[-1], padded.shape[:2])
    return scores[..., :h, :w]


def slid(network, image: np.ndarray, options: InferenceOptions) -> torch.Tensor:
    """Scores as mmsegmentation's `slide_inference` makes them; window 0 is the whole image."""
    side = options.window
    if not side:
        return alone(network, image)
    step = round(side * options.window_stride)
    h, w = image.shape[:2]
    total, count = 0.0, torch.zeros(h, w)
    for row in range(max(math.ceil((h - side) / step), 0) + 1):
        for column in range(max(math.ceil((w - side) / step), 0) + 1):
            bottom, right = min(row * step + side, h), min(column * step + side, w)
            part = slice(max(bottom - side, 0), bottom), slice(max(right - side, 0), right)
            scores = alone(network, image[part])
            whole = torch.zeros(1, scores.shape[1], h, w)
            whole[(..., *part)] = scores
            total, count[part] = total + whole, count[part] + 1
    assert (count > 0).all()
    return total / count


def torch_label_scores(network, images: list[np.ndarray], label_size, options) -> np.ndarray:
    """Test-time augmentation of one image, as MaskFormer's `SemanticSegmentorWithTTA` does it."""
    results = []
    for image in images:
        normalized = ((image - MEAN) / STD).astype(np.float32)
        for mirrored in (False, True) if options.flip else (False,):
            shown = normalized[:, ::-1] if mirrored else normalized
            scores = torch.nn.functional.interpolate(
                slid(network, shown, options), label_size, mode="bilinear", align_corners=False
            )[0]
            results.append(scores.flip(2) if mirrored else scores)
    return torch.stack(results).mean(0).numpy()


@pytest.mark.parametrize("name", CASES)
def test_scores_at_label_resolution_are_those_of_the_peer_alone(peer, name):
    options, num_views, extra = CASES[name]
    images = resized_images()[:num_views]
    found = our_scores(peer, make_batch(images, LABEL_SIZES, extra), options)
    for i, label_size in enumerate(LABEL_SIZES):
        want = torch_label_scores(peer.model, [view[i] for view in images], label_size, options)
        assert want.std() > 0.2, "the comparison would be vacuous"
        np.testing.assert_allclose(found[i], want, atol=1e-5)  # 3e-6 measured
