"""rc2l_jax/prediction/regions.py, against scipy's connected components and COCO's run lengths."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from PIL import Image, ImageDraw
from pycocotools import mask as run_lengths
from scipy import ndimage

from rc2l_jax.prediction.regions import SPECK, find_regions, tolerance


def blobs(size: tuple[int, int], classes: int, smooth: float, seed: int = 0) -> np.ndarray:
    """The class of the highest of some smooth random fields at each pixel."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal(size), smooth) for _ in range(classes)]
    return np.argmax(fields, axis=0).astype(np.uint8)


def island() -> np.ndarray:
    """A disc with a hole; in the hole background, and a disc with a hole of a third class."""
    mask = Image.new("L", (160, 120), 0)
    draw = ImageDraw.Draw(mask)
    for radius, index in ((55, 1), (42, 0), (30, 2), (16, 3), (8, 1)):
        draw.ellipse((80 - radius, 60 - radius, 80 + radius, 60 + radius), fill=index)
    return np.asarray(mask)


def lines() -> np.ndarray:
    """Lines of one pixel: along the border, across everything, and a diagonal."""
    mask = np.zeros((90, 130), np.uint8)
    mask[:, 64], mask[30, :], mask[0, :], mask[:, -1] = 1, 2, 3, 1
    mask[np.arange(40, 80), np.arange(10, 50)] = 1
    return mask


def corners_touch() -> np.ndarray:
    """Squares that touch at their corners, as on a chessboard."""
    return np.kron(np.indices((5, 6)).sum(0) % 2, np.ones((16, 16))).astype(np.uint8)


def two_holes() -> np.ndarray:
    """A region with holes: one with a peninsula, and two that touch at a corner."""
    mask = np.full((80, 120), 1, np.uint8)
    mask[20:60, 10:50], mask[20:40, 60:80], mask[40:60, 80:100] = 0, 0, 2
    mask[30:40, 30:50] = 1
    return mask


MASKS = {
    "blobs": blobs((150, 200), 5, 6),
    "ragged": blobs((100, 140), 3, 1.5),
    "large": blobs((1200, 1300), 4, 20),
    "island": island(),
    "lines": lines(),
    "corners": corners_touch(),
    "two_holes": two_holes(),
    "whole": np.full((40, 60), 1, np.uint8),
    "background": np.zeros((40, 60), np.uint8),
    "halves": np.repeat(np.array([[1, 2]], np.uint8), 35, 1).repeat(51, 0),
    "pixel": np.ones((1, 1), np.uint8),
    "row": np.array([[1, 1, 2, 2, 2, 1]], np.uint8),
}
mask = pytest.mark.parametrize("name", MASKS)


