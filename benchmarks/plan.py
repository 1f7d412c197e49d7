"""What XLA plans for a TPU or GPU that is not there: memory, traffic, kernels of a training step.

    pip install -r requirements-plan.txt
    python benchmarks/plan.py --config=configs/voc_train_half.py --topology=v5e:2x2
    python benchmarks/plan.py --config=configs/voc_train_half.py --topology=h100 --breakdown
    python benchmarks/plan.py --config=configs/shapes.py --topology=a100_40 --evaluation

XLA compiles the step for the device, as a run would, and the program that comes back is read.
Rates are those that makers publish (benchmarks/accelerators.toml); a step takes at least the longer
of its arithmetic and its memory time. A topology is a TPU's kind and shape, such as v4:2x2x1; or a
GPU, of benchmarks/gpus or a file of that form, and, behind a colon, how many of them. For a GPU the
paper's model takes minutes, for a TPU up to half an hour of one core.

GPUs are planned with the matcher "device", because JAX needs a live GPU to compile a callback; and
without choosing kernels by trying them, which needs one, too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bench
from benchmarks import program as programs
from benchmarks.accelerators import (
    GB,
    GIB,
    Accelerator,
    PlanError,
    find_accelerator,
    find_devices,
    prepare,
)
from benchmarks.memory import memory_plan

LARGEST = 20  # instructions that --breakdown shows


def main() -> None:
    """Prints one table."""
    command_line = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    command_line.add_argument("--config", default="configs/voc_train_half.py")
    command_line.add_argument("--topology", default="v5e:2x2", help="such as v5e:2x2 or h100")
    command_line.add_argument("--evaluation", action="store_true", help="its step instead")
    command_line.add_argument("--breakdown", action="store_true", help="traffic by part")
    command_line.add_argument("--text", metavar="FILE", help="where to write the program's text")
    bench.add_set(command_line)
    arguments = command_line.parse_args()
    try:
        accelerator = find_accelerator(arguments.topology)
        prepare(accelerator)
        show(arguments, accelerator)
    except PlanError as error:
        sys.exit(f"plan: {error}")


def read_config(arguments: argparse.Namespace, accelerator: Accelerator, num_devices: int) -> Any:
    """The config with its settings, checked for the number of devices.

    Raises:
      PlanError: it is none, or has a problem, such as batches that the devices cannot share.
    """
    from benchmarks.compile import load
    from rc2l_jax.run.config import ConfigError, validate

    path = Path(arguments.config)
    if not path.is_file():
        raise PlanError(f"--config={path}: no such file; the experiments are in configs/")
    try:
        config = load(path)
    except AttributeError as error:
        raise PlanError(f"--config={path}: has no get_config, or it fails ({error})") from None
    config = bench.apply_settings(config, arguments.set)
    if accelerator.platform == "cuda":
        config.matcher = "device"
    try:
        validate(config, num_devices, trains=not arguments.evaluation)
    except ConfigError as error:
        raise PlanError("; ".join(error.problems)) from None
    if not config.data.num_classes:
        raise PlanError("no data set is opened here: give --set data.num_classes=NUMBER")
    return config


def lower_training(config: Any, devices: Sequence[Any]) -> Any:
    """The training step of a config, lowered for devices."""
    import jax
    import numpy as np

    from rc2l_jax.method.optimizer import create_optimizer
    from rc2l_jax.method.state import initial_state
    from rc2l_jax.models.maskformer import build_model
    from rc2l_jax.structs import Batch
    from rc2l_jax.training.devices import parallel_train_step

    model, optimizer = build_model(config), create_optimizer(config)
    state = jax.eval_shape(lambda: initial_state(model, optimizer, config))
    side, unlabeled = config.data.crop_size, config.unlabeled_batch_size * (config.unsup_weight > 0)

    def array(images: int, dtype: Any, *channels: int) -> Any:
        shape = (len(devices), images // len(devices), side, side, *channels)
        return jax.ShapeDtypeStruct(shape, dtype)

    batch = Batch(
        image=array(config.batch_size, np.uint8, 3),
        label=array(config.batch_size, np.uint8),
        valid=array(config.batch_size, bool),
        unlabeled_image=array(unlabeled, np.uint8, 3),
        unlabeled_valid=array(unlabeled, bool),
        unlabeled_label=array(unlabeled, np.uint8),
    )
    return parallel_train_step(model, optimizer, config, devices).lower(state, batch)


def lower_evaluation(config: Any, devices: Sequence[Any]) -> Any:
    """The evaluation's step of a config, lowered for devices, on square images.

    Their side is `data.eval_short_edge`, or the crop's if that is 0.
    """
    import jax
    import numpy as np

    from rc2l_jax.evaluation.class_scores import InferenceOptions
    from rc2l_jax.evaluation.evaluate import parallel_eval_step
    from rc2l_jax.method.optimizer import create_optimizer
    from rc2l_jax.method.state import initial_state
    from rc2l_jax.models.maskformer import build_model
    from rc2l_jax.structs import STRIDE, EvalBatch, EvalView

    model, optimizer = build_model(config), create_optimizer(config)
    state = jax.eval_shape(lambda: initial_state(model, optimizer, config))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    side = config.data.eval_short_edge or config.data.crop_size
    lead = (len(devices), -(-config.eval_batch_size // len(devices)))

    def array(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((*lead, *shape), dtype)

    scaled = [STRIDE * -(-round(scale * side) // STRIDE) for scale in config.eval.scales]
    batch = EvalBatch(
        views=tuple(EvalView(array(np.uint8, s, s, 3), array(np.int32, 2)) for s in scaled),
        label=array(np.uint8, side, side),
        label_size=array(np.int32, 2),
        index=array(np.int32),
    )
    step = parallel_eval_step(model, InferenceOptions.from_config(config), tuple(devices))
    return step.lower(variables, batch)


def show(arguments: argparse.Namespace, accelerator: Accelerator) -> None:
    """Compiles and prints the table."""
    devices = find_devices(accelerator)
    config = read_config(arguments, accelerator, len(devices))
    lower = lower_evaluation if arguments.evaluation else lower_training
    start = time.perf_counter()
    lowered = lower(config, devices)
    middle = time.perf_counter()
    try:
        compiled = lowered.compile()
    except Exception as error:
        raise PlanError(f"does not compile: {str(error).splitlines()[0]}") from None
    seconds = middle - start, time.perf_counter() - middle
    text = compiled.as_text()
    if arguments.text:
        Path(arguments.text).write_text(text)
    program = programs.Program(text)
    instructions = program.instructions()
    kind = "evaluation" if arguments.evaluation else "training"
    print(bench.heading(f"{len(devices)} x {devices[0].device_kind}, not there", "jax", "jaxlib"))
    settings = f"; {' '.join(arguments.set)}" if arguments.set else ""
    print(f"{kind} step of {arguments.config}{settings}; figures of one device and one step")
    rows, summary = figures(compiled, config, accelerator, program, instructions)
    rows.insert(0, ("lowered, compiled", f"{seconds[0]:.0f} s, {seconds[1]:.0f} s"))
    print(bench.table(("", ""), rows))
    if arguments.breakdown:
        show_breakdown(instructions)
    print(summary)


def figures(
    compiled: Any,
    config: Any,
    accelerator: Accelerator,
    program: Any,
    instructions: list[Any],
) -> tuple[list[tuple[str, str]], str]:
    """The rows of the table, and its last line."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    planned = memory_plan(compiled)
    peak = getattr(memory, "peak_memory_in_bytes", 0) or planned["total"]
    # XLA tells neither of a GPU's program.
    flops = cost.get("flops") or programs.library_flops(instructions)
    counted = cost.get("bytes accessed", 0.0)
    traffic = sum(x.traffic * x.times for x in instructions)
    rate = accelerator.tflops.get(config.dtype)
    arithmetic = f"{flops / rate / 1e9:.1f} ms at {rate:g} TFLOP/s" if rate else "no rate known"
    calls, fusions = programs.kernels(instructions)
    exchanged = [
        f"{kind} {runs} ({size / 1e6:.1f} MB)"
        for kind, (runs, size) in programs.collectives(instructions).items()
    ]
    rows = [
        ("matcher, activations", f"{config.matcher}, {config.dtype}"),
        ("peak memory", f"{peak / GIB:.2f} of {accelerator.memory / GIB:.0f} GiB"),
        ("  arguments", f"{planned['argument'] / GIB:.2f} GiB"),
        ("  temporaries", f"{planned['temp'] / GIB:.2f} GiB"),
        ("arithmetic", f"{flops / 1e12:.2f} TFLOP"),
        ("  time at least", arithmetic),
        ("traffic with the memory", f"{traffic / GB:.1f} GB"),
        (
            "  time at least",
            f"{1000 * traffic / accelerator.bandwidth:.1f} ms at "
            f"{accelerator.bandwidth / GB:,.0f} GB/s",
        ),
        (
            "  XLA's count, the chip's own memory included",
            f"{counted / GB:.1f} GB" if counted else "-",
        ),
        ("library calls + fusions", f"{calls:,} + {fusions:,}"),
        ("host callbacks", str(programs.host_callbacks(instructions))),
        ("collectives", ", ".join(exchanged) or "none"),
    ]
    for kind, number in sorted(programs.products(program, instructions).items()):
        rows.append((kind, str(number)))
    summary = (
        f"peak: {peak / GIB:.2f} GiB, bytes: {traffic / GB:.1f} GB, kernels: {calls + fusions}"
    )
    return rows, summary


def show_breakdown(instructions: list[Any]) -> None:
    """Prints traffic by part, and the instructions that move the most."""
    total = sum(x.traffic * x.times for x in instructions)
    rows = [
        (part, f"{size / GB:.2f}", f"{100 * size / total:.1f} %", str(number))
        for part, (size, number) in programs.traffic_by_part(instructions).items()
    ]
    print(bench.table(("part", "GB", "share", "kernels"), rows))
    largest = sorted(instructions, key=lambda x: -x.traffic * x.times)[:LARGEST]
    rows = [
        (x.op, f"{x.traffic * x.times / GB:.2f}", str(x.times), x.result[:40], x.name[-70:])
        for x in largest
    ]
    print(bench.table(("instruction", "GB", "runs", "result", "from"), rows))


if __name__ == "__main__":
    main()
