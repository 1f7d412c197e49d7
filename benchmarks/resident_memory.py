"""Resident memory of a training run, step by step: it must not grow.

    python benchmarks/resident_memory.py --output=runs/memory     # the quickstart, 2,000 steps
    python benchmarks/resident_memory.py --output=runs/steps -- --config.eval_every_steps=2000

The second command has no evaluations and pictures before the end. At each progress line the memory
of the run is read from Linux's /proc. A run directory that exists already is refused.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bench

ROOT = Path(__file__).parents[1]
_STEP = re.compile(r" step (\d+)/\d+ ")


def main() -> None:
    """Prints memory by step, and how much a thousand steps add after the warm-up."""
    command_line = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    command_line.add_argument("--output", type=Path, required=True, help="run directory to make")
    command_line.add_argument("--steps", type=int, default=2_000)
    command_line.add_argument("--config", default="configs/shapes.py")
    command_line.add_argument("flags", nargs="*", help="for main.py, after --")
    arguments = command_line.parse_args()
    if arguments.output.exists():
        sys.exit(f"{arguments.output} exists: name a new folder, for the run starts anew")
    samples = measure(arguments)
    steps, memory = np.array(samples).T
    rows = [(f"{step:.0f}", f"{mib:.0f}") for step, mib in samples[:: max(len(samples) // 20, 1)]]
    print(bench.table(("step", "resident MiB"), rows))
    warm = steps > arguments.steps / 4
    slope = np.polyfit(steps[warm], memory[warm], 1)[0] * 1_000
    low, high = memory[warm].min(), memory[warm].max()
    print(
        f"after a quarter of {arguments.steps} steps: {low:.0f} to {high:.0f} MiB; "
        f"line through them: {slope:+.1f} MiB in 1,000 steps"
    )


def measure(arguments: argparse.Namespace) -> list[tuple[int, float]]:
    """Trains; returns (step, resident MiB) at each progress line."""
    command = [sys.executable, "main.py", f"--config={arguments.config}"]
    command += [f"--workdir={arguments.output.absolute()}", f"--config.num_steps={arguments.steps}"]
    command += arguments.flags
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    samples = []
    for line in process.stdout:
        if found := _STEP.search(line):
            samples.append((int(found[1]), resident_mib(process.pid)))
    if process.wait():
        sys.exit(process.returncode)
    return samples


def resident_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    main()
