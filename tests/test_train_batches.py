"""rc2l_jax/input_pipeline/train_batches.py, geometry.py, loading.py and order.py.

Batches are deterministic, views have the right geometry, and processes share a batch.
"""

import itertools
import subprocess
import sys

import jax
import numpy as np
import pytest
import replicas
from PIL import Image
from scipy import stats
from test_data import folder_config, shapes_config, spoil, write_folder

from data import DataError
from data.dataset import Dataset
from data.host_tf import tf
from rc2l_jax.input_pipeline import geometry as host_augment
from rc2l_jax.input_pipeline import train_batches
from rc2l_jax.input_pipeline.geometry import Geometry
from rc2l_jax.input_pipeline.loading import batched
from rc2l_jax.input_pipeline.order import Order
from rc2l_jax.input_pipeline.subsets import open_subsets

UNLIMITED = 10**6


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """The config of a semi-supervised run on 4 + 8 drawn images, with batches of 4 + 4."""
    config = shapes_config(tmp_path_factory.mktemp("prepared"))
    config.batch_size = config.unlabeled_batch_size = 4
    return config


def take(config, count, start=0, devices=1, **processes):
    return list(
        itertools.islice(
            train_batches.train_batches(config, open_subsets(config), start, devices, **processes),
            count,
        )
    )


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_batches_have_the_documented_shapes_and_types(shapes):
    (batch,) = take(shapes, 1, devices=2)
    assert batch.image.shape == batch.unlabeled_image.shape == (2, 2, 32, 32, 3)
    for name in ("label", "valid", "unlabeled_label", "unlabeled_valid"):
        assert getattr(batch, name).shape == (2, 2, 32, 32)
    types = {name: str(getattr(batch, name).dtype) for name in vars(batch)}
    assert types == {
        "image": "uint8", "label": "uint8", "valid": "bool", "unlabeled_image": "uint8",
        "unlabeled_label": "uint8", "unlabeled_valid": "bool",
    }  # fmt: skip


def test_runs_repeat_and_resume_exactly(shapes):
    first = take(shapes, 7)
    assert_equal(take(shapes, 7), first)
    assert_equal(take(shapes, 3, start=4), first[4:])
    (late,) = take(shapes, 1, start=10**9)  # however far in
    assert_equal(take(shapes, 1, start=10**9), [late])
    assert (first[0].image != first[1].image).any()


def test_another_seed_gives_other_batches(shapes):
    other = shapes.copy_and_resolve_references()
    other.seed = 1
    assert (take(other, 1)[0].image != take(shapes, 1)[0].image).any()


def test_two_processes_make_the_halves_of_one_batch(shapes):
    whole = take(shapes, 3, devices=4)
    halves = [take(shapes, 3, devices=2, process_index=p, process_count=2) for p in (0, 1)]
    joined = [jax.tree.map(lambda *x: np.concatenate(x), a, b) for a, b in zip(*halves)]
    assert_equal(joined, whole)


