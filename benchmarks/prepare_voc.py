"""Time and memory of preparing VOC Aug: 10,582 + 1,449 generated images of VOC's size and formats.

    python benchmarks/prepare_voc.py

Writes replicas of both official archives (1.2 GB) to a temporary folder, and measures the process
`main.py --mode=prepare`: once to the end, again with nothing left to do; and from the beginning,
killed (SIGKILL) half way and started again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import replicas  # the official archives' formats, as the tests write them

from benchmarks.generated_files import encode, picture, regions

ROOT = Path(__file__).parents[1]
COUNTS = {"train": 1_464, "val": 1_449, "aug": 9_118}
SIZE = (375, 500)  # height and width of most images of VOC
VARIANTS = 64  # number of different pictures; bytes after a picture's end make all files differ


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where to put archives and records; a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        root = Path(folder)
        size = write_archives(root / "voc")
        images = f"{sum(COUNTS.values()):,} images of {SIZE[1]}x{SIZE[0]}"
        print(f"archives {size / 1e9:.2f} GB, {images}")
        print(f"{os.cpu_count()} CPU cores, Python {sys.version.split()[0]}\n")
        print(f"{'':34}{'time':>10}{'peak memory':>14}")
        whole = report("prepare", *prepare(root / "voc", root / "records"))
        again = report("again, nothing to do", *prepare(root / "voc", root / "records"))
        shutil.rmtree(root / "records")
        report("killed half way", *prepare(root / "voc", root / "records", (whole + again) / 2))
        report("started again", *prepare(root / "voc", root / "records"))


def report(title: str, seconds: float, peak: float) -> float:
    """Prints a row; returns the seconds."""
    print(f"{title:34}{seconds:8.1f} s{peak / 2**30:10.2f} GiB", flush=True)
    return seconds


def prepare(data: Path, records: Path, kill_after: float | None = None) -> tuple[float, float]:
    """Runs the command; returns seconds and the largest resident memory, in bytes."""
    command = [sys.executable, "main.py", "--config=configs/voc_aug_half.py", "--mode=prepare"]
    command += [f"--config.data.dir={data}", f"--config.data.prepared_dir={records}"]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=subprocess.DEVNULL
    )
    if kill_after is not None:
        threading.Timer(kill_after, process.send_signal, (signal.SIGKILL,)).start()
    _, status, usage = os.wait4(process.pid, 0)
    if status != (0 if kill_after is None else signal.SIGKILL):
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def write_archives(folder: Path) -> int:
    """Writes VOC's and SBD's archives; returns their size in bytes."""
    ids = replicas.voc_ids(COUNTS)
    voc = replicas.write_tar(
        folder / "VOCtrainval_11-May-2012.tar", voc_files(ids), "VOCdevkit/VOC2012"
    )
    sbd = replicas.write_tar(folder / "benchmark.tgz", sbd_files(ids), "benchmark_RELEASE/dataset")
    return voc.stat().st_size + sbd.stat().st_size


def voc_files(ids: dict[str, list[str]]) -> Iterator[tuple[str, bytes]]:
    """The files of VOC2012, with images and masks of the usual size."""
    images = [encode(picture(i, SIZE), "JPEG") for i in range(VARIANTS)]
    masks = [replicas.palette_png(regions(i, SIZE)) for i in range(VARIANTS)]
    for split in ("train", "val"):
        yield f"ImageSets/Segmentation/{split}.txt", "".join(f"{n}\n" for n in ids[split]).encode()
    for i, name in enumerate(sorted(name for names in ids.values() for name in names)):
        yield f"JPEGImages/{name}.jpg", images[i % VARIANTS] + name.encode()
    for i, name in enumerate((*ids["train"], *ids["val"])):
        yield f"SegmentationClass/{name}.png", masks[i % VARIANTS]


def sbd_files(ids: dict[str, list[str]]) -> Iterator[tuple[str, bytes]]:
    """The files of SBD, with masks of the usual size."""
    masks = [replicas.sbd_mat(regions(i, SIZE) % 255) for i in range(VARIANTS)]
    for i, name in enumerate(ids["aug"]):
        yield f"cls/{name}.mat", masks[i % VARIANTS]


if __name__ == "__main__":
    main()
