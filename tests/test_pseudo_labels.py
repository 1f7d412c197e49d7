"""studies/pseudo_labels.py: how right a run's pseudo labels are, class by class."""

from __future__ import annotations

import json

import numpy as np
import pytest
from etils import epath
from trained import unpack

from rc2l_jax.structs import MASK_STRIDE
from studies import pseudo_labels


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run whose prepared records lie in a folder of the test."""
    folder = tmp_path_factory.mktemp("run")
    change(unpack(folder / "run"), data={"prepared_dir": str(folder / "prepared")})
    return epath.Path(folder / "run")


def change(run, **groups):
    """Changes values in a run's config.json."""
    path = run / "config.json"
    config = json.loads(path.read_text())
    for group, values in groups.items():
        config[group] |= values
    path.write_text(json.dumps(config))


@pytest.mark.slow
def test_every_known_pixel_is_counted_as_right_wrong_or_not_named(run):
    config = json.loads((run / "config.json").read_text())
    side = config["data"]["crop_size"] // MASK_STRIDE
    pixels = config["unlabeled_batch_size"] * side * side
    names, counts = pseudo_labels.count(run, "train", 1)
    assert len(names) == len(counts) == config["data"]["num_classes"]
    assert 0.5 * pixels < counts.sum() <= pixels  # crops of small images are padded
    named = counts[:, :-1].sum()
    right = counts.diagonal().sum()
    assert named > 0.2 * counts.sum() and right > 0.6 * named, "the teacher was trained"
    again = pseudo_labels.count(run, "train", 1)[1]
    np.testing.assert_array_equal(again, counts)

    change(run, pseudo={"pixel_threshold": 1.0})
    _, nothing = pseudo_labels.count(run, "train", 1)
    assert nothing[:, :-1].sum() < named and nothing.sum() == counts.sum()


def test_the_table_has_shares_of_each_class_and_of_what_is_called_so():
    counts = np.array([[60, 0, 20], [10, 5, 5]])
    lines = pseudo_labels.table(["sky", "car"], counts).splitlines()
    assert lines[2] == "| sky | 0.800 | 0.75 | 0.00 | 0.25 | 0.86 |"
    assert lines[3] == "| car | 0.200 | 0.25 | 0.50 | 0.25 | 1.00 |"
    assert lines[4] == "| all | 1.000 | 0.65 | 0.10 | 0.25 | 0.87 |"


def test_a_class_that_is_not_there_or_never_named_has_no_share():
    lines = pseudo_labels.table(["sky", "car"], np.array([[8, 0, 2], [0, 0, 0]])).splitlines()
    assert lines[3] == "| car | 0.000 |  |  |  |  |"
