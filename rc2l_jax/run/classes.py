"""Compares the classes of a run with those that its data set names now."""

from __future__ import annotations

from collections.abc import Sequence

from rc2l_jax.run.checkpoints import CheckpointError

_SHOWN = 3


def describe_class_changes(stored: Sequence[str], names: Sequence[str]) -> str:
    """Says which classes have other names; "" if none, or if it is not known.

    Args:
      stored: the names that the run keeps; none if it keeps none.
      names: the data set's; none if they are not known.
    """
    if not stored or not names or list(stored) == list(names):
        return ""
    changed = [
        f"class {i} was {before!r} and is now {now!r}"
        for i, (before, now) in enumerate(zip(stored, names))
        if before != now
    ]
    changed += [f"there were {len(stored)} and are now {len(names)}"] * (len(stored) != len(names))
    more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    kind = "reordered" if is_reordered(stored, names) else "renamed"
    return f"classes were {kind}: {', '.join(changed[:_SHOWN])}{more}"


def is_reordered(stored: Sequence[str], names: Sequence[str]) -> bool:
    """Returns whether a class has another id than in the run, rather than another name only."""
    return any(before != now and now in stored for before, now in zip(stored, names))


def check_same_ids(stored: Sequence[str], names: Sequence[str], where: str) -> str:
    """Checks that the data to evaluate on gives classes the ids that the run gave them.

    Args:
      stored: the names that the run keeps; none if it keeps none.
      names: the data set's.
      where: the run directory, for messages.

    Returns:
      What a user should know: which classes have another name only; "" if none.

    Raises:
      CheckpointError: a class has another id.
    """
    changes = describe_class_changes(stored, names)
    if is_reordered(stored, names):
        raise CheckpointError(
            f"{where} has other class ids than these data: {changes}. Scores would be of the wrong "
            f"classes: give masks and classes.txt the run's order ({', '.join(stored)})"
        )
    return changes
