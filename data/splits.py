"""Which examples a split text names: `config.data.labeled_split`, `unlabeled_split`, `eval_split`.

    train              every example of the data set's split "train"
    train#46@0         46 examples of it, drawn with seed 0
    train#rest46@0     all other examples of it
    lists/half.txt     the examples named in a file, one a line
    train+extra        several of these together

The drawn examples are those with the smallest SHA-256 of "seed/id". So they are the same on every
platform and with every library version, and train#46@0 contains train#23@0. `data.lists` says what
a line of a file may hold.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from data import lists
from data.errors import DataError, counted, some
from data.names import normal_form

Key = tuple[str, int]  # (split, position in it)
UNLABELED = "unlabeled"  # the split of `data.unlabeled_dir`

_DRAWN = re.compile(r"(?P<base>[\w-]+)#(?P<rest>rest)?(?P<count>\d+)@(?P<seed>\d+)")
_PREFIX = "config.data."


@dataclasses.dataclass(frozen=True)
class Ids:
    """The names of a data set's examples.

    Attributes:
      splits: split -> ids of its examples; no example is in two splits.
      unions: another name -> the splits it joins.
      absent: a name users may ask for -> why it is not there, and how to get it.
      folder: the data set's, in which a list file is looked for if the working directory has none.
    """

    splits: Mapping[str, Sequence[str]]
    unions: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: str = ""

    def keys(self, name: str) -> list[Key] | None:
        """The examples of a split or union; None if there is no such name."""
        if name in self.splits:
            return [(name, index) for index in range(len(self.splits[name]))]
        if name in self.unions and all(part in self.splits for part in self.unions[name]):
            return [key for part in self.unions[name] for key in self.keys(part)]
        return None

    def id(self, key: Key) -> str:
        """The id of one example."""
        return self.splits[key[0]][key[1]]


@dataclasses.dataclass(frozen=True)
class Subsets:
    """The examples of a run.

    Attributes:
      labeled, unlabeled, evaluation: examples in the order of the records; `unlabeled` is empty
        where no unlabelled split is asked for.
      overlap: examples named as unlabelled that are left out there, since they are labelled as well
        (the same, or a copy of the same file), or are copies of examples to evaluate on.
      unreadable: examples named as unlabelled that are left out there, since their images are
        damaged.
    """

    labeled: tuple[Key, ...]
    unlabeled: tuple[Key, ...]
    evaluation: tuple[Key, ...]
    overlap: tuple[Key, ...]
    unreadable: tuple[Key, ...] = ()

    def named(self) -> dict[str, tuple[Key, ...]]:
        """What the split texts name, whatever is left out: "labeled", "unlabeled", "evaluation"."""
        unlabeled = tuple(sorted((*self.unlabeled, *self.overlap, *self.unreadable)))
        return {"labeled": self.labeled, "unlabeled": unlabeled, "evaluation": self.evaluation}


def bases(*texts: str) -> list[str]:
    """The splits that split texts name or draw from, with repeats; list files are among them."""
    parts = (part.partition("#")[0].strip() for text in texts for part in text.split("+"))
    return [part for part in parts if part]


def resolve(text: str, ids: Ids, key: str) -> tuple[Key, ...]:
    """The examples a split text names, in the order of the records.

    Args:
      text: a split text, in one of the forms that the module's docstring lists.
      ids: of the data set.
      key: the config key that holds `text`, for messages.

    Raises:
      DataError: the text is not understood, a list cannot be read, an id is unknown or not unique,
        more examples are asked for than there are, or none is left.
    """
    keys = _resolve(text, ids, key)
    if not keys:
        raise DataError(f"{key} = {text!r} names no example; a split must not be empty.")
    order = {split: position for position, split in enumerate(ids.splits)}
    return tuple(sorted(keys, key=lambda k: (order[k[0]], k[1])))


def _resolve(text: str, ids: Ids, key: str) -> set[Key]:
    if (keys := ids.keys(normal_form(text))) is not None:
        return set(keys)
    if match := _DRAWN.fullmatch(normal_form(text)):
        return _draw(match, ids, key)
    if file := _file(text, ids.folder):
        hints = [why for name, why in ids.absent.items() if name != UNLABELED]
        return lists.read(file, ids.splits, key, " ".join(dict.fromkeys(hints)))
    if "+" in text:
        return set().union(*(_resolve(part.strip(), ids, key) for part in text.split("+")))
    raise _unknown(text, text, ids, key)


def _file(text: str, folder: str) -> Path | None:
    try:
        files = [Path(text).expanduser(), *([Path(folder).expanduser() / text] if folder else [])]
        return next((file for file in files if text and file.is_file()), None)
    except (OSError, RuntimeError):  # too long for a file's name; ~user that does not exist
        return None


def _draw(match: re.Match, ids: Ids, key: str) -> set[Key]:
    base, count, seed = match["base"], int(match["count"]), match["seed"]
    keys = ids.keys(base)
    if keys is None:
        raise _unknown(base, match[0], ids, key)
    if count > len(keys):
        raise DataError(
            f"{key} = {match[0]!r} asks for {counted(count, 'example')} of {base!r}, which has "
            f"{len(keys)}."
        )

    ranked = sorted(keys, key=lambda k: draw_of(ids.id(k), seed))
    return set(ranked[count:] if match["rest"] else ranked[:count])


def draw_of(example: str, seed: int | str) -> bytes:
    """The number that an example draws, by its id and a seed; the smallest are drawn first."""
    return hashlib.sha256(f"{seed}/{example}".encode()).digest()


def _unknown(name: str, text: str, ids: Ids, key: str) -> DataError:
    if name in ids.absent:
        return DataError(f"{key} = {text!r}: {ids.absent[name]}")
    known = ", ".join([*ids.splits, *(name for name in ids.unions if ids.keys(name))])
    if name != text:
        return DataError(f"{key} = {text!r}: no split {name!r}; use one of: {known}.")
    return DataError(
        f"{key} = {text!r} is neither a split ({known}), nor a drawn part of one "
        "(train#46@0, train#rest46@0), nor a list file that exists in the working directory"
        f"{f' or in {ids.folder}' if ids.folder else ''}."
    )


def resolve_all(
    labeled: str, unlabeled: str, evaluation: str, ids: Ids, num_labeled: int = 0
) -> Subsets:
    """Resolves the three split texts of a run and keeps them apart.

    Args:
      labeled, evaluation: split texts.
      unlabeled: a split text, or "" for none.
      ids: of the data set.
      num_labeled: how many examples `labeled` must name; 0 for any number.

    Raises:
      DataError: a text cannot be resolved (see `resolve`), a training example is evaluated on, all
        unlabelled examples are labelled ones, or `labeled` does not name `num_labeled` examples.
    """
    labeled_keys = resolve(labeled, ids, _PREFIX + "labeled_split")
    eval_keys = resolve(evaluation, ids, _PREFIX + "eval_split")
    named = resolve(unlabeled, ids, _PREFIX + "unlabeled_split") if unlabeled else ()
    if num_labeled and len(labeled_keys) != num_labeled:
        raise DataError(
            f"{_PREFIX}labeled_split = {labeled!r} names {counted(len(labeled_keys), 'image')}, "
            f"but this partition has {num_labeled} ({_PREFIX}num_labeled): use the list that "
            "belongs to it, or set num_labeled = 0 for a partition of your own."
        )
    return separate(Subsets(labeled_keys, named, eval_keys, ()), lambda key: key, ids)


def separate(subsets: Subsets, identity: Callable[[Key], object], ids: Ids) -> Subsets:
    """Removes labelled examples from the unlabelled ones, and refuses to train on evaluation's.

    An unlabelled copy of an evaluation's example is removed as well: people keep all their photos
    in one folder. A labelled copy, or the example itself, is refused.

    Args:
      subsets: the examples of a run.
      identity: by what examples are compared: it returns the key itself, or the content's digest.
        Examples for which it returns the same count as the same.
      ids: of the data set.

    Raises:
      DataError: a training example is evaluated on, or no unlabelled example is left.
    """
    labeled = {identity(key) for key in subsets.labeled}
    evaluated = {identity(key): key for key in subsets.evaluation}
    taken = {
        key
        for key in subsets.unlabeled
        if identity(key) in labeled or evaluated.get(identity(key), key) != key
    }
    overlap = tuple(key for key in subsets.unlabeled if key in taken)
    rest = tuple(key for key in subsets.unlabeled if key not in taken)
    if overlap and not rest:
        raise DataError(
            f"{_PREFIX}unlabeled_split names labelled examples only, or copies of evaluation's; "
            "name others, or leave it empty and set config.unsup_weight = 0."
        )
    problems = [
        problem
        for name, keys in (("labeled_split", subsets.labeled), ("unlabeled_split", rest))
        if (problem := _leak(_PREFIX + name, keys, subsets.evaluation, identity, ids))
    ]
    if problems:
        raise DataError(problems)
    return dataclasses.replace(subsets, unlabeled=rest, overlap=subsets.overlap + overlap)


def _leak(
    name: str,
    keys: Sequence[Key],
    eval_keys: Sequence[Key],
    identity: Callable[[Key], object],
    ids: Ids,
) -> str:
    evaluated = {identity(key): key for key in eval_keys}
    pairs = [(key, evaluated[identity(key)]) for key in keys if identity(key) in evaluated]
    if not pairs:
        return ""

    def full(key: Key) -> str:
        return f"{key[0]}/{ids.id(key)}"

    shown = [ids.id(a) if a == b else f"{full(a)} is a copy of {full(b)}" for a, b in sorted(pairs)]
    return (
        f"{name} and config.data.eval_split share {counted(len(pairs), 'example')}: "
        f"{some(shown)}; "
        "a score on training images means nothing, so keep them apart."
    )


def checksum(keys: Sequence[Key], ids: Ids) -> str:
    """A fingerprint of a set of examples by their ids, to compare runs: 16 hexadecimal digits."""
    names = sorted({ids.id(key) for key in keys})
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
