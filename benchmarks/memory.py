"""Memory of a whole training step, and of the region losses beside a pixel-contrast loss.

    python benchmarks/memory.py                      # a GPU: crops of 512 and 768, and a run each
    python benchmarks/memory.py --device=cpu         # crops of 64 and 128, compiled only
    python benchmarks/memory.py --part=step --cases 512:16+16:bfloat16 --set unsup.union=semantic
    python benchmarks/memory.py --part=losses --grids 64 128

For the step (ResNet-101 of `configs/voc_train_half.py`) it prints what XLA plans: arguments +
outputs + temporaries - what is aliased; on a GPU also the largest use in a run of two steps. The
losses are RCC, SMC, RMC and RFC together, and an InfoNCE loss from pixel to pixel, each with its
gradient. The ratio is our losses' time over the sampled pixel loss's: fastest rounds, largest grid.
Each case runs in a process of its own, without TensorFlow.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bench

# Crop, labelled + unlabelled images, dtype.
STEP_CASES = {
    "cpu": ["64:1+1:float32", "128:1+1:float32", "128:2+2:float32"],
    "cuda": [
        "512:8+8:bfloat16",
        "512:16+16:bfloat16",
        "512:16+16:float32",
        "768:8+8:bfloat16",
    ],
}
GRIDS = (64, 128, 192, 256)
LOSSES = ("region", "sampled", "dense")
# A loss whose planned temporaries take more bytes than this is compiled, but not run.
LARGEST = {"cpu": 6 * 2**30, "cuda": 60 * 2**30}


def main() -> None:
    """Prints one table for each part."""
    command_line = bench.parser(__doc__)
    command_line.add_argument("--part", choices=("step", "losses", "both"), default="both")
    command_line.add_argument("--cases", nargs="*", metavar="CROP:LABELED+UNLABELED:DTYPE")
    command_line.add_argument("--grids", nargs="*", type=int, default=GRIDS)
    command_line.add_argument("--rounds", type=int, default=5)
    bench.add_set(command_line)
    arguments = command_line.parse_args()
    if arguments.case:
        bench.choose_platform(arguments.device)
        kind, _, case = arguments.case.partition("=")
        measure = measure_step if kind == "step" else measure_loss
        print(json.dumps(measure(arguments, case)))
        return
    if arguments.part != "losses":
        show_steps(arguments)
    if arguments.part == "both":
        print()
    if arguments.part != "step":
        show_losses(arguments)


def measure_step(arguments: argparse.Namespace, case: str) -> dict[str, Any]:
    """What XLA plans for one case, in bytes, and the largest use in a run (None on a CPU)."""
    import jax

    from benchmarks.generated import generated_batch
    from benchmarks.train_step import make_config
    from rc2l_jax.method.optimizer import create_optimizer
    from rc2l_jax.method.state import create_train_state, initial_state
    from rc2l_jax.models.maskformer import build_model
    from rc2l_jax.training.devices import parallel_train_step, replicate

    crop, images, dtype = case.split(":")
    labeled, unlabeled = map(int, images.split("+"))
    config = make_config(
        argparse.Namespace(
            labeled=labeled, unlabeled=unlabeled, dtype=dtype, crop=int(crop), queries=50, set=[]
        )
    )
    bench.apply_settings(config, arguments.set)
    model, optimizer = build_model(config), create_optimizer(config)
    state = jax.eval_shape(lambda: initial_state(model, optimizer, config))
    batch = generated_batch(config.data.crop_size, labeled, unlabeled)
    step = parallel_train_step(model, optimizer, config)
    plan = memory_plan(step.lower(state, batch).compile())
    largest = None
    if arguments.device == "cuda":
        _, _, state = create_train_state(config)
        state = replicate(state, 1)
        for _ in range(2):
            state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        largest = jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    return {"device": bench.device_name(), **plan, "largest": largest}


def memory_plan(compiled: Any) -> dict[str, int]:
    """What XLA plans for a compiled program, in bytes."""
    memory = compiled.memory_analysis()
    parts = {
        name: getattr(memory, f"{name}_size_in_bytes")
        for name in ("argument", "output", "alias", "temp")
    }
    total = parts["argument"] + parts["output"] + parts["temp"] - parts["alias"]
    return parts | {"total": total}


def show_steps(arguments: argparse.Namespace) -> None:
    """Prints the step's table."""
    cases = arguments.cases or STEP_CASES[arguments.device]
    results = [bench.in_a_process(f"step={case}") for case in cases]
    print(bench.heading(results[0]["device"], "jax", "jaxlib"))
    settings = f"; {' '.join(arguments.set)}" if arguments.set else ""
    print(f"training step, ResNet-101, 50 queries; MiB a device{settings}")
    names = ("argument", "temp", "total", "largest")
    rows = [
        (*case.split(":"), *(bench.mebibytes(result[name]) for name in names))
        for case, result in zip(cases, results)
    ]
    columns = ("crop", "images", "dtype", "arguments", "temporaries", "planned", "largest in a run")
    print(bench.table(columns, rows))


