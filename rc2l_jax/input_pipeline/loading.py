"""What the two pipelines share: records are read, made into views, and divided over devices.

Each thread reads the records of its batch in Python and hands them to one tf.data pipeline. No
Python runs inside tf.data, because a process that ends while TensorFlow waits for Python may hang
for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from data.dataset import Dataset
from data.errors import DataError
from data.host_tf import reason, tf
from data.images import ImageError, check_claims
from data.splits import Key

Arrays = tuple[np.ndarray, ...]
Instead = Callable[[int, DataError], Arrays]


def batched(view: Callable[..., tuple[tf.Tensor, ...]]) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Turns a function of one example's tensors into one of a batch's; examples run in parallel."""

    @tf.function(reduce_retracing=True)
    def apply(*batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
        examples = tf.data.Dataset.from_tensor_slices(batch)
        views = examples.map(view, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        size = tf.shape(batch[0], tf.int64)[0]
        return views.batch(size).get_single_element()

    return apply


def load(
    view: Callable[..., tuple[tf.Tensor, ...]],
    dataset: Dataset,
    keys: Sequence[Key],
    extra: Sequence[np.ndarray] = (),
    *,
    labels: bool,
    instead: Instead | None = None,
) -> Arrays:
    """Reads the records of some examples and applies a `batched` view to them.

    If that fails, the examples are loaded one by one, which shows which of them is broken.

    Args:
      view: function of encoded images, encoded masks, sizes (int32 [B, 2]) and `extra`.
      dataset: the examples' data set.
      keys: the examples.
      extra: further arguments of the view, arrays [B, ...].
      labels: whether to read the masks; if not, the view gets empty strings.
      instead: function of a broken example's place in `keys` and of its error, which names it. It
        returns the arrays, [1, ...] each, to use in place of the view's.

    Returns:
      The view's arrays, [B, ...] each.

    Raises:
      DataError: an example cannot be read or decoded, and there is no `instead`.
    """
    try:
        return _apply(view, dataset, keys, extra, labels)
    except (DataError, ImageError, tf.errors.OpError) as error:
        if len(keys) == 1:
            named = _named(dataset, keys[0], error)
            if instead is None:
                raise named from error
            return instead(0, named)
    singles = []
    for place, key in enumerate(keys):
        alone = [array[place : place + 1] for array in extra]
        mend = instead and (lambda _, error, place=place: instead(place, error))
        singles.append(load(view, dataset, [key], alone, labels=labels, instead=mend))
    return tuple(np.concatenate(fields) for fields in zip(*singles))


def _apply(
    view: Callable[..., tuple[tf.Tensor, ...]],
    dataset: Dataset,
    keys: Sequence[Key],
    extra: Sequence[np.ndarray],
    labels: bool,
) -> Arrays:
    images, masks = dataset.fetch(keys, labels=labels)
    for encoded in (*images, *masks):
        check_claims(encoded)
    examples = [dataset.example(key) for key in keys]
    sizes = np.array([(example.height, example.width) for example in examples], np.int32)
    fields = view(tf.constant(images), tf.constant(masks), sizes, *extra)
    return tuple(np.asarray(field) for field in fields)  # `.numpy()` would copy


def _named(dataset: Dataset, key: Key, error: Exception) -> DataError:
    """The error to report for a broken example, with its name and the remedy."""
    name = f"{key[0]}/{dataset.ids.id(key)}"
    if isinstance(error, DataError):  # its record cannot be read
        return DataError(f"{name}: {error}")
    folder = dataset.records(key[0]).path
    why = reason(error) if isinstance(error, tf.errors.OpError) else error
    return DataError(
        f"{name} cannot be decoded ({why}): the records in {folder} are damaged; delete "
        "that folder and run --mode=prepare."
    )


def split_devices(array: np.ndarray, num_devices: int) -> np.ndarray:
    """Reshapes a process's images [D * B, ...] to those of its D devices, [D, B, ...]."""
    return array.reshape(num_devices, len(array) // num_devices, *array.shape[1:])


def check_usable(dataset: Dataset, named: Mapping[str, Sequence[Key]]) -> None:
    """Checks that the images and masks of examples can be used.

    Args:
      dataset: the examples' data set.
      named: config key -> the examples that it names. A reason that some of them share is given
        once, with all of their keys.

    Raises:
      DataError: some cannot be used; it gives every reason.
    """
    keys_of: dict[str, list[str]] = {}
    for key, keys in named.items():
        for error in dataset.errors(keys):
            keys_of.setdefault(error, []).append(key)
    if keys_of:
        raise DataError([f"{' and '.join(keys)}: {error}" for error, keys in keys_of.items()])
