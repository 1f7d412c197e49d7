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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from filelock import FileLock
from tqdm import tqdm

from data.errors import DataError
from data.images import ImageError, decode
from data.orientation import UPRIGHT, encode_again, orientation_of, turn
from data.records import EXAMPLES, TFDS_SPLIT, VERSION, Example, digest
from data.whole_files import partial_name, write_text

if TYPE_CHECKING:
    from data.sources import Source

_SHARD_SIZE = 256  # examples
_TURNED = (
    "is stored turned or mirrored (EXIF orientation), so its mask may not fit; save image and "
    "mask upright (docs/masks.md has the code for it), or use the image in the unlabelled split "
    "only."
)


def prepare(
    path: Path,
    name: str,
    title: str,
    class_names: Sequence[str],
    sources: Sequence[Source],
    origin: str = "",
    root: str = "",
) -> None:
    """Writes the records of a split, or continues an interrupted preparation.

    Nothing half-prepared is ever at `path`: the records are written beside it, and the folder is
    renamed at the end. If an image cannot be used, everything written is deleted.

    Args:
      path: folder to write, as `records.records_path` gives it. If it exists, another process was
        first, and nothing is done.
      name: of the data set.
      title: of the progress bar.
      class_names: K names.
      sources: the split's examples.
      origin: what the records are made from, as the user gave it.
      root: the folder that holds the files; "" if there are none.

    Raises:
      DataError: the folder cannot be written, or images cannot be read; all of them are named.
    """
    # The lock file is outside of the folder that it locks, and is never deleted: if a process
    # deleted it while another one waits for it, a third one could make and take a new one.
    lock = Path(tempfile.gettempdir()) / f"prepare-{digest(str(path))}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):  # one process prepares, the others wait
            if not path.exists():
                _prepare(path, name, title, class_names, sources, origin, root)
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
) -> None:
    work = path.with_name(f"{VERSION}.incomplete")
    work.mkdir(exist_ok=True)
    try:
        examples = _write_shards(work, name, title, sources, root)
    except DataError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    _write_metadata(work, name, class_names, examples, {"origin": origin, "root": root})
    os.rename(work, path)


def _write_shards(
    work: Path, name: str, title: str, sources: Sequence[Source], root: str
) -> list[list[Example]]:
    """Writes the shards that are not there yet; returns the examples of all of them."""
    starts = range(0, len(sources), _SHARD_SIZE)
    parts = [sources[start : start + _SHARD_SIZE] for start in starts]
    files = [work / _shard_name(name, index, len(parts)) for index in range(len(parts))]
    stop = threading.Event()  # set on an error, to end the other threads
    with (
        tqdm(total=len(sources), desc=title, unit=" images", delay=1, mininterval=1) as progress,
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):
        write = functools.partial(_write_shard, root=root, progress=progress, stop=stop)
        try:
            written = list(pool.map(write, files, parts))
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    if problems := [problem for _, shard_problems in written for problem in shard_problems]:
        raise DataError(problems)
    return [examples for examples, _ in written]


def _write_shard(
    file: Path, sources: Sequence[Source], *, root: str, progress: tqdm, stop: threading.Event
) -> tuple[list[Example], list[str]]:
    """Writes one shard unless it exists; returns its examples, and problems of unusable images."""
    known = file.with_name(f"{file.name}.json")
    if known.is_file() and file.is_file():
        examples = [Example(*row) for row in json.loads(known.read_text(encoding="utf-8"))]
        progress.update(len(examples))
        return examples, []
    examples, problems = [], []
    partial = partial_name(file)
    writer = ArrayRecordWriter(str(partial), "group_size:1")
    try:
        for source in sources:
            if stop.is_set():
                break
            try:
                example, record = _make(source, root)
            except ValueError as error:
                problems.append(f"{source.where}: {error}")
            else:
                writer.write(record)
                examples.append(example)
            progress.update()
    finally:
        writer.close()
    if problems or stop.is_set():
        partial.unlink()
    else:
        os.replace(partial, file)
        rows = [dataclasses.astuple(example) for example in examples]
        write_text(known, json.dumps(rows))
    return examples, problems


def _make(source: Source, root: str) -> tuple[Example, bytes]:
    """Reads and checks an example; ValueError says why its image cannot be used."""
    try:
        image, read_label = source.read()
    except OSError as error:
        raise ValueError(f"cannot be opened ({error.strerror}); check its permissions.") from error
    try:
        pixels = decode(image)
    except ImageError as error:
        raise ValueError(f"not a readable image ({error}); replace or remove it.") from error
    label, label_error = read_label(pixels.shape[:2])
    stored, orientation = image, orientation_of(image)
    if orientation != UPRIGHT:
        pixels = turn(pixels, orientation)
        stored = encode_again(pixels, image)
        if not label_error:
            label, label_error = b"", f"{source.where}: {_TURNED}"
    features = {"image": stored, "label": label, "id": source.id}
    record = _features().serialize_example(_features().encode_example(features))
    below = label_error.removeprefix(f"{root}/") if root else label_error
    size = pixels.shape[:2]
    return Example(source.id, *size, below, digest(image), digest(label)), record


def _write_metadata(
    work: Path,
    name: str,
    class_names: Sequence[str],
    shards: Sequence[Sequence[Example]],
    made_from: Mapping[str, str],
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
    rows = [dataclasses.astuple(example) for shard in shards for example in shard]
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
