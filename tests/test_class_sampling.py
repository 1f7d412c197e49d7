"""rc2l_jax/input_pipeline/class_sampling.py: images of rare classes come more often."""

import itertools

import numpy as np
import pytest
from PIL import Image
from test_data import folder_config, write_folder

from rc2l_jax.input_pipeline.class_sampling import repeat_factors, repeated
from rc2l_jax.input_pipeline.subsets import open_subsets
from rc2l_jax.input_pipeline.train_batches import train_batches

# Five images: all show class 0, the last two class 2, the last one class 1.
SHOWN = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1], [1, 1, 1]], bool)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.0, [1, 1, 1, 1, 1]),
        (0.2, [1, 1, 1, 1, 1]),  # no class is in fewer than a fifth of the images
        (0.4, [1, 1, 1, 1, 2**0.5]),
        (1.0, [1, 1, 1, 2.5**0.5, 5**0.5]),  # the rarest class counts
    ],
)
def test_factors_are_those_of_repeat_factor_sampling(threshold, expected):
    np.testing.assert_allclose(repeat_factors(SHOWN, threshold), expected)


def test_an_image_without_a_class_and_a_class_without_an_image_are_fine():
    shown = np.array([[1, 0], [0, 0]], bool)
    np.testing.assert_allclose(repeat_factors(shown, 1.0), [2**0.5, 1.0])


@pytest.fixture
def config(tmp_path):
    """A supervised run on five images with the classes of `SHOWN`, four a step."""
    root = write_folder(tmp_path / "data")
    for i, classes in enumerate(SHOWN):
        mask = np.zeros((24, 32), np.uint8)
        mask[:8] = 1 if classes[1] else 0
        mask[8:16] = 2 if classes[2] else 0
        Image.fromarray(mask).save(root / "labels" / "train" / f"train{i}.png")
    config = folder_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    config.unsup_weight, config.batch_size = 0.0, 4
    config.data.min_scale = config.data.max_scale = 1.0  # 43 x 32 pixels: crops cut columns only
    return config


def shown_in(batches) -> list[set[int]]:
    return [set(np.unique(mask)) for batch in batches for mask in batch.label[0]]


def test_an_epoch_shows_the_rarest_class_as_often_as_its_factor_says(config):
    config.data.class_sampling = 0.8  # factors 1, 1, 1, sqrt 2, 2: 4, 4, 4, 6 and 8 times
    epoch = shown_in(itertools.islice(train_batches(config, open_subsets(config), 0, 1), 7))[:26]
    assert [sum(c in seen for seen in epoch) for c in (1, 2)] == [8, 14]
    assert len(set(repeated(*_labeled(config), 0.8))) == 5  # nothing is left out


def test_it_is_off_by_default(config):
    assert config.data.class_sampling == 0
    dataset, keys = _labeled(config)
    assert repeated(dataset, keys, 0.0) == keys == repeated(dataset, keys, 0.1)


def test_a_mask_that_broke_is_left_to_the_training(config, monkeypatch, capsys):
    config.data.class_sampling, config.on_bad_example = 1.0, "skip"
    data = open_subsets(config)
    fetch = type(data.dataset).fetch

    def broken(self, keys, *, labels):
        images, masks = fetch(self, keys, labels=labels)
        return images, [b"text" if key[1] == 4 else mask for key, mask in zip(keys, masks)]

    monkeypatch.setattr(type(data.dataset), "fetch", broken)
    batches = train_batches(config, data, 0, 1)
    assert all(1 not in seen for seen in shown_in(itertools.islice(batches, 7)))
    assert "train4" in capsys.readouterr().err


def _labeled(config):
    dataset, subsets = open_subsets(config)
    return dataset, subsets.labeled
