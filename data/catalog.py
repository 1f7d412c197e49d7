"""Opens the data set that `config.data.name` names."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data import layout, merging, preparation, records
from data.annotations.regions import IGNORED
from data.camvid import camvid_dataset_builder as camvid
from data.cityscapes_semseg import cityscapes_semseg_dataset_builder as cityscapes
from data.dataset import Dataset
from data.errors import DataError, some
from data.folder import folder_dataset_builder as folder
from data.shapes import shapes_dataset_builder as shapes
from data.sources import Listing, Split
from data.splits import UNLABELED, Ids, bases
from data.voc_semseg import voc_semseg_dataset_builder as voc

_NO_IMAGES = {
    UNLABELED: "config.data.unlabeled_dir is not set; set it to the folder of images (or, in a "
    "folder of your own, put them into images/unlabeled), or train on the labels alone: "
    "--config.unsup_weight=0."
}


Copies = Mapping[str, Sequence[records.Records]]  # split -> its prepared copies


@dataclasses.dataclass(frozen=True)
class Builder:
    """A kind of data set.

    Attributes:
      listing: given `config.data`, lists the classes, and the examples' files.
      unions: name of a union -> the splits that it joins.
      needs_files: whether the examples come from files. If so, prepared records alone are enough
        when `data.dir` is empty.
      downloaded: given `config.data`, whether the files have been downloaded. If so, they are used
        when `data.dir` is empty.
      holds_back: whether images to evaluate on may be held back from the labelled split. To find
        them again the run's other splits must then be named, too.
    """

    listing: Callable[[ConfigDict], Listing]
    unions: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    needs_files: bool = True
    downloaded: Callable[[ConfigDict], bool] = lambda data: False
    holds_back: bool = False


BUILDERS = {
    "camvid": Builder(camvid.listing),
    "cityscapes_semseg": Builder(cityscapes.listing),
    "folder": Builder(folder.listing, holds_back=True),
    "shapes": Builder(shapes.listing, needs_files=False),
    "voc_semseg": Builder(voc.listing, voc.UNIONS, downloaded=voc.downloaded),
}


def open_dataset(data: ConfigDict) -> Dataset:
    """Opens the data set that `config.data` describes. Each split is prepared when first read.

    A prepared copy of a split is used again as long as the files have not changed. If `data.dir` is
    empty, prepared copies are enough: the files themselves may be gone.

    Args:
      data: `config.data`. If its `num_classes` is 0, it is set to the number of classes found.

    Raises:
      DataError: the name is unknown, files cannot be used, or the number of classes is not
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
        names, splits = listing.class_names, listing.splits
        if data.merge_classes:
            merged = merging.merge(names, data.merge_classes)
            names, splits = merged.names, {s: merged.split(x) for s, x in splits.items()}
        ids = Ids({}, builder.unions, _NO_IMAGES | listing.absent, data.dir)
        dataset = _listed(data, splits, Dataset(data.name, names, ids, {}, listing.notes))
    if data.unlabeled_dir:
        dataset = _listed(data, {UNLABELED: _unlabeled(data, dataset)}, dataset)
    if not data.num_classes:
        data.num_classes = len(dataset.class_names)
    if len(dataset.class_names) != data.num_classes:
        raise _other_number(data, len(dataset.class_names), classes_file)
    return dataset


def open_for_evaluation(data: ConfigDict) -> Dataset:
    """Opens a data set of which the split `data.eval_split` is read, and others may be missing.

    Args:
      data: `config.data`; it stays as it is.

    Raises:
      DataError: as for `open_dataset`.
    """
    data = data.copy_and_resolve_references()
    if data.name not in BUILDERS or not BUILDERS[data.name].holds_back:
        data.labeled_split, data.unlabeled_split = "", ""
    if UNLABELED not in bases(data.eval_split):
        data.unlabeled_dir = ""
    return open_dataset(data)


