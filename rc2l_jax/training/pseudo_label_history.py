"""One picture of how the teacher's pseudo labels of a few images change during training.

The images are the same at each evaluation. Their label maps are kept in figures/pseudo_labels/ of
the run directory, so that the picture of a run that was interrupted has all columns, too.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from data.errors import DataError
from data.whole_files import write_bytes
from rc2l_jax.input_pipeline import train_batches
from rc2l_jax.input_pipeline.subsets import RunData
from rc2l_jax.method.segments import label_map
from rc2l_jax.method.teacher import teacher_segments
from rc2l_jax.models.maskformer import MaskFormer
from rc2l_jax.reports.examples import pseudo_label_picture
from rc2l_jax.reports.log import say
from rc2l_jax.run.storage import storage_errors
from rc2l_jax.structs import TrainState

FOLDER = "figures/pseudo_labels"
_MOST_COLUMNS = 8

Labels = dict[str, np.ndarray]  # digest of an image -> its label map, uint8 [h, w]


class PseudoLabelHistory:
    """The history of the pseudo labels of a run's first unlabelled images.

    The run must have at least one unlabelled image.
    """

    def __init__(
        self,
        workdir: epath.Path,
        model: MaskFormer,
        config: ConfigDict,
        data: RunData,
        step: int,
    ):
        """Goes on from `step`: label maps of later steps, which will be made again, are deleted.

        Args:
          workdir: the run directory.
          model: the teacher's architecture.
          config: the run's, with the keys of `configs/base.py`; `num_pictures` says how many
            images.
          data: the data set and the run's subsets of it.
          step: evaluations after this one will be made again.
        """
        self._workdir, self._config, self._data = workdir, config, data
        self._examples: tuple[np.ndarray, ...] | None = None

        def label(state: TrainState, images: jax.Array, valid: jax.Array) -> jax.Array:
            weak = images.astype(jnp.float32)  # no colour augmentation: only the teacher changes
            return label_map(teacher_segments(state, weak, valid, model, config).segments)

        self._label = jax.jit(label)
        with storage_errors(workdir):
            for later, path in _files(workdir).items():
                if later > step:
                    path.unlink()

    def picture(self, state: TrainState) -> np.ndarray | None:
        """Labels the images with the teacher of `state`, and draws all label maps kept so far.

        Returns:
          uint8 [H, W, 3]; None if the images cannot be read.
        """
        try:
            image, truth, valid = self._read_examples()
        except DataError as error:  # a missing picture is no reason to end the run
            say(f"warning: no picture of pseudo labels: {error}")
            return None
        # The copy of the state on one device is enough, so other processes need not take part.
        state = jax.tree.map(lambda leaf: leaf.addressable_data(0), state)
        labels = np.asarray(self._label(state, image, valid))
        names = [_digest(x) for x in image]
        with storage_errors(self._workdir):
            write_labels(self._workdir, int(state.step), dict(zip(names, labels)))
            columns = read_labels(self._workdir)
        kept = {s: [column.get(n) for n in names] for s, column in columns.items()}
        kept = {s: column for s, column in kept.items() if any(x is not None for x in column)}
        shown = {s: kept[s] for s in thinned(list(kept))}
        return pseudo_label_picture(image, truth, shown, self._data.dataset.class_names)

    def _read_examples(self) -> tuple[np.ndarray, ...]:
        if self._examples is None:
            count = self._config.num_pictures
            self._examples = train_batches.first_unlabeled(self._config, self._data, count)
        return self._examples


def open_history(
    workdir: epath.Path, model: MaskFormer, config: ConfigDict, data: RunData, step: int
) -> PseudoLabelHistory | None:
    """Opens a run's history; None on processes other than 0, or if nothing is to be shown.

    Nothing is shown in supervised runs, nor with `num_pictures = 0`.
    """
    shows = config.unsup_weight > 0 and config.num_pictures > 0 and jax.process_index() == 0
    return PseudoLabelHistory(workdir, model, config, data, step) if shows else None


def thinned(steps: Sequence[int], most: int = _MOST_COLUMNS) -> list[int]:
    """Returns at most `most` of the steps, evenly spread, with the first and the last."""
    places = np.linspace(0, len(steps) - 1, min(len(steps), most)).round().astype(int)
    return [steps[place] for place in places]


def write_labels(workdir: epath.Path, step: int, labels: Mapping[str, np.ndarray]) -> None:
    """Writes one evaluation's label maps to figures/pseudo_labels/step_XXXXXXXX.npz.

    Args:
      workdir: the run directory.
      step: the evaluated step.
      labels: {image's digest: label map uint8 [h, w], 255 where no segment lies}.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **labels)
    write_bytes(workdir / FOLDER / f"step_{step:08d}.npz", buffer.getvalue())


def read_labels(workdir: epath.Path) -> dict[int, Labels]:
    """Reads what `write_labels` wrote: {step: labels}, by ascending step."""
    columns = {}
    for step, path in _files(workdir).items():
        with np.load(io.BytesIO(path.read_bytes())) as labels:
            columns[step] = dict(labels)
    return columns


def _files(workdir: epath.Path) -> dict[int, epath.Path]:
    """Returns the files of label maps, {step: path}, by ascending step."""
    folder = epath.Path(workdir) / FOLDER
    paths = folder.glob("step_*.npz") if folder.is_dir() else ()
    return dict(sorted((int(path.stem.removeprefix("step_")), path) for path in paths))


def _digest(image: np.ndarray) -> str:
    """Names an image by its pixels, so that no other image gets its columns if the run changes."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()[:32]
