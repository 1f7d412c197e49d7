"""Examples that break while a run trains: they end it, or they are counted and replaced."""

from __future__ import annotations

import sys
import threading

from data.errors import DataError
from data.splits import Key

_SHOWN = 5  # examples in an error


class BadExamples:
    """The examples that one process could not use since it started.

    Safe to use from several threads. Processes know nothing of each other's: every one names its
    own, and the limit holds for each.
    """

    def __init__(self, action: str, limit: int, process_index: int = 0):
        """Takes `config.on_bad_example`, "error" or "skip", and `config.max_bad_examples`."""
        self._skip = action == "skip"
        self._limit = limit
        self._process_index = process_index
        self._errors: dict[Key, str] = {}  # no exceptions: their frames hold whole batches
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many different examples so far, those of batches made ahead included."""
        with self._lock:
            return len(self._errors)

    def add(self, key: Key, error: DataError) -> None:
        """Counts an example, and names it on stderr if it is a new one.

        Args:
          key: the example.
          error: what is wrong with it, with its name and the remedy.

        Raises:
          DataError: `error` itself unless examples are skipped; or there are too many.
        """
        if not self._skip:
            raise error
        with self._lock:
            if key not in self._errors:
                self._errors[key] = str(error)
                text = f"process {self._process_index}: skipped, another takes its place: {error}"
                print(text, file=sys.stderr, flush=True)
            count = len(self._errors)
        if count > self._limit:
            raise self.failure(
                f"{count} examples cannot be used, more than config.max_bad_examples = "
                f"{self._limit}; mend the data set, or allow more. The first of them:"
            )

    def failure(self, message: str) -> DataError:
        """An error that goes on with what is wrong with the first few examples."""
        with self._lock:
            return DataError([message, *list(self._errors.values())[:_SHOWN]])
