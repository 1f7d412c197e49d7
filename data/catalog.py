"""`config.data.name` -> an open data set."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data import layout, preparation, records
from data.camvid import camvid_dataset_builder as camvid
from data.cityscapes_semseg import cityscapes_semseg_dataset_builder as cityscapes
from data.dataset import Dataset
from data.errors import DataError, some
from data.folder import folder_dataset_builder as folder
from data.shapes import shapes_dataset_builder as shapes
from data.sources import Listing, Split
from data.splits import UNLABELED, Ids
from data.voc_semseg import voc_semseg_dataset_builder as voc

_NO_IMAGES = {
    UNLABELED: "config.data.unlabeled_dir is not set; set it to the folder of images (or, in a "
    "folder of your own, put them into images/unlabeled), or train on the labels alone: "
    "--config.unsup_weight=0."
}


@dataclasses.dataclass(frozen=True)
class Builder:
    """A kind of data set.

    Attributes:
      listing: of what lies where `config.data` says.
      unions: see `Ids`.
      needs_files: whether it is read from files, so that prepared records can do without them.
      downloaded: whether files were downloaded, which are used where `data.dir` is empty.
    """

    listing: Callable[[ConfigDict], Listing]
    unions: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    needs_files: bool = True
    downloaded: Callable[[ConfigDict], bool] = lambda data: False


BUILDERS = {
    "camvid": Builder(camvid.listing),
    "cityscapes_semseg": Builder(cityscapes.listing),
    "folder": Builder(folder.listing),
    "shapes": Builder(shapes.listing, needs_files=False),
    "voc_semseg": Builder(voc.listing, voc.UNIONS, downloaded=voc.downloaded),
}


def open_dataset(data: ConfigDict) -> Dataset:
    """Opens the data set that `config.data` describes. Its splits are prepared when first read.

    A prepared copy of a split is used again only if the files have not changed. With an empty
    `data.dir` prepared copies are enough: the files need not be there any more.

    Args:
      data: `config.data`.

    Raises:
      DataError: an unknown name, files that cannot be used, or another number of classes than
        `num_classes`.
    """
    if data.name not in BUILDERS:
        known = ", ".join(BUILDERS)
        raise DataError(f"config.data.name = {data.name!r} is not a data set; use one of: {known}.")
    builder = BUILDERS[data.name]
    copies, classes_file = {}, ""
    if builder.needs_files and not data.dir and not builder.downloaded(data):
        copies = records.prepared_paths(data.prepared_dir, data.name)
    if data.unlabeled_dir:
        copies.pop(UNLABELED, None)
    if copies:
        dataset = _prepared(data, builder, copies)
    else:
        listing = builder.listing(data)
        classes_file = listing.classes_file
        ids = Ids({}, builder.unions, _NO_IMAGES | listing.absent)
        empty = Dataset(data.name, listing.class_names, ids, {}, listing.notes)
        dataset = _listed(data, listing.splits, empty)
    if data.unlabeled_dir:
        dataset = _listed(data, {UNLABELED: _unlabeled(data, dataset)}, dataset)
    if len(dataset.class_names) != data.num_classes:
        raise _other_number(data, len(dataset.class_names), classes_file)
    return dataset


def _other_number(data: ConfigDict, number: int, classes_file: str) -> DataError:
    """What to say where the data set has another number of classes than the config."""
    if classes_file:
        return DataError(
            f"{classes_file} names {number} classes and config.data.num_classes is "
            f"{data.num_classes}: correct whichever is wrong."
        )
    return DataError(
        f"config.data.num_classes = {data.num_classes}, but {data.name} has {number} classes; "
        "set it to that."
    )


def _listed(data: ConfigDict, splits: Mapping[str, Split], dataset: Dataset) -> Dataset:
    """The data set with splits that are prepared from files as they are now."""

    def opener(name: str, split: Split) -> Callable[[], records.Records]:
        def open_split() -> records.Records:
            fingerprint = records.digest(split.fingerprint(), *dataset.class_names)
            path = records.records_path(data.prepared_dir, data.name, name, fingerprint)
            if not path.exists():
                title = f"preparing {data.name} {name}"
                classes, sources = dataset.class_names, split.sources
                origin = str(data.dir)
                preparation.prepare(path, data.name, title, classes, sources, origin, split.root)
            return records.open_records(path, split.root)

        return open_split

    openers = {name: opener(name, split) for name, split in splits.items()}
    names = {name: [source.id for source in split.sources] for name, split in splits.items()}
    notes = [note for split in splits.values() for note in split.notes]
    return dataset.with_splits(names, openers, notes)


def _prepared(data: ConfigDict, builder: Builder, copies: Mapping[str, Sequence[Path]]) -> Dataset:
    """The data set as it was prepared."""
    opened = {s: records.open_records(paths[0]) for s, paths in copies.items() if len(paths) == 1}
    only = f"{data.prepared_dir} holds only {', '.join(opened)} of it; set config.data.dir."
    absent = {name: only for union, parts in builder.unions.items() for name in (union, *parts)}
    absent |= {
        split: f"config.data.dir is not set, and {data.prepared_dir} holds several prepared copies "
        f"({some(list(map(str, paths)))}); set config.data.dir, or delete those you do not need."
        for split, paths in copies.items()
        if len(paths) > 1
    }
    first = records.open_records(next(iter(copies.values()))[0])
    for other in opened.values():
        if (other.origin, other.class_names) != (first.origin, first.class_names):
            raise DataError(
                f"config.data.dir is not set, and the prepared copies {first.path} (of "
                f"{first.origin!r}) and {other.path} (of {other.origin!r}) are not of one data "
                "set; set config.data.dir, or delete those you do not need."
            )
    names = {split: [e.id for e in found.examples] for split, found in opened.items()}
    openers = {split: functools.partial(lambda x: x, found) for split, found in opened.items()}
    ids = Ids({}, builder.unions, _NO_IMAGES | absent)
    return Dataset(data.name, first.class_names, ids, {}).with_splits(names, openers)


def _unlabeled(data: ConfigDict, dataset: Dataset) -> Split:
    if UNLABELED in dataset.ids.splits:
        raise DataError(
            f"config.data.unlabeled_dir is set, but {data.name} has a split {UNLABELED!r} of its "
            "own; rename that folder, or put the images into it."
        )
    return layout.read_unlabeled(Path(data.unlabeled_dir).expanduser().absolute())
