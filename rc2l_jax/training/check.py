"""`--mode=check` and `--mode=prepare`: checks config and data, and prepares records."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from data import records, splits
from data.dataset import Dataset
from data.errors import DataError, counted, some
from data.shrinking import shrunken_size
from data.splits import Key
from rc2l_jax.input_pipeline.class_sampling import pixel_counts
from rc2l_jax.input_pipeline.subsets import (
    check_examples,
    describe_subset,
    describe_subsets,
    open_subsets,
)
from rc2l_jax.models import resnet
from rc2l_jax.run.config import validate
from rc2l_jax.structs import VOID

# A short edge of records that keeps masks fine enough to score: no shorter one is recommended.
_FINE_EDGE = 1024
_LARGE = 3  # photos with so many times the pixels of such records give a warning
_MUCH_VOID = 0.5  # a larger share of void pixels gives a warning
_LATE = 0.5  # unlabelled images that count fully only after this share of the steps give one, too


def prepare(config: ConfigDict) -> None:
    """Makes the missing records of the splits that a run uses; prints what was found and where.

    Raises:
      ConfigError: the config is not valid.
      DataError: the data cannot be used.
    """
    validate(config, num_devices=1)
    data = open_subsets(config)
    print_notes(data.dataset)
    print_records(*data)
    print_left_out(*data)
    check_examples(data)


def check(config: ConfigDict) -> None:
    """Checks config, splits, images and masks; prints what each split holds.

    Raises:
      ConfigError: the config is not valid, or does not fit this machine's devices.
      DataError: the data cannot be used. If several problems are found, each is printed first.
    """
    validate(config, jax.device_count())
    with _problems_printed():
        data = open_subsets(config)
    dataset, subsets = data
    print_notes(dataset)
    print_left_out(dataset, subsets)
    with _problems_printed():
        check_examples(data)
    for name, used in describe_subsets(config, dataset, subsets).items():
        print(f"{name}: {describe_subset(used)}")
        print(f"  {describe_sizes(dataset, getattr(subsets, name))}")
    print_records(dataset, subsets)
    for warning in config_warnings(config, dataset, subsets):
        print(f"warning: {warning}")
    shown = {name: mask_counts(dataset, getattr(subsets, name)) for name in _WITH_MASKS}
    counts = {name: found.pixels for name, found in shown.items()}
    print_histogram(dataset.class_names, shown)
    check_classes(dataset.class_names, counts)
    if shown["labeled"].most_classes > config.max_segments:
        print(
            f"warning: a labelled mask shows {shown['labeled'].most_classes} classes, and "
            f"max_segments = {config.max_segments}: of a crop with more classes than that only the "
            "largest are learned; set it to the number of classes, and model.num_queries to no less"
        )
    if config.init_from:
        print(f"init_from = {config.init_from!r} was not looked for: training does that")
    print("config and data are fine")


@contextlib.contextmanager
def _problems_printed() -> Iterator[None]:
    """Prints all problems of a DataError, and raises one that only says how many there were."""
    try:
        yield
    except DataError as error:
        for problem in error.problems:
            print(problem)
        raise DataError(f"{counted(len(error.problems), 'problem')} found in the data") from error


_WITH_MASKS = ("labeled", "evaluation")


def print_records(dataset: Dataset, subsets: splits.Subsets) -> None:
    """Prints where the records of a run's splits lie, and which outdated copies can be deleted."""
    copies = []
    for split in dict.fromkeys(split for keys in subsets.named().values() for split, _ in keys):
        found = dataset.records(split)
        count = counted(len(found.examples), "example")
        print(f"{dataset.name} {split}: {count} in {found.path}")
        copies += records.other_copies(found)
    if copies:
        size = sum(f.stat().st_size for copy in copies for f in copy.rglob("*") if f.is_file())
        folder = found.path.parents[1]
        names = ", ".join(str(copy.relative_to(folder)) for copy in copies)
        number = counted(len(copies), "other copy", "other copies")
        print(
            f"{number} of these splits, made from earlier files or with other settings "
            f"({size / 2**20:,.1f} MiB), can be deleted unless a run still reads them, in "
            f"{folder}: {names}"
        )


def print_notes(dataset: Dataset) -> None:
    """Prints the notes on a data set. Before its checks: a note may explain missing masks."""
    for note in dataset.notes:
        print(f"note: {note}")


def print_left_out(dataset: Dataset, subsets: splits.Subsets) -> None:
    """Prints a line for each unlabelled image that cannot be read."""
    for key in subsets.unreadable:
        print(f"left out: {dataset.example(key).image_error}")


def describe_sizes(dataset: Dataset, keys: Sequence[Key]) -> str:
    """Returns a phrase about the images' sizes, width x height in pixels."""
    sizes = Counter((e.width, e.height) for e in map(dataset.example, keys))
    (size, count), *_ = sizes.most_common(1)
    if len(sizes) == 1:
        return f"all {size[0]}x{size[1]}"
    sides = np.array(list(sizes))
    ranges = " x ".join(f"{low}..{high}" for low, high in zip(sides.min(0), sides.max(0)))
    return f"{len(sizes)} sizes, {ranges}; {count} are {size[0]}x{size[1]}"


