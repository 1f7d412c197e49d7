"""Command line of rc2l_jax: flags -> config -> one call.

python main.py --config=configs/shapes.py --mode=check
python main.py --config=configs/shapes.py --workdir=runs/shapes

A run directory keeps its config, so --config can be left out; --config.KEY=VALUE overrides a key:

python main.py --workdir=runs/shapes
python main.py --workdir=runs/shapes --mode=eval --config.eval.flip=True
python main.py --workdir=runs/shapes --mode=predict --input=photos/ --output=out --step=best
python main.py --workdir=runs/shapes --mode=export --format=stablehlo --output=program
python main.py --workdir=runs/shapes --mode=suggest --input=photos/ --count=80 --output=suggested
python main.py --mode=compare --runs=supervised=runs/a,RC²L=runs/b --output=compared
"""

import contextlib
import os
import re
import sys
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from data.errors import DataError
from data.host_tf import tf  # noqa: F401 (keeps TensorFlow off the accelerators)
from rc2l_jax import __version__
from rc2l_jax.evaluation import evaluate_run
from rc2l_jax.evaluation.compare_runs import CompareError, compare_runs
from rc2l_jax.prediction.annotations import FORMATS as ANNOTATIONS
from rc2l_jax.prediction.predict import PredictError, predict_folder
from rc2l_jax.run import distributed, of_run
from rc2l_jax.run.checkpoints import CheckpointError
from rc2l_jax.run.config import ConfigError, is_known, unknown_key
from rc2l_jax.run.directory import chosen_step, run_path
from rc2l_jax.run.interruption import Interrupted
from rc2l_jax.run.restore import NETWORKS
from rc2l_jax.run.storage import StorageError
from rc2l_jax.run.stored_config import run_config
from rc2l_jax.suggestion.errors import SuggestError
from rc2l_jax.training import check, train
from rc2l_jax.training.loop import TrainingError
from rc2l_jax.weights import WeightsError
from rc2l_jax.weights.export import FORMATS, export_checkpoint

# Errors that a user can mend: they end the program with one line, no traceback, and this exit
# status, by which a scheduler can tell them apart.
EXIT_STATUS = {
    ConfigError: 1,
    DataError: 1,
    CheckpointError: 1,
    WeightsError: 1,
    PredictError: 1,
    SuggestError: 1,
    CompareError: 1,
    distributed.DistributedError: 1,
    TrainingError: 3,  # 4 is `distributed.PEER_FAILED`: another process had the error
    StorageError: 5,
    Interrupted: 75,  # EX_TEMPFAIL of sysexits.h: start the same command again
    KeyboardInterrupt: 130,  # 128 + SIGINT, the status that shells give
}
OF_RUN = Path(of_run.__file__)
MODES = ("train", "eval", "predict", "suggest", "export", "compare", "check", "prepare")
_OF_CHECKPOINTS = ("export", "predict", "suggest")
# Flags that other modes would ignore.
FLAGS_OF_MODES = {
    "step": ("eval", *_OF_CHECKPOINTS),
    "network": (*_OF_CHECKPOINTS, "compare"),
    "output": (*_OF_CHECKPOINTS, "compare"),
    **dict.fromkeys(("format", "size"), ("export",)),
    "allow_config_change": ("train",),
    **dict.fromkeys(("input", "annotations"), ("predict", "suggest")),
    "count": ("suggest",),
    **dict.fromkeys(("model", "probabilities", "overwrite", "resume"), ("predict",)),
    **dict.fromkeys(("runs", "images", "differing", "best", "data_dir"), ("compare",)),
}
# These modes need no config: --model may name a model without a run, and each compared run has one.
WITHOUT_CONFIG = ("predict", "compare")

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    help_string="File of the experiment, by default the run's own; --config.KEY=VALUE overrides a "
    "key of it.",
    # Unknown keys are let through here: validation reports them, with the nearest known key.
    lock_config=False,
    accept_new_attributes=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory; training goes on where it was.")
_VERSION = flags.DEFINE_bool("version", False, "Print the version and stop.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_STEP = flags.DEFINE_string(
    "step",
    None,
    "eval, export, predict, suggest: step of the checkpoint, or 'best' for the one that "
    "results.json calls best; the newest by default.",
)
_FORMAT = flags.DEFINE_enum("format", FORMATS[0], FORMATS, "export: for which program.")
_OUTPUT = flags.DEFINE_string("output", None, "export, predict, suggest, compare: folder to make.")
_NETWORK = flags.DEFINE_enum(
    "network", NETWORKS[0], NETWORKS, "export, predict, suggest, compare: which of the two."
)
_ALLOW_CONFIG_CHANGE = flags.DEFINE_bool(
    "allow_config_change", False, "train: go on with a run of another config."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of many processes, which find each other by the cluster's settings."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "One of many processes: HOST:PORT of the first; with the two below."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Their number.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "This one's, from 0.")
_SIZE = flags.DEFINE_list(
    "size", None, "export, stablehlo: height,width of the images; the crop size by default."
)
_INPUT = flags.DEFINE_string("input", None, "predict, suggest: an image, a folder or a glob.")
_COUNT = flags.DEFINE_integer("count", None, "suggest: how many photos to choose.")
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "predict, instead of --workdir: a folder that export wrote, or a MaskFormer of transformers "
    "(a folder, or a name on the Hugging Face hub).",
)
_PROBABILITIES = flags.DEFINE_bool(
    "probabilities", False, "predict: also write every class's share at every pixel."
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "predict: replace files of the same name in --output."
)
_RESUME = flags.DEFINE_bool(
    "resume", False, "predict: go on in --output with the images that have no results there."
)
_ANNOTATIONS = flags.DEFINE_enum(
    "annotations",
    None,
    [*ANNOTATIONS],
    "predict, suggest: for which labelling tool, to correct the masks.",
)

