"""Finds the label of each photo of a folder, of whatever format, and says what was found."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

from data import masks
from data.annotations import matlab, recognition, yolo
from data.annotations.regions import Annotated, AnnotationError, Annotations
from data.errors import DataError, counted, some
from data.folder.places import LABELS, File, Found, ids_for
from data.layout import ONE_SPLIT
from data.names import normal_form
from data.photo_suffixes import PHOTO_SUFFIXES

PNG, MATLAB = "PNG", "MATLAB"
_PIXELS = {".png": PNG, ".mat": MATLAB}
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # how Label Studio begins uploaded files

Place = tuple[str, str]  # split, and example id


@dataclasses.dataclass(frozen=True)
class Label:
    """What is said of one photo.

    Attributes:
      file: the file that says it.
      kind: the format's name for people.
      annotated: regions; None if the file is a mask of pixels.
      problem: why the file cannot be used; "" if it can.
    """

    file: File
    kind: str
    annotated: Annotated | None = None
    problem: str = ""


@dataclasses.dataclass
class Labels:
    """The labels of a folder.

    Attributes:
      of: (split, example id) -> its label.
      read: annotation file -> what it holds.
      stray: split -> files of labels that belong to none of its photos.
      notes: facts that a user should know, but need not correct.
      left_out: what was not read -> how often.
      twice: two files that both annotate photos -> these photos.
      problems: what cannot be used.
    """

    of: dict[Place, Label] = dataclasses.field(default_factory=dict)
    read: dict[str, Annotations] = dataclasses.field(default_factory=dict)
    stray: dict[str, list[File]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)
    twice: dict[tuple[str, str], list[str]] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)


def find(found: Found, yolo_names: Sequence[str]) -> Labels:
    """Finds the label of each photo.

    Args:
      found: the files.
      yolo_names: names of the classes that YOLO's files number.

    Raises:
      DataError: a file cannot be read, a photo has two labels, or a file says nothing of any photo
        that is there.
    """
    labels = Labels()
    for file in found.labels:
        place = _own_photo(file, found.photos)
        if file.suffix in _PIXELS:
            _add(labels, found, place, Label(file, _PIXELS[file.suffix]))
        elif file.suffix in recognition.SUFFIXES:
            _add_annotations(labels, found, place, file)
        elif file.suffix == ".txt" and place:
            _add_yolo(labels, found, place, file, yolo_names)
        elif file.among == LABELS:
            labels.stray.setdefault(file.split, []).append(file)
    if problems := [*labels.problems, *_twice(found, labels)]:
        raise DataError(problems)
    return labels


def _twice(found: Found, labels: Labels) -> Iterator[str]:
    """A problem for each pair of files that annotate the same photos."""
    where = found.tree.where
    for (one, other), photos in labels.twice.items():
        more = f" (and {len(photos) - 1} more)" if len(photos) > 1 else ""
        files = f"{where(one)} twice" if one == other else f"{where(one)} and {where(other)}"
        yield f"{where(photos[0])}{more}: is annotated in {files}; remove one."


def _own_photo(file: File, photos: Mapping[str, Mapping[str, str]]) -> Place | None:
    """The photo that has this file's name."""
    of_split = photos.get(file.split, {})
    return next(((file.split, id) for id in ids_for(file.stem) if id in of_split), None)


def _add(labels: Labels, found: Found, place: Place | None, label: Label) -> None:
    """Adds a label, unless its photo has one already, which is noted."""
    if place is None:
        labels.stray.setdefault(label.file.split, []).append(label.file)
        return
    other = labels.of.setdefault(place, label)
    if other is not label:
        photo = found.photos[place[0]][place[1]]
        labels.twice.setdefault((other.file.name, label.file.name), []).append(photo)


def _add_annotations(labels: Labels, found: Found, place: Place | None, file: File) -> None:
    """Adds what a JSON or XML file says, of its own photo or of the photos that it names."""
    where = found.tree.where(file.name)
    try:
        read = recognition.read(found.tree.read(file.name), xml=file.suffix == ".xml")
    except OSError as error:
        labels.problems.append(f"{where}: cannot be opened ({error.strerror}).")
        return
    except AnnotationError as error:
        if place:
            _add(labels, found, place, Label(file, "", problem=f"{where}: {error}"))
        else:
            labels.problems.append(f"{where}: {error}")
        return
    if read is None:
        if place and file.among == LABELS:
            unknown = f"{where}: is of no format that is read (docs/masks.md lists them)"
            _add(labels, found, place, Label(file, "", problem=unknown))
        return
    labels.read[file.name] = read
    labels.left_out.update(read.not_drawn())
    if place and len(read.photos) == 1:
        _add(labels, found, place, Label(file, read.kind, read.photos[0]))
    elif read.photos:
        _add_named(labels, found, read, file)


