"""A step that is not finite changes nothing and says why; too many of them end the run.

Tests rc2l_jax/method/train_step.py and rc2l_jax/reports/alarms.py.
"""

from __future__ import annotations

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from faults.runs import SLOW, newest_state, same_bits

from rc2l_jax.method import objective, train_step
from rc2l_jax.method.state import create_train_state
from rc2l_jax.reports.alarms import (
    collapse_warning,
    collapses,
    nonfinite_counts,
    nonfinite_warning,
)
from rc2l_jax.training import devices
from rc2l_jax.training.averages import accumulate, summarize

# Source of a NaN -> step in which it appears.
IMAGE, TERM, GRADIENT, PARAMETER = 1, 2, 3, 4


@pytest.fixture(scope="module")
def poisoned_step():
    """A training step in which a NaN appears in certain steps, and a state to start from."""
    patch = pytest.MonkeyPatch()
    now = {}

    def poison(value, step):
        return value + jnp.where(now["step"] == step, jnp.nan, 0.0)

    forward, terms = train_step.student_forward, objective.unlabel_terms
    gradients = train_step.batch_gradients

    def student_forward(model, params, state, images, keys, config):
        now["step"] = state.step
        return forward(model, params, state, [poison(x, IMAGE) for x in images], keys, config)

    def unlabel_terms(*arguments):
        found = terms(*arguments)
        total, count = found["rcc"]
        return found | {"rcc": (poison(total, TERM), count)}

    def batch_gradients(state, *arguments):
        now["step"] = state.step
        grads, rest = gradients(state, *arguments)
        now["step"] = state.step
        return grads | {"query_embed": poison(grads["query_embed"], GRADIENT)}, rest

    patch.setattr(train_step, "student_forward", student_forward)
    patch.setattr(objective, "unlabel_terms", unlabel_terms)
    patch.setattr(train_step, "batch_gradients", batch_gradients)
    config = tiny.config(model__num_decoder_layers=1)
    model, optimizer, state = create_train_state(config)
    step = devices.parallel_train_step(model, optimizer, config)
    yield step, state
    patch.undo()


@pytest.mark.slow
def test_nan_from_anywhere_changes_no_bit_and_is_named(poisoned_step):
    step, state = poisoned_step
    state = devices.replicate(state, 1)
    expected = {
        IMAGE: {"loss/label_class", "loss/unlabel_rcc", "loss/total", "grad/backbone"},
        TERM: {"loss/unlabel", "loss/total", "loss/unlabel_rcc"},
        GRADIENT: {"grad/query_embed"},
        PARAMETER: {"loss/total", "grad/backbone"},
    }
    total, finite_losses = None, []
    for i in range(6):
        if i == PARAMETER:
            healthy = jax.tree.map(np.array, state)
            kernel = healthy.params["mask_head"]
            first = next(iter(jax.tree.leaves(kernel)))
            first.ravel()[0] = np.nan
            state = devices.replicate(healthy, 1)
        before = jax.tree.map(np.array, state)
        state, metrics = step(state, tiny.batch(1, seed=i))
        total = accumulate(total, metrics)
        after = jax.tree.map(np.array, state)
        means = summarize(jax.tree.map(np.asarray, metrics))
        if i not in expected:
            if i < PARAMETER:
                finite_losses.append(means["loss/total"])
                assert after.nonfinite_run == 0 and means["nonfinite_steps"] == 0
                assert not same_bits(after.params, before.params)
                assert not nonfinite_counts(means, 1)
            continue
        assert after.step == before.step + 1 and after.nonfinite_run == before.nonfinite_run + 1
        unchanged = after.replace(step=before.step, nonfinite_run=before.nonfinite_run)
        for a, b in zip(jax.tree.leaves(unchanged), jax.tree.leaves(before)):
            assert a.tobytes() == b.tobytes()  # equal also where it is NaN
        named = set(nonfinite_counts(means, 1))
        assert expected[i] <= named, named
        assert "loss/label_class" not in named or i in (IMAGE, PARAMETER)
        assert "loss/total" not in means and means["nonfinite_steps"] == 1
    # Means leave out what was not finite.
    means = summarize(jax.tree.map(np.asarray, total))
    assert all(np.isfinite(value) for value in means.values())
    np.testing.assert_allclose(means["loss/total"], np.mean(finite_losses), rtol=1e-6)
    assert "5 of the last 6 steps not finite (" in nonfinite_warning(means, 6)


