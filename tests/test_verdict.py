"""rc2l_jax/evaluation/verdict.py: what a comparison says in words."""

import pytest

from rc2l_jax.evaluation.verdict import is_rising, verdict, verdicts


def run(*mious: float | None, every: int = 500) -> list[dict]:
    return [{"step": every * (i + 1), "teacher_miou": miou} for i, miou in enumerate(mious)]


def said(**runs) -> list[str]:
    return verdicts(runs, {name: found[-1] for name, found in runs.items()}, "teacher")


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0.46, "b is 0.060 ahead of a."),
        (0.34, "b is 0.060 behind a."),
        (0.42, "b and a differ by +0.020, which is within noise (0.05)"),
        (0.38, "b and a differ by -0.020, which is within noise (0.05)"),
    ],
)
def test_differences_are_named_against_the_noise(score, expected):
    (line,) = said(a=run(0.4, 0.4, 0.4), b=run(score, score, score))
    assert line.startswith(expected)


def test_runs_that_still_rise_are_named():
    lines = said(a=run(0.2, 0.3, 0.4), b=run(0.4, 0.4, 0.4), c=run(0.3, 0.6, 0.605))
    assert [line for line in lines if "rising" in line] == [
        "a is still rising at its end: give it more steps."
    ]


def test_a_run_of_one_evaluation_is_not_called_rising():
    assert not is_rising(run(0.4), "teacher")
    assert not is_rising(run(None, 0.5), "teacher")


def test_a_single_run_is_told_how_its_curve_ends():
    assert verdict(run(0.2, 0.3, 0.4), "teacher") == (
        "The teacher is still rising at its end: give it more steps."
    )
    assert verdict(run(0.3, 0.6, 0.605), "teacher") == (
        "The teacher has not risen by more than 0.01 in the last third of the steps."
    )
    assert verdict(run(0.4), "teacher") == verdict(run(0.4, None), "teacher") == ""


def test_other_steps_and_missing_scores_are_said():
    (line,) = said(a=run(0.4), b=run(0.5, 0.5))
    assert line == "b is 0.100 ahead of a, at step 1000 against 500."
    (line,) = said(a=run(0.4), b=run(None))
    assert "no pixel was counted" in line


def test_runs_that_were_scored_on_other_images_get_no_verdict():
    runs = {"a": run(0.4), "b": run(0.5), "c": run(0.5)}
    shown = {name: found[-1] for name, found in runs.items()}
    lines = verdicts(runs, shown, "teacher", {"a": "1", "b": "2", "c": "1"})
    assert lines[0].startswith("b was scored on other images or masks than a")
    assert lines[1] == "c is 0.100 ahead of a."
    assert verdicts(runs, shown, "teacher", {"a": "", "b": "2"})[0] == "b is 0.100 ahead of a."


def test_runs_that_were_scored_with_other_options_get_no_verdict():
    runs = {"a": run(0.4), "b": run(0.5), "c": run(0.5), "d": run(0.5)}
    shown = {name: found[-1] for name, found in runs.items()}
    options = {"a": {"eval.flip": False}, "b": {"eval.flip": True}, "c": {"eval.flip": False}}
    lines = verdicts(runs, shown, "teacher", options=options)
    assert lines[0].startswith("b was scored with another eval.flip than a, so their scores cannot")
    assert "--mode=eval" in lines[0] and "--config.eval.flip" in lines[0]
    assert lines[1:] == ["c is 0.100 ahead of a.", "d is 0.100 ahead of a."], (
        "of d nothing is known"
    )
