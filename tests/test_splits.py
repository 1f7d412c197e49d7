"""data/splits.py and lists.py: split texts, list files, partitions kept apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import DataError, splits

SHARED = Path(__file__).parents[2] / "shared"
IDS = splits.Ids(
    {"train": [f"t{i:03d}" for i in range(100)], "val": [f"v{i:02d}" for i in range(10)]}
)


def resolve(text):
    return splits.resolve(text, IDS, "config.data.labeled_split")


def test_a_drawn_part_and_its_rest_divide_the_split():
    part, rest = resolve("train#46@0"), resolve("train#rest46@0")
    assert len(part) == 46
    assert sorted(part + rest) == [("train", i) for i in range(100)]
    assert set(resolve("train#23@0")) < set(part)
    assert resolve("train#46@1") != part


def test_drawn_parts_are_the_same_on_every_platform():
    # sha256("0/t000") etc. do not depend on any library; a change here changes published splits.
    assert [i for _, i in resolve("train#5@0")] == [30, 73, 89, 90, 93]
    assert splits.checksum(resolve("train#46@0"), IDS) == "5127120debf32ef3"


def test_lists_tolerate_the_formats_people_have(tmp_path):
    file = tmp_path / "half.txt"
    file.write_bytes(
        b"\xef\xbb\xbft003\r\n\r\nJPEGImages/t001.jpg SegmentationClass/t001.png\r\n"
        b"/images/train/v02.png\t/segmentation/v02.png"
    )
    assert resolve(str(file)) == (("train", 1), ("train", 3), ("val", 2))


def test_published_lists_are_read_as_their_readme_says():
    folder = SHARED / "splits" / "cps" / "pascal"
    names = ("pseudoseg_labeled_1-2.txt", "pseudoseg_unlabeled_1-2.txt")
    lists = [(folder / name).read_text().split() for name in names]
    ids = splits.Ids({"train": sorted({*lists[0], *lists[1]}), "val": ["other"]})
    subsets = splits.resolve_all(str(folder / names[0]), str(folder / names[1]), "val", ids)
    assert len(ids.splits["train"]) == 1464
    assert len(subsets.labeled) == 732
    assert len(subsets.unlabeled) == 732
    assert len(subsets.overlap) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither a split"),
        ("training", "neither a split .train, val."),
        ("train#46", "neither a split"),
        ("train#101@0", "asks for 101 examples of 'train', which has 100"),
        ("train#0@0", "names no example"),
        ("train#rest100@0", "names no example"),
        ("test#4@0", "no split 'test'"),
        ("no/such/list.txt", "nor a list file that exists"),
    ],
)
def test_split_texts_that_are_refused(text, message):
    with pytest.raises(DataError, match=message) as caught:
        resolve(text)
    assert "config.data.labeled_split" in str(caught.value)


def test_a_list_with_unknown_ids_names_their_count_and_the_first_five(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("t001\n" + "".join(f"x{i}\n" for i in range(7)))
    with pytest.raises(DataError, match=r"7 of 8 entries are not .*: x0, x1, x2, x3, x4, \.\.\.;"):
        resolve(str(file))


def test_an_id_of_two_splits_is_ambiguous_and_an_empty_list_is_empty(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("a\n")
    with pytest.raises(DataError, match=r"1 entries name several images: a \(train/a or val/a\)"):
        splits.resolve(str(file), splits.Ids({"train": ["a"], "val": ["a"]}), "key")
    file.write_text("\r\n\n")
    with pytest.raises(DataError, match="the list is empty, so it names no example"):
        resolve(str(file))


def test_labelled_wins_over_unlabelled():
    subsets = splits.resolve_all("train#10@0", "train", "val", IDS)
    assert set(subsets.overlap) == set(subsets.labeled)
    assert set(subsets.labeled) | set(subsets.unlabeled) == {("train", i) for i in range(100)}
    assert not set(subsets.labeled) & set(subsets.unlabeled)
    with pytest.raises(DataError, match="names labelled examples only"):
        splits.resolve_all("train", "train#5@0", "val", IDS)


def test_training_on_evaluation_examples_is_refused():
    with pytest.raises(DataError) as caught:
        splits.resolve_all("val#2@0", "val#rest2@0", "val", IDS)
    assert [p.split(" and ")[0] for p in caught.value.problems] == [
        "config.data.labeled_split",
        "config.data.unlabeled_split",
    ]
    assert "share 8 examples" in caught.value.problems[1]
