"""Tells whoever imports a module by its former name, from before the folders, where it is now.

The package imports this module, which puts an import finder for the former names before all others:
a checkout may still have a former folder with compiled files in it, which Python would import.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence

# Former module of `rc2l_jax` -> the modules that now hold what it had.
MOVED = {
    "alarms": "reports.alarms",
    "augment": "method.color, method.cutmix and models.pixels (MASK_STRIDE: structs)",
    "bad_examples": "input_pipeline.bad_examples",
    "charts": "reports.class_charts and reports.style",
    "check": "training.check (describe_subsets: input_pipeline.subsets)",
    "checkpoints": "run.checkpoints",
    "class_balance": "method.class_alignment",
    "compare": "evaluation.compare",
    "compilation": "run.startup",
    "config": "run.config",
    "config_values": "run.config_values",
    "curves": "reports.run_curves",
    "diagnostics": "method.step_metrics",
    "distributed": "run.distributed",
    "eval_pipeline": "input_pipeline.eval_batches and input_pipeline.shape_groups",
    "evaluate": "evaluation.evaluate and evaluation.scores",
    "examples": "reports.examples",
    "exported": "weights.stablehlo",
    "host_augment": "input_pipeline.geometry",
    "host_decode": "input_pipeline.decode",
    "host_loader": "input_pipeline.loading, input_pipeline.order and input_pipeline.threads",
    "inference": "evaluation.class_scores and models.maskformer",
    "interruption": "run.interruption",
    "label_resolution": "evaluation.label_resolution",
    "loop": "training.loop and training.session",
    "losses": "method.losses",
    "matching": "method.matching",
    "metrics": "evaluation.confusion and training.averages",
    "networks": "prediction.network (run_config: run.stored_config)",
    "objective": "method.objective",
    "open_frames": "prediction.frames",
    "optimizer": "method.optimizer",
    "photos": "prediction.photos",
    "predict": "prediction.predict",
    "prediction_files": "prediction.files",
    "prediction_stream": "prediction.stream",
    "pretrained": "weights",
    "profiling": "training.profiling",
    "pseudo_labels": "training.pseudo_label_history",
    "ranking": "evaluation.ranking",
    "report": "reports.log, reports.writer, reports.history and reports.tables",
    "run_evaluation": "evaluation.evaluate_run",
    "rundir": "run.directory, run.stored_config and run.storage",
    "seeds": "reports.seed_curves",
    "segments": "method.segments, method.pseudo_segments and method.cutmix",
    "storage": "run.storage",
    "train": "training.train",
    "train_state": "method.state (EMA: method.teacher; pretrained_state: weights.load)",
    "train_step": "method.train_step, method.step_metrics and training.devices",
    "trained": "run.restore and weights.export",
    "views": "method.views, method.teacher, method.keys (parallel_views: training.devices)",
    "visualize": "reports.pictures and reports.examples",
    "windows": "evaluation.windows",
}


class _Former(importlib.abc.MetaPathFinder):
    """Raises ImportError for a module that has moved, and leaves all others to other finders."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> None:
        package, _, name = fullname.partition(".")
        name = name.partition(".")[0]
        if package == __package__ and name in MOVED:
            # Not ModuleNotFoundError: `from rc2l_jax import x` would not show its message.
            raise ImportError(
                f"rc2l_jax.{name} has moved to {MOVED[name]} (in rc2l_jax); CONTRIBUTING.md has a "
                "table of what moved where"
            )


if not any(type(finder).__name__ == _Former.__name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, _Former())
