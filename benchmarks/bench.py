"""What the benchmarks share: choosing a device, starting processes, timing, and tables."""

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
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

# The host matcher needs the CPU's backend beside the accelerator's.
PLATFORMS = {"cpu": "cpu", "cuda": "cuda,cpu"}


def parser(description: str) -> argparse.ArgumentParser:
    """A command line with --device, and the hidden --case of `in_a_process`."""
    result = argparse.ArgumentParser(description=description.splitlines()[0])
    result.add_argument("--device", choices=PLATFORMS, default="cuda")
    result.add_argument("--case", help=argparse.SUPPRESS)
    return result


def add_set(command_line: argparse.ArgumentParser) -> None:
    """Adds --set KEY=VALUE ..., which `apply_settings` reads."""
    command_line.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="config values"
    )


def apply_settings(config: ConfigDict, settings: Sequence[str]) -> ConfigDict:
    """Sets "KEY=VALUE" texts in a config; values are Python literals, or else texts."""
    for setting in settings:
        key, _, text = setting.partition("=")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        config.update_from_flattened_dict({key: value})
    return config


def in_a_process(case: str, **environment: str) -> Any:
    """Runs this benchmark again, with --case, in a process of its own.

    In a single process the threads of two libraries would disturb each other, and the peak memory
    of one case would hide that of the next.

    Args:
      case: what to measure.
      **environment: variables to add to the environment.

    Returns:
      The last line that the process printed, parsed as JSON.
    """
    command = [sys.executable, *sys.argv, f"--case={case}"]
    answer = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    ).stdout
    return json.loads(answer.splitlines()[-1])


def choose_platform(device: str) -> None:
    """Tells JAX which device to use. Must be called before JAX is imported."""
    os.environ.setdefault("JAX_PLATFORMS", PLATFORMS[device])


def device_name() -> str:
    """The name of the device that JAX computes on; for a CPU, its model."""
    import jax

    kind = jax.devices()[0].device_kind
    return processor() if kind == "cpu" else kind


def processor() -> str:
    """The CPU's model, as Linux tells it; elsewhere what Python knows of it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "CPU"


def heading(device: str, *packages: str) -> str:
    """The first line of every table: device, cores and versions."""
    versions = [f"{name} {metadata.version(name)}" for name in packages]
    python = platform.python_version()
    return f"{device}, {os.cpu_count()} CPU cores; Python {python}, {', '.join(versions)}"


def seconds(call: Callable[[], Any], rounds: int, warm_up: int = 1) -> list[float]:
    """Seconds of each of `rounds` calls, after `warm_up` others. `call` must wait for its work."""
    times = []
    for _ in range(warm_up + rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times[warm_up:]


def milliseconds(times: Sequence[float]) -> str:
    """Median and fastest, "12.3 (11.9)"."""
    digits = 0 if min(times) >= 0.1 else 1 if min(times) >= 0.01 else 2
    median, fastest = (1000 * x for x in (statistics.median(times), min(times)))
    return f"{median:.{digits}f} ({fastest:.{digits}f})"


def mebibytes(size: int | None) -> str:
    """Bytes as MiB; "-" for None."""
    return "-" if size is None else f"{size / 2**20:,.0f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in columns: the first is aligned left, the others right."""
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )
