"""rc2l_jax/run/checkpoints.py and stored_config.py, and `write_json` of run/storage.py.

Checkpoints come back bit for bit; a wrong one is refused with a clear message.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from rc2l_jax import __version__
from rc2l_jax.run import checkpoints as checkpoints_file
from rc2l_jax.run import checksums
from rc2l_jax.run.checkpoints import CheckpointError, Checkpoints
from rc2l_jax.run.classes import check_same_ids
from rc2l_jax.run.directory import chosen_step
from rc2l_jax.run.storage import write_json
from rc2l_jax.run.stored_config import (
    check_run_config,
    check_same_model,
    stored_class_names,
    write_run_config,
)
from rc2l_jax.structs import TrainState


def make_state(step: int = 0, width: int = 3, names: tuple[str, ...] = ("head",)) -> TrainState:
    """A state with all kinds of nodes that real ones have: empty ones, named tuples, a key."""

    def make(seed):
        return {
            name: {"kernel": jax.random.normal(jax.random.PRNGKey(seed), (2, width))}
            for name in names
        }

    params = make(step)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(1, 0, 9))
    )
    return TrainState(
        step=jnp.int32(step),
        key=jax.random.PRNGKey(step + 7),
        params=params,
        batch_stats={"norm": {"mean": jnp.full((2,), step, jnp.float32)}},
        teacher_params=make(step + 1),
        teacher_batch_stats={"norm": {"mean": jnp.full((2,), -step, jnp.float32)}},
        opt_state=optimizer.init(params),
        class_shares=jnp.full((2, 4), (step + 1) / 4),
        class_scores=jnp.full((2, 4), 1 / (step + 1)),
        class_prototypes=jnp.full((4, 5), step / 3),
        nonfinite_run=jnp.int32(step % 3),
    )


def metadata(best_step: int | None = None) -> dict:
    best = None if best_step is None else {"step": best_step, "student_miou": 0.5}
    return {"config": {"seed": 0}, "best": best, "losses": {"total": 1.5}}


def save_all(
    workdir: Path, states: list[TrainState], keep: int = 2, best: int | None = None
) -> None:
    with Checkpoints(workdir, keep) as checkpoints:
        for state in states:
            checkpoints.save(state, metadata(best))


@pytest.mark.parametrize("added", ["class_scores", "class_prototypes"])
def test_a_field_that_an_older_checkpoint_lacks_starts_as_in_a_new_run(
    added, tmp_path, monkeypatch
):
    saved = make_state(5)
    whole = checkpoints_file._state_dict
    monkeypatch.setattr(
        checkpoints_file,
        "_state_dict",
        lambda state: {k: v for k, v in whole(state).items() if k != added},
    )
    save_all(tmp_path, [saved])
    monkeypatch.undo()
    new = make_state(0)
    with Checkpoints(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore(new)
    np.testing.assert_array_equal(getattr(restored, added), getattr(new, added))
    assert (getattr(new, added) != getattr(saved, added)).all()
    np.testing.assert_array_equal(restored.class_shares, saved.class_shares)


def test_a_state_comes_back_bit_for_bit(tmp_path):
    saved = make_state(5)
    save_all(tmp_path, [saved], best=5)
    with Checkpoints(tmp_path) as checkpoints:
        restored, data = checkpoints.restore(make_state(0))
    assert data == metadata(5)
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    for new, old in zip(jax.tree.leaves(restored), jax.tree.leaves(saved)):
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(new, old)


def test_newest_and_best_are_kept(tmp_path):
    save_all(tmp_path, [make_state(i) for i in (1, 2, 3, 4, 5)], keep=2, best=1)
    with Checkpoints(tmp_path, 2) as checkpoints:
        assert checkpoints.steps() == [1, 4, 5]
        assert checkpoints.latest_step() == 5
        restored, _ = checkpoints.restore(make_state(0), step=4)
        checkpoints.save(make_state(6), metadata(best_step=6))
    assert int(restored.step) == 4
    with Checkpoints(tmp_path, 2) as checkpoints:
        assert checkpoints.steps() == [5, 6]


def test_what_a_killed_save_left_is_removed_by_the_next_run_alone(tmp_path):
    save_all(tmp_path, [make_state(1)])
    left = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp"
    (left / "state").mkdir(parents=True)
    with Checkpoints(tmp_path) as reader:
        assert reader.steps() == [1] and left.exists()
    with Checkpoints(tmp_path, owned=True) as owner:
        owner.save(make_state(2), metadata())
    assert not left.exists() and owner.steps() == [2]


def test_networks_alone_can_be_read(tmp_path):
    saved = make_state(3)
    save_all(tmp_path, [saved])
    # The template has another optimiser, which must not matter, as its state is not read.
    template = make_state(0).replace(opt_state=())
    with Checkpoints(tmp_path) as checkpoints:
        step, networks, _ = checkpoints.restore_networks(template)
    assert step == 3
    np.testing.assert_array_equal(
        networks["student"]["params"]["head"]["kernel"], saved.params["head"]["kernel"]
    )
    np.testing.assert_array_equal(
        networks["teacher"]["params"]["head"]["kernel"], saved.teacher_params["head"]["kernel"]
    )
    assert networks["teacher"]["batch_stats"]["norm"]["mean"][0] == -3


def test_batch_stats_may_be_empty(tmp_path):
    empty = {"batch_stats": {}, "teacher_batch_stats": {}}
    save_all(tmp_path, [make_state(3).replace(**empty)])
    with Checkpoints(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore(make_state(0).replace(**empty))
        _, networks, _ = checkpoints.restore_networks(make_state(0).replace(**empty))
    assert restored.batch_stats == {}
    assert networks["student"]["batch_stats"] == {}


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (make_state(0, width=4), "params/head/kernel is [2, 3] there and [2, 4] here"),
        (make_state(0, names=("head", "neck")), "params/neck/kernel is absent there and [2, 3]"),
    ],
)
def test_another_model_is_named(tmp_path, template, words):
    save_all(tmp_path, [make_state(3)])
    with Checkpoints(tmp_path) as checkpoints:
        for restore in (checkpoints.restore, checkpoints.restore_networks):
            with pytest.raises(CheckpointError) as error:
                restore(template)
            assert words in str(error.value)
            assert "\n" not in str(error.value)


def test_missing_checkpoints_are_named_and_nothing_is_created(tmp_path):
    with Checkpoints(tmp_path / "none") as checkpoints:
        assert checkpoints.latest_step() is None
        with pytest.raises(CheckpointError, match="holds no checkpoint: train first"):
            checkpoints.restore(make_state(0))
    assert not (tmp_path / "none").exists()
    save_all(tmp_path, [make_state(3)])
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(CheckpointError, match="step 7, only 3"),
    ):
        checkpoints.restore(make_state(0), step=7)


def test_a_damaged_checkpoint_is_named(tmp_path):
    save_all(tmp_path, [make_state(3)])
    for path in (tmp_path / "checkpoints" / "3" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError) as error:
        checkpoints.restore(make_state(0))
    assert "checkpoints/3 cannot be read" in str(error.value)


def test_a_changed_array_or_value_is_named_and_former_checkpoints_are_read():
    arrays = {("params", "kernel"): np.arange(6.0).reshape(2, 3), ("step",): np.int32(4)}
    stored = json.loads(json.dumps(checksums.with_checksums(metadata(5), arrays)))
    assert checksums.checked(stored, arrays) == metadata(5)
    assert checksums.checked(stored, {("step",): arrays["step",]}) == metadata(5)  # a part
    for other in (np.arange(6.0).reshape(3, 2), np.arange(6).reshape(2, 3), np.zeros((2, 3))):
        with pytest.raises(ValueError, match=r"^params/kernel: not as it was saved"):
            checksums.checked(stored, arrays | {("params", "kernel"): other})
    with pytest.raises(ValueError, match=r"^metadata: not as it was saved"):
        checksums.checked(stored | {"best": None}, arrays)
    for key in stored.keys() - metadata(5).keys():  # a flipped bit of a key
        with pytest.raises(ValueError, match="not as it was saved"):
            checksums.checked({k: x for k, x in stored.items() if k != key}, arrays)
    assert checksums.checked(metadata(5), arrays) == metadata(5)


# What a run keeps of its images, as `rc2l_jax.input_pipeline.subsets.describe_subsets` returns it.
USED = {
    "labeled": {"split": "train#4@0", "examples": 4, "checksum": "a1", "published": ""},
    "evaluation": {"split": "val", "examples": 9, "checksum": "b1", "published": "VOC val"},
}
CLASSES = ("road", "tree")


def test_a_run_directory_keeps_its_config(tmp_path):
    config = base.get_config()
    assert check_run_config(tmp_path, config, USED) == []  # nothing there yet
    write_run_config(tmp_path, config, USED, CLASSES)
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    assert check_run_config(tmp_path, config, USED) == []
    config.log_every_steps += 1
    config.data.dir = "/elsewhere"
    assert sorted(check_run_config(tmp_path, config, USED)) == [
        "data.dir was '' and is now '/elsewhere'",
        "log_every_steps was 100 and is now 101",
    ]
    config.model.num_queries = 20
    config.learning_rate = 1.0
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(CheckpointError) as error:
        check_run_config(tmp_path, config, USED)
    assert "model.num_queries was 50 and is now 20" in str(error.value)
    assert "learning_rate was 0.0001 and is now 1.0" in str(error.value)
    assert "log_every_steps" not in str(error.value)
    assert (tmp_path / "config.json").read_text() == before


def test_a_run_keeps_its_class_names(tmp_path):
    assert stored_class_names(tmp_path) == []
    iou = {"car": 0.5, "sky": None}
    write_json(tmp_path / "results.json", {"teacher": {"iou": iou}})
    write_json(tmp_path / "config.json", base.get_config().to_dict())  # as older runs have it
    assert stored_class_names(tmp_path) == ["car", "sky"]
    write_run_config(tmp_path, base.get_config(), USED, CLASSES)
    assert stored_class_names(tmp_path) == ["road", "tree"]
    (tmp_path / "results.json").unlink()  # a run that was stopped before its first evaluation
    assert stored_class_names(tmp_path) == ["road", "tree"]


def test_a_step_is_a_number_or_the_best_or_the_newest(tmp_path):
    write_json(tmp_path / "results.json", {"step": 90, "best": {"step": 30, "student_miou": 0.5}})
    assert [chosen_step(tmp_path, text) for text in (None, "60", "best")] == [None, 60, 30]
    for text in ("last", "-3", "1.5", ""):
        with pytest.raises(CheckpointError, match=f"--step={text}: give a number, or best"):
            chosen_step(tmp_path, text)
    for content in ("{}", "", '{"best": null}'):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"results.json is missing or names no best step"):
            chosen_step(tmp_path, "best")


def test_a_run_goes_on_with_its_own_images_only(tmp_path):
    config = base.get_config()
    write_run_config(tmp_path, config, USED, CLASSES)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["version"] == __version__
    write_json(tmp_path / "config.json", stored | {"version": "0.0.1"})  # an older one's run
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    for changed in ({"examples": 5, "checksum": "a1"}, {"examples": 4, "checksum": "a2"}):
        with pytest.raises(CheckpointError, match=r"a run on other images: labeled\. The"):
            check_run_config(tmp_path, config, USED | {"labeled": USED["labeled"] | changed})
    renamed = USED | {"labeled": USED["labeled"] | {"split": "the/same/list.txt"}}
    assert check_run_config(tmp_path, config, renamed) == []


def test_changed_classes_are_not_called_other_images(tmp_path):
    config = base.get_config()
    write_run_config(tmp_path, config, USED, ("road", "tree", "car"))
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    # The checksum of the content is also of the names.
    now = {name: entry | {"content": "other"} for name, entry in USED.items()}
    for names, words in (
        (("road", "bush", "car"), "classes were renamed: class 1 was 'tree' and is now 'bush'. "),
        (
            ("tree", "road", "car"),
            "classes were reordered: class 0 was 'road' and is now 'tree', class 1 was 'tree' and "
            "is now 'road'. ",
        ),
    ):
        with pytest.raises(CheckpointError) as error:
            check_run_config(tmp_path, config, now, class_names=names)
        assert str(error.value).startswith(f"{tmp_path}: {words}The order in classes.txt says")
        assert "\n" not in str(error.value) and "images" not in str(error.value)
        (note,) = check_run_config(tmp_path, config, now, True, names)
        assert words.startswith(note)
    fewer = now | {"labeled": now["labeled"] | {"examples": 3}}
    notes = check_run_config(tmp_path, config, fewer, True, ("road", "bush", "car"))
    assert notes[1:] == ["the images of labeled are others"]


def test_an_evaluation_takes_other_names_but_no_other_ids():
    stored = ("road", "tree", "car")
    assert check_same_ids(stored, stored, "run") == check_same_ids((), stored, "run") == ""
    note = check_same_ids(stored, ("Straße", "tree", "Auto"), "run")
    assert note.startswith("classes were renamed: class 0 was 'road' and is now 'Straße', class 2")
    for names in (("tree", "road", "car"), ("car", "tree", "bus"), ("x", "road", "car")):
        with pytest.raises(CheckpointError, match=r"run's order \(road, tree, car\)"):
            check_same_ids(stored, names, "run")


def test_how_a_run_is_evaluated_may_change(tmp_path):
    config = base.get_config()
    stored = config.to_dict()
    del stored["eval"]  # a run from before there were options
    write_json(tmp_path / "config.json", stored)
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    config.eval.scales, config.eval.flip, config.eval_batch_size = (0.5, 1.0), True, 4
    changes = check_run_config(tmp_path, config, USED)
    assert changes == [
        "eval.flip was False and is now True",
        "eval.scales was [1.0] and is now [0.5, 1.0]",
        "eval_batch_size was 8 and is now 4",
    ]


def test_without_a_checkpoint_a_config_may_be_mended(tmp_path):
    config = base.get_config()
    write_json(tmp_path / "config.json", config.to_dict())
    config.batch_size = 8
    assert check_run_config(tmp_path, config, USED) == []


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json is not JSON"):
        check_run_config(tmp_path, base.get_config(), USED)


def test_evaluation_refuses_a_model_that_only_looks_the_same(tmp_path):
    config = base.get_config()
    stored = json.loads(json.dumps(config.to_dict()))
    config.data.eval_split, config.model.dropout, config.num_steps = "test", 0.0, 1
    check_same_model(stored, config, tmp_path)
    config.model.num_heads = 4  # changes no shape
    with pytest.raises(CheckpointError, match=r"model.num_heads was 8 and is now 4"):
        check_same_model(stored, config, tmp_path)


def test_json_is_replaced_whole(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
