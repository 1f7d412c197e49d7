"""Writes the prepared records of one split (`data.records`).

Several threads write shards, and each shard is renamed when it is complete. So a preparation that
was interrupted continues where it stopped. (TFDS's own builders start again from the beginning, and
write everything twice.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from filelock import FileLock
from tqdm import tqdm

from data import photos, shrinking, turned_masks
from data.errors import DataError
from data.images import ImageError
from data.records import EXAMPLES, TFDS_SPLIT, VERSION, Example, digest, split_of
from data.turned_masks import AS_IT_IS, upright_label
from data.whole_files import partial_name, write_text

if TYPE_CHECKING:
    from data.sources import Source

_SHARD_SIZE = 256  # examples


def prepare(
    path: Path,
    name: str,
    title: str,
    class_names: Sequence[str],
    sources: Sequence[Source],
    origin: str = "",
    root: str = "",
    short_edge: int = 0,
) -> None:
    """Writes the records of a split, or continues an interrupted preparation.

    Nothing half-prepared is ever at `path`: the records are written beside it, and the folder is
    renamed at the end. If an image cannot be opened, everything written is deleted. A damaged
    image gets a record without content and an `image_error`, which concerns only runs that use it.

    Args:
      path: folder to write, as `records.records_path` gives it. If it exists, another process was
        first, and nothing is done.
      name: of the data set.
      title: of the progress bar.
      class_names: K names.
      sources: the split's examples.
      origin: what the records are made from, as the user gave it.
      root: the folder that holds the files; "" if there are none.
      short_edge: photos whose short edge is longer are shrunk to it, with their masks; 0 keeps all.

    Raises:
      DataError: the folder cannot be written, or images cannot be opened; all of them are named.
    """
    # The lock file is outside of the folder that it locks, and is never deleted: if a process
    # deleted it while another one waits for it, a third one could make and take a new one.
    # Each user has locks of their own, as nobody can open another's.
    lock = Path(tempfile.gettempdir()) / f"prepare-{os.getuid()}-{digest(str(path))}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):  # one process prepares, the others wait
            if not path.exists():
                _prepare(path, name, title, class_names, sources, origin, root, short_edge)
    except OSError as error:
        if path.exists():  # a process of another machine was first
            return
        raise DataError(
            f"{path.parent}: prepared records cannot be written there ({error}); what is whole "
            "stays. Make room, or set config.data.prepared_dir to another folder."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # does nothing unless an error left the folder empty


def _prepare(
    path: Path,
    name: str,
    title: str,
    class_names: Sequence[str],
    sources: Sequence[Source],
    origin: str,
    root: str,
    short_edge: int,
) -> None:
    work = path.with_name(f"{VERSION}.incomplete")
    work.mkdir(exist_ok=True)
    try:
        shards = _write_shards(work, name, title, sources, root, short_edge)
    except DataError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    turned = {id: how for shard in shards for id, how in shard.turned.items()}
    shrunk = sum(shard.shrunk for shard in shards)
    split = f"{name} {split_of(path)}"
    notes = turned_masks.describe(turned, split)
    notes += shrinking.describe(shrunk, len(sources), short_edge, split)
    made_from = {"origin": origin, "root": root, "notes": notes, "short_edge": short_edge}
    _write_metadata(work, name, class_names, [shard.examples for shard in shards], made_from)
    os.rename(work, path)


def _write_shards(
    work: Path, name: str, title: str, sources: Sequence[Source], root: str, short_edge: int
) -> list[_Shard]:
    """Writes the shards that are not there yet; returns what all of them hold."""
    starts = range(0, len(sources), _SHARD_SIZE)
    parts = [sources[start : start + _SHARD_SIZE] for start in starts]
    files = [work / _shard_name(name, index, len(parts)) for index in range(len(parts))]
    stop = threading.Event()  # set on an error, to end the other threads
    with (
        tqdm(total=len(sources), desc=title, unit=" images", delay=1, mininterval=1) as progress,
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):
        make = functools.partial(_make, root=root, short_edge=short_edge)
        write = functools.partial(_write_shard, make=make, progress=progress, stop=stop)
        try:
            written = list(pool.map(write, files, parts))
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    if problems := [problem for shard in written for problem in shard.problems]:
        raise DataError(problems)
    return written


@dataclasses.dataclass
class _Shard:
    """What a shard holds.

    Attributes:
      examples: in the order of the records.
      turned: id of an example whose photo is stored turned -> what became of its mask.
      shrunk: how many photos were shrunk.
      problems: of images that cannot be opened.
    """

    examples: list[Example] = dataclasses.field(default_factory=list)
    turned: dict[str, str] = dataclasses.field(default_factory=dict)
    shrunk: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)


class _Made(NamedTuple):
    """A record and what is known about it.

    Attributes:
      example: what examples.json keeps.
      record: the serialized record.
      turned: what became of the mask of a photo that is stored turned.
      shrunk: whether the photo was shrunk.
    """

    example: Example
    record: bytes
    turned: str
    shrunk: bool


def _write_shard(
    file: Path,
    sources: Sequence[Source],
    *,
    make: Callable[[Source], _Made],
    progress: tqdm,
    stop: threading.Event,
) -> _Shard:
    """Writes one shard unless it exists."""
    known = file.with_name(f"{file.name}.shard.json")
    if known.is_file() and file.is_file():
        found = json.loads(known.read_text(encoding="utf-8"))
        progress.update(len(found["examples"]))
        examples = [Example(*row) for row in found["examples"]]
        return _Shard(examples, found["turned"], found.get("shrunk", 0))
    shard = _Shard()
    partial = partial_name(file)
    with _writing():
        writer = ArrayRecordWriter(str(partial), "group_size:1")
    try:
        for source in sources:
            if stop.is_set():
                break
            try:
                made = make(source)
            except ValueError as error:
                shard.problems.append(f"{source.where}: {error}")
            else:
                with _writing():
                    writer.write(made.record)
                shard.examples.append(made.example)
                shard.shrunk += made.shrunk
                if made.turned != AS_IT_IS:
                    shard.turned[made.example.id] = made.turned
            progress.update()
    finally:
        with _writing():
            writer.close()
    if shard.problems or stop.is_set():
        partial.unlink()
    else:
        os.replace(partial, file)
        rows = [example.row() for example in shard.examples]
        found = {"examples": rows, "turned": shard.turned, "shrunk": shard.shrunk}
        write_text(known, json.dumps(found))
    return shard


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Makes an OSError of the RuntimeError that array_record raises where a disk is full."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _make(source: Source, root: str, short_edge: int) -> _Made:
    """Reads and checks an example; ValueError says why its image cannot be opened."""
    try:
        image, read_label = source.read()
    except OSError as error:
        raise ValueError(f"cannot be opened ({error.strerror}); check its permissions.") from error
    encoded, size, turned, shrunk = b"", (0, 0), AS_IT_IS, False
    label, label_error, image_error = b"", "", ""
    try:
        photo = photos.read(image, short_edge)
    except ImageError as error:
        image_error = f"{source.where}: not a readable image ({error}); replace or remove it."
    else:
        encoded, size, shrunk = photo.encoded, photo.size, photo.size != photo.full_size
        label, label_error, turned = upright_label(read_label, photo.full_size, photo.orientation)
        if shrunk and label:
            label = shrinking.shrink_label(label, size)
    features = {"image": encoded, "label": label, "id": source.id}
    record = _features().serialize_example(_features().encode_example(features))
    digests = digest(image), digest(label)
    errors = [_below(root, error) for error in (label_error, image_error)]
    example = Example(source.id, *size, errors[0], *digests, errors[1])
    return _Made(example, record, turned, shrunk)


def _below(root: str, error: str) -> str:
    """An error whose file is named relative to `root`, so that the folder may be moved."""
    return error.removeprefix(f"{root}/") if root else error


def _write_metadata(
    work: Path,
    name: str,
    class_names: Sequence[str],
    shards: Sequence[Sequence[Example]],
    made_from: Mapping[str, str | int | Sequence[str]],
) -> None:
    """Turns a folder of whole shards into a TFDS data set."""
    for file in (*work.glob("*.json"), *work.glob("*.partial")):  # killed processes leave .partial
        file.unlink()
    size = sum(file.stat().st_size for file in work.iterdir())
    split = tfds.core.SplitInfo(
        name=TFDS_SPLIT, shard_lengths=[len(shard) for shard in shards], num_bytes=size
    )
    tfds.folder_dataset.write_metadata(
        data_dir=work, features=_features(), split_infos=[split], version=VERSION, check_data=False
    )
    rows = [example.row() for shard in shards for example in shard]
    known = {"class_names": list(class_names), **made_from, "examples": rows}
    write_text(work / EXAMPLES, json.dumps(known))


@functools.cache
def _features() -> tfds.features.FeaturesDict:
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "id": tfds.features.Text(),
        }
    )


def _shard_name(name: str, index: int, count: int) -> str:
    return f"{name}-{TFDS_SPLIT}.array_record-{index:05d}-of-{count:05d}"
