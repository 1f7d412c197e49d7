"""`config.data.name` -> an open, prepared data set."""

from __future__ import annotations

from ml_collections import ConfigDict

from data.camvid import camvid_dataset_builder
from data.errors import DataError
from data.records import Dataset, RecordBuilder, open_records
from data.shapes import shapes_dataset_builder


def _shapes(data: ConfigDict) -> RecordBuilder:
    arguments = shapes_dataset_builder.ShapesArguments(**data.shapes.to_dict())
    return shapes_dataset_builder.make_builder(arguments, data.prepared_dir)


def _camvid(data: ConfigDict) -> RecordBuilder:
    return camvid_dataset_builder.make_builder(data.dir, data.prepared_dir)


BUILDERS = {"shapes": _shapes, "camvid": _camvid}


def open_dataset(data: ConfigDict) -> Dataset:
    """Opens the data set that `config.data` describes, and prepares it first if needed.

    A prepared copy is used again only if the data set's arguments and files have not changed.

    Args:
      data: `config.data`.

    Raises:
      DataError: an unknown name, files that cannot be used, or another number of classes than
        `num_classes`.
    """
    if data.name not in BUILDERS:
        known = ", ".join(sorted(BUILDERS))
        raise DataError(f"config.data.name = {data.name!r} is not a data set; use one of: {known}.")
    dataset = open_records(data.name, BUILDERS[data.name](data))
    if len(dataset.class_names) != data.num_classes:
        raise DataError(
            f"config.data.num_classes = {data.num_classes}, but {data.name} has "
            f"{len(dataset.class_names)} classes; set it to that."
        )
    return dataset