def test_every_epoch_shows_every_example_once_in_a_new_order():
    order = Order(tuple(("train", i) for i in range(11)), seed=3)
    epochs = [order.keys_at(np.arange(11) + 11 * epoch) for epoch in range(4)]
    assert all(sorted(epoch) == list(order.keys) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert Order(order.keys, seed=4).keys_at(np.arange(11)) != epochs[0]
    # Philox's stream is part of NumPy's compatibility promise: published runs rely on it.
    assert [index for _, index in epochs[0]] == [6, 1, 8, 5, 2, 7, 10, 9, 4, 3, 0]


def test_fewer_images_than_the_batch_size_are_enough(shapes):
    tiny = shapes.copy_and_resolve_references()
    tiny.batch_size = 6
    tiny.data.labeled_split = "train#1@0"
    tiny.data.unlabeled_split = "train#rest1@0"
    (batch,) = take(tiny, 1)
    views = batch.image[0]
    assert views.shape == (6, 32, 32, 3)
    assert len({view.tobytes() for view in views}) == 6  # one image, six different views


def test_a_supervised_run_has_no_unlabelled_images(shapes):
    supervised = shapes.copy_and_resolve_references()
    supervised.unsup_weight = 0.0
    supervised.data.unlabeled_split = ""
    (batch,) = take(supervised, 1, devices=2)
    assert batch.unlabeled_image.shape == (2, 0, 32, 32, 3)
    assert batch.unlabeled_label.shape == batch.unlabeled_valid.shape == (2, 0, 32, 32)
    assert_equal(batch.image, take(shapes, 1, devices=2)[0].image)


def test_diagnostic_labels_change_nothing_but_the_labels(shapes):
    diagnostic = shapes.copy_and_resolve_references()
    diagnostic.data.diagnostic_labels = True
    (plain,), (labelled,) = take(shapes, 1), take(diagnostic, 1)
    assert (plain.unlabeled_label == 255).all()
    assert len(np.unique(labelled.unlabeled_label)) > 2
    assert_equal(plain, labelled.replace(unlabeled_label=plain.unlabeled_label))


def test_unlabelled_masks_are_never_read(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data")
    listed = tmp_path / "labelled.txt"
    listed.write_text("train0\ntrain1")
    for i in (2, 3, 4):
        spoil(root / "labels" / "train" / f"train{i}.png", (b"not a mask", None, b"")[i - 2])
    config = folder_config(root, tmp_path / "prepared", labeled_split=str(listed))
    config.data.unlabeled_split = "train"
    read = set()
    fetch = Dataset.fetch

    def spy(self, keys, *, labels):
        if labels and self.name == "camvid":
            read.update(self.example(key).id for key in keys)
        return fetch(self, keys, labels=labels)

    monkeypatch.setattr(Dataset, "fetch", spy)
    batches = take(config, 4)
    assert read == {"train0", "train1"}
    assert all((batch.unlabeled_label == 255).all() for batch in batches)
    config.data.diagnostic_labels = True  # pictures and metrics can do without a broken mask
    assert (take(config, 1)[0].unlabeled_label == 255).all()


def test_what_cannot_be_run_fails_before_the_first_batch(shapes):
    config = shapes.copy_and_resolve_references()
    config.data.unlabeled_split = ""
    with pytest.raises(DataError, match=r"unlabeled_split is empty, but config.unsup_weight"):
        train_batches.train_batches(config, open_subsets(config), 0, 1)
    with pytest.raises(ValueError, match="batch_size = 4 cannot be divided over 3 devices"):
        train_batches.train_batches(shapes, open_subsets(shapes), 0, 3)
    config = shapes.copy_and_resolve_references()
    config.data.eval_split = "train"
    with pytest.raises(DataError, match=r"labeled_split and config.data.eval_split share 4"):
        train_batches.train_batches(config, open_subsets(config), 0, 1)


def test_a_damaged_record_is_named(shapes, monkeypatch):
    fetch = Dataset.fetch

    def damaged(self, keys, *, labels):
        images, encoded = fetch(self, keys, labels=labels)
        return [image[:40] for image in images], encoded

    batches = train_batches.train_batches(shapes, open_subsets(shapes), 0, 1)
    monkeypatch.setattr(Dataset, "fetch", damaged)
    with pytest.raises(DataError, match=r"^train/train_0000\d\d cannot be .* --mode=prepare"):
        next(batches)


# Geometry.


def painted(height, width):
    """An image whose red and green are 4 x column and 4 x row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([4 * columns, 4 * rows, 0 * rows], axis=-1).astype(np.uint8)


def view(image, label, seed, **geometry):
    defaults = {
        "crop_size": 48, "short_edges": (48,), "max_long_edge": UNLIMITED, "flip": True,
    }  # fmt: skip
    made = Geometry(**(defaults | geometry))
    encoded = [replicas.encode(image), replicas.encode(label)]
    size = tf.constant(label.shape)
    parts = host_augment.training_view(*encoded, size, tf.constant([0, seed], tf.int64), made)
    return [part.numpy() for part in parts]


@pytest.mark.parametrize("short_edge", [13, 27, 40, 57, 80])
@pytest.mark.parametrize("axis", [0, 1])
def test_image_and_label_stay_aligned_to_the_pixel(short_edge, axis):
    """A pixel's colour and its label both say where it came from, up to rounding."""
    image = painted(40, 60)
    label = np.ascontiguousarray(image[..., 1 - axis] // 4)
    mirrored = 0
    for seed in range(8):
        out, ids, valid = view(image, label, seed, short_edges=(short_edge,))
        place = out[..., 1 - axis].astype(float) / 4
        inside = valid & (place > 2) & (place < label.shape[axis] - 3)  # at edges pixels repeat
        error = ids[inside].astype(float) - place[inside]
        # Nearest neighbour: 1/2; rounding of the colour: 1/8.
        assert np.abs(error).max() <= 0.5 + 1 / 8 + 1e-6
        assert abs(error.mean()) < 0.08  # half a pixel would show as 0.25 or more
        red = out[..., 0][valid.any(axis=1)][0].astype(int)
        mirrored += red[0] > red[valid[0].sum() - 1]
    assert 0 < mirrored < 8


def test_only_the_crop_is_resampled_but_it_equals_the_crop_of_the_resized_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for resized in ((20, 30), (57, 86), (80, 120)):
        # MaskFormer resizes with Pillow.
        whole = np.asarray(Image.fromarray(image).resize(resized[::-1], Image.Resampling.BILINEAR))
        part = host_augment.resample_image(
            tf.constant(image), tf.constant(resized), tf.constant([7, 3]), tf.constant([12, 20])
        ).numpy()
        difference = np.abs(part.astype(int) - whole[7:19, 3:23])
        assert difference.max() <= 1


def test_padding_is_marked_and_lies_at_the_bottom_and_right():
    image, label = np.full((40, 60, 3), 9, np.uint8), np.full((40, 60), 3, np.uint8)
    out, ids, valid = view(image, label, 0, short_edges=(20,))
    expected = np.zeros((48, 48), bool)
    expected[:20, :30] = True
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(out, np.where(expected[..., None], [9, 9, 9], 128))
    np.testing.assert_array_equal(ids, np.where(expected, 3, 255))


def test_scales_are_maskformers_sixteen():
    data = folder_config("", "").data
    data.crop_size = 512
    edges = Geometry.from_config(data).short_edges
    assert edges == tuple(int(x * 0.1 * 512) for x in range(5, 21))
    data.min_scale = data.max_scale = 1.0
    assert Geometry.from_config(data).short_edges == (512,)
    data.min_scale = 1.5
    with pytest.raises(ValueError, match=r"min_scale = 1.5 and max_scale = 1.0"):
        Geometry.from_config(data)


def test_views_cover_every_scale_place_and_direction():
    image = painted(40, 60)
    label = image[..., 0] // 4
    heights, lefts = set(), set()
    for seed in range(60):
        out, _, valid = view(image, label, seed, crop_size=40, short_edges=(20, 40))
        heights.add(int(valid.sum(axis=0).max()))
        if valid.all():
            lefts.add(int(min(out[0, 0, 0], out[0, -1, 0])) // 4)
    assert heights == {20, 40}
    assert len(lefts) >= 10
    assert min(lefts) <= 2
    assert max(lefts) >= 18


def test_scales_places_and_flips_are_drawn_uniformly_and_independently():
    """As in MaskFormer: one of 16 short edges, any offset of the crop, half of them mirrored."""
    edges = tuple(int(x * 0.1 * 40) for x in range(5, 21))  # 20 to 80 pixels for a crop of 40
    geometry = Geometry(crop_size=40, short_edges=edges, max_long_edge=UNLIMITED, flip=True)
    count = 4_000
    image, label, size = (
        [replicas.encode(painted(50, 62))] * count,
        [b""] * count,
        [[50, 62]] * count,
    )
    seeds = np.stack([np.full(count, 11), np.arange(count)], 1)
    view = batched(lambda *example: host_augment.training_view(*example, geometry))
    views, _, valid = (x.numpy() for x in view(*map(tf.constant, (image, label, size)), seeds))
    # The number of valid rows tells the scale, up to the 5th: from the 6th on, the crop is full.
    rows = valid.any(2).sum(1)
    small = rows < 40
    assert set(rows[small]) == set(edges[:5])
    counts = np.array([(rows == edge).sum() for edge in edges[:5]] + [(~small).sum()])
    assert stats.chisquare(counts, count * np.array([1, 1, 1, 1, 1, 11]) / 16).pvalue > 1e-3
    # At scale 1.0 (50 x 62 pixels become 40 x 50) there are 11 offsets, mirrored or not.
    step = 4 * 62 / 50
    first, last = views[:, 0, 0, 0].astype(float), views[:, 0, 39, 0].astype(float)
    mirrored = first > last
    assert stats.binomtest(int(mirrored[~small].sum()), int((~small).sum())).pvalue > 1e-3
    exact = (~small) & (np.abs(np.abs(last - first) - 39 * step) < 2)
    left = np.minimum(first, last)[exact]
    offsets = np.rint((left - left.min()) / step).astype(int)
    assert set(offsets) == set(range(11))
    assert stats.chisquare(np.bincount(offsets)).pvalue > 1e-3


def test_no_flip_means_never():
    image = painted(48, 60)
    for seed in range(12):
        out, _, _ = view(image, image[..., 0], seed, flip=False)
        assert out[0, 0, 0] < out[0, -1, 0]


@pytest.mark.parametrize(
    ("size", "short", "limit", "expected"),
    [
        ((360, 480), 512, 2048, (512, 683)),
        ((480, 360), 512, 2048, (683, 512)),
        ((100, 1000), 512, 2048, (205, 2048)),
        ((360, 480), 0, 2048, (360, 480)),
        ((1000, 4096), 0, 2048, (500, 2048)),
    ],
)
def test_sizes_after_resizing(size, short, limit, expected):
    assert tuple(host_augment.resized_size(size, short, limit).numpy()) == expected


# TensorFlow beside JAX.


def test_tensorflow_sees_no_accelerator():
    assert tf.config.get_visible_devices("GPU") == []


def test_a_program_that_fails_while_batches_are_made_ends(shapes):
    """When tf.data still called Python, one in a few such programs hung for ever at its exit."""
    code = (
        "import sys, ml_collections\n"
        "from rc2l_jax.input_pipeline.subsets import open_subsets\n"
        "from rc2l_jax.input_pipeline.train_batches import train_batches\n"
        "config = ml_collections.ConfigDict(__import__('json').loads(sys.argv[1]))\n"
        "batches = train_batches(config, open_subsets(config), 0, 1)\n"
        "next(batches)\n"
        "raise SystemExit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, shapes.to_json()], timeout=120, capture_output=True, text=True
    )
    assert done.returncode == 7, done.stderr
    assert "Traceback" not in done.stderr
