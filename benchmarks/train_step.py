"""A training step of the paper's model, beside the same work in PyTorch.

    python benchmarks/train_step.py                   # a GPU: 512 x 512, 16 + 16, bfloat16
    python benchmarks/train_step.py --device=cpu      # 256 x 256, 1 + 1, float32

Ours: all of a step of `configs/voc_train_half.py` (colour, teacher, CutMix, student on both halves,
matching, all losses, AdamW, EMA). The peer's: see `benchmarks/peer.py`. Both take turns in one
process, on generated images; medians. Runs without TensorFlow.
"""

from __future__ import annotations

import argparse
import ast
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

# By device: crop, labelled, unlabelled, dtype, rounds.
DEFAULTS = {"cpu": (256, 1, 1, "float32", 9), "cuda": (512, 16, 16, "bfloat16", 20)}
WARM_UP = 3  # rounds


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
    os.environ.setdefault("JAX_PLATFORMS", "cpu" if arguments.device == "cpu" else "cuda,cpu")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer needs room, too
    config = make_config(arguments)
    sides: dict[str, Callable[[], float]] = {}
    if arguments.only != "peer":
        sides["ours"] = Ours(config)
    if arguments.only != "ours":
        sides["peer"] = make_peer(config, arguments)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(WARM_UP + arguments.rounds):
        for name, step in sides.items():
            seconds = step()
            if turn >= WARM_UP:
                times[name].append(seconds)
    show(arguments, sides, times)


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
        """Builds, compiles and says how long that took."""
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
        self._batch = jax.device_put(jax.tree.map(lambda x: x, batch))
        start = time.perf_counter()
        self()
        self.compile_seconds = time.perf_counter() - start

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


def make_peer(config, arguments: argparse.Namespace):
    """The peer's step."""
    from benchmarks.generated import generated_batch
    from benchmarks.peer import PeerStep

    batch = generated_batch(arguments.crop, arguments.labeled, arguments.unlabeled)
    compiled = arguments.device == "cuda" and not arguments.no_compile
    return PeerStep(config, batch, arguments.device, compiled=compiled)


def show(
    arguments: argparse.Namespace, sides: dict[str, Callable], times: dict[str, list[float]]
) -> None:
    """Prints device, versions, medians, memory and the ratio."""
    import jax

    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores; Python "
        f"{platform.python_version()}, jax {jax.__version__}"
        + (f", torch {sys.modules['torch'].__version__}" if "torch" in sys.modules else "")
    )
    print(
        f"ResNet-101, {arguments.crop} x {arguments.crop}, {arguments.labeled} + "
        f"{arguments.unlabeled} images, {arguments.queries} queries, {arguments.dtype}; "
        f"{arguments.rounds} rounds"
    )
    print(f"{'':8}{'median':>12}{'fastest':>12}{'slowest':>12}{'peak memory':>14}")
    for name, seconds in times.items():
        row = [statistics.median(seconds), min(seconds), max(seconds)]
        memory = sides[name].peak_memory()
        told = f"{memory / 2**30:10.2f} GiB" if memory else f"{'-':>14}"
        print(f"{name:8}" + "".join(f"{1000 * x:9.1f} ms" for x in row) + told)
    if "ours" in sides:
        print(f"compilation and first step: {sides['ours'].compile_seconds:.1f} s")
    if len(times) == 2:
        print(f"ratio: {statistics.median(times['ours']) / statistics.median(times['peer']):.2f}")


if __name__ == "__main__":
    main()
