"""mIoU agrees with a count by hand, for any batch size, padding and number of devices."""

from __future__ import annotations

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
import torch
from test_inference import torch_scores

from configs import base
from rc2l_jax import metrics
from rc2l_jax.evaluate import better, build_results, evaluate, score
from rc2l_jax.structs import VOID, EvalBatch, EvalView, Predictions

NUM_CLASSES = 3


class Painter(nn.Module):
    """A network whose masks are linear in the image: one query a class, weights as parameters."""

    num_classes: int = NUM_CLASSES

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, extent: object = None) -> Predictions:
        assert not train
        weights = self.param("weights", nn.initializers.normal(1.0), (3, NUM_CLASSES))
        pooled = nn.avg_pool(images, (4, 4), (4, 4))
        masks = jnp.moveaxis(pooled @ weights, -1, 1)
        classes = jnp.tile(4 * jnp.eye(NUM_CLASSES, NUM_CLASSES + 1), (images.shape[0], 1, 1))
        return Predictions(
            class_logits=classes[None], mask_logits=masks[None], pixel_features=pooled
        )


def variables(seed: int) -> dict:
    return Painter().init(jax.random.PRNGKey(seed), jnp.zeros((1, 32, 32, 3)), train=False)


def make_batch(seed: int, fill: bool = False) -> EvalBatch:
    """Two examples of other sizes than their labels'; the second may only fill the batch."""
    rng = np.random.default_rng(seed)
    sizes = np.array([[32, 20], [17, 32]], np.int32)
    label_sizes = np.array([[48, 30], [34, 64]], np.int32)
    image = np.full((2, 32, 32, 3), 128, np.uint8)
    label = np.full((2, 48, 64), VOID, np.uint8)
    for i, ((h, w), (lh, lw)) in enumerate(zip(sizes, label_sizes)):
        image[i, :h, :w] = rng.integers(0, 256, (h, w, 3))
        label[i, :lh, :lw] = rng.integers(0, NUM_CLASSES, (lh, lw))
        label[i, :3, :lw] = VOID
    index = np.array([2 * seed, -1 if fill else 2 * seed + 1], np.int32)
    view = EvalView(image=image, size=sizes)
    batch = EvalBatch(views=(view,), label=label, label_size=label_sizes, index=index)
    return jax.tree.map(lambda x: x[None], batch)  # one device


def confusion_by_hand(weights: dict, batch: EvalBatch) -> np.ndarray:
    """Counts with torch and NumPy, example by example."""
    counts = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    (view,) = batch.views
    images = ((view.image[0] - mean) / std).astype(np.float32)
    for image, (h, w) in zip(images, view.size[0]):
        image[h:], image[:, w:] = 0, 0  # MaskFormer pads after normalisation
    predictions = Painter().apply(weights, images, train=False)
    scores = torch_scores(
        np.asarray(predictions.class_logits[-1]), np.asarray(predictions.mask_logits[-1]), (32, 32)
    )
    for i in range(2):
        if batch.index[0, i] < 0:
            continue
        (h, w), (lh, lw) = view.size[0, i], batch.label_size[0, i]
        resized = torch.nn.functional.interpolate(
            scores[i : i + 1, :, :h, :w], (int(lh), int(lw)), mode="bilinear", align_corners=False
        )
        label, predicted = batch.label[0, i, :lh, :lw], resized[0].argmax(0).numpy()
        np.add.at(counts, (label[label != VOID], predicted[label != VOID]), 1)
    return counts


CONFIG = base.get_config()
CONFIG.data.num_classes = NUM_CLASSES


def test_evaluate_counts_as_a_person_would():
    networks = {"student": variables(0), "teacher": variables(1)}
    batches = [make_batch(0), make_batch(1, fill=True)]
    seen = []

    def observe(batch: EvalBatch, predictions: dict[str, np.ndarray]) -> bool:
        seen.append({name: labels.shape for name, labels in predictions.items()})
        return False

    counts = evaluate(Painter(), networks, iter(batches), CONFIG, observe)
    for name, weights in networks.items():
        expected = sum(confusion_by_hand(weights, batch) for batch in batches)
        assert counts[name].dtype == np.int64
        # Rounding may tip a pixel whose two best classes tie to the last bit.
        assert np.abs(counts[name] - expected).sum() <= 4
        assert counts[name].sum() == expected.sum()
    assert (counts["student"] != counts["teacher"]).any()
    assert seen == [{"student": (1, 2, 48, 64), "teacher": (1, 2, 48, 64)}]


def test_filling_examples_count_nothing_whatever_they_hold():
    networks = {"student": variables(0)}
    filled = make_batch(1, fill=True)
    (view,) = filled.views
    other = filled.replace(
        views=(
            EvalView(
                image=np.where(np.arange(2)[:, None, None, None] == 1, np.uint8(7), view.image),
                size=view.size * np.array([[1], [0]], np.int32),
            ),
        ),
        label=np.where(np.arange(2)[:, None, None] == 1, np.uint8(0), filled.label),
        label_size=filled.label_size * np.array([[1], [0]], np.int32),
    )
    first, second = (evaluate(Painter(), networks, [b], CONFIG)["student"] for b in (filled, other))
    np.testing.assert_array_equal(first, second)
    assert first.sum() == (filled.label[0, 0] != VOID).sum()


