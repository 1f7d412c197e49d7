"""rc2l_jax/evaluation/evaluate.py, confusion.py and scores.py, and training/averages.py.

mIoU is that of a count by hand, for any batch size, padding and number of devices.
"""

from __future__ import annotations

import types
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
import tiny
import torch
from ml_collections import ConfigDict
from PIL import Image
from shared import shared
from test_class_scores import MEAN, STD, torch_scores
from test_data import folder_config, write_folder
from test_models import TINY, random_variables
from test_padding import randomized

from configs import base
from rc2l_jax.evaluation import confusion as metrics
from rc2l_jax.evaluation.class_scores import predict_labels
from rc2l_jax.evaluation.evaluate import evaluate
from rc2l_jax.evaluation.scores import better, build_results, score
from rc2l_jax.input_pipeline import eval_batches
from rc2l_jax.input_pipeline.subsets import open_split
from rc2l_jax.models import build_model, resnet
from rc2l_jax.structs import VOID, EvalBatch, EvalView, Predictions
from rc2l_jax.training import averages

NUM_CLASSES = 3


class Painter(nn.Module):
    """A network with one query for each class, whose mask logits are linear in the image."""

    num_classes: int = NUM_CLASSES

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool,
        extent: object = None,
        every_layer: bool = True,  # without effect, as there is one layer
    ) -> Predictions:
        assert not train
        weights = self.param("weights", nn.initializers.normal(1.0), (3, NUM_CLASSES))
        pooled = nn.avg_pool(images, (4, 4), (4, 4))
        masks = jnp.moveaxis(pooled @ weights, -1, 1)
        classes = jnp.tile(4 * jnp.eye(NUM_CLASSES, NUM_CLASSES + 1), (images.shape[0], 1, 1))
        return Predictions(
            class_logits=classes[None],
            mask_logits=masks[None],
            pixel_features=pooled,
            backbone_features=pooled,
        )


def variables(seed: int) -> dict:
    return Painter().init(jax.random.PRNGKey(seed), jnp.zeros((1, 32, 32, 3)), train=False)


def make_batch(seed: int, fill: bool = False) -> EvalBatch:
    """Two examples with images smaller than their labels; with `fill`, the second only fills."""
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
    """The confusion matrix, by torch and NumPy, example by example."""
    counts = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    (view,) = batch.views
    images = ((view.image[0] - MEAN) / STD).astype(np.float32)
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
        # Rounding may decide pixels whose two best classes tie up to the last bit.
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


_BILINEAR = Image.Resampling.BILINEAR


@pytest.fixture(autouse=True, scope="module")
def tiny_backbones():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BACKBONES, "tiniest", TINY["tiniest"])
        yield


def use_tiny_model(config: ConfigDict) -> None:
    tiny_model = tiny.config(model__backbone="tiniest", model__num_queries=22).model
    config.model.update(tiny_model, num_decoder_layers=1)


# All of CamVid's validation images, against an evaluation that shares only the network with ours:
# Pillow reads the files, images come one at a time, torch makes scores, NumPy counts.


def camvid_network(config: ConfigDict) -> dict:
    """Random weights, scaled and centred so that each of several classes wins at some pixels."""
    weights = randomized(random_variables(config))
    params, rng = weights["params"], np.random.default_rng(0)
    params["query_embed"] = rng.normal(0, 3, params["query_embed"].shape).astype(np.float32)
    for name in ("query", "key"):
        params["transformer"]["layer0"]["cross_attention"][name]["kernel"] *= 2
    image = Image.open(min((shared("camvid") / "images" / "val").iterdir())).resize((96, 96))
    normalized = ((np.asarray(image) - MEAN) / STD).astype(np.float32)[None]
    model = build_model(config)
    out = jax.jit(lambda weights, x: model.apply(weights, x, train=False))(weights, normalized)
    params["class_head"]["bias"] -= np.asarray(out.class_logits).mean((0, 1, 2))
    features = np.asarray(out.pixel_features)
    params["pixel_decoder"]["mask_features"]["bias"] -= features.mean((0, 1, 2))
    for layer in (params["class_head"], params["mask_head"]["layer3"]):
        layer["kernel"] *= 10
        layer["bias"] *= 10
    params["class_head"]["bias"][-1] -= 3
    return weights


