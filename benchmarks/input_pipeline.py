"""Speed of the training input on the host, beside PyTorch's DataLoader with Pillow.

    python benchmarks/input_pipeline.py              # generated files like VOC's, Cityscapes'
    python benchmarks/input_pipeline.py --dir=DIR    # your own: docs/data.md

Measured is the way from records (ours) or files (the peer's, `benchmarks/input_peer.py`) to uint8
batches. The sides take turns, each in a process of its own that may use one core or two. We change
colours on the device, so the fair comparison is with a peer that does not change them; a row of
its own shows the peer that does. The table has medians. Temporary files are deleted at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

BATCH = 16
TURNS = 2
WARM_UP = 4  # batches that are not timed, besides those of one round
NEEDS = {80: "H100 step of 80 ms", 52: "H100 step of 52 ms"}  # for steps of 16 + 16 images
SETS = {  # size, kind of the images, grain, crop
    "VOC-like": ((375, 500), "JPEG", 12.0, 512),
    "Cityscapes-like PNG": ((1024, 2048), "PNG", 2.0, 768),
    "Cityscapes-like JPEG": ((1024, 2048), "JPEG", 2.0, 768),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
      files: the data set's title.
      root: the data set's folder.
      crop: side of the crop.
      cores: how many cores a side may use.
      labels: whether masks are read. If not, ours still reads one in 16 images with its mask, the
        fewest that it can.
      jitter: whether the peer changes colours.
    """

    files: str
    root: str
    crop: int
    cores: int = 1
    labels: bool = True
    jitter: bool = False

    def title(self) -> str:
        """What the table calls it."""
        parts = [self.files]
        parts += [] if self.labels else ["no masks"]
        parts += ["peer with colour"] if self.jitter else []
        return ", ".join(parts)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=96, help="of a data set, and of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--crop", type=int, help="instead of 512 (VOC) and 768 (Cityscapes)")
    parser.add_argument("--dir", help="a data set of your own, with images/train")
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--records", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Prints one table and the ratio."""
    arguments = parse()
    if arguments.side:
        print(json.dumps(measure(arguments, Row(**arguments.row))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = list_rows(arguments, Path(folder))
        results = []
        for row in rows:
            results.append(run_sides(row, folder))
            show_row(row, results)
    show_needs(rows[0], results[0])
    print(f"ratio: {ratio(results[0]):.2f}")


def list_rows(arguments: argparse.Namespace, folder: Path) -> list[Row]:
    """Writes the files and lists what to measure, the row that counts first."""
    from benchmarks.generated_files import write_folder

    cores = [1, 2] if len(all_cores()) > 1 else [1]
    if arguments.dir:
        root, crop = str(Path(arguments.dir).expanduser().absolute()), arguments.crop or 512
        return [Row("own files", root, crop, n) for n in cores]
    rows = []
    for files, (size, kind, grain, crop) in SETS.items():
        root = folder / files.replace(" ", "-")
        write_folder(root, arguments.images, size, kind, grain)
        rows += [Row(files, str(root), arguments.crop or crop, n) for n in cores]
    first = rows[0]
    extra = [dataclasses.replace(first, labels=False), dataclasses.replace(first, jitter=True)]
    return rows[: len(cores)] + extra + rows[len(cores) :]


def run_sides(row: Row, folder: str) -> dict[str, dict]:
    """What `measure` returns for each side; they take turns, so that other load affects both."""
    results: dict[str, dict] = {}
    for side in ("ours", "peer") * TURNS:
        result = run(side, row, folder)
        results.setdefault(side, result | {"seconds": []})["seconds"] += result["seconds"]
    return results


def run(side: str, row: Row, folder: str) -> dict:
    """Measures one side in a process of its own."""
    command = [sys.executable, *sys.argv, f"--side={side}", f"--records={folder}/records"]
    command += [f"--row={json.dumps(dataclasses.asdict(row))}"]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(answer.splitlines()[-1])


def measure(arguments: argparse.Namespace, row: Row) -> dict:
    """Measures one side: {"versions", "seconds": for an image, in each round}."""
    if hasattr(os, "sched_setaffinity"):  # before the libraries start their threads
        os.sched_setaffinity(0, all_cores()[-row.cores :])
    make = our_batches if arguments.side == "ours" else peer_batches
    versions, stream = make(row, arguments)
    count = max(arguments.images // BATCH, 1)
    for _ in range(WARM_UP + count):
        next(stream)
    seconds = []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        for _ in range(count):
            next(stream)
        seconds.append((time.perf_counter() - start) / count / BATCH)
    return {"versions": versions, "seconds": seconds}


def make_config(row: Row, records: str):
    """The config of a run on the row's files."""
    from configs import base
    from data.folder.classes import CLASSES, read_classes

    config = base.get_config()
    config.data.update(name="folder", dir=row.root, prepared_dir=records, crop_size=row.crop)
    config.data.update(labeled_split="train", unlabeled_split="")
    config.data.num_classes = len(read_classes(Path(row.root) / CLASSES))
    config.batch_size, config.unsup_weight = BATCH, 0.0
    if not row.labels:
        config.batch_size, config.unlabeled_batch_size, config.unsup_weight = 1, BATCH - 1, 1.0
        config.data.labeled_split, config.data.unlabeled_split = "train#1@0", "train#rest1@0"
    return config


def our_batches(row: Row, arguments: argparse.Namespace) -> tuple[str, Iterator]:
    """Versions, and batches of `rc2l_jax.input_pipeline.train_batches`."""
    from data.host_tf import tf
    from rc2l_jax.input_pipeline import train_batches
    from rc2l_jax.input_pipeline.subsets import open_subsets

    config = make_config(row, arguments.records)
    return f"tensorflow {tf.__version__}", train_batches.train_batches(
        config, open_subsets(config), 0, 1
    )


def peer_batches(row: Row, arguments: argparse.Namespace) -> tuple[str, Iterator]:
    """Versions, and the peer's batches, made by one worker for each core."""
    import PIL
    import torch

    from benchmarks import input_peer
    from rc2l_jax.input_pipeline.geometry import Geometry

    geometry = Geometry.from_config(make_config(row, arguments.records).data)
    dataset = input_peer.PeerDataset(Path(row.root), geometry, labels=row.labels, jitter=row.jitter)
    versions = f"torch {torch.__version__}, Pillow {PIL.__version__}"
    return versions, input_peer.batches(dataset, BATCH, row.cores)


def all_cores() -> list[int]:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def show_row(row: Row, results: list[dict]) -> None:
    """Prints the newest row, and before the first row the table's head."""
    result = results[-1]
    if len(results) == 1:
        versions = ", ".join(side["versions"] for side in result.values())
        print(f"{cpu_name()}; Python {platform.python_version()}, {versions}")
        print(f"batches of {BATCH}, uint8; images a second, median of rounds\n")
        heads = ("crop", "cores", "ours", "peer", "ours / peer, time")
        print(" " * 40 + "".join(f"{head:>{max(len(head) + 2, 8)}}" for head in heads))
    rates = [1 / statistics.median(side["seconds"]) for side in result.values()]
    cells = f"{row.crop:8}{row.cores:8}{rates[0]:8.1f}{rates[1]:8.1f}{ratio(result):19.2f}"
    print(f"{row.title():40}{cells}", flush=True)


def show_needs(row: Row, result: dict) -> None:
    """Prints how many images a second 16 cores would give, and how many GPUs need."""
    rate = 1 / statistics.median(result["ours"]["seconds"])
    print(f"\n16 cores at that rate, {row.title()}: {16 * rate:.0f} images/s")
    for milliseconds, name in NEEDS.items():
        print(f"{name} (32 images) needs {32_000 / milliseconds:.0f} images/s")


def ratio(result: dict) -> float:
    """Our time for an image over the peer's."""
    ours, peer = (statistics.median(result[side]["seconds"]) for side in ("ours", "peer"))
    return ours / peer


def cpu_name() -> str:
    """The processor's name and number of cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
