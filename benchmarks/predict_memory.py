"""The largest memory of `--mode=predict` on photos of 20 megapixels, four in a row.

    python benchmarks/predict_memory.py --output=runs/predict_memory --device=cpu
    python benchmarks/predict_memory.py --output=runs/predict_memory --device=cpu --probabilities

Draws the photos, exports an untrained network, and runs main.py on them. Needs Linux.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bench, generated_files

ROOT = Path(__file__).parents[1]
_SIZE = (4000, 5000)
_COUNT = 4
_CLASSES = 21


def main() -> None:
    """Prints the largest resident memory of one command."""
    command_line = bench.parser(__doc__)
    command_line.add_argument("--output", type=Path, required=True, help="folder to make")
    command_line.add_argument("--backbone", default="resnet18")
    command_line.add_argument("--probabilities", action="store_true")
    arguments = command_line.parse_args()
    if arguments.output.exists():
        sys.exit(f"{arguments.output} exists: name a new folder")
    if arguments.case:
        export(arguments)
        return
    bench.in_a_process("export")
    peak = predict(arguments)
    print(
        f"{arguments.backbone}, {_COUNT} photos of {_SIZE[0] * _SIZE[1] / 1e6:.0f} megapixels, "
        f"{_CLASSES} classes{', probabilities' * arguments.probabilities}, "
        f"{len(os.sched_getaffinity(0))} cores: {peak / 2**30:.2f} GiB"
    )


def export(arguments: argparse.Namespace) -> None:
    """Writes the photos, and random weights as a folder of `transformers`."""
    bench.choose_platform(arguments.device)
    import jax

    from configs import base
    from rc2l_jax.models import abstract_variables, build_model
    from rc2l_jax.weights.to_transformers import export_transformers

    config = base.get_config()
    config.model.backbone, config.data.num_classes = arguments.backbone, _CLASSES
    shapes, rng = abstract_variables(build_model(config)), np.random.default_rng(0)
    weights = jax.tree.map(lambda leaf: rng.uniform(0, 0.02, leaf.shape).astype("f4"), shapes)
    names = tuple(f"class {i}" for i in range(_CLASSES))
    export_transformers(weights, config, names, arguments.output / "network")
    (arguments.output / "photos").mkdir()
    for i in range(_COUNT):
        picture = Image.fromarray(generated_files.picture(i, _SIZE))
        picture.save(arguments.output / "photos" / f"{i}.jpg", quality=generated_files.QUALITY)
    print("null")


def predict(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its largest resident memory in bytes."""
    output = arguments.output.absolute()
    command = [sys.executable, "main.py", "--mode=predict", f"--model={output / 'network'}"]
    command += [f"--input={output / 'photos'}", f"--output={output / 'predicted'}"]
    command += ["--probabilities"] * arguments.probabilities
    platforms = os.environ | {"JAX_PLATFORMS": bench.PLATFORMS[arguments.device]}
    process = subprocess.Popen(command, cwd=ROOT, env=platforms)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