def config_warnings(config: ConfigDict, dataset: Dataset, subsets: splits.Subsets) -> list[str]:
    """Returns sentences about config and splits that a user should know and need not act on."""
    found = []
    is_resnet = config.model.backbone in resnet.BACKBONES  # others have norms of their own
    if is_resnet and config.model.norm == "frozen" and not config.init_from:
        found.append(
            "model.norm = 'frozen' without init_from: nothing normalises a network from scratch; "
            "'group' does (configs/small.py)"
        )
    fully = config.unsup_start_step + config.unsup_ramp_steps
    if config.unsup_weight > 0 and fully > _LATE * config.num_steps:
        found.append(
            f"the unlabelled images have their whole weight only from step {fully} of "
            f"{config.num_steps} on: shorten unsup_start_step = {config.unsup_start_step} and "
            f"unsup_ramp_steps = {config.unsup_ramp_steps} with a shorter run"
        )
    if number := len(subsets.overlap):
        found.append(
            f"{counted(number, 'unlabelled image')} left out: labelled as well, or a copy of one "
            "that is labelled or evaluated on"
        )
    if number := len(subsets.unreadable):
        names = some([dataset.ids.id(key) for key in subsets.unreadable])
        found.append(
            f"{counted(number, 'unlabelled image')} left out, as damaged: {names} (--mode=check "
            "says what is wrong)"
        )
    return found + _size_warnings(config, dataset, (*subsets.labeled, *subsets.unlabeled))


def _size_warnings(config: ConfigDict, dataset: Dataset, keys: Sequence[Key]) -> list[str]:
    """At most one sentence: on training photos that are far larger, or smaller, than needed."""
    data = config.data
    evaluated = math.ceil(data.eval_short_edge * max(config.eval.scales))
    needed = max(math.ceil(data.crop_size * data.max_scale), evaluated)
    if 0 < data.prepared_short_edge < needed:
        return [
            f"data.prepared_short_edge = {data.prepared_short_edge} is below {needed}, the longest "
            "short edge that training (crop_size * max_scale) or evaluation (eval_short_edge * the "
            "largest of eval.scales) asks for: photos that were shrunk are enlarged again; raise "
            "it to that"
        ]
    if not keys or not data.eval_short_edge:  # evaluation may want all pixels
        return []
    edge = max(needed, _FINE_EDGE)
    sizes = [(x.height, x.width) for x in map(dataset.example, keys)]
    now = sum(map(math.prod, sizes)) / len(sizes)
    then = sum(math.prod(shrunken_size(size, edge)) for size in sizes) / len(sizes)
    if now < _LARGE * then:
        return []
    return [
        f"the training photos have {now / 1e6:.1f} megapixels on average, which are decoded at "
        f"each step, and training needs {then / 1e6:.1f}: --config.data.prepared_short_edge={edge} "
        "shrinks photos and masks once, and scores masks at that size (docs/own_images.md has the "
        "time that this saves)"
    ]


class MaskCounts(NamedTuple):
    """What is counted in the masks of a split.

    Attributes:
      pixels: int64 [256], the number of pixels of each id; 255 is void.
      images: int64 [256], the number of masks that show each id.
      most_classes: the largest number of classes in one mask.
    """

    pixels: np.ndarray
    images: np.ndarray
    most_classes: int


def mask_counts(dataset: Dataset, keys: Sequence[Key]) -> MaskCounts:
    """Counts pixels and classes in the masks of the examples `keys`."""
    pixels, images, most = np.zeros(256, np.int64), np.zeros(256, np.int64), 0
    for counts in pixel_counts(dataset, keys):
        pixels += counts
        images += counts > 0
        most = max(most, np.count_nonzero(counts[:VOID]))
    return MaskCounts(pixels, images, most)


def print_histogram(class_names: Sequence[str], shown: dict[str, MaskCounts]) -> None:
    """Prints for each class its share of the pixels and how many images show it, split by split.

    Args:
      class_names: K names.
      shown: {split: what its masks hold}.
    """
    print(f"{'share of pixels':24}" + "".join(f"{name:>12}{'images':>8}" for name in shown))
    for index, name in [*enumerate(class_names), (VOID, "(void)")]:
        cells = (
            f"{found.pixels[index] / max(found.pixels.sum(), 1):12.3%}{found.images[index]:8}"
            for found in shown.values()
        )
        print(f"{name:24}" + "".join(cells))


def check_classes(class_names: Sequence[str], counts: dict[str, np.ndarray]) -> None:
    """Prints warnings about classes that a split never shows, and about masks that are mostly void.

    Args:
      class_names: K names.
      counts: {split: int64 [256], the number of pixels of each id}.

    Raises:
      DataError: a split shows fewer than two classes, perhaps because one is written as void.
    """
    for name, count in counts.items():
        absent = [label for label, pixels in zip(class_names, count) if not pixels]
        void = count[VOID] / max(count.sum(), 1)
        if len(absent) >= len(class_names) - 1:
            shown = counted(len(class_names) - len(absent), "class", "classes")
            raise DataError(
                f"{name}: the masks show {shown}, and {void:.1%} of "
                f"their pixels are {VOID}, which means void. Is a class missing, or written as "
                f"{VOID}? Give it an id in the masks."
            )
        if absent:
            one = len(absent) == 1
            effect = f"where predicted, {'it has' if one else 'they have'} IoU 0; if not, none"
            if name == "labeled":
                effect = f"{'it' if one else 'they'} cannot be learned"
            kind = "labelled" if name == "labeled" else name
            print(f"warning: no {kind} example shows {', '.join(absent)}: {effect}")
        if void > _MUCH_VOID:
            print(
                f"warning: {name}: {void:.1%} of the masks' pixels are {VOID} (void): nothing is "
                "learned or scored there, and a prediction names one of the classes there, too. "
                "If that is background, make it a class"
            )
