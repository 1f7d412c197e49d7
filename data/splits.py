"""Which examples a split text names: `config.data.labeled_split`, `unlabeled_split`, `eval_split`.

    train              every example of the builder's split "train"
    train#46@0         46 examples of it, drawn with seed 0
    train#rest46@0     all the others of it
    lists/half.txt     the examples named in a file, one a line

Drawn examples are those with the smallest SHA-256 of "seed/id": the same on every platform and
library version, and train#46@0 contains train#23@0. A list's lines may hold an id, an image's path,
or an image's path followed by a mask's path (CPS and UniMatch publish theirs so): the id is the
file name without folder and suffix. Windows line ends, blank lines and a missing last newline are
fine. Ids are looked up in all splits of the builder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from data.errors import DataError

Ids = Mapping[str, Sequence[str]]  # split of the builder -> ids of its examples
Key = tuple[str, int]  # (split of the builder, position in it)

_DRAWN = re.compile(r"(?P<base>[\w-]+)#(?P<rest>rest)?(?P<count>\d+)@(?P<seed>\d+)")
_NAMED_IN_ERRORS = 5


@dataclasses.dataclass(frozen=True)
class Subsets:
    """The examples of a run.

    Attributes:
      labeled, unlabeled, evaluation: examples in the order of the records; `unlabeled` is empty
        where no unlabelled split is asked for.
      overlap: examples named as labelled and unlabelled; they count as labelled.
    """

    labeled: tuple[Key, ...]
    unlabeled: tuple[Key, ...]
    evaluation: tuple[Key, ...]
    overlap: tuple[Key, ...]


def resolve(text: str, ids: Ids, key: str) -> tuple[Key, ...]:
    """The examples a split text names, in the order of the records.

    Args:
      text: see the module's docstring.
      ids: of the data set.
      key: the config key that holds `text`, for messages.

    Raises:
      DataError: the text is not understood, a list cannot be read, an id is unknown or not unique,
        more examples are asked for than there are, or none is left.
    """
    if text in ids:
        keys = {(text, index) for index in range(len(ids[text]))}
    elif match := _DRAWN.fullmatch(text):
        keys = _draw(match, ids, key)
    elif text and Path(text).expanduser().is_file():
        keys = _listed(Path(text).expanduser(), ids, key)
    else:
        raise DataError(
            f"{key} = {text!r} is neither a split ({', '.join(ids)}), nor a drawn part of one "
            "(train#46@0, train#rest46@0), nor a list file that exists."
        )
    if not keys:
        raise DataError(f"{key} = {text!r} names no example; a split must not be empty.")
    order = {split: position for position, split in enumerate(ids)}
    return tuple(sorted(keys, key=lambda k: (order[k[0]], k[1])))


def resolve_all(labeled: str, unlabeled: str, evaluation: str, ids: Ids) -> Subsets:
    """Resolves the three split texts of a run and keeps them apart.

    Args:
      labeled, evaluation: split texts.
      unlabeled: a split text, or "" for none.
      ids: of the data set.

    Raises:
      DataError: see `resolve`; also if a training example is evaluated on, or if no unlabelled
        example is left besides the labelled ones.
    """
    prefix = "config.data."
    labeled_keys = resolve(labeled, ids, prefix + "labeled_split")
    eval_keys = resolve(evaluation, ids, prefix + "eval_split")
    named = resolve(unlabeled, ids, prefix + "unlabeled_split") if unlabeled else ()
    overlap = tuple(key for key in named if key in set(labeled_keys))
    rest = tuple(key for key in named if key not in set(overlap))
    if named and not rest:
        raise DataError(
            f"{prefix}unlabeled_split = {unlabeled!r} names labelled examples only; "
            "name others, or leave it empty and set config.unsup_weight = 0."
        )
    problems = [
        problem
        for name, keys in (("labeled_split", labeled_keys), ("unlabeled_split", rest))
        if (problem := _leak(prefix + name, keys, eval_keys, ids))
    ]
    if problems:
        raise DataError(problems)
    return Subsets(labeled_keys, rest, eval_keys, overlap)


def checksum(keys: Sequence[Key], ids: Ids) -> str:
    """A fingerprint of a set of examples, to compare runs: 16 hexadecimal digits."""
    names = sorted(f"{split}/{ids[split][index]}" for split, index in keys)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _draw(match: re.Match, ids: Ids, key: str) -> set[Key]:
    base, count, seed = match["base"], int(match["count"]), match["seed"]
    if base not in ids:
        raise DataError(f"{key} = {match[0]!r}: no split {base!r}; use one of: {', '.join(ids)}.")
    names = ids[base]
    if count > len(names):
        raise DataError(
            f"{key} = {match[0]!r} asks for {count} examples of {base!r}, which has {len(names)}."
        )
    ranks = sorted(
        range(len(names)), key=lambda i: hashlib.sha256(f"{seed}/{names[i]}".encode()).digest()
    )
    chosen = ranks[count:] if match["rest"] else ranks[:count]
    return {(base, index) for index in chosen}


def _listed(file: Path, ids: Ids, key: str) -> set[Key]:
    where: dict[str, list[Key]] = {}
    for split, names in ids.items():
        for index, name in enumerate(names):
            where.setdefault(name, []).append((split, index))
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a text file ({error}).") from error
    wanted = [name for line in lines if line.strip() for name in [_id_of(line, where)]]
    unknown = [name for name in dict.fromkeys(wanted) if name not in where]
    if unknown:
        raise DataError(
            f"{file} ({key}): {len(unknown)} ids are not in the data set: {_some(unknown)}; "
            "use the list that belongs to it, or correct config.data.dir."
        )
    twice = [name for name in dict.fromkeys(wanted) if len(where[name]) > 1]
    if twice:
        raise DataError(
            f"{file} ({key}): {len(twice)} ids occur in several splits: {_some(twice)}; "
            "rename the images so that an id names one."
        )
    return {where[name][0] for name in wanted}


def _id_of(line: str, known: Mapping[str, object]) -> str:
    """The id on one line of a list."""
    if line.strip() in known:  # an id may hold spaces or dots
        return line.strip()
    name = PurePosixPath(line.split()[0])
    return name.name if name.name in known else name.stem


def _leak(name: str, keys: Sequence[Key], eval_keys: Sequence[Key], ids: Ids) -> str:
    common = sorted(set(keys) & set(eval_keys))
    if not common:
        return ""
    examples = _some([ids[split][index] for split, index in common])
    return (
        f"{name} and config.data.eval_split share {len(common)} examples: {examples}; "
        "a score on training images means nothing, so keep them apart."
    )


def _some(names: Sequence[str]) -> str:
    text = ", ".join(names[:_NAMED_IN_ERRORS])
    return text + (", ..." if len(names) > _NAMED_IN_ERRORS else "")
