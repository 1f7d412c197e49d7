"""data/records.py and preparation.py: what is written, interruptions, processes at one time."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from test_data import shapes_config

from data import DataError, catalog, preparation, records
from data.sources import Source

ROOT = Path(__file__).parents[1]


def sources(count, broken=MappingProxyType({})):
    """Sources of tiny drawn images; the one at position i raises or returns `broken[i]`, if any."""
    config = shapes_config("", num_train=count).data
    listing = catalog.BUILDERS["shapes"].listing(config)

    def spoiled(instead):
        if isinstance(instead, OSError):
            raise instead
        return instead, lambda size: (b"", "no mask")

    return [
        Source(s.id, f"/data/{s.id}", functools.partial(spoiled, broken[i])) if i in broken else s
        for i, s in enumerate(listing.splits["train"].sources)
    ]


def counting(given, read):
    """The same sources; each appends its id to `read` when it is read."""

    def note(source):
        def noted():
            read.append(source.id)
            return source.read()

        return Source(source.id, source.where, noted)

    return [note(source) for source in given]


def test_an_interrupted_preparation_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "_SHARD_SIZE", 4)
    given, read = sources(22), []
    path = records.records_path(str(tmp_path), "shapes", "train", "f")

    def interrupt():
        raise KeyboardInterrupt

    stopped = counting(given, read)
    stopped[13] = Source(given[13].id, "", interrupt)
    with pytest.raises(KeyboardInterrupt):
        preparation.prepare(path, "shapes", "", ("a", "b"), stopped)
    assert not path.exists()
    whole = {f.name for f in path.parent.rglob("*.array_record-*-of-00006")}
    assert 2 <= len(whole) < 6
    before = len(read)
    preparation.prepare(path, "shapes", "", ("a", "b"), counting(given, read))
    assert len(read) - before == 22 - sum(
        2 if name.endswith("00005-of-00006") else 4 for name in whole
    )
    opened = records.open_records(path)
    assert [e.id for e in opened.examples] == [s.id for s in given]
    stored = [r["image"] for r in opened.read(range(22))]
    assert stored == [s.read()[0] for s in given]
    assert [
        f for f in path.parent.rglob("*") if "incomplete" in f.name or "partial" in f.name
    ] == []


def test_a_killed_process_leaves_whole_shards_only(tmp_path):
    """After SIGKILL in the middle, the next call continues, and makes the same records."""
    code = (
        "import sys, time; sys.path[:0] = ['tests', '.']\n"
        "from data import preparation, records\n"
        "from test_records import sources, slow\n"
        "preparation._SHARD_SIZE = 4\n"
        "path = records.records_path(sys.argv[1], 'shapes', 'train', 'f')\n"
        "preparation.prepare(path, 'shapes', '', ('a', 'b'), slow(sources(40)))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    path = records.records_path(str(tmp_path), "shapes", "train", "f")
    deadline = time.time() + 120
    while len(list(path.parent.rglob("*.json"))) < 3:
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    shards = len(list(path.parent.rglob("*.array_record-*.json")))
    read = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "_SHARD_SIZE", 4)
        preparation.prepare(path, "shapes", "", ("a", "b"), counting(sources(40), read))
    assert len(read) == 40 - 4 * shards
    images = [r["image"] for r in records.open_records(path).read(range(40))]
    assert images == [s.read()[0] for s in sources(40)]


def slow(given):
    def wait(source):
        return Source(source.id, source.where, lambda: (time.sleep(0.05), source.read())[1])

    return [wait(source) for source in given]


def test_processes_that_prepare_at_once_make_one_copy(tmp_path):
    code = (
        "import sys; sys.path[:0] = ['tests', '.']\n"
        "from test_data import shapes_config\n"
        "from data import catalog\n"
        "data = catalog.open_dataset(shapes_config(sys.argv[1], num_train=300).data)\n"
        "print(len(data.records('train').examples), data.records('train').path)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    answers = {process.communicate(timeout=300)[0] for process in running}
    assert len(answers) == 1
    assert answers.pop().startswith("300 ")
    assert [p.name for p in (tmp_path / "shapes").rglob("*") if p.name in ("lock", "partial")] == []


def test_every_image_that_cannot_be_opened_is_named_and_nothing_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "_SHARD_SIZE", 4)
    path = records.records_path(str(tmp_path), "shapes", "train", "f")
    denied = dict.fromkeys((1, 2, 9), PermissionError(13, "Permission denied"))
    with pytest.raises(DataError) as caught:
        preparation.prepare(path, "shapes", "", ("a", "b"), sources(12, denied))
    names = [problem.split(":")[0] for problem in caught.value.problems]
    assert names == ["/data/train_000001", "/data/train_000002", "/data/train_000009"]
    assert all("cannot be opened (Permission denied)" in x for x in caught.value.problems)
    assert list(tmp_path.rglob("*")) == [tmp_path / "shapes"]


def test_a_damaged_image_has_a_record_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "_SHARD_SIZE", 4)
    path = records.records_path(str(tmp_path), "shapes", "train", "f")
    broken = dict.fromkeys((1, 9), b"not an image")
    given = sources(12, broken)

    def interrupt():
        raise KeyboardInterrupt

    stopped = [*given[:11], Source(given[11].id, "", interrupt)]
    with pytest.raises(KeyboardInterrupt):  # the first shards are whole, and are read back
        preparation.prepare(path, "shapes", "", ("a", "b"), stopped, root="/data")
    preparation.prepare(path, "shapes", "", ("a", "b"), given, root="/data")
    for root in ("/data", "/moved"):
        found = records.open_records(path, root).examples
        assert [e.id for e in found if e.error] == ["train_000001", "train_000009"]
        text = f"{root}/train_000001: not a readable image (Unknown image file format); replace"
        assert found[1].image_error.startswith(text) and found[1].label_error == ""
        assert (found[1].height, found[1].width) == (0, 0)
    known = json.loads((path / "examples.json").read_text())["examples"]
    assert [len(row) for row in known[:3]] == [6, 7, 6], "as earlier versions wrote healthy ones"


def test_damaged_metadata_is_a_clear_error(tmp_path):
    config = shapes_config(tmp_path)
    path = catalog.open_dataset(config.data).records("val").path
    (path / "examples.json").write_text("{")
    with pytest.raises(DataError, match=r"examples.json: damaged .* run --mode=prepare"):
        catalog.open_dataset(config.data).records("val")


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b"\xff" * 9])
def test_what_tfds_cannot_read_is_a_clear_error(tmp_path, name, content):
    path = catalog.open_dataset(shapes_config(tmp_path).data).records("val").path
    (path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"damaged .* run --mode=prepare"):
        records.open_records(path).read([0])


def test_records_are_a_tfds_data_set(tmp_path):
    import tensorflow_datasets as tfds

    path = catalog.open_dataset(shapes_config(tmp_path).data).records("train").path
    examples = list(tfds.builder_from_directory(path).as_data_source("examples"))
    assert len(examples) == 12
    assert examples[0]["image"].shape == (32, 32, 3)
    assert examples[0]["label"].shape == (32, 32, 1)
    assert examples[3]["id"] == b"train_000003"


def test_copies_have_one_digest(tmp_path):
    path = records.records_path(str(tmp_path), "shapes", "train", "f")
    given = sources(3)
    twice = [given[0], Source("copy", "", given[0].read), given[2]]
    preparation.prepare(path, "shapes", "", ("a", "b"), twice)
    digests = [e.digest for e in records.open_records(path).examples]
    assert digests[0] == digests[1] != digests[2]
    assert np.unique(digests).size == 2


def test_a_damaged_or_missing_shard_is_a_clear_error(tmp_path):
    found = catalog.open_dataset(shapes_config(tmp_path).data).records("val")
    (shard,) = found.path.glob("*.array_record-*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1000])
    with pytest.raises(DataError, match=r"damaged .* run --mode=prepare"):
        records.open_records(found.path).read([0, 1, 2])
    shard.unlink()
    with pytest.raises(DataError, match=r"damaged .* run --mode=prepare"):
        records.open_records(found.path).read([0])


def test_what_fails_for_a_moment_is_read_again(tmp_path):
    found = catalog.open_dataset(shapes_config(tmp_path).data).records("val")
    opened = records.open_records(found.path)
    want, failures = opened.read([1]), [OSError("the network"), None, MemoryError()]

    class Flaky:
        def __getitems__(self, indices):
            if failure := failures.pop(0):
                raise failure
            return want

    vars(opened)["_source"] = Flaky()
    assert opened.read([1]) is want
    with pytest.raises(MemoryError):  # no sign of a damaged record
        opened.read([1])
