"""Cold and warm start: how long a training or evaluation step compiles, and how often.

    python benchmarks/compile.py --full                 # a GPU: configs/voc_train_half.py
    python benchmarks/compile.py --device=cpu           # the quickstart's model, configs/shapes.py
    python benchmarks/compile.py --config=configs/camvid_eighth.py --matchers host
    python benchmarks/compile.py --device=cpu --evaluation

For each matcher (or once for the evaluation, which needs no matcher) one process takes some steps
on generated images with an empty compilation cache, and a second process does the same with the
cache that the first one left. Columns, in seconds unless said:

    state           making the state of step 0, which is compiled, too
    trace, lower, compile   of the first step, as JAX reports them; compiling, or reading the cache
    first step      all of the first step
    its CPU         the same in seconds of all cores: on a busy machine it says more than the clock
    later, ms       the median later step (the fastest)

It is an error if a later step compiles anything. Runs without TensorFlow.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bench

STEPS = 21  # the first, and those that show what a step costs
EVALUATION = "evaluation"
CONFIG, FULL_CONFIG = "configs/shapes.py", "configs/voc_train_half.py"
# JAX's events -> the table's columns.
DURATIONS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}
CACHE_HIT = "/jax/compilation_cache/cache_hits"


def main() -> None:
    """Prints one table."""
    command_line = bench.parser(__doc__)
    command_line.add_argument("--config", help=f"file of the model and batch; {CONFIG} by default")
    command_line.add_argument("--full", action="store_true", help=f"the paper's: {FULL_CONFIG}")
    command_line.add_argument("--matchers", nargs="*", default=["host", "device"])
    command_line.add_argument(
        "--evaluation", action="store_true", help="the evaluation's step instead of the training's"
    )
    bench.add_set(command_line)
    arguments = command_line.parse_args()
    arguments.config = arguments.config or (FULL_CONFIG if arguments.full else CONFIG)
    if arguments.case:
        bench.choose_platform(arguments.device)
        print(json.dumps(measure(arguments)))
        return
    cases = [EVALUATION] if arguments.evaluation else arguments.matchers
    show(arguments, {case: cold_and_warm(case) for case in cases})


def cold_and_warm(case: str) -> list[dict[str, Any]]:
    """Results of two processes, one after the other; the second has the first one's cache.

    Args:
      case: a matcher, or `EVALUATION`.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {"JAX_COMPILATION_CACHE_DIR": folder}
        return [bench.in_a_process(case, **environment) for _ in range(2)]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Takes the steps; returns the first one's times, and the number of compilations by step."""
    import jax

    start = time.perf_counter()
    take_step = evaluation_step(arguments) if arguments.evaluation else training_step(arguments)
    first = {"state": time.perf_counter() - start}
    spent: dict[str, float] = dict.fromkeys(DURATIONS.values(), 0.0)
    number: Counter[str] = Counter()

    def on_duration(event: str, seconds: float, **_: Any) -> None:
        if name := DURATIONS.get(event):
            # The longest trace is the step's, which includes those of the functions that it calls.
            spent[name] = max(spent[name], seconds) if name == "trace" else spent[name] + seconds
            number[name] += 1

    def on_event(event: str, **_: Any) -> None:
        number["hits"] += event == CACHE_HIT

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    compilations, times, before = [], [], cpu_seconds()
    for _ in range(STEPS):
        times += bench.seconds(lambda: jax.block_until_ready(take_step()), rounds=1, warm_up=0)
        if not compilations:
            first |= {**spent, "first step": times[0], "its CPU": cpu_seconds() - before}
        compilations.append(number["compile"] - sum(compilations))
    if any(compilations[1:]):
        raise SystemExit(f"compilations by step: {compilations}; the later ones should have none")
    return {
        "device": bench.device_name(),
        "first": first,
        "later": bench.milliseconds(times[1:]),
        "compilations": [compilations[0], sum(compilations[1:])],
        "hits": number["hits"],
    }


def cpu_seconds() -> float:
    """CPU time of this process so far, of all cores together."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def training_step(arguments: argparse.Namespace) -> Callable[[], Any]:
    """A function that takes the next training step of the config's model, on generated images."""
    import jax

    from benchmarks.generated import generated_batch
    from rc2l_jax.method.state import create_train_state
    from rc2l_jax.training.devices import parallel_train_step, replicate

    config = bench.apply_settings(load(Path(arguments.config)), arguments.set)
    config.matcher = arguments.case
    model, optimizer, state = create_train_state(config)
    step = parallel_train_step(model, optimizer, config)
    unlabeled = config.unlabeled_batch_size if config.unsup_weight else 0
    batch = generated_batch(config.data.crop_size, config.batch_size, unlabeled)
    now = [jax.block_until_ready(replicate(state, 1))]

    def take_step() -> Any:
        now[0], metrics = step(now[0], batch)
        return metrics

    return take_step


def evaluation_step(arguments: argparse.Namespace) -> Callable[[], Any]:
    """A function that evaluates the config's untrained model on a batch of generated images."""
    import jax

    from benchmarks.generated import generated_eval_batch
    from rc2l_jax.evaluation.evaluate import evaluate
    from rc2l_jax.method.state import create_train_state

    config = bench.apply_settings(load(Path(arguments.config)), arguments.set)
    model, _, state = create_train_state(config)
    networks = {"student": {"params": state.params, "batch_stats": state.batch_stats}}
    batch = generated_eval_batch(config.data.crop_size, config.eval_batch_size)
    jax.block_until_ready(networks)
    return lambda: evaluate(model, networks, [batch], config)


def load(path: Path) -> Any:
    """The config of a config file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def show(arguments: argparse.Namespace, results: dict[str, list[dict[str, Any]]]) -> None:
    """Prints the table."""
    print(bench.heading(next(iter(results.values()))[0]["device"], "jax", "jaxlib"))
    settings = f"; {' '.join(arguments.set)}" if arguments.set else ""
    kind = "evaluation" if arguments.evaluation else "training"
    print(f"{kind} step of {arguments.config}{settings}; seconds")
    names = ("state", *DURATIONS.values(), "first step", "its CPU")
    columns = (
        "step" if arguments.evaluation else "matcher",
        "cache",
        *names,
        "later, ms",
        "from the cache",
        "compilations",
    )
    rows = []
    for case, processes in results.items():
        for cache, result in zip(("empty", "warm"), processes):
            cells = [f"{result['first'][name]:.1f}" for name in names]
            hits = f"{result['hits']} of {sum(result['compilations'])}"
            by_step = " + ".join(map(str, result["compilations"]))
            rows.append((case, cache, *cells, result["later"], hits, by_step))
    print(bench.table(columns, rows))


if __name__ == "__main__":
    main()
