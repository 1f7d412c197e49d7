"""Speed of matching alone, beside the peer's: cost matrices and assignment of all decoder layers.

    python benchmarks/matching.py                 # a GPU: mask grid 128 x 128
    python benchmarks/matching.py --device=cpu    # mask grid 64 x 64

Ours is `objective.match_all`, which makes all cost matrices and solves them in one call, with scipy
in a host callback ("host") or with optax ("device"). The peer is transformers'
`MaskFormerHungarianMatcher`, called once a layer as its loss calls it; it solves image by image.
Both get the same predictions and masks, but the peer only the valid segments, and ours all slots.
Each side runs in a process of its own, without TensorFlow. A ratio is the fastest round of ours
(costs and assignment, with "host") over the peer's. The last line has that of a typical image of
VOC: 21 slots, 3 of them valid.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bench

GRIDS = {"cpu": 64, "cuda": 128}
LAYERS, IMAGES, QUERIES, CLASSES = 6, 32, 50, 21
# (segment slots, how many of them are valid): all of them, and 3 as in a typical image of VOC.
TYPICAL = (21, 3)
CASES = ((21, 21), (50, 50), TYPICAL, (50, 3))
MATCHERS = ("host", "device")


def main() -> None:
    """Prints one table and the ratio."""
    command_line = bench.parser(__doc__)
    command_line.add_argument("--grid", type=int, help="side of the mask grid")
    command_line.add_argument("--images", type=int, default=IMAGES)
    command_line.add_argument("--rounds", type=int, default=5)
    arguments = command_line.parse_args()
    arguments.grid = arguments.grid or GRIDS[arguments.device]
    if not arguments.case:
        show(arguments, *(bench.in_a_process(side) for side in ("ours", "peer")))
        return
    bench.choose_platform(arguments.device)
    measure = measure_ours if arguments.case == "ours" else measure_peer
    print(json.dumps(measure(arguments)))


def inputs(slots: int, valid: int, images: int, grid: int) -> dict[str, np.ndarray]:
    """Random predictions with the spread of an untrained network's; the segments are blocks.

    Returns:
      "class_logits" [L, B, N, K+1], "mask_logits" [L, B, N, h, w], "classes" [B, M],
      "masks" bool [B, M, h, w] and "valid" [B, M].
    """
    rng = np.random.default_rng(0)
    owner = rng.integers(0, valid, (images, 1, 8, 8)).repeat(grid // 8, 2).repeat(grid // 8, 3)
    shape = (LAYERS, images, QUERIES)
    return {
        "class_logits": rng.standard_normal((*shape, CLASSES + 1), np.float32),
        "mask_logits": 3 * rng.standard_normal((*shape, grid, grid), np.float32),
        "classes": rng.integers(0, CLASSES, (images, slots)).astype(np.int32),
        "masks": owner == np.arange(slots)[:, None, None],
        "valid": np.broadcast_to(np.arange(slots) < valid, (images, slots)),
    }


def measure_ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """Times ours: {"device", "cases": [{what was timed: seconds of each round}]}."""
    cases = [ours(inputs(*case, arguments.images, arguments.grid), arguments) for case in CASES]
    return {"device": bench.device_name(), "cases": cases}


def ours(arrays: dict[str, np.ndarray], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Times one case: cost matrices; then assignment, and both together, with each matcher."""
    import jax

    from configs import base
    from rc2l_jax.method.matching import assign
    from rc2l_jax.method.objective import layer_costs, match_all
    from rc2l_jax.structs import Predictions, Segments

    config = base.get_config()
    arrays = jax.device_put(arrays)
    classes, masks, valid = (arrays[name] for name in ("classes", "masks", "valid"))
    predictions = Predictions(
        class_logits=arrays["class_logits"],
        mask_logits=arrays["mask_logits"],
        pixel_features=valid,  # any array will do: matching does not read it
    )
    segments = Segments(classes, masks, valid, score=valid, known=masks.any(1))

    def clock(function: Callable[..., Any], *values: Any) -> list[float]:
        compiled = jax.jit(function)

        def call() -> Any:
            return jax.block_until_ready(compiled(*values))

        return bench.seconds(call, arguments.rounds)

    costs_of = functools.partial(layer_costs, config=config)
    times = {"costs": clock(costs_of, predictions, segments)}
    costs = jax.jit(costs_of)(predictions, segments)
    every_layer = np.broadcast_to(valid, (LAYERS, *valid.shape))
    for matcher in MATCHERS:
        solve = functools.partial(assign, matcher=matcher)
        times[f"assign {matcher}"] = clock(solve, costs, every_layer)
        whole = config.copy_and_resolve_references()
        whole.matcher = matcher

        def match(p: Predictions, s: Segments, config: Any = whole) -> Any:
            return match_all([(p, s)], config)

        times[f"both {matcher}"] = clock(match, predictions, segments)
    return times


def measure_peer(arguments: argparse.Namespace) -> dict[str, Any]:
    """Times the peer: {"cases": [{"both": seconds of each round}]}."""
    import torch
    from transformers.models.maskformer.modeling_maskformer import MaskFormerHungarianMatcher

    matcher = MaskFormerHungarianMatcher(cost_class=1.0, cost_mask=20.0, cost_dice=1.0)
    device = arguments.device
    cases = []
    for slots, valid in CASES:
        arrays = inputs(slots, valid, arguments.images, arguments.grid)
        logits = [
            torch.from_numpy(arrays[f"{name}_logits"]).to(device) for name in ("mask", "class")
        ]
        masks = [torch.from_numpy(x[:valid]).float().to(device) for x in arrays["masks"]]
        classes = [torch.from_numpy(x[:valid]).long().to(device) for x in arrays["classes"]]

        # A call ends with scipy on the host, so no work of the device is left to wait for.
        def call() -> Any:
            return [matcher(*layer, masks, classes) for layer in zip(*logits)]  # noqa: B023

        cases.append({"both": bench.seconds(call, arguments.rounds)})
    return {"cases": cases}


def show(arguments: argparse.Namespace, ours: dict[str, Any], peer: dict[str, Any]) -> None:
    """Prints the table and the ratio."""
    print(bench.heading(ours["device"], "jax", "optax", "scipy", "torch", "transformers"))
    print(
        f"{LAYERS} layers, {arguments.images} images, {QUERIES} queries, mask grid "
        f"{arguments.grid} x {arguments.grid}; ms, median (fastest) of {arguments.rounds} rounds"
    )
    columns = ("slots", "valid", *ours["cases"][0], "peer", "ratio")
    rows, ratios = [], {}
    for case, mine, theirs in zip(CASES, ours["cases"], peer["cases"]):
        ratios[case] = min(mine["both host"]) / min(theirs["both"])
        times = [*mine.values(), theirs["both"]]
        cells = [bench.milliseconds(x) for x in times]
        rows.append([*(str(x) for x in case), *cells, f"{ratios[case]:.2f}"])
    print(bench.table(columns, rows))
    print(f"ratio: {ratios[TYPICAL]:.2f}")


if __name__ == "__main__":
    main()
