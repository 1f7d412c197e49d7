"""How a training step's time and memory grow with batch, crop, queries and segments.

    python benchmarks/growth.py                  # a GPU: ResNet-101, bfloat16
    python benchmarks/growth.py --device=cpu     # ResNet-18, float32, small
    python benchmarks/growth.py --device=cpu --only crop options
    python benchmarks/growth.py --device=cpu --only backbone --backbone=efficientnet_lite0

The cases of a table differ in one thing only. Memory is what XLA plans: arguments + outputs +
temporaries - what is aliased. Each case runs in a process of its own, without TensorFlow.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from collections.abc import Iterable

from benchmarks import bench


class Case(NamedTuple):
    """One training step to measure.

    Attributes:
      crop: side of the crop, in pixels.
      images: number of labelled images, and of unlabelled ones.
      settings: config values, as KEY=VALUE.
    """

    crop: int
    images: int
    settings: tuple[str, ...] = ()


def cases(device: str) -> dict[str, dict[str, Case]]:
    """Title of a table -> text of a row -> case."""
    crop, images, batches, crops = {
        "cpu": (128, 2, (1, 2, 4, 8), (128, 256, 512)),
        "cuda": (512, 16, (1, 2, 4, 8, 16), (256, 384, 512, 768, 1024)),
    }[device]
    few = 2 if device == "cpu" else 4  # images in the table of crops, so that the largest crop fits

    def values(key: str, xs: Iterable[Any]) -> dict[str, Case]:
        return {f"{x}": Case(crop, images, (f"{key}={x}",)) for x in xs}

    options = {"none": (), "remat": ("remat=True",), "in 2 parts": ("accumulate_steps=2",)}
    options |= {
        "bfloat16 moment": ("optimizer_dtype=bfloat16",),
        "device matcher": ("matcher=device",),
    }
    return {
        "images (half of them unlabelled)": {f"{2 * n}": Case(crop, n) for n in batches},
        "crop": {f"{side}": Case(side, few) for side in crops},
        "queries": values("model.num_queries", (20, 50, 100)),
        "segments": values("max_segments", (8, 21, 32, 50)),
        "options": {name: Case(crop, images, x) for name, x in options.items()},
        "backbone": {
            "trained": Case(crop, images),
            "frozen": Case(crop, images, ("model.freeze_backbone=True",)),
        },
    }


def main() -> None:
    """Prints one table for each quantity."""
    command_line = bench.parser(__doc__)
    command_line.add_argument("--only", nargs="*", help="tables, by the first word of their name")
    command_line.add_argument("--rounds", type=int, default=5)
    command_line.add_argument("--backbone", help="resnet18 on a CPU, else resnet101")
    arguments = command_line.parse_args()
    arguments.backbone = arguments.backbone or (
        "resnet18" if arguments.device == "cpu" else "resnet101"
    )
    if arguments.case:
        bench.choose_platform(arguments.device)
        print(json.dumps(measure(arguments, Case(*json.loads(arguments.case)))))
        return
    known: dict[Case, dict[str, Any]] = {}
    for quantity, rows in cases(arguments.device).items():
        if arguments.only and quantity.split()[0] not in arguments.only:
            continue
        for text, case in rows.items():
            print(f"{quantity}: {text} ...", file=sys.stderr, flush=True)
            known[case] = known.get(case) or bench.in_a_process(json.dumps(case))
        show(arguments, quantity, {text: known[case] for text, case in rows.items()})


def measure(arguments: argparse.Namespace, case: Case) -> dict[str, Any]:
    """Measures a case: {"device", "planned" and "temp" in bytes, "compile" and "seconds"}."""
    import jax

    from benchmarks.generated import generated_batch
    from benchmarks.memory import memory_plan
    from benchmarks.train_step import make_config
    from rc2l_jax.method.state import create_train_state
    from rc2l_jax.training.devices import parallel_train_step, replicate

    dtype = "float32" if arguments.device == "cpu" else "bfloat16"
    config = make_config(
        argparse.Namespace(
            labeled=case.images,
            unlabeled=case.images,
            dtype=dtype,
            crop=case.crop,
            queries=50,
            set=[f"model.backbone={arguments.backbone}", *case.settings],
        )
    )
    model, optimizer, state = create_train_state(config)
    state = replicate(state, 1)
    batch = jax.device_put(generated_batch(case.crop, case.images, case.images))
    start = time.perf_counter()
    step = parallel_train_step(model, optimizer, config).lower(state, batch).compile()
    result = {"device": bench.device_name(), "compile": time.perf_counter() - start}
    plan = memory_plan(step)

    def call() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))

    seconds = bench.seconds(call, arguments.rounds)
    return result | {"planned": plan["total"], "temp": plan["temp"], "seconds": seconds}


def show(arguments: argparse.Namespace, quantity: str, rows: dict[str, dict[str, Any]]) -> None:
    """Prints one table; times and temporaries also as ratios to those of the first row."""
    first = next(iter(rows.values()))
    print(bench.heading(first["device"], "jax"))
    print(f"training step, {arguments.backbone}; ms: median (fastest) of {arguments.rounds} rounds")
    lines = []
    for text, row in rows.items():
        lines.append(
            (
                text,
                bench.milliseconds(row["seconds"]),
                f"{min(row['seconds']) / min(first['seconds']):.2f}",
                bench.mebibytes(row["temp"]),
                f"{row['temp'] / first['temp']:.2f}",
                bench.mebibytes(row["planned"]),
                f"{row['compile']:.0f}",
            )
        )
    columns = (quantity, "step ms", "over first", "temporary MiB", "over first", "planned MiB")
    print(bench.table((*columns, "compile s"), lines))
    print(flush=True)


if __name__ == "__main__":
    main()