def measure_loss(arguments: argparse.Namespace, case: str) -> dict[str, Any]:
    """One loss with its gradient on one grid: planned temporaries, and seconds if it is run."""
    import jax

    from benchmarks import region_cost

    name, side = case.split(":")
    loss, values = region_cost.problem(name, int(side))
    gradient = jax.jit(jax.value_and_grad(loss))
    compiled = gradient.lower(values).compile()
    temp = memory_plan(compiled)["temp"]
    seconds = None
    if temp <= LARGEST[arguments.device]:
        values = jax.device_put(values)

        def call() -> Any:
            return jax.block_until_ready(compiled(values))

        seconds = bench.seconds(call, arguments.rounds)
    return {"device": bench.device_name(), "temp": temp, "seconds": seconds}


def show_losses(arguments: argparse.Namespace) -> None:
    """Prints the losses' table, how they grow, and the ratio on the largest grid."""
    from benchmarks.region_cost import ANCHORS, CHANNELS, SLOTS

    results = {
        (name, side): bench.in_a_process(f"loss={name}:{side}")
        for side in arguments.grids
        for name in LOSSES
    }
    first = next(iter(results.values()))
    print(bench.heading(first["device"], "jax", "jaxlib"))
    print(
        f"losses of one image with their gradients, {CHANNELS} channels, {SLOTS} segments; "
        f"sampled: {ANCHORS:,} anchors against all pixels; dense: all against all"
    )
    print(f"ms: median (fastest) of {arguments.rounds} rounds; MiB: temporaries that XLA plans")
    columns = ["grid", *(f"{name} {unit}" for name in LOSSES for unit in ("ms", "MiB"))]
    rows = []
    for side in arguments.grids:
        cells = [f"{side} x {side}"]
        for name in LOSSES:
            result = results[name, side]
            cells.append(bench.milliseconds(result["seconds"]) if result["seconds"] else "not run")
            cells.append(bench.mebibytes(result["temp"]))
        rows.append(cells)
    growth = ["growth"]
    for name in LOSSES:
        of_name = [(side, results[name, side]) for side in arguments.grids]
        growth.append(exponent([(s, min(r["seconds"])) for s, r in of_name if r["seconds"]]))
        growth.append(exponent([(s, r["temp"]) for s, r in of_name]))
    print(bench.table(columns, [*rows, growth]))
    last = max(arguments.grids)
    ours, peer = (min(results[name, last]["seconds"]) for name in ("region", "sampled"))
    print(f"ratio: {ours / peer:.2f}")


def exponent(points: list[tuple[int, float]]) -> str:
    """The exponent in "cost ~ pixels^b", between the first and the last grid, as text."""
    if len(points) < 2:
        return "-"
    (small, low), (large, high) = points[0], points[-1]
    return f"pixels^{math.log(high / low) / (2 * math.log(large / small)):.2f}"


if __name__ == "__main__":
    main()
