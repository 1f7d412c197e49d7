"""rc2l_jax/input_pipeline/eval_batches.py and shape_groups.py.

Every example is evaluated once, batches have few shapes, and all processes have equally many.
"""

from __future__ import annotations

import time

import jax
import numpy as np
import pytest
from PIL import Image
from test_data import folder_config, shapes_config, write_folder

from rc2l_jax.input_pipeline import eval_batches, shape_groups
from rc2l_jax.input_pipeline.subsets import open_split
from rc2l_jax.structs import EvalBatch


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Drawn images, all of one size."""
    return shapes_config(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A split of 3 + 8 images of nine different sizes, evaluated at two scales."""
    root = write_folder(tmp_path_factory.mktemp("mixed") / "data", size=(24, 32))
    for i, (height, width) in enumerate(SIZES):
        pixels = np.full((height, width, 3), 10 + i, np.uint8)
        Image.fromarray(pixels).save(root / "images" / "val" / f"x{i}.png")
        Image.fromarray(pixels[..., 0] % 11).save(root / "labels" / "val" / f"x{i}.png")
    config = folder_config(root, root.parent / "prepared", eval_short_edge=48, max_long_edge=96)
    config.eval.scales = (1.0, 1.5)
    config.eval.max_shapes = 3
    return config


SIZES = [(40, 60), (60, 40), (41, 61), (61, 41), (30, 90), (90, 30), (50, 50), (20, 100)]


def test_evaluation_covers_the_split_once_and_fills_the_last_batch(tmp_path):
    root = write_folder(tmp_path / "data", size=(24, 32))
    pixels = np.full((50, 20, 3), 7, np.uint8)
    Image.fromarray(pixels).save(root / "images" / "val" / "tall.png")
    Image.fromarray(np.full((50, 20), 9, np.uint8)).save(root / "labels" / "val" / "tall.png")
    Image.fromarray(pixels).save(root / "images" / "val" / "val9.png")
    Image.fromarray(np.full((50, 20), 9, np.uint8)).save(root / "labels" / "val" / "val9.png")
    config = folder_config(root, tmp_path / "prepared", eval_short_edge=30)
    config.eval_batch_size = 4
    config.eval.max_shapes = 1
    batches = list(eval_batches.eval_batches(config, open_split(config), 2))
    assert len(batches) == 2
    flat = jax.tree.map(
        lambda *x: np.concatenate([y.reshape(-1, *y.shape[2:]) for y in x]), *batches
    )
    assert flat.index.tolist() == [0, 1, 2, 3, 4, -1, -1, -1]
    (view,) = flat.views
    assert view.image.shape == (8, 96, 64, 3)  # 75x30 and 30x40, to multiples of 32
    assert flat.label.shape == (8, 50, 32)
    assert view.size.tolist()[:2] == [[75, 30], [30, 40]]
    assert flat.label_size.tolist()[:2] == [[50, 20], [24, 32]]
    assert (view.image[0, :75, :30] == 7).all()
    assert (view.image[0, 75:] == 128).all()
    assert (view.image[0, :, 30:] == 128).all()
    assert (flat.label[0, :, :20] == 9).all()
    assert (flat.label[0, :, 20:] == 255).all()
    assert (flat.label[1, 1:24, :32] == 0).all()
    assert (view.image[5:] == 128).all()
    assert (flat.label[5:] == 255).all()
    assert {str(view.image.dtype), str(flat.label.dtype)} == {"uint8"}
    assert {str(x.dtype) for x in (view.size, flat.label_size, flat.index)} == {"int32"}
    assert open_split(config).id(0) == "tall"


def test_processes_evaluate_equally_many_batches_of_their_own(shapes):
    config = shapes.copy_and_resolve_references()
    config.eval_batch_size = 2
    indices = []
    for process in (0, 1):
        batches = list(eval_batches.eval_batches(config, open_split(config), 1, process, 2))
        indices.append([batch.index.ravel().tolist() for batch in batches])
    assert indices == [[[0], [2]], [[1], [-1]]]


def test_evaluation_without_resizing_keeps_the_pixels(tmp_path):
    root = write_folder(tmp_path / "data", size=(24, 32))
    config = folder_config(root, tmp_path / "prepared", eval_short_edge=0)
    batch = next(eval_batches.eval_batches(config, open_split(config), 1))
    assert batch.views[0].image.shape == (1, 2, 32, 32, 3)
    stored = np.asarray(Image.open(root / "images" / "val" / "val1.png"))
    np.testing.assert_array_equal(batch.views[0].image[0, 1, :24, :32], stored)


def local_batches(config, **where) -> list[EvalBatch]:
    return list(eval_batches.eval_batches(config, open_split(config), 1, **where))


def shapes_of(batch: EvalBatch) -> tuple:
    return tuple(x.shape for x in jax.tree.leaves(batch))


