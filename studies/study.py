"""Runs the cells of a study, each in a run directory, and makes tables and figures of them.

    python studies/study.py --study=configs/studies/camvid.py --output=runs/camvid --jobs=2
    python studies/study.py --study=configs/studies/camvid.py --output=runs/camvid --tables=terms
    python studies/study.py --study=configs/studies/camvid.py --output=runs/camvid --report
    python studies/study.py --study=configs/studies/camvid.py --output=runs/camvid --figures

A study is a config file with two more things: `get_config(cell)` takes the name of a cell,
METHOD-PARTITION-SEED, and `TABLES` lists the cells of each table. With `CLASS_GROUPS` the report
has the mean IoU of each of these groups of classes as well. A cell that was stopped continues
where it stopped, a finished one is not run again, and a cell of several tables is run once. Flags
after -- go to main.py: `-- --config.data.dir=DIR`.

Ctrl-C stops all cells, each with a checkpoint. A cell that is told to stop by somebody else stops
the others, too. In both cases the exit status is 75, and the same command continues. --report
prints the finished cells' tables as Markdown, and nothing else to standard output; --figures writes
pictures to OUTPUT/figures.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parents[1]))

from rc2l_jax.reports.history import read_evaluations
from rc2l_jax.reports.tables import describe
from studies import study_figures, study_report

ROOT = Path(__file__).parents[1]
STOPPED = 75  # exit status of main.py, and of a study: start the same command again


def main() -> None:
    """Runs the cells that are missing, or reports."""
    arguments = parse()
    if arguments.jobs < 1:
        raise SystemExit(f"error: --jobs={arguments.jobs}: run at least one cell at a time")
    study, output = load(arguments.study), arguments.output
    unknown = set(filter(None, arguments.tables.split(","))) - set(study.TABLES)
    if unknown:
        raise SystemExit(
            f"error: --tables={', '.join(unknown)}: the study has {', '.join(study.TABLES)}"
        )
    wanted = arguments.tables.split(",") if arguments.tables else list(study.TABLES)
    tables = {name: study.TABLES[name] for name in wanted}
    if arguments.report or arguments.figures:
        report(arguments, study, tables)
        return
    names = study_report.names_of(tables)
    missing = [name for name in names if not finished(output / name, arguments.flags)]
    for line in shortened(study, [name for name in names if name not in missing], output):
        print(line, file=sys.stderr)
    for number in (signal.SIGTERM, signal.SIGHUP):  # like Ctrl-C, unless ignored (nohup does so)
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    run_all(arguments.study, missing, output, arguments.jobs, arguments.flags)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def absolute(text: str) -> Path:
        return Path(text).expanduser().absolute()

    parser.add_argument("--study", type=absolute, required=True, help="file in configs/studies/")
    parser.add_argument(
        "--output", type=absolute, required=True, help="folder of the run directories"
    )
    parser.add_argument("--tables", default="", help="comma-separated; all by default")
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at a time, on equal shares of cores"
    )
    parser.add_argument("--report", action="store_true", help="print the tables so far, and stop")
    parser.add_argument(
        "--figures", action="store_true", help="draw the tables so far to OUTPUT/figures, and stop"
    )
    parser.add_argument("flags", nargs="*", help="for main.py, after --")
    return parser.parse_args()


def load(path: Path) -> ModuleType:
    """Imports a study's file."""
    usable = "those here are in configs/studies/"
    if not path.is_file():
        raise SystemExit(f"error: --study={path}: no such file; {usable}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "TABLES"):
        raise SystemExit(f"error: --study={path} is no study: it has no TABLES; {usable}")
    return module


def report(arguments: argparse.Namespace, study: ModuleType, names: study_report.Tables) -> None:
    """Prints or draws the tables of the finished cells."""
    output = arguments.output
    tables = study_report.read_tables(names, output)
    if not tables:
        raise SystemExit(
            f"error: no cell of {', '.join(names)} is finished in {output}: run the study first, "
            "or give another --output"
        )
    baselines = study_report.read_baselines(study.TABLES, output)
    done = [f"{c.method}-{c.partition}-{c.seed}" for cells in tables.values() for c in cells]
    for line in shortened(study, list(dict.fromkeys(done)), output):
        print(line, file=sys.stderr)
    if arguments.report:
        groups = getattr(study, "CLASS_GROUPS", None)
        print(study_report.report(tables, baselines, groups))
    if arguments.figures:
        title, folder = arguments.study.stem, output / "figures"
        for path in study_figures.write_figures(folder, title, tables, baselines):
            print(path, file=sys.stderr)


def finished(workdir: Path, flags: list[str]) -> bool:
    """Whether a cell has done all steps of its own config, and as many as the flags ask for."""
    cell, prefix = study_report.read_cell(workdir), "--config.num_steps="
    asked = [flag.removeprefix(prefix) for flag in flags if flag.startswith(prefix)]
    steps = int(asked[-1]) if asked and asked[-1].isdigit() else 0
    return cell is not None and cell.last["step"] >= steps


def shortened(study: ModuleType, names: list[str], output: Path) -> list[str]:
    """A line for each finished cell whose number of steps is not that of the study's file."""
    lines = []
    for name in names:
        steps = study_report.read_cell(output / name).config["num_steps"]
        usual = study.get_config(name).num_steps
        if steps != usual:
            remedy = f"-- --config.num_steps={usual} trains it on" if steps < usual else ""
            lines.append(f"note: {name} has {steps} steps and not {usual}; {remedy}".rstrip("; "))
    return lines


class Processes:
    """The processes of the cells that run now. After `stop` it starts no more of them."""

    def __init__(self) -> None:
        """Starts without processes."""
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def run(self, command: list[str], log: Path) -> int:
        """Runs a command to its end; returns its status, or `STOPPED` if it was not started."""
        with log.open("a") as file:
            with self._lock:
                if self.stopped:
                    return STOPPED
                # A session of its own, so that it gets our SIGTERM and not the terminal's Ctrl-C.
                process = subprocess.Popen(
                    command, stdout=file, stderr=file, start_new_session=True
                )
                self._running.add(process)
            status = process.wait()
            with self._lock:
                self._running.discard(process)
        return status

    def stop(self, *, kill: bool = False) -> None:
        """Tells all processes to stop with a checkpoint, or kills them at once."""
        with self._lock:
            self.stopped = True
            for process in self._running:
                process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)


