"""data/folder/: lists of classes that would number them otherwise than people mean are refused."""

from __future__ import annotations

import labelled_scenes as scenes
import numpy as np
import pytest
from labelled_scenes import SCENES, write
from test_labelled_folders import config_of, masks_of

from data import DataError, catalog


def opened(root):
    return catalog.open_dataset(config_of(root, root.parent / "prepared").data)


def problem_of(root):
    with pytest.raises(DataError) as caught:
        opened(root)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("name", ["classes.txt", "class_names.txt"])
def test_what_is_ignored_may_stand_before_or_behind_the_classes_but_not_among_them(tmp_path, name):
    root = tmp_path / "data"
    SCENES["MATLAB"][0](root)
    (root / "classes.txt").unlink()
    write(root / name, "background\n__ignore__\nroad\ntree\n")
    problem = problem_of(root)
    assert problem.startswith(f"{root / name}: line 2 is __ignore__, which is no class")
    assert "make it the last line (or, if masks have an id for it" in problem
    for lines in ("__ignore__\nbackground\nroad\ntree\n", "background\nroad\ntree\n__ignore__\n"):
        write(root / name, lines)
        for example, mask in masks_of(opened(root)).items():
            np.testing.assert_array_equal(mask, scenes.mask(int(example.split()[1])))
    write(root / name, "background\nignored\nroad\ntree\n")
    config = config_of(root, tmp_path / "prepared", merge_classes="__ignore__=ignored")
    dataset = catalog.open_dataset(config.data)
    assert dataset.class_names == ("background", "road", "tree")
    for example, mask in masks_of(dataset).items():
        expected = scenes.mask(int(example.split()[1]), road=255, tree=1)
        np.testing.assert_array_equal(mask, expected)
