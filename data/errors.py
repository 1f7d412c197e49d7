"""The one exception for anything that is wrong with a user's data."""

from __future__ import annotations

from collections.abc import Sequence

# A message longer than this helps nobody; `--mode=check` prints every problem.
_SHOWN = 20
_NAMED = 5


class DataError(ValueError):
    """Files, masks or splits that cannot be used. Each problem names the file and the remedy.

    Attributes:
      problems: one message a problem, all of them.
    """

    def __init__(self, problems: str | Sequence[str]):
        self.problems: tuple[str, ...] = (
            (problems,) if isinstance(problems, str) else tuple(problems)
        )
        lines = list(self.problems[:_SHOWN])
        if len(self.problems) > _SHOWN:
            rest = len(self.problems) - _SHOWN
            lines.append(f"... and {rest} more; --mode=check lists all of them.")
        super().__init__("\n".join(lines))


def some(names: Sequence[str]) -> str:
    """The first five names, and "..." if there are more."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def and_more(names: Sequence[str]) -> str:
    """The first name, and how many more there are: "a.json (and 2 more)"."""
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")


def counted(number: int, one: str, several: str = "") -> str:
    """A number and its noun: "1 image", "2 images"; `several` where "s" is not enough."""
    return f"{number} {one if number == 1 else several or one + 's'}"
