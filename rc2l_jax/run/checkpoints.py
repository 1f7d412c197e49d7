"""Checkpoints: the whole state of a run, written in the background and read back exactly.

A checkpoint is one atomic Orbax step: the whole `TrainState`, and what else a run must not lose
(config, best score, last losses) as JSON. Leaves are kept under the names of `TrainState`'s fields,
so that a reader who wants only the networks reads only those.
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

from rc2l_jax.run.storage import StorageError, check_room, storage_errors
from rc2l_jax.structs import TrainState

_NETWORKS = {
    "student": {"params": "params", "batch_stats": "batch_stats"},
    "teacher": {"params": "teacher_params", "batch_stats": "teacher_batch_stats"},
}


class CheckpointError(ValueError):
    """A checkpoint or run directory that does not fit the config, or cannot be read."""


class _NewestAndBest(checkpoint_managers.PreservationPolicy):
    """Keeps the newest `newest` checkpoints, and the one at `best_step`."""

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
        """Opens `workdir`/checkpoints, which appears with the first save.

        Args:
          workdir: the run directory.
          keep: how many of the newest checkpoints stay; the best one stays in addition.
          owned: nobody else writes there, so that what is half written is left of a save that was
            killed, and is removed.
        """
        self.path = epath.Path(workdir).absolute() / "checkpoints"
        self._policy, self._owned = _NewestAndBest(keep), owned
        self._manager: ocp.CheckpointManager | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind and jax.process_count() > 1:
            return  # a save of many processes would wait for those that have failed
        # After an error, what a save under way has to add would hide it.
        with contextlib.suppress(StorageError) if kind else contextlib.nullcontext():
            self.close()

    def latest_step(self) -> int | None:
        """Returns the newest complete checkpoint's step, or None."""
        return max(self.steps(), default=None)

    def steps(self) -> list[int]:
        """Returns the steps of all complete checkpoints, in order."""
        return sorted(self._open().all_steps()) if self.path.is_dir() else []

    def save(self, state: TrainState, metadata: Mapping[str, Any]) -> None:
        """Starts to write a checkpoint; returns once the state may be donated.

        Args:
          state: replicated over devices; its `step` names the checkpoint.
          metadata: JSON values: at least "best", see `evaluate.better`, or None.

        Raises:
          StorageError: this checkpoint cannot be written, or the one before could not.
        """
        best = metadata["best"]
        self._policy.best_step = best["step"] if best else None
        # Copies on the host: every process has the whole state, and what is kept depends on no
        # device. (A view of a CPU device's memory would change when the step reuses it.)
        leaves = {path: np.array(leaf) for path, leaf in _leaves(jax.device_get(state)).items()}
        with storage_errors(self.path):
            check_room(self.path, sum(leaf.nbytes for leaf in leaves.values()))
            self._open().save(
                int(state.step),
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(flax.traverse_util.unflatten_dict(leaves)),
                    metadata=ocp.args.JsonSave(dict(metadata)),
                ),
                force=True,
            )

    def wait(self) -> None:
        """Waits for what is being written.

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
          template: a state of the run's model and optimiser; only shapes are used.
          step: which checkpoint; the newest if None.

        Returns:
          The state, of NumPy arrays, and the metadata it was saved with.

        Raises:
          CheckpointError: there is no such checkpoint, it cannot be read, or it is of another
            model.
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
          template: a state of the run's model; only shapes are used.
          step: which checkpoint; the newest if None.

        Returns:
          The step, {"student": {"params", "batch_stats"}, "teacher": ...} of NumPy arrays, and the
          metadata.

        Raises:
          CheckpointError: see `restore`.
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
        return step, networks, metadata

    def restore_teacher(self) -> dict[str, np.ndarray]:
        """Reads the newest teacher, whatever model it is of: {path: array}.

        Raises:
          CheckpointError: see `restore`.
        """
        step = self._existing_step(None)
        with self._reading(step):
            stored = flax.traverse_util.flatten_dict(dict(self._open().item_metadata(step).state))
        fields = _NETWORKS["teacher"].values()
        leaves, _ = self._read(step, {key: x for key, x in stored.items() if key[0] in fields})
        return {"/".join(key[1:]): array for key, array in leaves.items()}

    def close(self) -> None:
        """Waits for what is being written; see `wait`."""
        manager, self._manager = self._manager, None
        if manager is not None:
            with storage_errors(self.path):
                manager.close()

    def metadata(self, step: int) -> dict[str, Any]:
        """Returns what a checkpoint holds besides the state.

        Raises:
          CheckpointError: it cannot be read.
        """
        with self._reading(step):
            args = ocp.args.Composite(metadata=ocp.args.JsonRestore())
            return self._open().restore(step, args=args).metadata

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
        """Reads the leaves named in `wanted` and the metadata of one checkpoint."""
        with self._reading(step):
            stored = flax.traverse_util.flatten_dict(dict(self._open().item_metadata(step).state))
            _check_leaves(self.path / str(step), stored, wanted)
            target = flax.traverse_util.unflatten_dict(wanted)
            args = ocp.args.Composite(
                state=ocp.args.PyTreeRestore(
                    item=target,
                    # NumPy, so that a checkpoint does not depend on the devices that wrote it.
                    restore_args=jax.tree.map(
                        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target
                    ),
                    partial_restore=True,
                ),
                metadata=ocp.args.JsonRestore(),
            )
            restored = self._open().restore(step, args=args)
        return flax.traverse_util.flatten_dict(restored.state), restored.metadata

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
                "delete its folder to go on from the one before"
            ) from error


def _state_dict(state: TrainState) -> dict[str, Any]:
    return flax.serialization.to_state_dict(state)


def _leaves(state: TrainState) -> dict[tuple[str, ...], Any]:
    """Returns {path: array}, without the empty nodes that optimiser states are full of."""
    return flax.traverse_util.flatten_dict(_state_dict(state))


def _check_leaves(
    path: epath.Path, stored: dict[tuple[str, ...], Any], wanted: dict[tuple[str, ...], Any]
) -> None:
    """Raises CheckpointError that names the first leaves which differ, and both shapes."""
    fields = {key[0] for key in wanted}
    stored = {key: leaf for key, leaf in stored.items() if key[0] in fields}

    def shape(leaves: dict[tuple[str, ...], Any], key: tuple[str, ...]) -> str:
        return str(list(leaves[key].shape)) if key in leaves else "absent"

    differing = [
        f"{'/'.join(key)} is {shape(stored, key)} there and {shape(wanted, key)} here"
        for key in sorted(stored.keys() | wanted.keys(), key=lambda key: (key[0] != "params", key))
        if shape(stored, key) != shape(wanted, key)
    ]
    if differing:
        more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise CheckpointError(
            f"checkpoint {path} is of another model: {'; '.join(differing[:3])}{more}. "
            "Use the config it was trained with"
        )