def run_all(study: Path, cells: list[str], output: Path, jobs: int, flags: list[str]) -> None:
    """Runs cells, `jobs` at a time; ends with an error that names those that failed."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shares = [set(cores[i::jobs]) or set(cores) for i in range(jobs)]
    waiting, failed, processes = iter(cells), [], Processes()

    def work(share: set[int]) -> None:
        if share:  # sets this thread's cores, which the processes that it starts inherit
            os.sched_setaffinity(0, share)
        for cell in waiting:  # all threads take cells from this one iterator
            if processes.stopped:
                return
            status = run_cell(processes, study, cell, output / cell, flags)
            if status == STOPPED and not processes.stopped:
                processes.stop()
            if status and not processes.stopped:
                failed.append(f"{cell} (status {status}, see {output / cell}.log)")

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        workers = [pool.submit(work, share) for share in shares]
        wait_for(workers, processes)
    for worker in workers:
        worker.result()
    if failed:
        print(f"not finished: {', '.join(failed)}", file=sys.stderr)
    if processes.stopped:
        print("stopped: start the same command again, and it goes on", file=sys.stderr)
    if failed or processes.stopped:
        raise SystemExit(STOPPED if processes.stopped else 1)


def wait_for(workers: list[concurrent.futures.Future], processes: Processes) -> None:
    """Waits for all workers. Ctrl-C stops the cells; a second one kills them at once."""
    interrupts = 0
    while True:
        try:
            concurrent.futures.wait(workers)
            return
        except KeyboardInterrupt:
            interrupts += 1
            processes.stop(kill=interrupts > 1)


def run_cell(processes: Processes, study: Path, cell: str, workdir: Path, flags: list[str]) -> int:
    """Trains one cell with main.py, whose output is appended to WORKDIR.log."""
    workdir.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "main.py"), f"--config={study}:{cell}"]
    command += [f"--workdir={workdir}", *flags]
    status = processes.run(command, Path(f"{workdir}.log"))
    said = "stopped" if processes.stopped or status == STOPPED else f"status {status}"
    last = read_evaluations(workdir)[-1:] if not status else []
    for line in last:
        said = describe({n: {"miou": line[f"{n}_miou"]} for n in ("student", "teacher")})
    # One write. `print` writes the line's end separately, which would mix lines of several cells.
    sys.stdout.write(f"{cell}: {said}\n")
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    main()