def detectron_size(height: int, width: int, short: float, longest: float) -> tuple[int, int]:
    """detectron2's ResizeShortestEdge.get_output_shape."""
    scale = short / min(height, width)
    newh, neww = (short, scale * width) if height < width else (scale * height, short)
    if max(newh, neww) > longest:
        scale = longest / max(newh, neww)
        newh, neww = newh * scale, neww * scale
    return int(newh + 0.5), int(neww + 0.5)


def test_mixed_sizes_come_in_a_few_shapes_and_every_image_once(mixed):
    batches = local_batches(mixed)
    assert 1 < len({shapes_of(batch) for batch in batches}) <= 3
    seen = {}
    for batch in batches:
        for at in zip(*np.nonzero(batch.index >= 0)):
            seen[int(batch.index[at])] = jax.tree.map(lambda x, at=at: x[at], batch)
    split = open_split(mixed)
    ids = [split.id(i) for i in range(len(split.keys))]
    assert sorted(seen) == list(range(len(ids))) == list(range(11))
    for i, size in enumerate(SIZES):
        example = seen[ids.index(f"x{i}")]
        assert tuple(example.label_size) == size
        want = np.full_like(example.label, 255)
        want[: size[0], : size[1]] = (10 + i) % 11
        np.testing.assert_array_equal(example.label, want)
        for view, scale in zip(example.views, mixed.eval.scales, strict=True):
            resized = detectron_size(*size, 48 * scale, 96 * scale)
            assert tuple(view.size) == resized
            inside = (np.indices(view.image.shape[:2]) < np.reshape(resized, (2, 1, 1))).all(0)
            np.testing.assert_array_equal(
                view.image, np.where(inside[..., None], [10 + i] * 3, 128)
            )


def test_two_processes_make_the_halves_of_the_same_batches(mixed):
    config = mixed.copy_and_resolve_references()
    config.eval_batch_size = 4
    whole = list(eval_batches.eval_batches(config, open_split(config), 2))
    halves = [local_batches(config, process_index=p, process_count=2) for p in (0, 1)]
    assert [shapes_of(b) for b in halves[0]] == [shapes_of(b) for b in halves[1]]
    joined = [jax.tree.map(lambda *x: np.concatenate(x), *pair) for pair in zip(*halves)]
    jax.tree.map(np.testing.assert_array_equal, joined, whole)
    indices = np.concatenate([batch.index.ravel() for batch in joined])
    assert sorted(indices[indices >= 0]) == list(range(11))


def test_scales_of_the_kept_size(tmp_path):
    root = write_folder(tmp_path / "data", size=(25, 32))
    config = folder_config(root, tmp_path / "prepared", eval_short_edge=0)
    config.eval.scales = (0.5, 1, 2.0)
    batch = local_batches(config)[0]
    assert [view.size[0, 0].tolist() for view in batch.views] == [[13, 16], [25, 32], [50, 64]]


# Merging of shapes: which of them are padded to a common one.


def padded_area(shapes, counts, group_of, batch_size) -> int:
    total = 0
    for group in set(group_of):
        members = group_of == group
        slots = -(-counts[members].sum() // batch_size) * batch_size
        total += slots * shapes[members].max(0).prod(-1).sum()
    return total


def test_landscapes_and_portraits_are_not_padded_to_squares():
    shapes = np.array([[[64, 96]], [[64, 64]], [[96, 64]]])
    counts = np.array([50, 1, 45])
    merge = shape_groups.merge_shapes
    # The square image costs nothing in the last batch of the portraits, which has room for it.
    for most in (2, 3):
        assert len(set(merge(shapes, counts, 10, most)[[0, 2]])) == 2
        assert len(set(merge(shapes, counts, 10, most)[[1, 2]])) == 1
    assert len(set(merge(shapes, counts, 10, 1))) == 1
    assert len(set(merge(shapes, counts, 1, 3))) == 3


def test_few_shapes_of_a_large_split_waste_little_and_are_found_quickly():
    """With sizes like PASCAL VOC's: the longer side is 500 pixels, the shorter one 260 to 500."""
    rng = np.random.default_rng(0)
    sides = np.array([(side, 500) for side in range(260, 501)])
    labels = np.unique(np.concatenate([sides, sides[:, ::-1], sides // 2]), axis=0)
    images = -(-labels * 512 // labels.min(1, keepdims=True) // 32) * 32
    shapes = np.stack([images, labels], axis=1)
    counts = rng.multinomial(1500, np.full(len(shapes), 1 / len(shapes)))
    start = time.perf_counter()
    group_of = shape_groups.merge_shapes(shapes, counts, 8, 4)
    assert time.perf_counter() - start < 2
    assert len(set(group_of)) == 4
    ideal, one = (shapes.prod(-1).sum(-1) * counts).sum(), np.zeros(len(shapes))
    four, one = (padded_area(shapes, counts, x, 8) / ideal for x in (group_of, one))
    assert four < 1.4  # 1.33, and 2.36 with one shape
    assert one > 2
    np.testing.assert_array_equal(group_of, shape_groups.merge_shapes(shapes, counts, 8, 4))
