"""data/splits.py, lists.py and published.py: split texts, list files, separate partitions."""

from __future__ import annotations

import dataclasses
import re

import pytest
from shared import shared

from data import DataError, published, splits

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
    # sha256("0/t000") and so on depend on no library. If this fails, published splits have changed.
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
    folder = shared("splits") / "cps" / "pascal"
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
    with pytest.raises(DataError, match=r"1 entry names several images: a \(train/a or val/a\)"):
        splits.resolve(str(file), splits.Ids({"train": ["a"], "val": ["a"]}), "key")
    file.write_text("\r\n\n")
    with pytest.raises(DataError, match="the list is empty, so it names no example"):
        resolve(str(file))


def test_a_list_may_lie_in_the_data_sets_folder(tmp_path, monkeypatch):
    (tmp_path / "data" / "lists").mkdir(parents=True)
    (tmp_path / "data" / "lists" / "few.txt").write_text("t001\n")
    ids = dataclasses.replace(IDS, folder=str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    assert splits.resolve("lists/few.txt", ids, "key") == (("train", 1),)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "few.txt").write_text("t002\n")
    assert splits.resolve("lists/few.txt", ids, "key") == (("train", 2),)  # comes first
    with pytest.raises(DataError, match=r"a list file that exists in the .* or in .*data\.$"):
        splits.resolve("lists/none.txt", ids, "key")


def test_labelled_wins_over_unlabelled():
    subsets = splits.resolve_all("train#10@0", "train", "val", IDS)
    assert set(subsets.overlap) == set(subsets.labeled)
    assert set(subsets.labeled) | set(subsets.unlabeled) == {("train", i) for i in range(100)}
    assert not set(subsets.labeled) & set(subsets.unlabeled)
    with pytest.raises(DataError, match="names labelled examples only, or copies"):
        splits.resolve_all("train", "train#5@0", "val", IDS)


def test_training_on_evaluation_examples_is_refused():
    with pytest.raises(DataError) as caught:
        splits.resolve_all("val#1@0", "val#rest1@0", "val", IDS)
    assert [p.split(" and ")[0] for p in caught.value.problems] == [
        "config.data.labeled_split",
        "config.data.unlabeled_split",
    ]
    assert "share 1 example: " in caught.value.problems[0]
    assert "share 9 examples: " in caught.value.problems[1]


def test_unions_and_sums():
    ids = splits.Ids({"train": ["a", "b"], "aug": ["c"], "val": ["v"]}, {"both": ("train", "aug")})
    both = (("train", 0), ("train", 1), ("aug", 0))
    assert splits.resolve("both", ids, "key") == both
    assert splits.resolve("aug+train", ids, "key") == both
    assert len(splits.resolve("both#2@0 + aug", ids, "key")) in (2, 3)
    drawn, rest = (splits.resolve(f"both#{text}2@0", ids, "key") for text in ("", "rest"))
    assert sorted(drawn + rest) == sorted(both)
    with pytest.raises(DataError, match="use one of: train, aug, val, both"):
        splits.resolve("extra#1@0", ids, "key")
    with pytest.raises(DataError, match="'nothing' is neither a split"):
        splits.resolve("train+nothing", ids, "key")
    partial = splits.Ids({"train": ["a"]}, {"both": ("train", "aug")}, {"both": "get aug there"})
    with pytest.raises(DataError, match="'both#1@0': get aug there"):
        splits.resolve("both#1@0", partial, "key")


def test_a_partition_has_the_number_of_its_name():
    splits.resolve_all("train#46@0", "", "val", IDS, num_labeled=46)
    with pytest.raises(DataError, match=r"'train' names 100 images, but this partition has 46"):
        splits.resolve_all("train", "", "val", IDS, num_labeled=46)


