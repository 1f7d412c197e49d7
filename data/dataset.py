"""A data set with random access; a split is prepared when it is first read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from data.records import Example, Records
from data.splits import Ids, Key


class Dataset:
    """A data set with random access.

    Attributes:
      name: as in `config.data.name`.
      class_names: K names; the id of a class is its position.
      ids: of the examples of every split, prepared or not.
    """

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        ids: Ids,
        openers: Mapping[str, Callable[[], Records]],
        notes: Sequence[str] = (),
    ):
        """Creates a data set. The opener of a split is called when the split is first read."""
        self.name = name
        self.class_names = tuple(class_names)
        self.ids = ids
        self._notes = tuple(notes)
        self._openers = openers
        self._opened: dict[str, Records] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts about the files, and the records read so far, that a user should know."""
        opened = self._opened.values()
        return (*self._notes, *(note for records in opened for note in records.notes))

    def with_splits(
        self,
        names: Mapping[str, Sequence[str]],
        openers: Mapping[str, Callable[[], Records]],
        notes: Sequence[str] = (),
    ) -> Dataset:
        """Returns a data set with more splits.

        Args:
          names: split -> ids of its examples.
          openers: split -> what opens its records.
          notes: facts about the splits' files that a user should know.
        """
        ids = dataclasses.replace(self.ids, splits={**self.ids.splits, **names})
        openers = {**self._openers, **openers}
        return Dataset(self.name, self.class_names, ids, openers, (*self._notes, *notes))

    def records(self, split: str) -> Records:
        """A split's records, prepared first if needed.

        Raises:
          DataError: they cannot be made or read.
        """
        if split not in self._opened:
            self._opened[split] = self._openers[split]()
        return self._opened[split]

    def example(self, key: Key) -> Example:
        """What is known about one example without reading it."""
        split, index = key
        return self.records(split).examples[index]

    def errors(self, keys: Sequence[Key]) -> list[str]:
        """Why images or masks of examples cannot be used; each reason once. Empty if all can."""
        return list(dict.fromkeys(e for key in keys if (e := self.example(key).error)))

    def fetch(self, keys: Sequence[Key], *, labels: bool) -> tuple[list[bytes], list[bytes]]:
        """Reads records.

        Args:
          keys: which records to read, in any order; repeats are allowed.
          labels: whether to read the masks.

        Returns:
          Encoded images and encoded masks; b"" for every mask if `labels` is false.
        """
        read: dict[Key, Mapping[str, bytes]] = {}
        for split in {split for split, _ in keys}:
            wanted = sorted({index for name, index in keys if name == split})
            records = self.records(split).read(wanted)
            read.update({(split, index): record for index, record in zip(wanted, records)})
        images = [read[key]["image"] for key in keys]
        return images, [read[key]["label"] if labels else b"" for key in keys]
