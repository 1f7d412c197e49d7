"""The data set of a run, and its examples that are labelled, unlabelled and evaluated on."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from data import published, records, splits
from data.catalog import open_dataset, open_for_evaluation
from data.dataset import Dataset
from data.errors import DataError, counted
from data.splits import Key
from rc2l_jax.input_pipeline.loading import check_usable

_LABELED_KEY, _EVAL_KEY = "config.data.labeled_split", "config.data.eval_split"


class RunData(NamedTuple):
    """The data set of a run and the examples that the run uses. It is opened once.

    Attributes:
      dataset: the data set as its files were when it was opened; later changes have no effect.
      subsets: which examples are labelled, unlabelled and evaluated on.
    """

    dataset: Dataset
    subsets: splits.Subsets

    @property
    def evaluation(self) -> OpenSplit:
        """The examples to evaluate on."""
        return OpenSplit(self.dataset, self.subsets.evaluation)


class OpenSplit(NamedTuple):
    """Examples to evaluate on.

    Attributes:
      dataset: the data set.
      keys: the examples; `EvalBatch.index` holds positions in this sequence.
    """

    dataset: Dataset
    keys: Sequence[Key]

    def id(self, position: int) -> str:
        """The id that an example has in the data set."""
        return self.dataset.ids.id(self.keys[position])


def open_split(config: ConfigDict) -> OpenSplit:
    """Opens the data set and the split that `data.eval_split` names; other splits may be missing.

    Raises:
      DataError: the data set, the split, or one of its images or masks cannot be used.
    """
    dataset = open_for_evaluation(config.data)
    keys = splits.resolve(config.data.eval_split, dataset.ids, _EVAL_KEY)
    check_usable(dataset, {_EVAL_KEY: keys})
    return OpenSplit(dataset, keys)


def open_subsets(config: ConfigDict) -> RunData:
    """Opens the data set of a run and determines the run's three subsets of it.

    Raises:
      DataError: a split text cannot be resolved (`splits.resolve_all`); no unlabelled split is
        named although `config.unsup_weight` is not 0; more unlabelled images than
        `config.max_bad_examples`, or all of them, are damaged; an evaluation image is a training
        image or a copy of a labelled one; or no unlabelled image is left without those that are
        labelled, or copies of labelled or evaluation images.
    """
    data, semi = config.data, config.unsup_weight > 0
    if semi and not data.unlabeled_split:
        raise DataError(
            "config.data.unlabeled_split is empty, but config.unsup_weight is not 0; name the "
            "unlabelled images, or set config.unsup_weight = 0."
        )
    dataset = open_dataset(data)
    unlabeled = data.unlabeled_split if semi else ""
    texts = (data.labeled_split, unlabeled, data.eval_split)
    subsets = splits.resolve_all(*texts, dataset.ids, data.num_labeled)
    subsets = _without_unreadable(subsets, dataset, config.max_bad_examples)

    def identity(key: Key) -> object:
        # Compares contents as well as names: a photo may lie in two folders, or under two names.
        example = dataset.example(key)
        return key if example.image_error else example.digest  # damaged files, such as empty ones

    return RunData(dataset, splits.separate(subsets, identity, dataset.ids))


def _without_unreadable(subsets: splits.Subsets, dataset: Dataset, most: int) -> splits.Subsets:
    """Leaves damaged images out of the unlabelled ones; in the other subsets they are errors.

    Args:
      subsets: the examples of a run.
      dataset: their data set.
      most: how many images may be left out.

    Raises:
      DataError: there are more, or none is left.
    """
    of_all = {key: dataset.example(key).image_error for key in subsets.unlabeled}
    errors = {key: error for key, error in of_all.items() if error}
    rest = tuple(key for key in subsets.unlabeled if key not in errors)
    if errors and not rest:
        raise DataError(["no unlabelled image can be read:", *errors.values()])
    if len(errors) > most:
        raise DataError(
            [
                f"{len(errors)} of {counted(len(of_all), 'unlabelled image')} cannot be read, and "
                f"at most config.max_bad_examples = {most} can be left out: mend the data set, or "
                "allow more:",
                *errors.values(),
            ]
        )
    return dataclasses.replace(subsets, unlabeled=rest, unreadable=tuple(errors))


def check_examples(data: RunData) -> None:
    """Checks the images and masks that are trained or evaluated on, but for unlabelled images.

    Raises:
      DataError: some cannot be used; it gives every reason once.
    """
    dataset, subsets = data
    check_usable(dataset, {_LABELED_KEY: subsets.labeled, _EVAL_KEY: subsets.evaluation})


def describe_subsets(
    config: ConfigDict, dataset: Dataset, subsets: splits.Subsets
) -> dict[str, dict[str, Any]]:
    """Describes what each split text of a run names.

    Returns:
      {"labeled": {"split": the text, "examples": their number, "checksum": of the ids,
      "content": checksum of images, masks and class names,
      "published": name of the published partition or ""}, "unlabeled": ..., "evaluation": ...};
      without "unlabeled" in supervised training. Unlabelled examples that are labelled as well,
      copies or damaged do not count in "examples"; the checksums are of all that are named. If
      some are damaged, "published" is "", since it is another partition without them.
    """
    texts = {
        "labeled": config.data.labeled_split,
        "unlabeled": config.data.unlabeled_split,
        "evaluation": config.data.eval_split,
    }
    described = {}
    for name, keys in subsets.named().items():
        if keys:
            entry = describe_split(texts[name], dataset, keys, masks_read=name != "unlabeled")
            described[name] = entry | {"examples": len(getattr(subsets, name))}
    if subsets.unreadable:
        described["unlabeled"]["published"] = ""
    return described


def describe_split(
    text: str, dataset: Dataset, keys: Sequence[Key], *, masks_read: bool = True
) -> dict[str, Any]:
    """Describes the examples `keys`, which a split text names, as `describe_subsets` does."""
    checksum = splits.checksum(keys, dataset.ids)
    return {
        "split": text,
        "examples": len(keys),
        "checksum": checksum,
        "content": _content(dataset, keys, masks_read=masks_read),
        "published": published.NAMES.get(checksum, ""),
    }


def listed(data: RunData) -> dict[str, str]:
    """Lists a run's examples: {"labeled", "unlabeled", "evaluation"}, as `data.lists` reads them.

    A line is an example's id, after its split and a slash where the id alone is not unique. Without
    unlabelled examples the text of "unlabeled" is empty.
    """
    ids = data.dataset.ids
    names = Counter(id for split in ids.splits.values() for id in split)
    names.update(f"{split}/{id}" for split, of_it in ids.splits.items() for id in of_it)

    def line(key: Key) -> str:
        id = ids.id(key)
        return f"{id}\n" if names[id] == 1 else f"{key[0]}/{id}\n"

    subsets = ("labeled", "unlabeled", "evaluation")
    return {name: "".join(map(line, getattr(data.subsets, name))) for name in subsets}


def _content(dataset: Dataset, keys: Sequence[Key], *, masks_read: bool) -> str:
    """Checksum of the examples' contents, whatever their names and order."""
    examples = map(dataset.example, keys)
    shown = sorted(e.digest + (e.label_digest if masks_read else "") for e in examples)
    return records.digest(*dataset.class_names, *shown)


def describe_subset(used: dict[str, Any]) -> str:
    """Phrases one entry of `describe_subsets` for the log."""
    known = f", {used['published']}" if used["published"] else ""
    return f"{counted(used['examples'], 'example')} ({used['split']}{known}), {used['checksum']}"