# Published list -> (number of different ids, beginning of the name by which it is recognised).
PUBLISHED = {
    "cps/pascal/pseudoseg_labeled_1-2.txt": (732, "VOC Train 1/2, labelled (PseudoSeg, CPS)"),
    "cps/pascal/pseudoseg_labeled_1-4.txt": (366, "VOC Train 1/4, labelled"),
    "cps/pascal/pseudoseg_labeled_1-8.txt": (183, "VOC Train 1/8, labelled"),
    "cps/pascal/pseudoseg_labeled_1-16.txt": (92, "VOC Train 1/16, labelled"),
    "cps/pascal/pseudoseg_unlabeled_1-2.txt": (733, "VOC Train 1/2, unlabelled (PseudoSeg, CPS)"),
    "cps/pascal/pseudoseg_unlabeled_1-4.txt": (1099, "VOC Train 1/4, unlabelled (PseudoSeg, CPS)"),
    "cps/pascal/pseudoseg_unlabeled_1-8.txt": (1282, "VOC Train 1/8, unlabelled (PseudoSeg, CPS)"),
    "cps/pascal/pseudoseg_unlabeled_1-16.txt": (1373, "VOC Train 1/16, unlabelled (Pseudo"),
    "cps/pascal/train_aug_labeled_1-2.txt": (5291, "VOC Aug 1/2, labelled (CPS"),
    "cps/pascal/train_aug_labeled_1-4.txt": (2646, "VOC Aug 1/4, labelled (CPS"),
    "cps/pascal/train_aug_labeled_1-8.txt": (1323, "VOC Aug 1/8, labelled (CPS"),
    "cps/pascal/train_aug_labeled_1-16.txt": (662, "VOC Aug 1/16, labelled (CPS"),
    "cps/pascal/train_aug_unlabeled_1-2.txt": (5291, "VOC Aug 1/2, unlabelled (CPS"),
    "cps/pascal/train_aug_unlabeled_1-4.txt": (7936, "VOC Aug 1/4, unlabelled (CPS"),
    "cps/pascal/train_aug_unlabeled_1-8.txt": (9259, "VOC Aug 1/8, unlabelled (CPS"),
    "cps/pascal/train_aug_unlabeled_1-16.txt": (9920, "VOC Aug 1/16, unlabelled (CPS"),
    "cps/cityscapes/train_aug_labeled_1-2.txt": (1488, "Cityscapes 1/2, labelled"),
    "cps/cityscapes/train_aug_labeled_1-4.txt": (744, "Cityscapes 1/4, labelled"),
    "cps/cityscapes/train_aug_labeled_1-8.txt": (372, "Cityscapes 1/8, labelled"),
    "cps/cityscapes/train_aug_labeled_1-16.txt": (186, "Cityscapes 1/16, labelled"),
    "cps/cityscapes/train_aug_unlabeled_1-2.txt": (1487, "Cityscapes 1/2, unlabelled"),
    "cps/cityscapes/train_aug_unlabeled_1-4.txt": (2231, "Cityscapes 1/4, unlabelled"),
    "cps/cityscapes/train_aug_unlabeled_1-8.txt": (2603, "Cityscapes 1/8, unlabelled"),
    "cps/cityscapes/train_aug_unlabeled_1-16.txt": (2789, "Cityscapes 1/16, unlabelled"),
    "unimatch/pascal/92/labeled.txt": (92, "VOC Train 1/16, labelled"),
    "unimatch/pascal/92/unlabeled.txt": (10490, "VOC Train 1/16, unlabelled (UniMatch)"),
    "unimatch/pascal/183/labeled.txt": (183, "VOC Train 1/8, labelled"),
    "unimatch/pascal/183/unlabeled.txt": (10399, "VOC Train 1/8, unlabelled (UniMatch)"),
    "unimatch/pascal/366/labeled.txt": (366, "VOC Train 1/4, labelled"),
    "unimatch/pascal/366/unlabeled.txt": (10216, "VOC Train 1/4, unlabelled (UniMatch)"),
    "unimatch/pascal/732/labeled.txt": (732, "VOC Train 1/2, labelled (UniMatch)"),
    "unimatch/pascal/732/unlabeled.txt": (9850, "VOC Train 1/2, unlabelled (UniMatch)"),
    "unimatch/pascal/1464/labeled.txt": (1464, "VOC Train 1.4k, labelled"),
    "unimatch/pascal/1464/unlabeled.txt": (9118, "VOC Train 1.4k, unlabelled"),
    "unimatch/pascal/1_4/labeled.txt": (2646, "VOC Aug 1/4, labelled (CPS, UniMatch)"),
    "unimatch/pascal/1_4/unlabeled.txt": (7936, "VOC Aug 1/4, unlabelled (CPS, UniMatch)"),
    "unimatch/pascal/1_8/labeled.txt": (1323, "VOC Aug 1/8, labelled (CPS, UniMatch)"),
    "unimatch/pascal/1_8/unlabeled.txt": (9259, "VOC Aug 1/8, unlabelled (CPS, UniMatch)"),
    "unimatch/pascal/1_16/labeled.txt": (662, "VOC Aug 1/16, labelled (CPS, UniMatch)"),
    "unimatch/pascal/1_16/unlabeled.txt": (9920, "VOC Aug 1/16, unlabelled (CPS, UniMatch)"),
    "unimatch/pascal/u2pl_1_4/labeled.txt": (2646, "VOC Aug 1/4, labelled (U2PL)"),
    "unimatch/pascal/u2pl_1_4/unlabeled.txt": (7936, "VOC Aug 1/4, unlabelled (U2PL)"),
    "unimatch/pascal/u2pl_1_8/labeled.txt": (1323, "VOC Aug 1/8, labelled (U2PL)"),
    "unimatch/pascal/u2pl_1_8/unlabeled.txt": (9259, "VOC Aug 1/8, unlabelled (U2PL)"),
    "unimatch/pascal/u2pl_1_16/labeled.txt": (662, "VOC Aug 1/16, labelled (U2PL)"),
    "unimatch/pascal/u2pl_1_16/unlabeled.txt": (9920, "VOC Aug 1/16, unlabelled (U2PL)"),
    "unimatch/pascal/train_aug.txt": (10582, "VOC Aug, all 10582 training images"),
    "unimatch/pascal/val.txt": (1449, "VOC val"),
    "unimatch/cityscapes/1_2/labeled.txt": (1488, "Cityscapes 1/2, labelled"),
    "unimatch/cityscapes/1_2/unlabeled.txt": (1487, "Cityscapes 1/2, unlabelled"),
    "unimatch/cityscapes/1_4/labeled.txt": (744, "Cityscapes 1/4, labelled"),
    "unimatch/cityscapes/1_4/unlabeled.txt": (2231, "Cityscapes 1/4, unlabelled"),
    "unimatch/cityscapes/1_8/labeled.txt": (372, "Cityscapes 1/8, labelled"),
    "unimatch/cityscapes/1_8/unlabeled.txt": (2603, "Cityscapes 1/8, unlabelled"),
    "unimatch/cityscapes/1_16/labeled.txt": (186, "Cityscapes 1/16, labelled"),
    "unimatch/cityscapes/1_16/unlabeled.txt": (2789, "Cityscapes 1/16, unlabelled"),
    "unimatch/cityscapes/1_30/labeled.txt": (100, "Cityscapes 1/30, labelled"),
    "unimatch/cityscapes/1_30/unlabeled.txt": (2875, "Cityscapes 1/30, unlabelled"),
    "unimatch/cityscapes/val.txt": (500, "Cityscapes val"),
}  # fmt: skip


