"""`--mode=export`: a network of a run, for other programs."""

from __future__ import annotations

from pathlib import Path

from etils import epath
from ml_collections import ConfigDict

from rc2l_jax.reports.log import say
from rc2l_jax.run.config import validate
from rc2l_jax.run.directory import run_path
from rc2l_jax.run.restore import restore_run, run_classes
from rc2l_jax.weights.stablehlo import export_stablehlo
from rc2l_jax.weights.to_transformers import export_transformers

FORMATS = ("huggingface", "stablehlo")


def export_checkpoint(
    config: ConfigDict,
    workdir: epath.PathLike,
    output: str | Path,
    *,
    file_format: str,
    network: str = "teacher",
    step: int | None = None,
    size: tuple[int, int] | None = None,
) -> Path:
    """Writes one network of a run for other programs.

    Args:
      config: the run's.
      workdir: the run directory.
      output: the folder to make.
      file_format: one of `FORMATS`.
      network: one of `NETWORKS`.
      step: which checkpoint; the newest if None.
      size: "stablehlo": (H, W) of the images; the crop size if None.

    Raises:
      ConfigError: the config cannot be used.
      DataError: see `run_classes`.
      CheckpointError: see `restore_run`.
      WeightsError: the folder is not empty, or the format has no such model.
    """
    workdir, output = run_path(workdir), Path(output).expanduser().absolute()
    validate(config, num_devices=1)  # no batch is shared
    _, step, networks, _ = restore_run(config, workdir, step)
    class_names = run_classes(workdir, config)
    if file_format == "huggingface":
        export_transformers(networks[network], config, class_names, output)
    else:
        size = size or (config.data.crop_size, config.data.crop_size)
        export_stablehlo(networks[network], config, class_names, output, size)
    say(f"{workdir}, step {step}, {network} -> {output} ({file_format})")
    return output
