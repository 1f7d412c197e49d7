"""Time and memory of reading a full-size checkpoint, writing it out again, and predicting with it.

    python benchmarks/convert_checkpoint.py
    python benchmarks/convert_checkpoint.py --backbone=swin_base --sharded

transformers writes a random MaskFormer (100 queries, 171 classes, as for COCO-Stuff), and the same
as a .pth file. Then a new process reads it into the model of `configs/voc_train_half.py`, writes
that out, and predicts a random image of 512 x 512 with what it wrote, twice, since the first time
compiles. Two more processes read the .pth file, with our reader and with torch's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

NUM_QUERIES, NUM_CLASSES = 100, 171
SIZE = 512
SHARD_SIZE = "100MB"
TORCH_FILE = "weights.pth"
TASKS = ("write", "convert", "read", "read with torch")


def main() -> None:
    """Writes the checkpoint, converts it, and prints what that took, all in processes of their own.

    (A process counts the largest size of the one that started it as its own, so this one is small.)
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", choices=("resnet101", "swin_base"), default="resnet101")
    parser.add_argument("--sharded", action="store_true", help="in half precision, in shards")
    parser.add_argument("--folder", type=Path, help="of the checkpoint, for one task only")
    parser.add_argument("--task", choices=TASKS, default="convert", help="this task")
    args = parser.parse_args()
    if args.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            for task in TASKS:
                command = [sys.executable, __file__, *sys.argv[1:], "--folder", folder]
                command += ["--task", task]
                run = subprocess.run(command, check=True, capture_output=True, text=True)
                print(run.stdout, end="")
    elif args.task == "write":
        write_checkpoint(args.folder / "checkpoint", args.backbone, args.sharded)
    elif args.task == "convert":
        print(json.dumps(convert(args.folder, args.backbone)))
    else:
        print(json.dumps(read(args.folder, args.task)))


def write_checkpoint(folder: Path, backbone: str, sharded: bool) -> None:
    """A random network in the format of the Hugging Face hub, and beside it as a file of torch."""
    import torch
    from transformers import (
        DetrConfig,
        MaskFormerConfig,
        MaskFormerForInstanceSegmentation,
        ResNetConfig,
    )

    stages = ["stage1", "stage2", "stage3", "stage4"]
    config = MaskFormerConfig(
        # None is a Swin-B.
        backbone_config=ResNetConfig(depths=[3, 4, 23, 3], out_features=stages)
        if backbone == "resnet101"
        else None,
        decoder_config=DetrConfig(num_queries=NUM_QUERIES),
        num_labels=NUM_CLASSES,
    )
    network = MaskFormerForInstanceSegmentation(config)
    if sharded:
        network = network.half()
    network.save_pretrained(folder, max_shard_size=SHARD_SIZE if sharded else "5GB")
    torch.save(network.state_dict(), folder.parent / TORCH_FILE)


def read(folder: Path, task: str) -> dict[str, float | str]:
    """Reads the file of torch; returns seconds (of the CPU, too), and peak memory in GiB."""
    if task == "read with torch":
        from torch import load
    else:
        from rc2l_jax.weights.files import read_arrays as load
    before = peak()
    start, start_cpu = time.perf_counter(), time.process_time()
    kept = load(folder / TORCH_FILE)
    return {
        "task": task,
        "arrays": len(kept),
        "read_seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - start_cpu, 2),
        "peak_gib": round(peak(), 2),
        "peak_before_gib": round(before, 2),
    }


def convert(folder: Path, backbone: str) -> dict[str, float]:
    """Reads the checkpoint, writes it out, predicts; returns seconds, and peak memory in GiB."""
    import jax
    import numpy as np

    from configs import voc_train_half
    from rc2l_jax.models import abstract_variables, build_model
    from rc2l_jax.weights import load_pretrained
    from rc2l_jax.weights.to_transformers import export_transformers

    config = voc_train_half.get_config()
    config.init_from = str(folder / "checkpoint")
    config.model.backbone = backbone
    config.data.eval_short_edge, config.data.max_long_edge = SIZE, SIZE
    shapes = abstract_variables(build_model(config))
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    before = peak()
    start = time.perf_counter()
    variables, report = load_pretrained(variables, config)
    loaded = time.perf_counter()
    names = tuple(f"class {index}" for index in range(config.data.num_classes))
    export_transformers(variables, config, names, folder / "out")
    exported, peak_converting = time.perf_counter(), peak()
    del variables

    from rc2l_jax.prediction.network import open_network  # with TensorFlow, which is large
    from rc2l_jax.prediction.predict import predict_images

    network = open_network(folder / "out")
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    opened = time.perf_counter()
    seconds = []
    for _ in range(2):
        start_predicting = time.perf_counter()
        predict_images(network, [image])
        seconds.append(round(time.perf_counter() - start_predicting, 2))
    return {
        "arrays": len(report.loaded),
        "load_seconds": round(loaded - start, 2),
        "export_seconds": round(exported - loaded, 2),
        "peak_gib": round(peak_converting, 2),
        "peak_before_gib": round(before, 2),
        "open_seconds": round(opened - exported, 2),
        "predict_seconds": seconds,
        "peak_predicting_gib": round(peak(), 2),
    }


def peak() -> float:
    """Largest resident size of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
