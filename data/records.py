"""Prepared records: what every builder writes, and random access to it.

All builders write ArrayRecord files with the same features, so that example i of a split is read
directly: `image` (encoded bytes, as they came), `label` (PNG, one channel), `id`. What must be
known about an example without reading it (id, size, whether its mask is usable) lies in the
metadata beside the records.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from data.errors import DataError
from data.host_tf import tf
from data.splits import Key

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class Example:
    """What is known about an example without reading it.

    Attributes:
      id: its name, unique in the split.
      height, width: of the image, in pixels.
      label_error: why its mask cannot be used, with the file and the remedy; "" if it can. It
        matters only to splits whose masks are read.
    """

    id: str
    height: int
    width: int
    label_error: str = ""


class RecordBuilder(tfds.core.GeneratorBasedBuilder):
    """Base of the builders: features, metadata and format. Subclasses yield examples."""

    SKIP_REGISTERING = True
    class_names: tuple[str, ...] = ()
    # Nothing is downloaded, so there are no checksums to look for. Without this line TFDS needs
    # importlib_resources, which it does not declare.
    url_infos: Mapping[str, Any] = {}

    def __init__(self, **kwargs):
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # TFDS warns of every config that is not built in
        try:
            super().__init__(**kwargs)
        finally:
            logging.set_verbosity(verbosity)

    def examples(self, split: str) -> Iterator[tuple[Example, bytes, bytes]]:
        """Yields (example, encoded image, PNG mask or b"") of one split, in a fixed order.

        Raises:
          DataError: the data cannot be used; nothing is kept of what was written so far.
        """
        raise NotImplementedError

    def split_names(self) -> Sequence[str]:
        """The splits to write."""
        return ("train", "val")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "id": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # records keep the order of the metadata
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager  # nothing is ever downloaded
        return {name: self._generate_examples(name) for name in self.split_names()}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        known: list[Example] = []
        for example, image, label in self.examples(split):
            yield len(known), {"image": image, "label": label, "id": example.id}
            known.append(example)
        self.info.metadata["class_names"] = list(self.class_names)
        self.info.metadata[split] = [dataclasses.astuple(example) for example in known]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared data set with random access.

    Attributes:
      name: as in `config.data.name`.
      class_names: K names; the id of a class is its position.
      examples: split -> its examples, in the order of the records.
      path: where the records lie.
    """

    name: str
    class_names: tuple[str, ...]
    examples: Mapping[str, tuple[Example, ...]]
    path: Path
    _sources: Mapping[str, Any] = dataclasses.field(repr=False, compare=False)

    def example(self, key: Key) -> Example:
        """What is known about one record."""
        return self.examples[key[0]][key[1]]

    def ids(self) -> dict[str, list[str]]:
        """Split -> ids of its examples."""
        return {split: [e.id for e in examples] for split, examples in self.examples.items()}

    def fetch(self, keys: Sequence[Key], *, labels: bool) -> tuple[list[bytes], list[bytes]]:
        """Reads records.

        Args:
          keys: of the records, in any order, repeats allowed.
          labels: whether to read the masks.

        Returns:
          Encoded images and encoded masks; b"" for every mask if `labels` is false.
        """
        read: dict[Key, dict[str, bytes]] = {}
        for split in {split for split, _ in keys}:
            wanted = sorted({index for name, index in keys if name == split})
            records = self._sources[split].__getitems__(wanted)
            read.update({(split, index): record for index, record in zip(wanted, records)})
        images = [read[key]["image"] for key in keys]
        return images, [read[key]["label"] if labels else b"" for key in keys]


def open_records(name: str, builder: RecordBuilder) -> Dataset:
    """Prepares a builder's records if that has not been done, and opens them.

    Nothing half-prepared stays: records are written to a temporary folder that is renamed at the
    end and removed on an error.

    Raises:
      DataError: the data cannot be used.
    """
    path = Path(builder.data_dir)
    if not path.exists():
        try:
            builder.download_and_prepare()
        except OSError:
            # Another process of this run may have finished the same records first.
            if not path.exists():
                raise
            builder.info.read_from_directory(os.fspath(path))
        finally:
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # only if empty: an error left nothing to keep
    metadata = builder.info.metadata
    examples = {s: tuple(Example(*row) for row in metadata[s]) for s in builder.split_names()}
    encoded = dict.fromkeys(("image", "label"), tfds.decode.SkipDecoding())
    sources = {s: builder.as_data_source(s, decoders=encoded) for s in builder.split_names()}
    return Dataset(name, tuple(metadata["class_names"]), examples, path, sources)


def records_config(name: str, prepared_dir: str) -> dict[str, Any]:
    """Arguments of a `RecordBuilder`: `name` must change whenever the content would."""
    config = tfds.core.BuilderConfig(name=name, version=tfds.core.Version(VERSION))
    folder = Path(prepared_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot create the folder for prepared records ({error.strerror}); "
            "set config.data.prepared_dir to one you can write to."
        ) from error
    return {"config": config, "data_dir": os.fspath(folder), "file_format": "array_record"}


def digest(*parts: str | bytes) -> str:
    """A short fingerprint of texts or bytes."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() if isinstance(part, str) else part)
        total.update(b"\0")
    return total.hexdigest()[:16]


def decodable_size(image: bytes) -> tuple[int, int]:
    """Height and width of an image that training can decode.

    Raises:
      ValueError: it cannot; the message says why.
    """
    try:
        # The decoder training uses: what passes here cannot fail there.
        decoded = tf.io.decode_image(image, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(str(error.message).splitlines()[0]) from error
    return int(decoded.shape[0]), int(decoded.shape[1])