def test_confusion_matrix_ignores_void_and_counts_exactly():
    label = np.array([[0, 0, 1], [1, 2, VOID]], np.uint8)
    prediction = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)
    expected = [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    np.testing.assert_array_equal(metrics.confusion_matrix(prediction, label, 3), expected)
    # More pixels in one cell than float32 can count one by one (2^24).
    big = np.zeros((4097, 4097), np.uint8)
    assert int(metrics.confusion_matrix(big, big, 2)[0, 0]) == 4097 * 4097


def test_confusion_matrix_refuses_shapes_that_differ():
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.confusion_matrix(jnp.zeros((2, 3), int), jnp.zeros((3, 2), int), 3)


@pytest.mark.parametrize("case", ["random", "absent_classes", "only_predicted", "all_void"])
def test_confusion_matrix_and_iou_are_scikit_learns(case):
    rng, classes = np.random.default_rng(0), 6
    label = rng.integers(0, classes, (3, 20, 30)).astype(np.uint8)
    prediction = np.where(
        rng.random(label.shape) < 0.6, label, rng.integers(0, classes, (3, 20, 30))
    )
    if case == "absent_classes":
        label, prediction = label % 3, prediction % 3
    elif case == "only_predicted":
        label[label == 4] = 2
    label[rng.random(label.shape) < 0.1] = VOID
    if case == "all_void":
        label[:] = VOID
    confusion = np.asarray(metrics.confusion_matrix(prediction, label, classes))
    miou, per_class = metrics.iou(confusion)
    known = label != VOID
    if case == "all_void":
        assert confusion.sum() == 0 and np.isnan(miou)
        return
    truth, found = label[known], prediction[known]
    ids = list(range(classes))
    np.testing.assert_array_equal(
        confusion, sklearn.metrics.confusion_matrix(truth, found, labels=ids)
    )
    present = np.union1d(truth, found)
    want = sklearn.metrics.jaccard_score(truth, found, labels=present, average=None)
    np.testing.assert_allclose(per_class[present], want, rtol=1e-12)
    assert np.isnan(np.delete(per_class, present)).all()
    assert miou == pytest.approx(want.mean())


def test_iou_of_classes_that_occur():
    miou, per_class = metrics.iou(
        np.array([[2, 1, 0, 0], [0, 3, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    )
    np.testing.assert_allclose(per_class, [2 / 3, 3 / 5, 0, np.nan])
    assert miou == pytest.approx((2 / 3 + 3 / 5 + 0) / 3)
    miou, per_class = metrics.iou(np.zeros((2, 2), int))
    assert np.isnan(miou)
    assert np.isnan(per_class).all()


def test_metrics_are_averaged_by_count():
    step = lambda total, count: {"a": (jnp.float32(total), jnp.float32(count)), "b": (0.0, 0.0)}  # noqa: E731
    total = metrics.accumulate(None, step(1, 1))
    total = metrics.accumulate(total, step(9, 3))
    assert metrics.summarize(total) == {"a": 2.5}
    assert metrics.summarize(None) == {}
    with pytest.raises(ValueError, match=r"metrics changed between steps: \['b'\]"):
        metrics.accumulate(total, {"a": (1.0, 1.0)})


def test_results_hold_scores_best_and_losses():
    entry = score(np.array([[3, 1], [0, 0]]), ("sky", "road"))
    assert entry == {"miou": 0.375, "iou": {"sky": 0.75, "road": 0.0}}
    assert score(np.zeros((2, 2), int), ("sky", "road")) == {
        "miou": None,
        "iou": {"sky": None, "road": None},
    }
    config = types.SimpleNamespace(data=types.SimpleNamespace(name="camvid", eval_split="val"))
    best = better(None, 7, {"student": entry, "teacher": entry})
    results = build_results(config, 7, {"student": entry, "teacher": entry}, best, {"total": 1.0})
    assert results == {
        "step": 7,
        "dataset": "camvid",
        "split": "val",
        "student": entry,
        "teacher": entry,
        "best": {"step": 7, "student_miou": 0.375, "teacher_miou": 0.375},
        "losses": {"total": 1.0},
    }


def test_best_is_that_of_the_better_network():
    scores = lambda student, teacher: {"student": {"miou": student}, "teacher": {"miou": teacher}}  # noqa: E731
    best = better(None, 1, scores(0.5, 0.3))
    assert better(best, 2, scores(0.4, 0.5)) == best
    assert better(best, 3, scores(0.4, 0.6)) == {
        "step": 3,
        "student_miou": 0.4,
        "teacher_miou": 0.6,
    }
    assert better(best, 4, scores(None, None)) == best
