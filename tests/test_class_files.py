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


UNREAD = "a: 1\n---\nb: !mine 2\n"  # two documents, and a tag of somebody's program


def test_yaml_that_is_not_read_matters_only_where_it_may_name_yolos_classes(tmp_path):
    masks, shapes = tmp_path / "masks", tmp_path / "shapes"
    SCENES["MATLAB"][0](masks)
    write(masks / "services.yaml", UNREAD)
    write(masks / "other.yml", b"\xff\xfe\xff")
    assert len(masks_of(opened(masks))) == 5
    write(masks / "dataset.yaml", UNREAD)
    assert problem_of(masks).startswith(f"{masks / 'dataset.yaml'}: is not YAML with one document")
    SCENES["YOLO"][0](shapes)
    write(shapes / "args.yaml", UNREAD)
    assert opened(shapes).class_names == ("background", "road", "tree")
    (shapes / "data.yaml").unlink()
    assert problem_of(shapes).startswith(f"{shapes / 'args.yaml'}: is not YAML")


def test_two_files_of_yaml_may_say_the_same_and_are_named_if_they_do_not(tmp_path):
    root = tmp_path / "data"
    SCENES["YOLO"][0](root)
    write(root / "mine.yaml", "names: [road, tree]")
    assert opened(root).class_names == ("background", "road", "tree")
    write(root / "mine.yaml", "names: [tree, road]")
    problem = problem_of(root)
    assert f"{root / 'data.yaml'} and {root / 'mine.yaml'}: number classes otherwise" in problem
    assert "(road, tree; tree, road); remove the one that is not of these labels" in problem


def test_the_file_that_names_the_classes_is_said_as_it_is_called(tmp_path):
    root = tmp_path / "data"
    SCENES["YOLO"][0](root)
    (root / "data.yaml").rename(root / "coco8.yml")
    assert any("classes from coco8.yml: background, road" in note for note in opened(root).notes)


@pytest.mark.parametrize("name", ["background", "_Background_", "__ignore__"])
def test_a_name_that_yolos_files_do_not_number_stands_last_in_classes_txt(tmp_path, name):
    root = tmp_path / "data"
    SCENES["YOLO"][0](root)
    (root / "data.yaml").unlink()
    write(root / "classes.txt", f"{name}\nroad\ntree\n")
    problem = problem_of(root)
    assert problem.startswith(f"{root / 'classes.txt'}: {name} stands before other classes, whose")
    assert "put it last (or, if YOLO's files number it, too, add data.yaml with names: [" in problem
    write(root / "classes.txt", f"road\ntree\n{name}\n")
    dataset = opened(root)
    assert f"{root}: YOLO's files have the numbers of the lines in classes.txt, from 0" in (
        dataset.notes
    )
    rest = 255 if name == "__ignore__" else 2
    for example, mask in masks_of(dataset).items():
        expected = scenes.mask(int(example.split()[1]), road=0, tree=1, rest=rest)
        np.testing.assert_array_equal(mask, expected)
    write(root / "classes.txt", f"{name}\nroad\ntree\n")
    write(root / "data.yaml", "names: [road, tree]")
    assert f"{root}: YOLO's files have the numbers of data.yaml, not of classes.txt" in (
        opened(root).notes
    )


def test_background_and_what_is_ignored_may_both_stand_last_where_classes_txt_numbers(tmp_path):
    root = tmp_path / "data"
    SCENES["YOLO"][0](root)
    (root / "data.yaml").unlink()
    write(root / "classes.txt", "road\ntree\nbackground\n__ignore__\n")
    assert opened(root).class_names == ("road", "tree", "background")
