"""Examples that turn out to be broken in training: they end the run, or others replace them."""

from __future__ import annotations

import sys
import threading

from data.errors import DataError
from data.splits import Key

_SHOWN = 5  # examples that an error names


class BadExamples:
    """The examples that one process could not use since it started.

    Several threads may use it. Every process names and counts only its own bad examples, so the
    limit holds for each process.
    """

    def __init__(self, action: str, limit: int, process_index: int = 0):
        """Takes `config.on_bad_example`, "error" or "skip", and `config.max_bad_examples`."""
        self._skip = action == "skip"
        self._limit = limit
        self._process_index = process_index
        self._errors: dict[Key, str] = {}  # texts, as exceptions keep whole batches alive
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Number of different bad examples so far, including those of batches made ahead."""
        with self._lock:
            return len(self._errors)

    def add(self, key: Key, error: DataError) -> None:
        """Counts a bad example, and names it on stderr if it is a new one.

        Args:
          key: the example.
          error: what is wrong with it, with its name and the remedy.

        Raises:
          DataError: `error` itself, if examples are not to be skipped; or another one, if more
            than the limit are bad.
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
        """Returns an error: `message`, then what is wrong with the first few examples."""
        with self._lock:
            return DataError([message, *list(self._errors.values())[:_SHOWN]])
