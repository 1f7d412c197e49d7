"""What `data.prepared_short_edge` saves: CPU time to read a photo of many megapixels in training.

    python benchmarks/large_photos.py

Measured is the training view of one record: reading, cropping and resizing a photo and its mask.
Photos are generated; those of 12 megapixels are 2 MB as JPEG and 21 MB as PNG. The table has
medians of the processor's time, all threads together, so that other programs hardly change it.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.generated_files import encode, picture, regions
from configs import folder, folder_small
from data import photos
from data.host_tf import tf
from data.shrinking import shrink_label
from rc2l_jax.input_pipeline.geometry import Geometry, training_view

SIZES = {12: (3_000, 4_000), 24: (4_000, 6_000)}  # megapixels -> height and width
GRAIN = 4.0  # of the pictures, as of photos in daylight
EDGES = (0, 2_048, 1_024)
READS = 7  # of each photo; the first compiles and is not counted
CONFIGS = {"folder_small.py": folder_small, "folder.py": folder}


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=3, help="of each kind")
    arguments = parser.parse_args()
    views = {name: view_of(module.get_config().data) for name, module in CONFIGS.items()}
    heads = [f"{name}{mask}" for name in views for mask in (", mask", "")]
    print(f"{'photo':18}{'short edge':>12}{'MB':>8}" + "".join(f"{x:>24}" for x in heads))
    for megapixels, size in SIZES.items():
        for kind in ("JPEG", "PNG"):
            for edge in EDGES:
                examples = [example(i, size, kind, edge) for i in range(arguments.photos)]
                times = [
                    statistics.median(milliseconds(view, *x, with_mask) for x in examples)
                    for view in views.values()
                    for with_mask in (True, False)
                ]
                weight = statistics.mean(len(photo.encoded) for photo, _ in examples) / 1e6
                cells = f"{edge or 'as it is':>12}{weight:8.2f}"
                cells += "".join(f"{x:21.0f} ms" for x in times)
                print(f"{f'{megapixels} MP, {kind}':18}{cells}", flush=True)


def view_of(data: ConfigDict) -> Callable:
    """The training view of `config.data`, compiled."""
    view = functools.partial(training_view, geometry=Geometry.from_config(data))
    return tf.function(view, reduce_retracing=True)


def example(seed: int, size: tuple[int, int], kind: str, edge: int) -> tuple[photos.Photo, bytes]:
    """A photo and its mask as records hold them."""
    photo = photos.read(encode(picture(seed, size, GRAIN), kind), edge)
    mask = encode(regions(seed, size), "PNG")
    return photo, shrink_label(mask, photo.size) if photo.size != size else mask


def milliseconds(view: Callable, photo: photos.Photo, mask: bytes, with_mask: bool) -> float:
    """The time that reading an example takes, median of several crops."""
    image, label = tf.constant(photo.encoded), tf.constant(mask if with_mask else b"")
    taken = []
    for crop in range(READS):
        start = time.process_time()
        view(image, label, tf.constant(photo.size), tf.constant([crop, 0], tf.int64))
        taken.append(1e3 * (time.process_time() - start))
    return statistics.median(taken[1:])


if __name__ == "__main__":
    main()
