"""A training step of the paper's model, beside the same work in PyTorch.

    python benchmarks/train_step.py                   # a GPU: 512 x 512, 16 + 16, bfloat16
    python benchmarks/train_step.py --device=cpu      # 256 x 256, 1 + 1, float32

Ours: all of a step of `configs/voc_train_half.py` (colour, teacher, CutMix, student on both halves,
matching, all losses, AdamW, EMA). The peer's: see `benchmarks/peer.py`. One after the other, each
in a process of its own, on generated images; medians. Runs without TensorFlow.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

# By device: crop, labelled, unlabelled, dtype, rounds.
DEFAULTS = {"cpu": (256, 1, 1, "float32", 9), "cuda": (512, 16, 16, "bfloat16", 20)}
WARM_UP = 2  # rounds, after the first step


def parse() -> argparse.Namespace:
    """The command line, with defaults of the device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=DEFAULTS, default="cuda")
    parser.add_argument("--crop", type=int)
    parser.add_argument("--labeled", type=int)
    parser.add_argument("--unlabeled", type=int)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--no-compile", action="store_true", help="the peer without torch.compile")
    parser.add_argument("--only", choices=("ours", "peer"))
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="config values")
    arguments = parser.parse_args()
    names = ("crop", "labeled", "unlabeled", "dtype", "rounds")
    for name, value in zip(names, DEFAULTS[arguments.device]):
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def main() -> None:
    """Prints one table and the ratio."""
    arguments = parse()
    if arguments.side:
        print(json.dumps(measure(arguments)))
        return
    rows = {}
    for side in [arguments.only] if arguments.only else ["ours", "peer"]:
        # A process each: in one, the two libraries' threads would stand in each other's way.
        command = [sys.executable, *sys.argv, f"--side={side}"]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows[side] = json.loads(answer.splitlines()[-1])
    show(arguments, rows)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One side's steps: {"device", "versions", "seconds", "memory", "first"}."""
    platforms = "cpu" if arguments.device == "cpu" else "cuda,cpu"
    os.environ.setdefault("JAX_PLATFORMS", platforms)
    config = make_config(arguments)
    start = time.perf_counter()
    step = Ours(config) if arguments.side == "ours" else make_peer(config, arguments)
    step()
    first = time.perf_counter() - start
    seconds = [step() for _ in range(WARM_UP + arguments.rounds)][WARM_UP:]
    return {
        "device": step.device(),
        "versions": step.versions(),
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
    # An untrained teacher is sure of nothing: without thresholds the losses have their full work.
    config.pseudo.score_threshold = config.pseudo.mask_threshold = 0.0
    if arguments.unlabeled == 1:
        config.cutmix.probability = 0.0  # one image has no partner
    for setting in arguments.set:
        key, _, value = setting.partition("=")
        config.update_from_flattened_dict({key: parse_value(value)})
    return config


def parse_value(text: str) -> object:
    """A Python literal, or else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


class Ours:
    """Our step, again and again on one batch."""

    def __init__(self, config):
        """Builds state, step and batch."""
        import jax

        from benchmarks.generated import generated_batch
        from rc2l_jax.train_state import create_train_state
        from rc2l_jax.train_step import parallel_train_step, replicate

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

    def peak_memory(self) -> int:
        """Largest device memory so far, in bytes; 0 where the backend does not tell."""
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)

    def device(self) -> str:
        """The device's name."""
        import jax

        return jax.devices()[0].device_kind

    def versions(self) -> str:
        """Of what computes."""
        import jax

        return f"jax {jax.__version__}"


def make_peer(config, arguments: argparse.Namespace):
    """The peer's step."""
    from benchmarks.generated import generated_batch
    from benchmarks.peer import PeerStep

    batch = generated_batch(arguments.crop, arguments.labeled, arguments.unlabeled)
    compiled = arguments.device == "cuda" and not arguments.no_compile
    return PeerStep(config, batch, arguments.device, compiled=compiled)


def show(arguments: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> None:
    """Prints device, versions, medians, memory and the ratio."""
    first = next(iter(rows.values()))
    versions = ", ".join(row["versions"] for row in rows.values())
    python = platform.python_version()
    print(f"{first['device']}, {os.cpu_count()} CPU cores; Python {python}, {versions}")
    print(
        f"ResNet-101, {arguments.crop} x {arguments.crop}, {arguments.labeled} + "
        f"{arguments.unlabeled} images, {arguments.queries} queries, {arguments.dtype}; "
        f"{arguments.rounds} rounds"
    )
    columns = ("median", "fastest", "slowest", "peak memory", "first step")
    print(" " * 8 + "".join(f"{name:>14}" for name in columns))
    for name, row in rows.items():
        seconds = row["seconds"]
        times = [statistics.median(seconds), min(seconds), max(seconds)]
        memory = f"{row['memory'] / 2**30:.2f} GiB" if row["memory"] else "-"
        cells = [*(f"{1000 * x:.0f} ms" for x in times), memory, f"{row['first']:.1f} s"]
        print(f"{name:8}" + "".join(f"{cell:>14}" for cell in cells))
    if len(rows) == 2:
        ours, peer = (statistics.median(rows[side]["seconds"]) for side in ("ours", "peer"))
        print(f"ratio: {ours / peer:.2f}")


if __name__ == "__main__":
    main()
