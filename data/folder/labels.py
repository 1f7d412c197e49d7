"""Finds the label of each photo of a folder, of whatever format, and says what was found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from data import masks
from data.annotations import matlab, recognition, yolo
from data.annotations.regions import Annotated, AnnotationError, Annotations
from data.errors import DataError, and_more, counted, some
from data.folder.named_photos import NamedPhotos, scope
from data.folder.places import LABELS, File, Found, Place, own_photo

PNG, MATLAB = "PNG", "MATLAB"
_PIXELS = {".png": PNG, ".mat": MATLAB}


@dataclasses.dataclass(frozen=True)
class Label:
    """What is said of one photo.

    Attributes:
      file: the file that says it.
      kind: the format's name for people.
      annotated: regions; None if the file is a mask of pixels.
      problem: why the file cannot be used; "" if it can.
      unread: why a file of its format is not read; "" if it is.
    """

    file: File
    kind: str
    annotated: Annotated | None = None
    problem: str = ""
    unread: str = ""


@dataclasses.dataclass
class LeftOut:
    """Shapes of one kind that are not drawn.

    Attributes:
      where: the file of the first one, and the photo if the file is of many.
      count: how many there are in all files.
    """

    where: str
    count: int = 0


@dataclasses.dataclass
class Labels:
    """The labels of a folder.

    Attributes:
      of: (split, example id) -> its label.
      read: annotation file -> what it holds.
      stray: split -> files of labels that belong to none of its photos.
      notes: facts that a user should know, but need not correct.
      left_out: what is not drawn -> where and how often.
      unread: what to say of files of annotations that are not read -> these files.
      twice: two files that both annotate photos -> these photos.
      astray: splits -> file, none of whose photos is in them -> the names of its photos.
      problems: what cannot be used.
    """

    of: dict[Place, Label] = dataclasses.field(default_factory=dict)
    read: dict[str, Annotations] = dataclasses.field(default_factory=dict)
    stray: dict[str, list[File]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    left_out: dict[str, LeftOut] = dataclasses.field(default_factory=dict)
    unread: dict[str, list[File]] = dataclasses.field(default_factory=dict)
    twice: dict[tuple[str, str], list[str]] = dataclasses.field(default_factory=dict)
    astray: dict[tuple[str, ...], dict[str, list[str]]] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)

    def has(self, place: Place) -> bool:
        """Whether a photo has a label; a file of a kind that is not read is none."""
        return place in self.of and not self.of[place].unread

    def keep(self, name: str, read: Annotations) -> None:
        """Keeps what the file `name` holds, and counts the shapes that are not drawn."""
        self.read[name] = read
        for what, count in read.left_out.items():
            self.left_out.setdefault(what, LeftOut(name)).count += count
        for annotated in read.photos:
            of_photo = f", photo {annotated.photo}" if len(read.photos) > 1 else ""
            for what, count in annotated.not_drawn().items():
                self.left_out.setdefault(what, LeftOut(name + of_photo)).count += count


def find(found: Found, yolo_names: Sequence[str]) -> Labels:
    """Finds the label of each photo.

    Args:
      found: the files.
      yolo_names: names of the classes that YOLO's files number.

    Raises:
      DataError: a file cannot be read, a photo has two labels, or a file says nothing of any photo
        that is there.
    """
    labels, named = Labels(), NamedPhotos(found)
    for file in found.labels:
        place = own_photo(file, found.photos)
        if file.suffix in _PIXELS:
            _add(labels, found, place, Label(file, _PIXELS[file.suffix]))
        elif file.suffix in recognition.SUFFIXES:
            _add_annotations(labels, found, named, place, file)
        elif file.suffix == ".txt" and (place or file.among == LABELS):
            _add_yolo(labels, found, place, file, yolo_names)
        elif file.among == LABELS:
            labels.stray.setdefault(file.split, []).append(file)
    _name_unread(labels, found)
    if problems := [*labels.problems, *_twice(found, labels), *_astray(labels)]:
        raise DataError(problems)
    return labels


def _twice(found: Found, labels: Labels) -> Iterator[str]:
    """A problem for each pair of files that annotate the same photos."""
    where = found.tree.where
    for (one, other), photos in labels.twice.items():
        files = f"{where(one)} twice" if one == other else f"{where(one)} and {where(other)}"
        yield f"{and_more([*map(where, photos)])}: is annotated in {files}; remove one."


def _astray(labels: Labels) -> Iterator[str]:
    """A problem for all files of which no photo is in the same splits."""
    for splits, of_files in labels.astray.items():
        names = some([name for names in of_files.values() for name in names])
        its, is_it, it = "their", "are they", "them"
        if len(of_files) == 1:
            its, is_it, it = "its", "is it", "it"
        yield (
            f"{and_more([*of_files])}: none of {its} photos ({names}) is in {', '.join(splits)}; "
            f"{is_it} of another data set? Put {it} where {its} photos are, or remove {it}."
        )


def _add(labels: Labels, found: Found, place: Place | None, label: Label) -> None:
    """Adds a label, unless its photo has one already, which is noted."""
    if place is None:
        labels.stray.setdefault(label.file.split, []).append(label.file)
        return
    other = labels.of.setdefault(place, label)
    if other is not label:
        photo = found.photos[place[0]][place[1]]
        labels.twice.setdefault((other.file.name, label.file.name), []).append(photo)


def _add_annotations(
    labels: Labels, found: Found, named: NamedPhotos, place: Place | None, file: File
) -> None:
    """Adds what a JSON or XML file says, of its own photo or of the photos that it names."""
    where, xml = found.tree.where(file.name), file.suffix == ".xml"
    try:
        content = found.tree.read(file.name)
        read = recognition.read(content, xml=xml)
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
        why = recognition.why_unread(content, xml=xml)
        labels.unread.setdefault(why, []).append(file)
        return
    labels.keep(file.name, read)
    if place and len(read.photos) == 1:
        _add(labels, found, place, Label(file, read.kind, read.photos[0]))
    elif read.photos:
        _add_named(labels, found, named, read, file)


def _add_named(
    labels: Labels, found: Found, named: NamedPhotos, read: Annotations, file: File
) -> None:
    """Adds what a file says of photos that it names."""
    splits = scope(file, list(found.photos))
    names = [annotated.photo or file.stem for annotated in read.photos]
    where, absent = found.tree.where(file.name), []
    meant = named.places(splits, names)
    for annotated, name, places in zip(read.photos, names, meant):
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
        labels.astray.setdefault(tuple(splits), {})[where] = absent
    elif absent:
        missing = counted(len(absent), "photo that is", "photos that are")
        labels.notes.append(f"{where} annotates {missing} not there, such as {absent[0]}")


def _name_unread(labels: Labels, found: Found) -> None:
    """Says which files of annotations are not read, in one line for all with the same reason.

    Any other JSON or XML may lie in a data set. So those outside of folders of labels are named
    only where nothing else is a label, and one that has a photo's name is its label only then.
    """
    others = bool(labels.of or labels.stray)
    for why, of_it in labels.unread.items():
        files = [file for file in of_it if file.among == LABELS or not others]
        if not files:
            continue
        line = f"{and_more([found.tree.where(file.name) for file in files])}: {why}"
        if not others:
            labels.problems.append(f"{line}; there are no other labels.")
            continue
        labels.notes.append(line)
        for file in files:
            if place := own_photo(file, found.photos):
                labels.of.setdefault(place, Label(file, "", unread=why))


def _add_yolo(
    labels: Labels, found: Found, place: Place | None, file: File, names: Sequence[str]
) -> None:
    """Adds one of YOLO's files; a text of another kind is nobody's label."""
    where = found.tree.where(file.name)
    try:
        text = found.tree.read(file.name).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        labels.problems.append(f"{where}: cannot be read as a text file ({error}).")
        return
    if not yolo.is_yolo(text, of_photo=place is not None):
        return
    if place is None:
        labels.stray.setdefault(file.split, []).append(file)
        return
    try:
        read = yolo.read(text, names)
    except AnnotationError as error:
        _add(labels, found, place, Label(file, yolo.KIND, problem=f"{where}: {error}"))
        return
    labels.keep(file.name, read)
    _add(labels, found, place, Label(file, yolo.KIND, read.photos[0]))


def reader_of(label: Label, read_png: masks.Reader) -> masks.Reader:
    """What reads a mask of pixels."""
    return matlab.read_ids if label.kind == MATLAB else read_png
