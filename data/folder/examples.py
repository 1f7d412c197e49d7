"""Makes the examples of a folder's splits, and says in one line what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from data import layout, masks
from data.annotations import drawing, yolo
from data.annotations.drawing import draw, unlisted
from data.annotations.regions import AnnotationError
from data.errors import and_more, counted, some
from data.folder import image_sets
from data.folder.arrangement import Arranged
from data.folder.class_files import LABELMAP, ClassFiles
from data.folder.classes import CLASSES, Classes
from data.folder.labels import PNG, Label, Labels, reader_of
from data.folder.places import IMAGES, LABELS, File, Found, Place
from data.folder.png_masks import IdReader
from data.label_values import VOID
from data.sources import Size, Source, Split, fingerprint_of, tree_source
from data.splits import UNLABELED


def split_of(
    split: str,
    examples: Mapping[str, Place],
    found: Found,
    labels: Labels,
    classes: Classes,
    read_png: masks.Reader,
    how: str,
) -> Split:
    """The split of the given photos.

    Args:
      split: its name.
      examples: example id -> the photo's place in the folder.
      found: the folder's files.
      labels: its labels.
      classes: its classes.
      read_png: what reads masks that are PNG files.
      how: text that changes whenever labels of the same files are read otherwise.
    """
    tree, root = found.tree, found.tree.where("").rstrip("/")
    none = _no_mask_at_all(found, split, examples, labels)
    is_yolo = any(read.kind == yolo.KIND for read in labels.read.values())
    empty = " (an empty NAME.txt says that it shows none of the classes)" if is_yolo else ""
    shared = _shared_problems(found, examples.values(), labels, classes)
    pngs = [(p[0], x.file) for p in examples.values() if (x := labels.of.get(p)) and x.kind == PNG]
    mask_in = dict(pngs)  # one mask of each folder
    if read_png is masks.read_ids and pngs:
        read_png = IdReader(tree, min(file.name for _, file in pngs))
    sources, stamped, drawn = [], {}, False
    for example, place in examples.items():
        image = (tree, found.photos[place[0]][place[1]])
        label = labels.of.get(place)
        stamped[image] = None
        if label is None:
            masked = _mask_like(mask_in.get(place[0]), place[1], _folder(place[0]))
            missing = none or _no_mask(found, place, labels, masked, empty)
            sources.append(tree_source(example, image, None, 0, missing=missing))
            continue
        stamped[tree, label.file.name] = None
        problem = label.problem or shared.get(place, "")
        if label.annotated is None and not problem:
            mask, read = (tree, label.file.name), reader_of(label, read_png)
            count = len(classes.names)
            sources.append(tree_source(example, image, mask, count, missing="", read=read))
        else:
            drawn = True
            sources.append(_drawn_source(example, found, image[1], label, classes, problem))
    named = [example for example, (_, id) in examples.items() if example != id]  # by their folders
    read_as = (how, drawing.VERSION) if drawn else (how,)
    return Split(tuple(sources), fingerprint_of(stamped, *read_as, *named), root)


def _shared_problems(
    found: Found, places: Iterable[Place], labels: Labels, classes: Classes
) -> dict[Place, str]:
    """What to say of photos with classes that are not listed, or with files that are not read.

    It is one text for all with the same problem. It is made anew for each split, as it is kept in
    the split's records, which stay as they are while only other splits' files change.
    """
    of_problem: dict[str, list[Place]] = {}
    for place in places:
        if not (label := labels.of.get(place)):
            continue
        read, ids = label.annotated, classes.ids
        not_listed = unlisted(read, ids, classes.origin) if read else ""
        if problem := label.unread or not_listed:
            of_problem.setdefault(problem, []).append(place)
    said = {}
    for problem, of_it in of_problem.items():
        files = dict.fromkeys(found.tree.where(labels.of[place].file.name) for place in of_it)
        said |= dict.fromkeys(of_it, f"{and_more([*files])}: {problem}.")
    return said


def _drawn_source(
    example: str, found: Found, photo: str, label: Label, classes: Classes, problem: str
) -> Source:
    """An example whose mask is drawn from regions, or whose label cannot be used."""
    tree, where = found.tree, found.tree.where(label.file.name)

    def read(size: Size) -> np.ndarray:
        if problem:
            raise masks.MaskError(problem)
        try:
            return draw(label.annotated, size, classes.ids, classes.rest)
        except AnnotationError as error:
            raise masks.MaskError(f"{where}: {error}.") from error

    def make(size: Size) -> tuple[bytes, str]:
        return masks.stored(lambda: read(size), where, size, len(classes.names))

    return Source(example, tree.where(photo), lambda: (tree.read(photo), make))


def _folder(split: str) -> str:
    """The folder of a split's masks, by its name in the tree."""
    return LABELS if split == layout.ONE_SPLIT else f"{LABELS}/{split}"