def _other_number(data: ConfigDict, number: int, classes_file: str) -> DataError:
    """The error for a data set whose number of classes is not the config's."""
    if classes_file:
        return DataError(
            f"{classes_file} names {number} classes and config.data.num_classes is "
            f"{data.num_classes}: correct whichever is wrong (0 takes what is there)."
        )
    return DataError(
        f"config.data.num_classes = {data.num_classes}, but {data.name} has {number} classes; "
        "set it to that."
    )


def _listed(data: ConfigDict, splits: Mapping[str, Split], dataset: Dataset) -> Dataset:
    """Adds splits to the data set; each is prepared from its files when it is first read."""

    def opener(name: str, split: Split) -> Callable[[], records.Records]:
        def open_split() -> records.Records:
            how = [data.merge_classes] if data.merge_classes else []
            if data.prepared_short_edge:
                how.append(f"short edge {data.prepared_short_edge}")
            fingerprint = records.digest(split.fingerprint(), *dataset.class_names, *how)
            path = records.records_path(data.prepared_dir, data.name, name, fingerprint)
            if not path.exists():
                title = f"preparing {data.name} {name}"
                preparation.prepare(
                    path,
                    data.name,
                    title,
                    dataset.class_names,
                    split.sources,
                    str(data.dir),
                    split.root,
                    data.prepared_short_edge,
                )
            return records.open_records(path, split.root)

        return open_split

    openers = {name: opener(name, split) for name, split in splits.items()}
    names = {name: [source.id for source in split.sources] for name, split in splits.items()}
    notes = [note for split in splits.values() for note in split.notes]
    return dataset.with_splits(names, openers, notes)


def _prepared(data: ConfigDict, builder: Builder, paths: Mapping[str, Sequence[Path]]) -> Dataset:
    """The data set from its prepared copies alone, without the files."""
    copies = _of_short_edge(data, {s: [*map(records.open_records, x)] for s, x in paths.items()})
    opened = {split: of_it[0] for split, of_it in copies.items() if len(of_it) == 1}
    only = f"{data.prepared_dir} holds only {', '.join(opened)} of it; set config.data.dir."
    absent = {name: only for union, parts in builder.unions.items() for name in (union, *parts)}
    absent |= {
        split: f"config.data.dir is not set, and {data.prepared_dir} holds several prepared copies "
        f"({some([str(x.path) for x in of_it])}); set config.data.dir, or delete those you do not "
        "need."
        for split, of_it in copies.items()
        if len(of_it) > 1
    }
    first = next(iter(copies.values()))[0]
    groups = {*merging.parse(data.merge_classes).values()} - {IGNORED}
    if missing := sorted(groups - {*first.class_names}):
        raise DataError(
            f"config.data.dir is not set, and the prepared copy {first.path} was made without "
            f"config.data.merge_classes (it has no {', '.join(missing)}); set config.data.dir."
        )
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


def _of_short_edge(data: ConfigDict, copies: Copies) -> Copies:
    """Those of the prepared copies whose photos were shrunk as the config says.

    Raises:
      DataError: there are none.
    """
    wanted = data.prepared_short_edge
    found = {split: [x for x in of_it if x.short_edge == wanted] for split, of_it in copies.items()}
    if not any(found.values()):
        edges = sorted({x.short_edge for of_it in copies.values() for x in of_it})
        raise DataError(
            f"config.data.dir is not set, and the prepared copies in {data.prepared_dir} were made "
            f"with config.data.prepared_short_edge = {' or '.join(map(str, edges))}, not {wanted}; "
            "set it to that, or set config.data.dir."
        )
    return {split: of_it for split, of_it in found.items() if of_it}


def _unlabeled(data: ConfigDict, dataset: Dataset) -> Split:
    if UNLABELED in dataset.ids.splits:
        raise DataError(
            f"config.data.unlabeled_dir is set, but {data.name} has a split {UNLABELED!r} of its "
            "own; rename that folder, or put the images into it."
        )
    return layout.read_unlabeled(Path(data.unlabeled_dir).expanduser().absolute())