BREAKS = """
import jax.numpy as jnp
from rc2l_jax.method import train_step
gradients = train_step.batch_gradients
def broken(state, *arguments):
    grads, (stats, losses, metrics) = gradients(state, *arguments)
    total = losses["total"] + jnp.where(state.step >= 16, jnp.nan, 0.0)
    return grads, (stats, losses | {"total": total}, metrics)
train_step.batch_gradients = broken
"""


@pytest.mark.slow
def test_too_many_end_the_run_with_the_last_good_state_and_a_report(runs):
    workdir = runs.scratch / "nan"
    config = {"max_nonfinite_steps": 5, "eval_every_steps": 40, "checkpoint_every_steps": 9}
    run = runs.start(workdir, patch=BREAKS, **config)
    assert run.wait() == 3, run.output()
    last = run.output().strip().splitlines()[-1]
    assert last.startswith("error: none of the last 5 steps had a finite loss"), last
    assert "loss/total" in last and "Traceback" not in run.output()
    assert "5 of the last 7 steps not finite (loss/total 5), and skipped" in run.output()
    report = json.loads((workdir / "nonfinite.json").read_text())
    assert report["step"] == 21 and report["terms"] == {"loss/total": 5}
    assert report["metrics_before"]["loss/total"] > 0

    before, kept = newest_state(workdir, 18), newest_state(workdir)
    assert kept.step == 21 and kept.nonfinite_run == 5 and before.nonfinite_run == 2
    for field in ("params", "teacher_params", "batch_stats", "opt_state", "class_shares"):
        assert same_bits(getattr(kept, field), getattr(before, field))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(kept.params))
    # The same command continues from there.
    again = runs.start(workdir, patch=SLOW.format(seconds=0.2), **config)
    again.until_printed("step 28/40")
    again.signal(signal.SIGTERM)
    assert again.wait() == 75, again.output()
    assert "resuming from the checkpoint of step 21" in again.output()


def test_collapse_is_said_with_its_figures():
    fine = {"unsup_weight": 1.0, "pseudo/segments": 3.0, "pseudo/classes": 5.0}
    fine |= {"pseudo/coverage": 0.9, "pseudo/score": 0.8}
    assert collapse_warning(fine, 7) == ""
    none = collapse_warning(fine | {"pseudo/segments": 0.0, "pseudo/classes": 0.0}, 7)
    assert "no pseudo segment" in none and "pseudo/coverage 0.9" in none
    one = collapse_warning(fine | {"pseudo/classes": 1.0}, 7)
    assert "one class" in one and "pseudo/classes 1" in one
    # A single better step among many is no recovery.
    assert "no pseudo segment" in collapse_warning(fine | {"pseudo/segments": 0.01}, 7)
    assert "one class" in collapse_warning(fine | {"pseudo/classes": 1.02}, 7)
    # No warning in the burn-in and in supervised training, which do not learn from pseudo labels.
    assert collapse_warning(fine | {"pseudo/segments": 0.0, "unsup_weight": 0.0}, 7) == ""
    assert collapse_warning({"unsup_weight": 1.0}, 7) == ""


def test_the_page_says_at_which_evaluations_it_was():
    fine = {"unsup_weight": 1.0, "pseudo/segments": 3.0, "pseudo/classes": 5.0}
    none, unknown = fine | {"pseudo/segments": 0.0}, fine | {"pseudo/segments": None}
    of_steps = {100: fine, 200: none, 300: unknown, 400: none, 500: fine}
    lines = [{"step": step, "metrics": metrics} for step, metrics in of_steps.items()]
    lines[3]["metrics"] = fine | {"pseudo/classes": 1.0}
    said = collapses(lines, 7)
    assert said.startswith("Pseudo labels had collapsed at 2 of 5 evaluations. At step 400: all ")
    assert "almost no pseudo segment" in collapses(lines[:2], 7)
    assert collapses([lines[0], lines[2]], 7) == collapses([], 7) == ""
    assert collapses([{"step": 1, "metrics": {"loss/total": 1.0}}], 7) == ""  # supervised