def predicted_alone(run: Callable, pixels: np.ndarray, label_size: tuple[int, int]) -> np.ndarray:
    """Predicted class ids [Hl, Wl] of one image, uint8 [h, w, 3], without our evaluation."""
    h, w = pixels.shape[:2]
    image = np.pad((pixels - MEAN) / STD, ((0, -h % 32), (0, -w % 32), (0, 0)))
    out = run(image[None].astype(np.float32))
    logits = (np.asarray(x[-1], np.float64) for x in (out.class_logits, out.mask_logits))
    scores = torch_scores(*logits, image.shape[:2])[..., :h, :w]
    scores = torch.nn.functional.interpolate(scores, label_size, mode="bilinear")
    return scores[0].argmax(0).numpy()


@pytest.fixture(scope="module")
def camvid(tmp_path_factory, tiny_backbones) -> types.SimpleNamespace:
    """Config, model, weights and the independent evaluation's confusion matrix."""
    # Images are 72 x 96 and are padded to 96 x 96, so that there is padding to keep out.
    prepared = tmp_path_factory.mktemp("prepared")
    config = folder_config(shared("camvid"), prepared, labeled_split="train", eval_short_edge=72)
    use_tiny_model(config)
    config.eval_batch_size = 1
    weights = camvid_network(config)
    split = open_split(config)
    ids = [split.id(i) for i in range(len(split.keys))]
    assert len(ids) == 101
    confusion = np.zeros((11, 11), np.int64)
    with jax.enable_x64(True):
        model = build_model(config).clone(dtype=jnp.float64)
        jitted = jax.jit(lambda weights, x: model.apply(weights, x, train=False))
        for batch in eval_batches.eval_batches(config, open_split(config), 1):
            name = ids[batch.index.item()]
            image = Image.open(shared("camvid") / "images" / "val" / f"{name}.jpg").resize(
                (96, 72), _BILINEAR
            )
            # TensorFlow and Pillow decode JPEG files, and round when they resample, differently. So
            # the network gets the pipeline's pixels, which may differ from Pillow's by that only.
            (height, width) = batch.views[0].size.squeeze()
            pixels = batch.views[0].image.squeeze()[:height, :width]
            error = np.abs(pixels.astype(int) - np.asarray(image))
            assert error.max() <= 6 and error.mean() < 1.5  # 4 and 0.92 measured
            label = np.asarray(Image.open(shared("camvid") / "labels" / "val" / f"{name}.png"))
            found = predicted_alone(lambda x: jitted(weights, x), pixels, label.shape)
            np.add.at(confusion, (label[label != VOID], found[label != VOID]), 1)
    assert ((confusion.sum(0) / confusion.sum()) > 0.02).sum() >= 6, "the predictions must vary"
    return types.SimpleNamespace(config=config, weights=weights, model=model, confusion=confusion)


def evaluated(camvid: types.SimpleNamespace, model: nn.Module, batch_size: int, devices: int):
    config = camvid.config.copy_and_resolve_references()
    config.eval_batch_size = batch_size
    batches = eval_batches.eval_batches(config, open_split(config), devices)
    return evaluate(model, {"student": camvid.weights}, batches, config)["student"]


def iou_by_hand(confusion: np.ndarray) -> np.ndarray:
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    return np.diag(confusion) / union


# There are 101 images: the last batch of 5 has 1 example and 4 that fill it; that of 20, 1 and 19.
@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "devices"), [(1, 1), (5, 1), (20, 4)])
def test_camvid_scores_are_those_of_an_independent_evaluation(camvid, batch_size, devices):
    """The network runs in float64, so that rounding does not decide between tied classes.

    Logits and scores are still float32, which changes 4 of 17 million pixels: 3e-7 of an IoU.
    """
    with jax.enable_x64(True):
        found = evaluated(camvid, camvid.model, batch_size, devices)
    assert found.sum() == camvid.confusion.sum()
    found, want = iou_by_hand(found), iou_by_hand(camvid.confusion)
    np.testing.assert_allclose(found, want, atol=1e-6, rtol=0)
    assert abs(np.mean(found) - np.mean(want)) < 1e-6


@pytest.mark.slow
def test_camvid_scores_in_float32_differ_by_ties_only(camvid):
    """Rounding changes 20 to 100 of 17 million pixels, each up to 3e-6 of a rare class's IoU."""
    found = evaluated(camvid, build_model(camvid.config), 5, 1)
    assert found.sum() == camvid.confusion.sum()
    assert np.abs(found - camvid.confusion).sum() <= 2e-5 * found.sum()
    np.testing.assert_allclose(iou_by_hand(found), iou_by_hand(camvid.confusion), atol=1e-5)


# Mixed sizes.