@pytest.fixture(scope="module")
def published_ids():
    """The ids of VOC and Cityscapes, read from the lists by regular expressions of this test."""
    pattern = {
        "pascal": re.compile(r"\b20\d\d_\d{6}\b"),
        "cityscapes": re.compile(r"\b[a-z-]+_\d{6}_\d{6}(?=_leftImg8bit|\.png)"),
    }
    return {
        (group, kind): splits.Ids({"all": sorted({
            name
            for file in (shared("splits") / group / kind).rglob("*.txt")
            for name in pattern[kind].findall(file.read_text())
            if not name.endswith("_gtFine")
        })})
        for group in ("cps", "unimatch") for kind in pattern
    }  # fmt: skip


def test_the_table_above_has_every_published_list():
    folder = shared("splits")
    assert {f.relative_to(folder).as_posix() for f in folder.rglob("*.txt")} == set(PUBLISHED)
    assert len(published.NAMES) == len(set(published.NAMES.values()))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_lists_are_read_whole_and_recognised(published_ids, name):
    count, title = PUBLISHED[name]
    ids = published_ids[tuple(name.split("/")[:2])]
    keys = splits.resolve(str(shared("splits") / name), ids, "key")
    assert len(keys) == count
    assert published.NAMES[splits.checksum(keys, ids)].startswith(title)
    others = sorted(set(ids.keys("all")) - set(keys))
    if others:  # changing one image makes it another list
        assert splits.checksum([others[0], *keys[1:]], ids) not in published.NAMES
