"""Which photos of a folder a file means that names photos by paths or addresses."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

from data.folder.places import USUAL_SPLITS, File, Found, Place
from data.layout import ONE_SPLIT
from data.names import normal_form
from data.photo_suffixes import PHOTO_SUFFIXES

_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # how Label Studio begins uploaded files
Index = dict[str, list[Place]]


def scope(file: File, splits: Sequence[str]) -> list[str]:
    """The splits that a file of many photos may be about.

    That of its folder; or else those whose name is part of its own, as in instances_train2017.json;
    or else all.
    """
    if file.split in splits and file.split != ONE_SPLIT:
        return [file.split]
    own = file.stem.lower()
    named = [s for s in splits if re.search(rf"(?<![a-z]){re.escape(s.lower())}(?![a-z])", own)]
    return named or list(splits)


class NamedPhotos:
    """The photos of a folder by the names that files may give them."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._index = functools.cache(lambda splits: places_by_text(found, splits))

    def places(self, splits: Sequence[str], names: Sequence[str]) -> list[list[Place]]:
        """The photos in some splits that each of a file's names may mean: none, one or several.

        Folders in names may be those of another machine, and then they say nothing. But if those
        of one name are its photo's, those of the others count, too: where `cam1/1.jpg` is cam1/1,
        there `cam2/1.jpg` is a photo that is gone.
        """
        index = self._index(tuple(splits))  # made once: each photo may have a file of its own
        matched = []
        for name in names:
            texts = names_in(name)
            matched.append(next(((t, of_it) for t in texts if (of_it := index.get(t))), ("", [])))
        by_folder = {place for text, of_it in matched if "/" in text for place in of_it}
        return [
            of_it
            if "/" in text or not by_folder
            else [p for p in of_it if p not in by_folder and _agree(name, p, self._found)]
            for name, (text, of_it) in zip(names, matched)
        ]


def places_by_text(found: Found, splits: Sequence[str]) -> Index:
    """Places by id, by split/id and by the longer ends of their paths; or by an id's last part."""
    exact: Index = {}
    loose: Index = {}
    for split in splits:
        for example, photo in found.photos[split].items():
            place, id = (split, example), normal_form(example)
            # The split's folder may be called otherwise: valid, for val.
            parts = normal_form(photo).rpartition(".")[0].split("/")
            ends = ("/".join(parts[i:]) for i in range(len(parts) - id.count("/") - 1))
            for text in dict.fromkeys((id, f"{normal_form(split)}/{id}", *ends)):
                exact.setdefault(text, []).append(place)
            if "/" in id:
                loose.setdefault(id.rpartition("/")[2], []).append(place)
    return loose | exact


def _agree(name: str, place: Place, found: Found) -> bool:
    """Whether the folder in a name may be a photo's; splits do not count, as photos change them."""
    split, id = place
    folder = normal_form(id).rpartition("/")[0].rpartition("/")[2]
    if not folder and split not in (*USUAL_SPLITS, ONE_SPLIT, *found.lists):
        folder = normal_form(split)
    folders = {text.split("/")[-2] for text in names_in(name) if "/" in text}
    return not folder or not folders or folder in folders


def names_in(name: str) -> list[str]:
    r"""Texts that may be the id of the photo that a file names by a path or an address.

    The longest first: `C:\photos\a\1.jpg` may be of a/1 or of 1, and Label Studio's
    `/data/upload/1/0123abcd-cat.jpg` of cat. A name with `%20` is taken as it is, and then as an
    address, in which that is a space.
    """
    paths = dict.fromkeys((name, unquote(name)))
    texts = [text for path in paths for text in _ends_of(path)]
    return sorted(dict.fromkeys(texts), key=lambda text: -text.count("/"))


def _ends_of(path: str) -> Iterator[str]:
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