def test_mixed_sizes_compile_a_few_times_and_count_as_one_by_one(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    root = write_folder(tmp_path / "data", size=(40, 60))
    for i, size in enumerate([(60, 40), (30, 90), (90, 30)]):
        for kind, shape in (("images", (*size, 3)), ("labels", size)):
            pixels = rng.integers(0, 256 if kind == "images" else 11, shape, np.uint8)
            Image.fromarray(pixels).save(root / kind / "val" / f"x{i}.png")
    config = folder_config(root, tmp_path / "prepared", eval_short_edge=40)
    use_tiny_model(config)
    weights, model = camvid_network(config), build_model(config)
    shapes = []

    def traced(model, variables, batch, options):
        shapes.append((batch.views[0].image.shape[1:3], batch.label.shape[1:3]))
        return predict_labels(model, variables, batch, options)

    monkeypatch.setattr("rc2l_jax.evaluation.evaluate.predict_labels", traced)

    def count(batch_size: int, devices: int, max_shapes: int) -> np.ndarray:
        config.eval_batch_size, config.eval.max_shapes = batch_size, max_shapes
        batches = eval_batches.eval_batches(config, open_split(config), devices)
        return evaluate(model, {"student": weights}, batches, config)["student"]

    together = count(4, 2, 2)
    assert len(shapes) == len(set(shapes)) == 2  # compiled twice
    alone = count(1, 1, 9)
    assert {image for image, _ in shapes[2:]} == {(64, 64), (64, 128), (128, 64)}
    assert together.sum() == alone.sum()
    assert np.abs(together - alone).sum() <= 4  # ties
    assert np.count_nonzero(alone.sum(0)) > 2


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
    def step(total, count):
        return {"a": (jnp.float32(total), jnp.float32(count)), "b": (0.0, 0.0)}

    total = averages.accumulate(None, step(1, 1))
    total = averages.accumulate(total, step(9, 3))
    assert averages.summarize(total) == {"a": 2.5}
    assert averages.summarize(None) == {}
    with pytest.raises(ValueError, match=r"metrics changed between steps: \['b'\]"):
        averages.accumulate(total, {"a": (1.0, 1.0)})


def test_results_hold_scores_best_and_losses():
    entry = score(np.array([[3, 1], [0, 0]]), ("sky", "road"))
    assert entry == {
        "miou": 0.375,
        "iou": {"sky": 0.75, "road": 0.0},
        "dice_f1": {"sky": 6 / 7, "road": 0.0},
        "precision": {"sky": 1.0, "road": 0.0},
        "recall": {"sky": 0.75, "road": 0.0},
        "means": {"dice_f1": 3 / 7, "precision": 0.5, "recall": 0.375},
    }
    nothing = {"sky": None, "road": None}
    measures = ("dice_f1", "precision", "recall")
    none = {"miou": None, "iou": nothing, "means": dict.fromkeys(measures)}
    none |= dict.fromkeys(measures, nothing)
    assert score(np.zeros((2, 2), int), ("sky", "road")) == none
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
    def scores(student, teacher):
        return {"student": {"miou": student}, "teacher": {"miou": teacher}}

    best = better(None, 1, scores(0.5, 0.3))
    assert better(best, 2, scores(0.4, 0.5)) == best
    assert better(best, 3, scores(0.4, 0.6)) == {
        "step": 3,
        "student_miou": 0.4,
        "teacher_miou": 0.6,
    }
    assert better(best, 4, scores(None, None)) == best


@pytest.mark.parametrize("absent", [(), (1,), (1, 3)])
def test_measures_of_each_class_are_those_of_scikit_learn(absent):
    random = np.random.default_rng(0)
    true, predicted = random.integers(0, 5, (2, 400))
    keep = ~np.isin(true, absent) & (predicted != 3)  # 3: true only; 1: predicted only; or neither
    true, predicted = true[keep], predicted[keep]
    found = metrics.measure(sklearn.metrics.confusion_matrix(true, predicted, labels=range(5)))
    occur = sorted({*true, *predicted})
    assert np.isnan(np.array(found)).all(0).tolist() == [i not in occur for i in range(5)]
    assert len(occur) == (4 if 3 in absent else 5)
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        true, predicted, labels=occur, zero_division=0
    )
    jaccard = sklearn.metrics.jaccard_score(
        true, predicted, labels=occur, average=None, zero_division=0
    )
    for values, want in zip(found, (jaccard, f1, precision, recall), strict=True):
        np.testing.assert_allclose(values[occur], want)
        assert metrics.mean_of(values) == pytest.approx(want.mean())
