"""Checkpoints: the whole state of a run, written in the background and read back exactly.

A checkpoint is one Orbax step, written whole or not at all. It holds the whole `TrainState` and, as
JSON, what else a run needs to go on (config, best score, last metrics). Arrays are stored under the
names of `TrainState`'s fields, so that the networks can be read without the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import flax
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from rc2l_jax.run.checksums import checked, with_checksums
from rc2l_jax.run.leaves import differing_leaves
from rc2l_jax.run.storage import StorageError, check_room, storage_errors
from rc2l_jax.structs import TrainState

_NETWORKS = {
    "student": {"params": "params", "batch_stats": "batch_stats"},
    "teacher": {"params": "teacher_params", "batch_stats": "teacher_batch_stats"},
}

# Fields of the state that older checkpoints lack. Reading one of those leaves them as they start.
_ADDED_LATER = ("class_scores", "class_prototypes")


class CheckpointError(ValueError):
    """A checkpoint or run directory that does not fit the config, cannot be read, or is in use."""


class _NewestAndBest(checkpoint_managers.PreservationPolicy):
    """Keeps the last `newest` checkpoints, and the one of `best_step` if there is one."""

    def __init__(self, newest: int):
        self.newest = newest
        self.best_step: int | None = None

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        first_kept = len(checkpoints) - self.newest
        return [i >= first_kept or c.step == self.best_step for i, c in enumerate(checkpoints)]


class Checkpoints:
    """The checkpoints of one run directory, written in the background.

    Every process of a run must make the same calls.
    """

    def __init__(self, workdir: epath.PathLike, keep: int = 1, *, owned: bool = False):
        """Uses the folder `workdir`/checkpoints; the first save makes it.

        Args:
          workdir: the run directory.
          keep: how many of the newest checkpoints to keep, besides the best one.
          owned: True if nobody else writes there. Then a half-written checkpoint is what a killed
            save has left, and is removed.
        """
        self.path = epath.Path(workdir).absolute() / "checkpoints"
        self._policy, self._owned = _NewestAndBest(keep), owned
        self._manager: ocp.CheckpointManager | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind and jax.process_count() > 1:
            return  # closing waits for all processes, and one that has failed never comes
        # After an error, a second one from the save in the background must not replace the first.
        with contextlib.suppress(StorageError) if kind else contextlib.nullcontext():
            self.close()

    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None if there is none."""
        return max(self.steps(), default=None)

    def steps(self) -> list[int]:
        """Returns the steps of all complete checkpoints, in order."""
        return sorted(self._open().all_steps()) if self.path.is_dir() else []

    def save(self, state: TrainState, metadata: Mapping[str, Any]) -> None:
        """Starts to write a checkpoint, and returns once `state` may be donated to the next step.

        Args:
          state: the state, replicated over devices; its `step` names the checkpoint.
          metadata: values that JSON can hold. "best" must be among them: the best evaluation so far
            as `scores.better` returns it, or None.

        Raises:
          StorageError: this checkpoint, or the one before it, cannot be written.
        """
        best = metadata["best"]
        self._policy.best_step = best["step"] if best else None
        # NumPy arrays: every process has the whole state, and the checkpoint depends on no device.
        # np.array copies, since device_get may return a view of a CPU device's memory, which the
        # next step overwrites.
        leaves = {path: np.array(leaf) for path, leaf in _leaves(jax.device_get(state)).items()}
        with storage_errors(self.path):
            check_room(self.path, sum(leaf.nbytes for leaf in leaves.values()))
            self._open().save(
                int(state.step),
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(flax.traverse_util.unflatten_dict(leaves)),
                    metadata=ocp.args.JsonSave(with_checksums(metadata, leaves)),
                ),
                force=True,
            )

    def wait(self) -> None:
        """Waits until the checkpoint that is being written, if any, is complete.

        Raises:
          StorageError: it could not be written.
        """
        if self._manager is not None:
            with storage_errors(self.path):
                self._manager.wait_until_finished()

    def restore(
        self, template: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Reads a whole state.

        Args:
          template: a state of the run's model and optimiser, as at its start; its structure and
            shapes are used, and its values where the checkpoint is older than a field.
          step: the checkpoint's step; None for the newest.

        Returns:
          The state, as NumPy arrays, and the metadata that was saved with it.

        Raises:
          CheckpointError: there is no such checkpoint, it cannot be read, or its arrays are of
            another model.
        """
        step = self._existing_step(step)
        leaves, metadata = self._read(step, _leaves(template))
        names = flax.traverse_util.flatten_dict(_state_dict(template), keep_empty_nodes=True)
        filled = flax.traverse_util.unflatten_dict({**names, **leaves})
        return flax.serialization.from_state_dict(template, filled), metadata

    def restore_networks(
        self, template: TrainState, step: int | None = None
    ) -> tuple[int, dict[str, Any], dict[str, Any]]:
        """Reads student and teacher only.

        Args:
          template: a state of the run's model; its structure and shapes are used.
          step: the checkpoint's step; None for the newest.

        Returns:
          The checkpoint's step, {"student": {"params", "batch_stats"}, "teacher": ...} of NumPy
          arrays, and the metadata.

        Raises:
          CheckpointError: there is no such checkpoint, it cannot be read, or its networks are of
            another model.
        """
        step = self._existing_step(step)
        fields = {field for network in _NETWORKS.values() for field in network.values()}
        wanted = {path: leaf for path, leaf in _leaves(template).items() if path[0] in fields}
        leaves, metadata = self._read(step, wanted)
        state = flax.traverse_util.unflatten_dict(leaves)
        networks = {
            name: {collection: state.get(field, {}) for collection, field in network.items()}
            for name, network in _NETWORKS.items()
        }
        student, teacher = networks["student"], networks["teacher"]
        teacher["params"] = {**student["params"], **teacher["params"]}  # see `TrainState.teacher`
        return step, networks, metadata

    def restore_teacher(self) -> dict[str, np.ndarray]:
        """Reads the teacher of the newest checkpoint without knowing its model.

        Returns:
          {path such as "backbone/res2_0/conv1/kernel": array}, of parameters and batch statistics.

        Raises:
          CheckpointError: there is no checkpoint, or it cannot be read.
        """
        step = self._existing_step(None)
        stored = self._stored(step)
        of_teacher = set(_NETWORKS["teacher"].values())
        own = {key[1:] for key in stored if key[0] in of_teacher}
        shared = {key[1:] for key in stored if key[0] == "params"} - own  # a frozen backbone
        fields = of_teacher | ({"params"} if shared else set())
        leaves, _ = self._read(step, {key: x for key, x in stored.items() if key[0] in fields})
        return {
            "/".join(key[1:]): array
            for key, array in leaves.items()
            if key[0] in of_teacher or key[1:] in shared
        }

    def close(self) -> None:
        """Closes the folder after waiting, as `wait` does, for what is being written.

        Raises:
          StorageError: it could not be written.
        """
        manager, self._manager = self._manager, None
        if manager is not None:
            with storage_errors(self.path):
                manager.close()

    def metadata(self, step: int) -> dict[str, Any]:
        """Returns the metadata that `save` was given for this step.

        Raises:
          CheckpointError: the checkpoint cannot be read.
        """
        with self._reading(step):
            args = ocp.args.Composite(metadata=ocp.args.JsonRestore())
            return checked(self._open().restore(step, args=args).metadata, {})

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self._policy, cleanup_tmp_directories=self._owned
            )
            self._manager = ocp.CheckpointManager(
                self.path,
                options=options,
                item_names=("state", "metadata"),
                item_handlers={
                    "state": ocp.PyTreeCheckpointHandler(),
                    "metadata": ocp.JsonCheckpointHandler(),
                },
            )
        return self._manager

    def _existing_step(self, step: int | None) -> int:
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"{self.path} holds no checkpoint: train first")
        if step is not None and step not in steps:
            listed = ", ".join(map(str, steps))
            raise CheckpointError(f"{self.path} holds no checkpoint of step {step}, only {listed}")
        return steps[-1] if step is None else step

    def _read(
        self, step: int, wanted: dict[tuple[str, ...], Any]
    ) -> tuple[dict[tuple[str, ...], np.ndarray], dict[str, Any]]:
        """Reads the arrays at the paths in `wanted`, and the metadata, of one checkpoint."""
        stored = self._stored(step)
        present = {key[0] for key in stored}
        wanted = {
            key: leaf
            for key, leaf in wanted.items()
            if key[0] in present or key[0] not in _ADDED_LATER
        }
        if differing := differing_leaves(stored, wanted):
            raise CheckpointError(
                f"checkpoint {self.path / str(step)} is of another model: {differing}. "
                "Use the config it was trained with"
            )
        with self._reading(step):
            target = flax.traverse_util.unflatten_dict(wanted)
            args = ocp.args.Composite(
                state=ocp.args.PyTreeRestore(
                    item=target,
                    # As NumPy arrays, so that the devices that wrote it need not be there.
                    restore_args=jax.tree.map(
                        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target
                    ),
                    partial_restore=True,
                ),
                metadata=ocp.args.JsonRestore(),
            )
            restored = self._open().restore(step, args=args)
            leaves = flax.traverse_util.flatten_dict(restored.state)
            return leaves, checked(restored.metadata, leaves)

    def _stored(self, step: int) -> dict[tuple[str, ...], Any]:
        """Returns {path: what is known of the array without reading it} of one checkpoint."""
        with self._reading(step):
            return flax.traverse_util.flatten_dict(dict(self._open().item_metadata(step).state))

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"checkpoint {self.path / str(step)} cannot be read "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
                "try again, and if it stays so, move its folder away to go on from the one before"
            ) from error


def _state_dict(state: TrainState) -> dict[str, Any]:
    return flax.serialization.to_state_dict(state)


def _leaves(state: TrainState) -> dict[tuple[str, ...], Any]:
    """Returns {path: array}; the many empty nodes of an optimiser's state are left out."""
    return flax.traverse_util.flatten_dict(_state_dict(state))
