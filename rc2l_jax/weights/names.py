"""The names that other programs give our arrays: for each of their families, rules to rename ours.

Our paths are those of `MaskFormer`'s variables without the collection, such as
"backbone/res2_0/conv1/kernel". `rc2l_jax.weights.rules` has the rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from rc2l_jax.weights import dinov2, wrappers
from rc2l_jax.weights.efficientnet import EFFICIENTNET
from rc2l_jax.weights.errors import WeightsError
from rc2l_jax.weights.rules import (
    DETECTRON2_HEADS,
    DETECTRON2_RESNET,
    TORCHVISION_RESNET,
    TRANSFORMERS_DECODER,
    TRANSFORMERS_ENCODER,
    TRANSFORMERS_HEADS,
    TRANSFORMERS_RESNET,
    Rules,
)
from rc2l_jax.weights.swin import (
    AUTHORS_SWIN,
    MASKFORMER_SWIN,
    OUTPUT_NORMS,
    TRANSFORMERS_SWIN,
)

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "relative_position_bias": "relative_position_bias_table",
}


class Family(NamedTuple):
    """A kind of checkpoint, with its names.

    Attributes:
      title: what reports call it.
      marker: pattern of a name by which the family is recognised.
      rules: rename our modules, see `Rules`.
      prefix: goes before the names of backbone modules.
      waived: pattern of names that may be in the file, and that the model has no use for.
      whole: True for a whole MaskFormer, False for a backbone alone.
      lacks: pattern of paths of ours, of the part that the file holds, that are never in it.
    """

    title: str
    marker: str
    rules: Rules
    prefix: str
    waived: str
    whole: bool
    lacks: str = r"(?!)"

    def name_of(self, path: str) -> str:
        """Returns the family's name for one of our paths."""
        module, leaf = ("query_embed", "kernel") if path == "query_embed" else path.rsplit("/", 1)
        for pattern, rename in self.rules:
            if match := re.fullmatch(pattern, module):
                prefix = self.prefix if module.startswith("backbone/") else ""
                return f"{prefix}{rename(match)}.{_LEAVES[leaf]}"
        raise KeyError(path)

    def to_ours(self, path: str, array: np.ndarray) -> np.ndarray:
        """Returns the family's array in our order of axes."""
        return to_ours(path, array)


class OwnFamily(Family):
    """The teacher of a run of this project: its names and axes are ours already."""

    def name_of(self, path: str) -> str:
        """Returns the path itself."""
        return path

    def to_ours(self, path: str, array: np.ndarray) -> np.ndarray:
        """Returns the array itself."""
        return array


class PathFamily(Family):
    """A kind of checkpoint whose rules rename whole paths, not only modules."""

    def name_of(self, path: str) -> str:
        """Returns the family's name for one of our paths."""
        for pattern, rename in self.rules:
            if match := re.fullmatch(pattern, path):
                return self.prefix + rename(match)
        raise KeyError(path)


OWN = OwnFamily("teacher of a run", marker="", rules=(), prefix="", waived=r"(?!)", whole=True)


TRANSFORMERS = Family(
    "MaskFormer of transformers",
    r"model\.pixel_level_module\.encoder\."
    r"(embedder\.embedder\.convolution|model\.embeddings\.patch_embeddings\.projection)\.weight",
    TRANSFORMERS_RESNET + MASKFORMER_SWIN + TRANSFORMERS_HEADS,
    TRANSFORMERS_ENCODER,
    r"criterion\.empty_weight|.*\.num_batches_tracked"
    r"|model\.pixel_level_module\.encoder\.model\.layernorm\..*",
    whole=True,
)
_CLASSIFIER = r"classifier\..*|fc\..*|stem\.fc\..*|head\..*|.*\.num_batches_tracked"
FAMILIES = (
    TRANSFORMERS,
    Family(
        "MaskFormer of detectron2",
        r"sem_seg_head\.predictor\.query_embed\.weight",
        DETECTRON2_RESNET + AUTHORS_SWIN + DETECTRON2_HEADS,
        "backbone.",
        r"criterion\.empty_weight|pixel_mean|pixel_std|.*\.num_batches_tracked",
        whole=True,
    ),
    Family(
        "EfficientNet-Lite of PyTorch",
        r"_conv_stem\.weight",
        EFFICIENTNET,
        "",
        r"_conv_head\..*|_bn1\..*|_fc\..*|.*\.num_batches_tracked",
        whole=False,
    ),
    Family(
        "ResNet of transformers",
        r"embedder\.embedder\.convolution\.weight",
        TRANSFORMERS_RESNET,
        "",
        _CLASSIFIER,
        whole=False,
    ),
    Family(
        "ResNet of torchvision or timm",
        r"layer1\.0\.conv1\.weight",
        TORCHVISION_RESNET,
        "",
        _CLASSIFIER,
        whole=False,
    ),
    Family(
        "ResNet of detectron2",
        r"res2\.0\.conv1\.weight",
        DETECTRON2_RESNET,
        "",
        _CLASSIFIER,
        whole=False,
    ),
    PathFamily(
        "DINOv2 of transformers",
        dinov2.TRANSFORMERS_MARKER,
        dinov2.TRANSFORMERS_DINOV2,
        "",
        dinov2.TRANSFORMERS_WAIVED,
        whole=False,
    ),
    PathFamily(
        "DINOv2 of Meta",
        dinov2.META_MARKER,
        dinov2.META_DINOV2,
        "",
        dinov2.META_WAIVED,
        whole=False,
    ),
    Family(
        "Swin of transformers",
        r"encoder\.layers\.0\.blocks\.0\.attention\.self\.relative_position_bias_table",
        TRANSFORMERS_SWIN,
        "",
        r"layernorm\..*|classifier\..*",
        whole=False,
        lacks=OUTPUT_NORMS,
    ),
    Family(
        "Swin of its authors",
        r"layers\.0\.blocks\.0\.attn\.relative_position_bias_table",
        AUTHORS_SWIN,
        "",
        r"norm\..*|head\..*|.*\.attn_mask",
        whole=False,
        lacks=OUTPUT_NORMS,
    ),
)
# Files that are known but cannot be used: (pattern of a name in it, what the file is).
_FOREIGN = (
    (
        r"model\.transformer_module\.level_embed.*|[^.]+\.pixel_decoder\.transformer\..*",
        "Mask2Former",
    ),
    (r"conv1_w|res2_0_branch2a_w", "a Caffe2 ResNet (another channel order, strides in the 1x1)"),
    (r"conv1\.0\.weight", "a ResNet with timm's deep stem"),
)