def components(ids: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(class id, bool [H, W]) of each connected part, specks too."""
    found = []
    for index in np.unique(ids):
        parts, count = ndimage.label(ids == index)
        found += [(int(index), parts == i) for i in range(1, count + 1)]
    return found


def specks(ids: np.ndarray) -> np.ndarray:
    """The pixels of specks, bool [H, W]."""
    small = np.zeros(ids.shape, bool)
    for index in np.unique(ids):
        parts, _ = ndimage.label(ids == index)
        sizes = np.bincount(parts.ravel())
        small |= (sizes < SPECK * ids.size)[parts] & (ids == index)
    return small


def inland(ids: np.ndarray, distance: float) -> np.ndarray:
    """Pixels that are farther than `distance` from all pixels of other classes, bool [H, W]."""
    far = np.zeros(ids.shape, bool)
    for index in np.unique(ids):
        own = np.pad(ids == index, 1, mode="edge")
        if not own.all():
            far |= ndimage.distance_transform_edt(own)[1:-1, 1:-1] > distance
        else:
            far[:] = True
    return far


@pytest.mark.parametrize("name", sorted(MASKS.keys() - {"large"}))  # which would take long
def test_regions_are_the_connected_parts(name, monkeypatch):
    monkeypatch.setattr("rc2l_jax.prediction.regions.SPECK", 0)
    ids = MASKS[name]
    confidence = np.random.default_rng(0).random(ids.shape).astype(np.float16)
    regions = find_regions(ids, confidence)
    expected = components(ids)
    assert len(regions) == len(expected)
    assert [region.area for region in regions] == sorted(
        (x.sum() for _, x in expected), reverse=True
    )
    by_pixel = {int(np.flatnonzero(inside.T)[0]): (index, inside) for index, inside in expected}
    for region in regions:
        index, inside = by_pixel.pop(int(region.runs[0, 0]))
        assert region.class_id == index
        drawn = np.zeros(ids.size, bool)
        for start, length in region.runs:
            drawn[start : start + length] = True
        np.testing.assert_array_equal(drawn.reshape(ids.shape[::-1]).T, inside)
        assert region.area == inside.sum()
        box = run_lengths.toBbox(run_lengths.encode(np.asfortranarray(inside.astype(np.uint8))))
        assert list(region.box) == box.tolist()
        assert region.score == pytest.approx(confidence[inside].mean(dtype=np.float64), abs=1e-4)
        holes = ndimage.label(~np.pad(inside, 1))[1] - 1
        assert len(region.outline.interiors) == holes
    assert not by_pixel


@mask
def test_outlines_fill_the_photo_without_gaps_or_overlaps(name):
    ids = MASKS[name]
    outlines = [region.outline for region in find_regions(ids)]
    assert shapely.is_valid(outlines).all()
    assert shapely.coverage_is_valid(outlines)
    whole = shapely.union_all(outlines)
    assert whole.equals(shapely.box(0, 0, ids.shape[1], ids.shape[0]))


@mask
def test_outlines_stay_within_the_tolerance(name):
    ids = MASKS[name]
    far = inland(ids, tolerance(ids.shape)) & ~specks(ids)
    rows, columns = (places[:: 1 + far.size // 50_000] for places in np.nonzero(far))
    hit = np.zeros(len(rows), int)
    for region in find_regions(ids):
        shapely.prepare(region.outline)
        inside = shapely.contains_xy(region.outline, columns + 0.5, rows + 0.5)
        assert (ids[rows, columns][inside] == region.class_id).all()
        hit += inside
    assert (hit == 1).all()


def test_outlines_have_few_corners():
    disc = island()
    for region in find_regions(np.kron(disc, np.ones((10, 10), np.uint8))):
        corners, border = shapely.get_num_coordinates(region.outline), region.outline.length
        assert corners < border / 10, "a corner of a pixel here comes every 10 pixels"
    for region in find_regions(MASKS["halves"]):
        assert shapely.get_num_coordinates(region.outline) == 5


def test_specks_become_what_is_around_them():
    ids = np.zeros((200, 300), np.uint8)  # a speck has fewer than 6 of its 60,000 pixels
    ids[:, 150:] = 1
    ids[50:52, 50:52] = 2
    ids[100, 200:205] = 3
    ids[0, 299] = 2
    ids[150, 100:106] = 2  # is none
    ids[20, 20:24], ids[21, 20:24] = 2, 3  # two that touch
    regions = find_regions(ids)
    assert [region.class_id for region in regions] == [1, 0, 2]
    assert [region.area for region in regions] == [30_000, 29_994, 6]


def test_what_is_only_specks_has_no_regions():
    ids = np.random.default_rng(0).permutation(250 * 400).reshape(250, 400) % 251
    assert find_regions(ids.astype(np.uint8)) == []


def test_a_score_that_is_not_finite_is_none():
    ids = np.zeros((10, 10), np.uint8)
    ids[:, 5:] = 1
    confidence = np.full((10, 10), 0.5, np.float16)
    confidence[0, 0] = np.nan
    assert [region.score for region in find_regions(ids, confidence)] == [None, 0.5]
    assert [region.score for region in find_regions(ids)] == [None, None]
