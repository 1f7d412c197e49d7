"""A training step of the paper's model, beside the same work in PyTorch.

    python benchmarks/train_step.py                   # a GPU: 512 x 512, 16 + 16, bfloat16
    python benchmarks/train_step.py --device=cpu      # 256 x 256, 1 + 1, float32

Ours is a whole step of `configs/voc_train_half.py`: colour, teacher, CutMix, student on labelled
and unlabelled images, matching, all losses, AdamW, EMA. `benchmarks/peer.py` says what the peer's
step does. Each side runs in a process of its own, on generated images and without TensorFlow; the
table has medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bench

# Device -> crop, labelled images, unlabelled images, dtype, rounds.
DEFAULTS = {"cpu": (256, 1, 1, "float32", 9), "cuda": (512, 16, 16, "bfloat16", 20)}
SIDES = ("ours", "peer")
WARM_UP = 2  # rounds, after the first step


def parse() -> argparse.Namespace:
    """The command line; defaults depend on the device."""
    parser = bench.parser(__doc__)
    parser.add_argument("--crop", type=int)
    parser.add_argument("--labeled", type=int)
    parser.add_argument("--unlabeled", type=int)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--no-compile", action="store_true", help="the peer without torch.compile")
    parser.add_argument("--only", choices=SIDES)
    bench.add_set(parser)
    arguments = parser.parse_args()
    names = ("crop", "labeled", "unlabeled", "dtype", "rounds")
    for name, value in zip(names, DEFAULTS[arguments.device]):
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def main() -> None:
    """Prints one table and the ratio."""
    arguments = parse()
    if arguments.case:
        print(json.dumps(measure(arguments)))
        return
    sides = [arguments.only] if arguments.only else SIDES
    show(arguments, {side: bench.in_a_process(side) for side in sides})


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Times one side: {"device", "seconds" of each step, "memory" in bytes or None, "first"}.

    "first" is the time in seconds until the end of the first step, setting up included.
    """
    bench.choose_platform(arguments.device)
    config = make_config(arguments)
    start = time.perf_counter()
    step = Ours(config) if arguments.case == "ours" else make_peer(config, arguments)
    step()
    first = time.perf_counter() - start
    seconds = [step() for _ in range(WARM_UP + arguments.rounds)][WARM_UP:]
    return {
        "device": step.device(),
        "seconds": seconds,
        "memory": step.peak_memory(),
        "first": first,
    }


def make_config(arguments: argparse.Namespace):
    """The run's config for one device and untrained networks."""
    from configs import voc_train_half

    config = voc_train_half.get_config()
    config.batch_size, config.unlabeled_batch_size = arguments.labeled, arguments.unlabeled
    config.dtype, config.data.crop_size = arguments.dtype, arguments.crop
    config.model.num_queries = arguments.queries
    config.max_segments = min(config.max_segments, arguments.queries)
    config.unsup_weight = config.unsup_weight if arguments.unlabeled else 0.0
    # An untrained teacher passes no threshold: without thresholds the losses have work to do.
    config.pseudo.score_threshold = config.pseudo.mask_threshold = 0.0
    if arguments.unlabeled == 1:
        config.cutmix.probability = 0.0  # one image has no partner
    return bench.apply_settings(config, arguments.set)


class Ours:
    """Our training step, repeated on one batch."""

    def __init__(self, config):
        """Builds state, step and batch."""
        import jax

        from benchmarks.generated import generated_batch
        from rc2l_jax.method.state import create_train_state
        from rc2l_jax.training.devices import parallel_train_step, replicate

        model, optimizer, state = create_train_state(config)
        self._state = replicate(state, 1)
        self._step = parallel_train_step(model, optimizer, config)
        batch = generated_batch(
            config.data.crop_size, config.batch_size, config.unlabeled_batch_size
        )
        self._batch = jax.device_put(batch)

    def __call__(self) -> float:
        """Takes a step; returns its seconds."""
        import jax

        start = time.perf_counter()
        self._state, metrics = self._step(self._state, self._batch)
        jax.block_until_ready((self._state, metrics))
        return time.perf_counter() - start

    def peak_memory(self) -> int | None:
        """Largest device memory so far, in bytes; None where the backend does not tell."""
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")

    def device(self) -> str:
        """The device's name."""
        return bench.device_name()


def make_peer(config, arguments: argparse.Namespace):
    """The peer's step."""
    from benchmarks.generated import generated_batch
    from benchmarks.peer import PeerStep

    batch = generated_batch(arguments.crop, arguments.labeled, arguments.unlabeled)
    compiled = arguments.device == "cuda" and not arguments.no_compile
    return PeerStep(config, batch, arguments.device, compiled=compiled)


def show(arguments: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> None:
    """Prints device, versions, medians, memory and the ratio."""
    device = rows["ours" if "ours" in rows else "peer"]["device"]
    print(bench.heading(device, "jax", "torch", "transformers"))
    print(
        f"ResNet-101, {arguments.crop} x {arguments.crop}, {arguments.labeled} + "
        f"{arguments.unlabeled} images, {arguments.queries} queries, {arguments.dtype}; "
        f"ms: median (fastest) of {arguments.rounds} rounds"
    )
    cells = [
        (
            name,
            bench.milliseconds(row["seconds"]),
            f"{1000 * max(row['seconds']):.0f}",
            bench.mebibytes(row["memory"]),
            f"{row['first']:.1f}",
        )
        for name, row in rows.items()
    ]
    columns = ("", "step ms", "slowest ms", "peak MiB", "first step s")
    print(bench.table(columns, cells))
    if len(rows) == len(SIDES):
        ours, peer = (statistics.median(rows[side]["seconds"]) for side in SIDES)
        print(f"ratio: {ours / peer:.2f}")


if __name__ == "__main__":
    main()
