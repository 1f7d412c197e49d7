"""rc2l_jax/input_pipeline/bad_examples.py: examples that break while a run trains."""

from __future__ import annotations

import itertools
import threading

import jax
import numpy as np
import pytest
import replicas
from test_data import folder_config, shapes_config, write_folder

from data import DataError
from data.records import Records
from rc2l_jax.input_pipeline import eval_batches, subsets, train_batches
from rc2l_jax.input_pipeline.bad_examples import BadExamples
from rc2l_jax.input_pipeline.subsets import open_split, open_subsets

NUM_TRAIN = 12


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def config(prepared):
    """A supervised run on 12 drawn images, 4 a step: an epoch is three steps."""
    config = shapes_config(prepared)
    config.unsup_weight, config.batch_size = 0.0, 4
    config.data.labeled_split, config.data.unlabeled_split = "train", ""
    config.on_bad_example = "skip"
    return config


@pytest.fixture
def spoil(monkeypatch):
    """A function that spoils records: ({index: new content, or None if reading it shall fail})."""
    read = Records.read

    def change(broken, field="image"):
        def spoiled(self, indices):
            if any(broken.get(index, b"") is None for index in indices):
                raise DataError(f"{self.path}: damaged (a block); delete it.")
            found = read(self, indices)
            return [r | ({field: broken[i]} if i in broken else {}) for i, r in zip(indices, found)]

        monkeypatch.setattr(Records, "read", spoiled)

    return change


def take(config, count, start=0, devices=1, **processes):
    batches = train_batches.train_batches(config, open_subsets(config), start, devices, **processes)
    return list(itertools.islice(batches, count)), batches.bad


def seen(batches) -> list[bytes]:
    """The bytes of the views, in order."""
    return [view.tobytes() for batch in batches for view in batch.image[0]]


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_the_epochs_next_example_takes_the_place_of_a_bad_one(config, spoil, capsys, content):
    config.data.min_scale = config.data.max_scale = 1.0  # every view shows its whole image
    config.data.flip = False
    whole, bad = take(config, 6)
    assert bad.count == 0
    views = seen(whole)
    assert len(set(views)) == NUM_TRAIN
    order = train_batches.Order(tuple(range(NUM_TRAIN)), config.seed * 2)
    first, second = order.keys_at(np.array([2, 3]))
    spoil({first: content, second: content})
    skipped, bad = take(config, 6)
    # In the first epoch the two follow one another, so the next example is shown three times.
    expected = [4 if i in (2, 3) else i for i in range(NUM_TRAIN)]
    assert seen(skipped)[:NUM_TRAIN] == [views[i] for i in expected]
    assert not {views[2], views[3]} & set(seen(skipped))
    assert len(seen(skipped)) == 2 * NUM_TRAIN
    assert bad.count == 2
    said = capsys.readouterr().err.splitlines()
    named = {line.split(": ")[2].split()[0] for line in said}
    assert named == {f"train/train_{index:06d}" for index in (first, second)}
    assert all(line.startswith("process 0: skipped, another takes its place") for line in said)


def test_batches_with_replacements_follow_from_step_and_process_alone(config, spoil):
    spoil({3: b"", 4: None, 7: b"x"})
    first, bad = take(config, 7, devices=2)
    assert bad.count == 3
    late, _ = take(config, 3, start=4, devices=2)
    halves = [take(config, 7, process_index=p, process_count=2)[0] for p in (0, 1)]
    joined = [jax.tree.map(lambda *x: np.concatenate(x), *pair) for pair in zip(*halves)]
    for other, same in ((late, first[4:]), (joined, first)):
        jax.tree.map(np.testing.assert_array_equal, other, same)


def test_by_default_a_bad_example_ends_the_run_and_it_alone_is_named(config, spoil):
    config.on_bad_example = "error"
    for content, said in ((b"no image", r"cannot be decoded \(Unknown image file"), (None, ": .*")):
        spoil({5: content})
        with pytest.raises(DataError, match=f"^train/train_000005.*{said}.*") as caught:
            take(config, 3)
        assert len(caught.value.problems) == 1
        assert "delete" in str(caught.value)


