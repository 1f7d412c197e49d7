"""What the builder of a data set returns: its examples before they are prepared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from data import masks
from data.records import digest
from data.trees import Tree

Size = tuple[int, int]  # height and width
Label = Callable[[Size], tuple[bytes, str]]
File = tuple[Tree, str]  # a tree, and a file's name in it


@dataclasses.dataclass(frozen=True)
class Source:
    """An example before it is prepared.

    Attributes:
      id: its name, unique in the split.
      where: the image's file, for messages.
      read: returns the encoded image, and a function that makes the label for the image's size:
        (PNG of ids, "") or (b"", why there is none).
    """

    id: str
    where: str
    read: Callable[[], tuple[bytes, Label]]


@dataclasses.dataclass(frozen=True)
class Split:
    """The examples of a split.

    Attributes:
      sources: in the order of the records.
      fingerprint: returns a text that changes whenever an image, a mask or how they are read does.
      root: the folder that holds all of its files; "" if there are none.
      notes: facts about its files that a user should know, but need not correct.
    """

    sources: tuple[Source, ...]
    fingerprint: Callable[[], str]
    root: str = ""
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Listing:
    """A data set as it is on disk; no image or mask has been read yet.

    Attributes:
      class_names: K names; the id of a class is its position.
      splits: by name; no example is in two of them.
      absent: name of a split that users may ask for -> why it is not there, and how to get it.
      classes_file: the file in which the user names the classes; "" if there is none.
      notes: facts about the classes that a user should know, but need not correct.
    """

    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    classes_file: str = ""
    notes: tuple[str, ...] = ()


def tree_source(
    example_id: str,
    image: File,
    mask: File | None,
    num_classes: int,
    *,
    missing: str,
    read: Callable[[bytes, str], object] = masks.read_ids,
) -> Source:
    """An example whose image and mask are files of trees.

    Args:
      example_id: its name, unique in the split.
      image: the image's tree, and its name there.
      mask: the mask's tree, and its name there; None if there is no mask.
      num_classes: K.
      missing: what to say if there is no mask: which file, and how to mend it.
      read: (content, where) -> ids uint8 [H, W]; may raise `masks.MaskError`.
    """
    images, name = image

    def label(size: Size) -> tuple[bytes, str]:
        if mask is None:
            return b"", missing
        tree, file = mask
        where = tree.where(file)
        try:
            content = tree.read(file)
        except OSError as error:
            return b"", f"{where}: cannot be opened ({error.strerror}); check its permissions."
        return masks.stored(lambda: read(content, where), where, size, num_classes)

    return Source(example_id, images.where(name), lambda: (images.read(name), label))


def fingerprint_of(files: Iterable[File | None], *extra: str) -> Callable[[], str]:
    """A `Split.fingerprint` of the files' names, sizes and times of change, and of `extra`."""
    listed = [file for file in files if file is not None]
    return lambda: digest(*extra, *(tree.stamp(name) for tree, name in listed))