def _add_named(labels: Labels, found: Found, read: Annotations, file: File) -> None:
    """Adds what a file says of photos that it names."""
    splits = _scope(file, list(found.photos))
    exact, loose = _index(found, splits)
    where, absent = found.tree.where(file.name), []
    for annotated in read.photos:
        name = annotated.photo or file.stem
        places = next((p for n in names_in(name) if (p := exact.get(n) or loose.get(n))), [])
        if len(places) > 1:
            several = " or ".join(found.photos[split][id] for split, id in places)
            labels.problems.append(
                f"{where}: {name!r} may be {several}; put the file into {LABELS}/SPLIT."
            )
        elif places:
            _add(labels, found, places[0], Label(file, read.kind, annotated))
        else:
            absent.append(name)
    if len(absent) == len(read.photos):
        if len(absent) == 1 and file.among == LABELS:
            labels.stray.setdefault(file.split, []).append(file)
            return
        labels.problems.append(
            f"{where}: none of its photos ({some(absent[:3])}) is in {', '.join(splits)}; is it of "
            "another data set? Put it where its photos are, or remove it."
        )
    elif absent:
        missing = counted(len(absent), "photo that is", "photos that are")
        labels.notes.append(f"{where} annotates {missing} not there, such as {absent[0]}")


def _scope(file: File, splits: Sequence[str]) -> list[str]:
    """The splits that a file of many photos may be about.

    That of its folder; or else those whose name is part of its own, as in instances_train2017.json;
    or else all.
    """
    if file.split in splits and file.split != ONE_SPLIT:
        return [file.split]
    own = file.stem.lower()
    named = [s for s in splits if re.search(rf"(?<![a-z]){re.escape(s.lower())}(?![a-z])", own)]
    return named or list(splits)


Index = dict[str, list[Place]]


def _index(found: Found, splits: Sequence[str]) -> tuple[Index, Index]:
    """Places by id and by split/id; and by what follows an id's last slash."""
    exact: Index = {}
    loose: Index = {}
    for split in splits:
        for example in found.photos[split]:
            for name in (example, f"{split}/{example}"):
                exact.setdefault(normal_form(name), []).append((split, example))
            if "/" in example:
                loose.setdefault(normal_form(example).rpartition("/")[2], []).append(
                    (split, example)
                )
    return exact, loose


def names_in(name: str) -> Iterator[str]:
    r"""Texts that may be the id of the photo that a file names by a path or an address.

    The longest first: `C:\photos\a\1.jpg` may be of a/1 or of 1, and Label Studio's
    `/data/upload/1/0123abcd-cat.jpg` of cat.
    """
    path = unquote(name)
    if "://" in path or "?d=" in path:  # an address, of which Label Studio's may end in a path
        path = path.partition("?d=")[2] or path.partition("?")[0]
    parts = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part != "/"]
    for start in range(len(parts)):
        whole = normal_form("/".join(parts[start:]))
        stem = whole.rpartition(".")[0] if whole.lower().endswith(PHOTO_SUFFIXES) else whole
        yield stem
        if whole != stem:
            yield whole
    if parts and (own := _UPLOADED.sub("", normal_form(parts[-1]), count=1)) != parts[-1]:
        yield own.rpartition(".")[0] if own.lower().endswith(PHOTO_SUFFIXES) else own


def _add_yolo(labels: Labels, found: Found, place: Place, file: File, names: Sequence[str]) -> None:
    """Adds one of YOLO's files; a text of another kind is nobody's label."""
    where = found.tree.where(file.name)
    try:
        text = found.tree.read(file.name).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        labels.problems.append(f"{where}: cannot be read as a text file ({error}).")
        return
    if not yolo.is_yolo(text):
        return
    try:
        read = yolo.read(text, names)
    except AnnotationError as error:
        _add(labels, found, place, Label(file, yolo.KIND, problem=f"{where}: {error}"))
        return
    labels.left_out.update(read.not_drawn())
    labels.read[file.name] = read
    _add(labels, found, place, Label(file, yolo.KIND, read.photos[0]))


def reader_of(label: Label, read_png: masks.Reader) -> masks.Reader:
    """What reads a mask of pixels."""
    return matlab.read_ids if label.kind == MATLAB else read_png
