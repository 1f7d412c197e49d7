"""A run starts from the teacher of another run, also with other numbers of classes and queries.

Of rc2l_jax/run/restore.py it tests `teacher_of_run`, of rc2l_jax/weights/load.py
`pretrained_state`.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny

from rc2l_jax.method.state import create_train_state
from rc2l_jax.run.checkpoints import CheckpointError, Checkpoints
from rc2l_jax.run.restore import teacher_of_run
from rc2l_jax.run.storage import write_json
from rc2l_jax.weights import WeightsError
from rc2l_jax.weights.load import pretrained_state


@pytest.fixture(scope="module")
def former(tmp_path_factory):
    """A run directory, and the parameters of its teacher."""
    workdir = tmp_path_factory.mktemp("former")
    _, _, state = create_train_state(tiny.config())
    teacher = jax.tree.map(lambda x: np.asarray(x) + 1, state.teacher_params)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(state.replace(teacher_params=teacher), {"best": None})
    return workdir, teacher


@pytest.mark.slow
def test_student_and_teacher_start_as_the_run_s_teacher(former):
    workdir, teacher = former
    config = tiny.config(init_from=str(workdir), data__num_classes=5, model__num_queries=4)
    _, _, state = create_train_state(config)
    started, report = pretrained_state(state, config, teacher_of_run(config.init_from))
    assert set(report.reinitialized) == {"class_head/kernel", "class_head/bias"}
    for params in (started.params, started.teacher_params):
        head, queries = params.pop("class_head"), params.pop("query_embed")
        assert np.array_equal(queries, teacher["query_embed"][:4])
        assert np.array_equal(head["kernel"], state.params["class_head"]["kernel"])
        rest = {k: v for k, v in teacher.items() if k not in ("class_head", "query_embed")}
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, params, rest)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "reason"),
    {
        ("sky", "road", "car"): "",
        (
            "sky",
            "car",
            "road",
        ): "classes were reordered: class 1 was 'road' and is now 'car'",
        ("sky", "road", "cat"): "classes were renamed: class 2 was 'car' and is now 'cat'",
        (): "",
    }.items(),
)
def test_the_class_head_is_that_of_the_same_classes(former, names, reason):
    workdir, teacher = former
    write_json(workdir / "config.json", {"class_names": ["sky", "road", "car"]})
    config = tiny.config(init_from=str(workdir))
    _, _, state = create_train_state(config)
    started, report = pretrained_state(state, config, teacher_of_run(config.init_from), names)
    want = state.params if reason else teacher
    for name in ("kernel", "bias"):
        got = started.params["class_head"][name]
        assert np.array_equal(got, want["class_head"][name])
        assert report.reinitialized.get(f"class_head/{name}", "").startswith(reason)
    assert len(report.reinitialized) == (2 if reason else 0)
    assert any("class_head (2 arrays): classes" in line for line in report.lines()) == bool(reason)


@pytest.mark.slow
def test_what_does_not_fit_is_named(former, tmp_path):
    workdir, _ = former
    config = tiny.config(init_from=str(workdir), model__mask_dim=16)
    _, _, state = create_train_state(config)
    with pytest.raises(WeightsError, match="mask_head") as error:
        pretrained_state(state, config, teacher_of_run(config.init_from))
    assert str(workdir) in str(error.value)
    write_json(workdir / "config.json", {"model": {"num_heads": 8}})
    config = tiny.config(init_from=str(workdir))
    with pytest.raises(
        WeightsError, match=r"says 8 attention heads .*= 2: set model\.num_heads = 8"
    ):
        pretrained_state(state, config, teacher_of_run(config.init_from))
    (workdir / "config.json").unlink()
    assert teacher_of_run("") is None and teacher_of_run(str(tmp_path)) is None
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        teacher_of_run(str(tmp_path))