_RUNS = flags.DEFINE_list("runs", None, "compare: NAME=RUN,NAME=RUN, run directories by name.")
_IMAGES = flags.DEFINE_integer("images", 4, "compare: rows of the grid; 0 for no grid.")
_DIFFERING = flags.DEFINE_bool(
    "differing", False, "compare: show the images on which the runs differ most, not the first."
)
_BEST = flags.DEFINE_bool("best", False, "compare: each run's best evaluation, not its newest.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", "", "compare: where the data set is now, if not where the runs had it."
)


def main(argv: list[str]) -> None:
    """Checks the flags, runs one mode, and turns errors into one line and an exit status."""
    if len(argv) > 1:
        hint = "; put a glob in quotes: --input='photos/*.jpg'" if _INPUT.value else ""
        fail(f"unknown argument {argv[1]!r}: flags start with --{hint}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)  # TFDS and Orbax log every step
    config, mode, workdir = _CONFIG.value, _MODE.value, _WORKDIR.value
    for name, modes in FLAGS_OF_MODES.items():
        if flags.FLAGS[name].present and mode not in modes:
            fail(f"--{name} is for --mode={' or '.join(modes)}, and not for {mode}")
    if mode in ("train", "eval", "export") and not workdir:
        fail("--workdir is missing: the directory where the run is kept")
    if mode in ("export", "predict", "suggest") and not _OUTPUT.value:
        fail("--output is missing: the folder to make")
    try:
        join_others()
        with distributed.shared_fate(exit_status):
            run(config, mode, workdir)
    except KeyboardInterrupt as error:  # where they can, modes raise Interrupted instead
        resumable = mode == "predict" and not _OVERWRITE.value
        hint = ": with --resume the same command goes on" if resumable else ""
        leave(f"stopped{hint}", exit_status(error))
    except tuple(EXIT_STATUS) as error:
        if isinstance(error, Interrupted):
            leave(f"stopped by {error}: start the same command again", exit_status(error))
        # At a normal exit, threads that write would print their errors after this one.
        if isinstance(error, StorageError):
            leave(f"error: {error}", exit_status(error))
        fail(str(error), exit_status(error))


def join_others() -> None:
    """Joins this process to the other processes of the run, if the flags say that there are any."""
    given = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    if _DISTRIBUTED.value or any(value is not None for value in given):
        distributed.initialize(*given)


def run(config: ConfigDict | None, mode: str, workdir: str | None) -> None:
    """Calls the function of one mode with what the flags say."""
    if mode == "train":
        train.train_and_evaluate(config, workdir, allow_config_change=_ALLOW_CONFIG_CHANGE.value)
    elif mode == "eval":
        evaluate_run.evaluate_checkpoint(config, workdir, chosen_step(workdir, _STEP.value))
    elif mode == "export":
        export(config, workdir)
    elif mode == "predict":
        predict(config, workdir)
    elif mode == "suggest":
        suggest(config, workdir)
    elif mode == "compare":
        compare()
    else:
        {"check": check.check, "prepare": check.prepare}[mode](config)


def export(config: ConfigDict, workdir: str) -> None:
    """Exports one network of a run for another program, as the flags say."""
    size = _SIZE.value
    if size is not None:
        if len(size) != 2 or not all(side.isdigit() and int(side) > 0 for side in size):
            fail(f"--size={','.join(size)}: give height,width in pixels, such as --size=512,512")
        size = int(size[0]), int(size[1])
    export_checkpoint(
        config,
        workdir,
        _OUTPUT.value,
        file_format=_FORMAT.value,
        network=_NETWORK.value,
        step=chosen_step(workdir, _STEP.value),
        size=size,
    )


def predict(config: ConfigDict | None, workdir: str | None) -> None:
    """Predicts images, as the flags say."""
    if not _INPUT.value:
        fail("--input is missing: an image, a folder of images or a glob")
    if bool(_MODEL.value) == bool(workdir):
        fail("give the network: either --workdir=RUN or --model=FOLDER_OR_NAME")
    if _MODEL.value and (_STEP.present or flags.FLAGS["network"].present):
        fail("--step and --network choose among a run's: leave them out with --model")
    predict_folder(
        _INPUT.value,
        _OUTPUT.value,
        model=_MODEL.value or "",
        workdir=workdir or "",
        config=config,
        network=_NETWORK.value,
        step=chosen_step(workdir, _STEP.value) if workdir else None,
        probabilities=_PROBABILITIES.value,
        overwrite=_OVERWRITE.value,
        resume=_RESUME.value,
        annotations=_ANNOTATIONS.value,
    )


def suggest(config: ConfigDict, workdir: str | None) -> None:
    """Suggests photos to label next, as the flags say."""
    from rc2l_jax.suggestion.suggest import suggest_photos  # here: scikit-learn takes a second

    if not _INPUT.value:
        fail("--input is missing: the photos to choose from, a folder or a glob")
    if _COUNT.value is None:
        fail("--count is missing: how many photos to choose, such as --count=80")
    suggest_photos(
        _INPUT.value,
        _OUTPUT.value,
        count=_COUNT.value,
        config=config,
        workdir=workdir or "",
        network=_NETWORK.value,
        step=chosen_step(workdir, _STEP.value) if workdir else None,
        annotations=_ANNOTATIONS.value,
    )


def compare() -> None:
    """Compares runs, as the flags say."""
    if not _RUNS.value:
        fail("--runs is missing: the runs to compare, such as --runs=supervised=runs/a,RC²L=runs/b")
    compare_runs(
        _RUNS.value,
        _OUTPUT.value,
        network=_NETWORK.value,
        best=_BEST.value,
        images=_IMAGES.value,
        differing=_DIFFERING.value,
        data_dir=_DATA_DIR.value,
    )


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags and returns the other arguments; a wrong flag is reported in one line."""
    try:
        argv = with_config_of_run(argv)
        rest = flags.FLAGS(argv)
        if _VERSION.value:
            print(f"rc2l_jax {__version__}")
            sys.exit(0)
        if _CONFIG.value is None and _MODE.value in WITHOUT_CONFIG:
            return rest
        if _CONFIG.value is None:
            fail(no_config())
        _CONFIG.value.keys()  # ml_collections reports a file it cannot load only at this first use
    except flags.UnrecognizedFlagError as error:
        hint = f"; did you mean --config.{error.flagname}?" if is_known(error.flagname) else ""
        fail(f"{error}{hint}")
    except (flags.Error, OSError, ImportError, SyntaxError, CheckpointError) as error:
        fail(str(error).strip().splitlines()[-1].strip())
    except LookupError:  # --config.a.b=... where the config has no a
        overrides = [re.match(r"--?(?:no)?config\.([^=]+)", argument) for argument in argv]
        unknown = [match[1] for match in overrides if match and not is_known(match[1])]
        if not unknown:
            raise
        fail(f"config: {unknown_key(unknown[0])}")
    return rest


def no_config() -> str:
    """The message if there is neither --config nor a run directory that keeps one."""
    missing = "--config is missing: the file of an experiment, such as configs/shapes.py"
    if not _WORKDIR.value:
        return f"{missing} (or --workdir=RUN: a run knows its own)"
    return f"--workdir={_WORKDIR.value} is no run (it has no config.json), and {missing}"


def with_config_of_run(argv: list[str]) -> list[str]:
    """Adds the run's own --config if it is left out, and moves --config to the front."""
    given = next((x for x in argv if re.match(r"--?config(=|$)", x)), None)
    if given is not None:
        name = given.partition("=")[2].partition(":")[0]
        if name.endswith(".json"):
            fail(f"{given} is a record, not an experiment's file: give its folder as --workdir")
        if name and not Path(name).is_file():
            fail(f"{given}: no such file; the experiments are in configs/")
        at = argv.index(given)
        end = at + (1 if "=" in given else 2)
        return with_config_first(argv[0], argv[at:end], [*argv[1:at], *argv[end:]])
    flags.FLAGS(argv, known_only=True)
    if not _WORKDIR.value or not (run_path(_WORKDIR.value) / "config.json").exists():
        if any(re.match(r"--?(no)?config\.", x) for x in argv):
            fail(no_config())
        return argv
    run_config(run_path(_WORKDIR.value))  # raises CheckpointError, one line, if it cannot be read
    return with_config_first(argv[0], [f"--config={OF_RUN}:{_WORKDIR.value}"], argv[1:])


def with_config_first(program: str, config: list[str], others: list[str]) -> list[str]:
    """Puts --config before all other arguments, in `sys.argv`, and returns them."""
    # ml_collections reads the --config.KEY=VALUE overrides from sys.argv, and refuses them if they
    # come before --config.
    sys.argv = [program, *config, *others]
    return sys.argv


def exit_status(error: BaseException) -> int:
    """Returns the exit status for an error; 1 if it is none of `EXIT_STATUS`."""
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return next((code for kind, code in EXIT_STATUS.items() if isinstance(error, kind)), 1)


def fail(message: str, status: int = 1) -> None:
    """Ends the program with a message and without a traceback."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def leave(message: str, status: int) -> None:
    """Ends the program at once, without waiting for threads: their disk may never answer."""
    print(message, file=sys.stderr)
    if jax.process_count() > 1:
        with contextlib.suppress(Exception):  # the other processes may be gone already
            jax.distributed.shutdown()
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
