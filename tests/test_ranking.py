"""rc2l_jax/evaluation/ranking.py: which images of an evaluation are the best and the worst."""

from __future__ import annotations

import numpy as np
import pytest

from rc2l_jax.evaluation.ranking import Ranking
from rc2l_jax.structs import VOID, EvalBatch, EvalView

NUM_IMAGES = 6
SIZE = (4, 6)  # of each image and label; both are padded to 8 x 8


def batch() -> EvalBatch:
    """A batch of two devices: six images of class 1, one that is all void, and one that fills."""
    label = np.full((2, 4, 8, 8), VOID, np.uint8)
    label[..., : SIZE[0], : SIZE[1]] = 1
    label[1, 2] = VOID
    size = np.broadcast_to(np.array(SIZE, np.int32), (2, 4, 2))
    index = np.array([[0, 1, 2, 3], [4, 5, 6, -1]], np.int32)
    image = np.broadcast_to(index.astype(np.uint8)[..., None, None, None], (2, 4, 8, 8, 3))
    return EvalBatch((EvalView(image, size),), label, size, index)


def predictions(right: list[int]) -> dict[str, np.ndarray]:
    """Predicts class 1 in the first `right[i]` columns of image i, and class 0 everywhere else."""
    result = np.zeros((2, 4, 8, 8), np.uint8)
    for i, columns in enumerate(right):
        result[divmod(i, 4)][:, :columns] = 1
    return {"teacher": result}


@pytest.mark.parametrize("count", [2, 100])
def test_images_are_ranked_by_their_own_miou(count):
    ranking = Ranking(count, num_classes=3)
    right = [3, 6, 0, 5, 1, 3]
    assert ranking.observe(batch(), predictions(right)), "it wants to see all of them"
    # Class 0 is never right, so where it is predicted its IoU is 0; elsewhere it does not count.
    miou = [1.0 if columns == SIZE[1] else columns / SIZE[1] / 2 for columns in right]
    order = sorted(range(NUM_IMAGES), key=lambda i: (miou[i], i))
    assert [x.index for x in ranking.worst] == order[:count]
    assert [x.index for x in ranking.best] == order[::-1][:count]
    for scored in (*ranking.best, *ranking.worst):
        assert scored.miou == pytest.approx(miou[scored.index])
        assert scored.image.shape == (*SIZE, 3) and (scored.image == scored.index).all()
        assert scored.label.shape == scored.prediction.shape == SIZE
        assert (scored.prediction == 1).sum() == SIZE[0] * right[scored.index]


def test_later_batches_count_and_only_the_kept_images_stay():
    ranking, data = Ranking(1, num_classes=3), batch()
    ranking.observe(data, predictions([2] * NUM_IMAGES))
    later = data.replace(index=np.where(data.index < 0, -1, data.index + 10))
    ranking.observe(later, predictions([1, 2, 6, 2, 2, 2]))
    assert [x.index for x in ranking.best] == [12]
    assert [x.index for x in ranking.worst] == [10]
    assert all(x.prediction.base is None and x.image.base is None for x in ranking.best)