def _no_mask_at_all(found: Found, split: str, examples: Mapping[str, Place], labels: Labels) -> str:
    """What to say of each photo of a split of which none has a mask; "" if one has."""
    if not examples or any(place in labels.of for place in examples.values()):
        return ""
    first_split, first = next(iter(examples.values()))
    photo, images = found.photos[first_split][first], counted(len(examples), "image")
    if first_split in found.lists:
        what = f"{found.tree.where(found.lists[first_split])}: none of its {images} has a mask"
        there = found.tree.where(image_sets.mask_of(photo))
        return f"{what}; put such masks as {there} there, or name a split that has masks."
    if labels.of and not photo.startswith(f"{IMAGES}/"):
        folder = found.tree.where(str(PurePosixPath(photo).parent))
        other = found.tree.where(next(iter(labels.of.values())).file.name)
        return (
            f"{folder}: none of its {images} has a mask; add masks as for other photos ({other}), "
            "or name a split that has masks."
        )
    photos = IMAGES if split == layout.ONE_SPLIT else f"{IMAGES}/{split}"
    return (
        f"{found.tree.where(_folder(split))}: holds no mask for the {images} of {photos}; "
        "put NAME.png there for NAME.jpg, or name a split that has masks."
    )


def _no_mask(found: Found, place: Place, labels: Labels, masked: str, empty: str) -> str:
    """What to say of a photo without a mask; `masked` is the mask's name that it might have."""
    split, example = place
    unnamed = ", and no annotation file names the photo" if labels.read else ""
    if split in found.lists:
        masked = image_sets.mask_of(found.photos[split][example])
        do = f"take the photo out of {found.tree.where(found.lists[split])}."
    else:
        where = f" ({found.tree.where(f'{IMAGES}/{UNLABELED}')})"
        usual = found.photos[split][example].startswith(f"{IMAGES}/")
        do = f"move the photo to the split {UNLABELED!r}{where if usual else ''}."
    return f"{found.tree.where(masked)}: missing mask{unnamed}; add it{empty}, or {do}"


def _mask_like(file: File | None, example: str, folder: str) -> str:
    """The name of an example's mask: as another mask of its split is named, or else in a folder."""
    if file is None or file.stem not in file.name:
        return f"{folder}/{example}.png"
    before, _, after = file.name.rpartition(file.stem)
    return f"{before}{example}{after}"


def stray_notes(found: Found, labels: Labels) -> Iterator[str]:
    """Notes on files of labels that belong to no photo."""
    for split, files in labels.stray.items():
        names = [file.name for file in files if file.among == LABELS]
        folder = _folder(split)
        if names and not names[0].startswith(f"{folder}/"):
            folder = str(PurePosixPath(names[0]).parent)
        yield from layout.stray_note(found.tree, names, folder)


def _left_out(labels: Labels) -> Iterator[str]:
    """How many shapes of each kind are not drawn, and where the first one is."""
    for what, out in sorted(labels.left_out.items()):
        yield f"{out.count} {what} ({'in' if out.count == 1 else 'such as in'} {out.where})"


def what_was_found(
    root: Path, arranged: Arranged, labels: Labels, classes: Classes, files: ClassFiles
) -> tuple[str, ...]:
    """At most one line: the formats of the labels, and what was made of them."""
    parts, drawn = [], False
    for split, examples in arranged.photos.items():
        found = [labels.of[place] for place in examples.values() if place in labels.of]
        kinds = Counter(label.kind or "unknown" for label in found)
        drawn = drawn or any(label.annotated is not None for label in found)
        if kinds and split != UNLABELED:
            parts.append(f"{split} {', '.join(f'{n} {kind}' for kind, n in kinds.items())}")
    colours = files.colours or classes.colours
    plain = {label.kind for label in labels.of.values()} <= {PNG} and not (
        colours or files.in_order
    )
    if plain and classes.origin == CLASSES:
        return ()
    said = [f"masks: {'; '.join(parts) or 'none'}", f"classes from {classes.origin}"]
    if classes.origin != CLASSES:
        said[-1] += f": {some(classes.names)}"
    if drawn:
        rest = "void" if classes.rest == VOID else repr(classes.names[classes.rest])
        said.append(f"pixels that nobody annotated are {rest}")
    if colours:
        said.append("PNGs are read by their colours")
    elif files.in_order and not files.values:
        said.append(f"PNGs hold ids in the order of {LABELMAP}, or VOC's colours of these")
    if labels.left_out:
        said.append(f"left out: {', '.join(_left_out(labels))}")
    return (f"{root}: {'; '.join(said)}",)