class Recognised(NamedTuple):
    """What `family_of` finds in a file.

    Attributes:
      family: the kind of checkpoint.
      arrays: {the family's name: array} of the network.
      left_out: what else is in the file, in words; "" if that is nothing.
    """

    family: Family
    arrays: dict[str, np.ndarray]
    left_out: str


def family_of(arrays: Mapping[str, np.ndarray], source: str) -> Recognised:
    """Recognises the family of a file's arrays by their names.

    Args:
      arrays: the file's {name: array}.
      source: the file, for messages.

    Returns:
      The family, and the arrays under the names that its rules give.

    Raises:
      WeightsError: the arrays are of none of the families, or of several networks.
    """
    for pattern, what in _FOREIGN:
        if wrappers.prefixes(arrays, pattern):
            raise WeightsError(
                f"{source}: this is {what}, which the model cannot take; it takes MaskFormer on a "
                "ResNet or a Swin, or a ResNet, a Swin or a DINOv2 alone"
            )
    for family in FAMILIES:
        if found := wrappers.prefixes(arrays, family.marker):
            network = wrappers.take(arrays, found, family.whole, source)
            if isinstance(family, PathFamily):
                dinov2.refuse_giant(network.arrays, source)
            return Recognised(family, _known_names(network.arrays, source), network.left_out)
    titles = ", ".join(family.title for family in FAMILIES)
    raise WeightsError(
        f"{source}: none of {titles}. Its first arrays: {', '.join(list(arrays)[:5])}"
    )


def _known_names(arrays: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Returns the arrays by the names that our rules know, projections apart from each other."""
    known: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        for part, piece in _split_projections(name, array, source):
            wrappers.put(known, current_name(part), piece, source)
    return known


def current_name(name: str) -> str:
    """Returns the name that our rules know, where a program has had two names for an array.

    transformers 5 has new names for some modules in memory, but its files keep the older ones.
    MaskFormer's published files are older than its module `pixel_decoder`, so their names lack it.
    """
    name = re.sub(
        r"^sem_seg_head\.(?=adapter_|layer_|mask_features\.)", "sem_seg_head.pixel_decoder.", name
    )
    if name.startswith(TRANSFORMERS_DECODER):
        name = name.replace("_attn.o_proj.", "_attn.out_proj.").replace(".mlp.fc", ".fc")
    return dinov2.name_on_disk(name)


def _split_projections(
    name: str, array: np.ndarray, source: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields an array by its name; three if it is of [3D, D] or [3D]: query, key and value."""
    if not (match := re.fullmatch(r"(.*\.(?:in_proj|qkv))[_.](weight|bias)", name)):
        yield name, array
        return
    if len(array) % 3:
        raise WeightsError(f"{source}: {name} {array.shape}: not three projections in one")
    for part, piece in zip(("query", "key", "value"), np.split(array, 3)):
        yield f"{match[1]}.{part}.{match[2]}", piece


def to_ours(path: str, array: np.ndarray) -> np.ndarray:
    """Brings an array from torch's order of axes to ours: OIHW -> HWIO, [out, in] -> [in, out].

    Only arrays whose path of ours ends in "/kernel" change.
    """
    if not path.endswith("/kernel"):
        return array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def to_theirs(path: str, array: np.ndarray) -> np.ndarray:
    """Brings an array from our order of axes to torch's; the inverse of `to_ours`."""
    if not path.endswith("/kernel"):
        return array
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
