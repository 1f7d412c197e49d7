"""Time and memory of preparing VOC Aug: 10,582 + 1,449 generated images of VOC's size and formats.

    python benchmarks/prepare_voc.py

Makes both official archives (1.2 GB) in a temporary folder, runs `main.py --mode=prepare` on them
in a process of its own, and once more killed (SIGKILL) half way and started again.
"""

from __future__ import annotations

import argparse
import io
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

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import replicas  # the official archives' formats, as the tests write them

ROOT = Path(__file__).parents[1]
COUNTS = {"train": 1_464, "val": 1_449, "aug": 9_118}
SIZE = (375, 500)  # height and width of most images of VOC
QUALITY = 90  # makes the files about as large as VOC's, 100 kB
VARIANTS = 64  # different pictures; all files differ by a few bytes after the picture's end


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
    """The files of VOC2012 at their size."""
    images = [picture(i) for i in range(VARIANTS)]
    masks = [replicas.palette_png(regions(i)) for i in range(VARIANTS)]
    for split in ("train", "val"):
        yield f"ImageSets/Segmentation/{split}.txt", "".join(f"{n}\n" for n in ids[split]).encode()
    for i, name in enumerate(sorted(name for names in ids.values() for name in names)):
        yield f"JPEGImages/{name}.jpg", images[i % VARIANTS] + name.encode()
    for i, name in enumerate((*ids["train"], *ids["val"])):
        yield f"SegmentationClass/{name}.png", masks[i % VARIANTS]


def sbd_files(ids: dict[str, list[str]]) -> Iterator[tuple[str, bytes]]:
    """The files of SBD at their size."""
    masks = [replicas.sbd_mat(regions(i) % 255) for i in range(VARIANTS)]
    for i, name in enumerate(ids["aug"]):
        yield f"cls/{name}.mat", masks[i % VARIANTS]


def picture(seed: int) -> bytes:
    """A JPEG of soft shapes and grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    soft = np.asarray(coarse.resize(SIZE[::-1], Image.Resampling.BICUBIC), np.float32)
    pixels = np.clip(soft + rng.normal(0, 12, soft.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue()


def regions(seed: int) -> np.ndarray:
    """A mask with three classes in curved regions, and void between them."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot(rows - rng.integers(SIZE[0]), columns - rng.integers(SIZE[1]))
    distance += 20 * np.sin(columns / 30 + rng.normal())
    classes = rng.integers(1, 21, 3)
    ids = np.zeros(SIZE, np.uint8)
    for shown, radius in zip(classes, (180, 120, 60)):
        ids[distance < radius] = 255
        ids[distance < radius - 5] = shown
    return ids


if __name__ == "__main__":
    main()
