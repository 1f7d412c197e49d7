"""`--mode=export`: writes a network of a run for other programs."""

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
      config: the run's config.
      workdir: the run directory.
      output: the folder to make.
      file_format: "huggingface" (for transformers) or "stablehlo".
      network: "teacher" or "student".
      step: the checkpoint's step; None for the newest.
      size: (H, W) of the images that a "stablehlo" program takes; None for the crop size.

    Returns:
      The folder, as an absolute path.

    Raises:
      ConfigError: the config is not valid.
      DataError: the run is an older one that keeps no class names, and its data set cannot be
        opened.
      CheckpointError: there is no such checkpoint, it cannot be read, or it is of another model.
      WeightsError: the folder is not empty or cannot be written, or transformers has no such model.
    """
    workdir, output = run_path(workdir), Path(output).expanduser().absolute()
    validate(config, num_devices=1)  # export needs no batches for devices to share
    _, step, networks, _ = restore_run(config, workdir, step)
    class_names = run_classes(workdir, config)
    if file_format == "huggingface":
        export_transformers(networks[network], config, class_names, output)
    else:
        size = size or (config.data.crop_size, config.data.crop_size)
        export_stablehlo(networks[network], config, class_names, output, size)
    say(f"{workdir}, step {step}, {network} -> {output} ({file_format})")
    return output
