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
from rc2l_jax.input_pipeline.loading import check_labels

_EVAL_KEY = "config.data.eval_split"


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
      DataError: the data set, the split or one of its masks cannot be used.
    """
    dataset = open_for_evaluation(config.data)
    keys = splits.resolve(config.data.eval_split, dataset.ids, _EVAL_KEY)
    check_labels(dataset, keys, _EVAL_KEY)
    return OpenSplit(dataset, keys)


def open_subsets(config: ConfigDict) -> RunData:
    """Opens the data set of a run and determines the run's three subsets of it.

    Raises:
      DataError: a split text cannot be resolved (`splits.resolve_all`); no unlabelled split is
        named although `config.unsup_weight` is not 0; none of the unlabelled images can be read;
        or an evaluation image is a training image or a copy of one.
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
    subsets = _without_unreadable(subsets, dataset)

    def identity(key: Key) -> object:
        # Compares contents as well as names: a photo may lie in two folders, or under two names.
        example = dataset.example(key)
        return key if example.image_error else example.digest  # empty files are no copies

    return RunData(dataset, splits.separate(subsets, identity, dataset.ids))


def _without_unreadable(subsets: splits.Subsets, dataset: Dataset) -> splits.Subsets:
    """Leaves damaged images out of the unlabelled ones; masks need theirs, so others are errors."""
    errors = {
        key: error for key in subsets.unlabeled if (error := dataset.example(key).image_error)
    }
    rest = tuple(key for key in subsets.unlabeled if key not in errors)
    if errors and not rest:
        raise DataError(list(errors.values()))
    return dataclasses.replace(subsets, unlabeled=rest, unreadable=tuple(errors))


def describe_subsets(
    config: ConfigDict, dataset: Dataset, subsets: splits.Subsets
) -> dict[str, dict[str, Any]]:
    """Describes what each split text of a run names.

    Returns:
      {"labeled": {"split": the text, "examples": their number, "checksum": of the ids,
      "content": checksum of images, masks and class names,
      "published": name of the published partition or ""}, "unlabeled": ..., "evaluation": ...};
      without "unlabeled" in supervised training. Unlabelled examples that are labelled as well
      count as labelled: "examples" leaves them out, the checksums and "published" do not.
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

    A line is an example's id, after its split and a slash where another split has the same id.
    """
    ids = data.dataset.ids
    shared = Counter(id for names in ids.splits.values() for id in names)
    texts = {}
    for name in ("labeled", "unlabeled", "evaluation"):
        keys = getattr(data.subsets, name)
        lines = (id if shared[id := ids.id(key)] == 1 else f"{key[0]}/{id}" for key in keys)
        if keys:
            texts[name] = "".join(f"{line}\n" for line in lines)
    return texts


def _content(dataset: Dataset, keys: Sequence[Key], *, masks_read: bool) -> str:
    """Checksum of the examples' contents, whatever their names and order."""
    examples = map(dataset.example, keys)
    shown = sorted(e.digest + (e.label_digest if masks_read else "") for e in examples)
    return records.digest(*dataset.class_names, *shown)


def describe_subset(used: dict[str, Any]) -> str:
    """Phrases one entry of `describe_subsets` for the log."""
    known = f", {used['published']}" if used["published"] else ""
    return f"{counted(used['examples'], 'example')} ({used['split']}{known}), {used['checksum']}"