def test_too_many_bad_examples_end_the_run(config, spoil):
    config.max_bad_examples = 3
    spoil(dict.fromkeys(range(3), b""))
    assert take(config, 6)[1].count == 3
    spoil(dict.fromkeys(range(4), b""))
    with pytest.raises(DataError, match=r"more than config.max_bad_examples = 3; mend") as caught:
        take(config, 6)
    headline, *named = caught.value.problems
    assert headline.startswith("4 examples")
    assert len(named) == 4
    assert all("train/train_00000" in text and "--mode=prepare" in text for text in named)


def test_an_epoch_without_a_good_example_is_an_error(config, spoil):
    config.max_bad_examples = 1_000
    spoil(dict.fromkeys(range(NUM_TRAIN), b""))
    with pytest.raises(DataError, match="labeled_split: none of its examples can be used") as error:
        take(config, 1)
    assert len(error.value.problems) == 1 + 5
    spoil(dict.fromkeys(range(NUM_TRAIN - 1), b""))
    (batch,), bad = take(config, 1)
    assert batch.image.shape == (1, 4, 32, 32, 3)
    assert 0 < bad.count < NUM_TRAIN


def test_unlabelled_images_are_replaced_too(prepared, spoil):
    config = shapes_config(prepared)
    config.on_bad_example = "skip"
    unlabeled = subsets.open_subsets(config)[1].unlabeled
    spoil({index: b"" for _, index in unlabeled[1:]})
    batches, bad = take(config, 6)
    assert bad.count == len(unlabeled) - 1 == 7
    assert all(batch.unlabeled_image.shape == (1, 2, 32, 32, 3) for batch in batches)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(24, 32), (40, 48), (32, 31)])
def test_what_has_another_size_than_it_had_is_bad(config, spoil, kind, size):
    config.on_bad_example = "error"
    larger = replicas.encode(np.zeros((*size, 3), np.uint8), kind)
    spoil({2: larger})
    with pytest.raises(DataError, match=r"^train/train_000002 .*another height and width"):
        take(config, 3)
    spoil({2: replicas.encode(np.zeros(size, np.uint8))}, field="label")
    with pytest.raises(DataError, match=r"^train/train_000002 .*another height and width"):
        take(config, 3)


@pytest.mark.parametrize("content", [b"", None, replicas.encode(np.zeros((9, 9, 3), np.uint8))])
def test_evaluation_never_skips(config, spoil, content):
    config.eval_batch_size = 3
    spoil({1: content})
    with pytest.raises(DataError, match=r"^val/val_000001"):
        list(eval_batches.eval_batches(config, open_split(config), 1))


def test_a_disk_that_changed_some_bytes(tmp_path):
    """ArrayRecord's checksums notice a flipped bit in real records, and one example is left out."""
    root = write_folder(tmp_path / "data", num_train=8, size=(24, 32))
    config = folder_config(root, tmp_path / "prepared", labeled_split="train", unlabeled_split="")
    config.unsup_weight, config.on_bad_example = 0.0, "skip"
    whole, _ = take(config, 4)
    (path,) = {subsets.open_subsets(config)[0].records("train").path}
    (shard,) = path.glob("*.array_record-*")
    stored = (root / "images" / "train" / "train5.png").read_bytes()
    content = bytearray(shard.read_bytes())
    content[content.index(stored) + len(stored) // 2] ^= 1
    shard.write_bytes(content)
    batches, bad = take(config, 4)
    assert bad.count == 1
    changed = sum(a != b for a, b in zip(seen(batches), seen(whole), strict=True))
    assert changed == 1
    config.on_bad_example = "error"
    with pytest.raises(DataError, match=r"^train/train5: .*damaged .* run --mode=prepare"):
        take(config, 4)


def test_many_threads_count_an_example_once(capsys):
    bad = BadExamples("skip", limit=1_000, process_index=3)
    errors = {("train", i): DataError(f"train/{i}") for i in range(40)}

    def add_all():
        for key, error in errors.items():
            bad.add(key, error)

    threads = [threading.Thread(target=add_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bad.count == 40
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(set(lines)) == 40
    assert all(line.startswith("process 3: ") for line in lines)
