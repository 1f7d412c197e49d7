"""Says in words what a comparison of runs shows, and what it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

# Two trainings of one run differ by up to so much in mIoU (docs/evaluation.md, "How large a
# difference is chance?"). A smaller difference says little, unless several seeds agree.
NOISE = 0.05
# A run whose score has risen by more than this in its last third is not at its end.
RISING = 0.01
_STILL_RISING = "is still rising at its end: give it more steps."
_OTHER_IMAGES = (
    "{} was scored on other images or masks than {}, so their scores cannot be compared: score "
    "both on the same ones (--mode=eval with one --config.data.dir and --config.data.eval_split)."
)
_OTHER_OPTIONS = (
    "{} was scored with another {} than {}, so their scores cannot be compared: score both with "
    "the same (--mode=eval with one {})."
)

Evaluations = Sequence[Mapping[str, Any]]


def verdicts(
    runs: Mapping[str, Evaluations],
    shown: Mapping[str, Mapping[str, Any]],
    network: str,
    images: Mapping[str, str] = MappingProxyType({}),
    options: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> list[str]:
    """Compares each run's score with the first run's.

    Args:
      runs: {name: its evaluations, by ascending step}.
      shown: {name: the evaluation that counts}, such as the newest.
      network: "teacher" or "student".
      images: {name: checksum of the images that the run is scored on}, for those that are known.
      options: {name: {dotted key: value}, the options that its scores depend on}, likewise.

    Returns:
      A sentence for each run but the first, and one for each run that is still rising.
    """
    first, *others = runs
    lines = []
    for name in others:
        known = images.get(name, ""), images.get(first, "")
        if all(known) and known[0] != known[1]:
            lines.append(_OTHER_IMAGES.format(name, first))
        elif keys := _differing(options.get(name), options.get(first)):
            flags = " and ".join(f"--config.{key}" for key in keys)
            lines.append(_OTHER_OPTIONS.format(name, " and ".join(keys), first, flags))
        else:
            lines.append(_difference(name, shown[name], first, shown[first], network))
    rising = [name for name, evaluations in runs.items() if is_rising(evaluations, network)]
    return [*lines, *(f"{name} {_STILL_RISING}" for name in rising)]


def _differing(mine: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> list[str]:
    """Returns the keys whose values differ; none if either is not known."""
    return [key for key in mine if mine[key] != theirs.get(key)] if mine and theirs else []


def verdict(evaluations: Evaluations, network: str) -> str:
    """Says in a sentence how a single run's curve ends; "" if it has too few evaluations."""
    if _last_third(evaluations, network) is None:
        return ""
    if is_rising(evaluations, network):
        return f"The {network} {_STILL_RISING}"
    return f"The {network} has not risen by more than {RISING} in the last third of the steps."


def is_rising(evaluations: Evaluations, network: str) -> bool:
    """Returns whether a run's mIoU has risen by more than `RISING` in the last third of its steps.

    False if there is no evaluation in the first two thirds to compare with.
    """
    gain = _last_third(evaluations, network)
    return gain is not None and gain > RISING


def _last_third(evaluations: Evaluations, network: str) -> float | None:
    """Returns by how much mIoU has risen in the last third of a run's steps; None if unknown."""
    last = evaluations[-1]
    before = [e for e in evaluations if e["step"] <= last["step"] * 2 / 3]
    found = [e[f"{network}_miou"] for e in (*before[-1:], last)]
    return found[1] - found[0] if len(found) == 2 and None not in found else None


def _difference(
    name: str, mine: Mapping[str, Any], first: str, theirs: Mapping[str, Any], network: str
) -> str:
    scores = mine[f"{network}_miou"], theirs[f"{network}_miou"]
    if None in scores:
        return f"{name} cannot be compared with {first}: no pixel was counted."
    gain = scores[0] - scores[1]
    if abs(gain) < NOISE:
        text = (
            f"{name} and {first} differ by {gain:+.3f}, which is within noise ({NOISE}): train "
            "both with other seeds (--config.seed=1) to know more"
        )
    else:
        text = f"{name} is {abs(gain):.3f} {'ahead of' if gain > 0 else 'behind'} {first}"
    if mine["step"] != theirs["step"]:
        text += f", at step {mine['step']} against {theirs['step']}"
    return text + "."
