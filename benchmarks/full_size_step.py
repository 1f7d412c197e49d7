"""One step of the paper's model at its full size, on whatever device there is.

    python benchmarks/full_size_step.py

`configs/voc_train_half.py` (ResNet-101, 512 x 512, 50 queries) with 1 labelled and 1 unlabelled
generated image and random weights. Shows that the step compiles and is finite, and what it costs.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.generated import generated_batch
from configs import voc_train_half
from rc2l_jax.method.state import create_train_state
from rc2l_jax.training.averages import summarize
from rc2l_jax.training.devices import parallel_train_step, replicate


def main() -> None:
    """Prints parameter counts, times, peak memory and the losses of one step."""
    config = voc_train_half.get_config()
    config.batch_size = config.unlabeled_batch_size = 1
    config.cutmix.probability = 0.0  # one image has no partner
    # An untrained teacher passes no threshold: without thresholds, there are pseudo segments.
    config.pseudo.score_threshold = config.pseudo.mask_threshold = 0.0
    model, optimizer, state = create_train_state(config)
    trained = sum(x.size for x in jax.tree.leaves(state.params))
    frozen = sum(x.size for x in jax.tree.leaves(state.batch_stats))
    device = jax.devices()[0].device_kind
    print(f"jax {jax.__version__}, {device}, activations {config.dtype}")
    print(f"{trained:,} trained parameters, {frozen:,} constants of frozen norms")

    step = parallel_train_step(model, optimizer, config)
    state, batch = replicate(state, 1), generated_batch(config.data.crop_size)
    for name in ("first step, with compilation", "second step"):
        start = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        print(f"{name}: {time.perf_counter() - start:.1f} s")
    values = summarize(metrics)
    print({name: round(value, 4) for name, value in values.items() if "loss/" in name})
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak host memory {memory:.1f} GiB")
    if values["nonfinite_steps"] or not np.isfinite(values["loss/total"]):
        sys.exit("the step is not finite")


if __name__ == "__main__":
    main()
