"""The names that other programs give our arrays: for each of their families, rules to rename ours.

Our paths are those of `MaskFormer`'s variables without the collection, such as
"backbone/res2_0/conv1/kernel". All families have the same blocks and layers in the same order, so
each part of a path can be renamed by itself. Sources: `transformers` (MaskFormer, ResNet),
torchvision's and timm's ResNet, detectron2's ResNet and MaskFormer's own code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from rc2l_jax.weights.errors import WeightsError

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# (pattern of a whole module path of ours, function from the match to their module's name) each.
Rules = tuple[tuple[str, Callable[[re.Match[str]], str]], ...]
_ENCODER = "model.pixel_level_module.encoder."
_FPN = "model.pixel_level_module.decoder."
_DETR = "model.transformer_module.decoder."


def _minus(text: str, number: int) -> int:
    return int(text) - number


_TRANSFORMERS_RESNET: Rules = (
    (r"backbone/stem_conv1", lambda m: "embedder.embedder.convolution"),
    (r"backbone/stem_norm1", lambda m: "embedder.embedder.normalization"),
    (
        r"backbone/res(\d)_(\d+)/(conv|norm)(\d)",
        lambda m: (
            f"encoder.stages.{_minus(m[1], 2)}.layers.{m[2]}.layer.{_minus(m[4], 1)}."
            + {"conv": "convolution", "norm": "normalization"}[m[3]]
        ),
    ),
    (
        r"backbone/res(\d)_(\d+)/shortcut_(conv|norm)",
        lambda m: (
            f"encoder.stages.{_minus(m[1], 2)}.layers.{m[2]}.shortcut."
            + {"conv": "convolution", "norm": "normalization"}[m[3]]
        ),
    ),
)
_TRANSFORMERS_HEADS: Rules = (
    (
        r"pixel_decoder/output5_(conv|norm)",
        lambda m: f"{_FPN}fpn.stem.{'01'[m[1] == 'norm']}",
    ),
    (
        r"pixel_decoder/(lateral|output)(\d)_(conv|norm)",
        lambda m: (
            f"{_FPN}fpn.layers.{4 - int(m[2])}.{'proj' if m[1] == 'lateral' else 'block'}."
            f"{'01'[m[3] == 'norm']}"
        ),
    ),
    (r"pixel_decoder/mask_features", lambda m: f"{_FPN}mask_projection"),
    (r"query_embed", lambda m: "model.transformer_module.queries_embedder"),
    (r"transformer/input_projection", lambda m: "model.transformer_module.input_projection"),
    (r"transformer/output_norm", lambda m: f"{_DETR}layernorm"),
    (
        r"transformer/layer(\d+)/(self|cross)_attention/(query|key|value|out)",
        lambda m: (
            f"{_DETR}layers.{m[1]}.{'self' if m[2] == 'self' else 'encoder'}_attn."
            + {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}[m[3]]
        ),
    ),
    (
        r"transformer/layer(\d+)/(self_attention|cross_attention|ffn)_norm",
        lambda m: (
            f"{_DETR}layers.{m[1]}."
            + {"self_attention": "self_attn", "cross_attention": "encoder_attn", "ffn": "final"}[
                m[2]
            ]
            + "_layer_norm"
        ),
    ),
    (r"transformer/layer(\d+)/ffn(\d)", lambda m: f"{_DETR}layers.{m[1]}.fc{m[2]}"),
    (r"class_head", lambda m: "class_predictor"),
    (r"mask_head/layer(\d)", lambda m: f"mask_embedder.{_minus(m[1], 1)}.0"),
)
_TORCHVISION: Rules = (
    (r"backbone/stem_(conv|norm)1", lambda m: {"conv": "conv1", "norm": "bn1"}[m[1]]),
    (
        r"backbone/res(\d)_(\d+)/(conv|norm)(\d)",
        lambda m: f"layer{_minus(m[1], 1)}.{m[2]}.{'conv' if m[3] == 'conv' else 'bn'}{m[4]}",
    ),
    (
        r"backbone/res(\d)_(\d+)/shortcut_(conv|norm)",
        lambda m: f"layer{_minus(m[1], 1)}.{m[2]}.downsample.{'01'[m[3] == 'norm']}",
    ),
)
_DETECTRON2_RESNET: Rules = (
    (
        r"backbone/stem_(conv|norm)(\d)",
        lambda m: f"stem.conv{m[2]}" + (".norm" if m[1] == "norm" else ""),
    ),
    (
        r"backbone/res(\d)_(\d+)/(conv|norm)(\d)",
        lambda m: f"res{m[1]}.{m[2]}.conv{m[4]}" + (".norm" if m[3] == "norm" else ""),
    ),
    (
        r"backbone/res(\d)_(\d+)/shortcut_(conv|norm)",
        lambda m: f"res{m[1]}.{m[2]}.shortcut" + (".norm" if m[3] == "norm" else ""),
    ),
)
_HEAD = "sem_seg_head.predictor."
_LAYERS = f"{_HEAD}transformer.decoder."
_DETECTRON2_HEADS: Rules = (
    (
        r"pixel_decoder/(lateral|output)(\d)_(conv|norm)",
        lambda m: (
            f"sem_seg_head.pixel_decoder.{'adapter' if m[1] == 'lateral' else 'layer'}_"
            f"{_minus(m[2], 1)}" + (".norm" if m[3] == "norm" else "")
        ),
    ),
    (r"pixel_decoder/mask_features", lambda m: "sem_seg_head.pixel_decoder.mask_features"),
    (r"query_embed", lambda m: f"{_HEAD}query_embed"),
    (r"transformer/input_projection", lambda m: f"{_HEAD}input_proj"),
    (r"transformer/output_norm", lambda m: f"{_LAYERS}norm"),
    (
        r"transformer/layer(\d+)/(self|cross)_attention/(query|key|value|out)",
        lambda m: (
            f"{_LAYERS}layers.{m[1]}.{'self_attn' if m[2] == 'self' else 'multihead_attn'}."
            + ("out_proj" if m[3] == "out" else f"in_proj.{m[3]}")  # see `_split_projections`
        ),
    ),
    (
        r"transformer/layer(\d+)/(self_attention|cross_attention|ffn)_norm",
        lambda m: (
            f"{_LAYERS}layers.{m[1]}.norm"
            + {"self_attention": "1", "cross_attention": "2", "ffn": "3"}[m[2]]
        ),
    ),
    (r"transformer/layer(\d+)/ffn(\d)", lambda m: f"{_LAYERS}layers.{m[1]}.linear{m[2]}"),
    (r"class_head", lambda m: f"{_HEAD}class_embed"),
    (r"mask_head/layer(\d)", lambda m: f"{_HEAD}mask_embed.layers.{_minus(m[1], 1)}"),
)


class Family(NamedTuple):
    """A kind of checkpoint, with its names.

    Attributes:
      title: what reports call it.
      marker: pattern of a name by which the family is recognised.
      rules: rename our modules, see `Rules`.
      prefix: goes before the names of backbone modules.
      waived: pattern of names that may be in the file, and that the model has no use for.
      whole: True for a whole MaskFormer, False for a backbone alone.
    """

    title: str
    marker: str
    rules: Rules
    prefix: str
    waived: str
    whole: bool

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


OWN = OwnFamily("teacher of a run", marker="", rules=(), prefix="", waived=r"(?!)", whole=True)


TRANSFORMERS = Family(
    "MaskFormer of transformers",
    r"model\.pixel_level_module\.encoder\.embedder\.embedder\.convolution\.weight",
    _TRANSFORMERS_RESNET + _TRANSFORMERS_HEADS,
    _ENCODER,
    r"criterion\.empty_weight|.*\.num_batches_tracked",
    whole=True,
)
_CLASSIFIER = r"classifier\..*|fc\..*|stem\.fc\..*|head\..*|.*\.num_batches_tracked"
FAMILIES = (
    TRANSFORMERS,
    Family(
        "MaskFormer of detectron2",
        r"sem_seg_head\.predictor\.query_embed\.weight",
        _DETECTRON2_RESNET + _DETECTRON2_HEADS,
        "backbone.",
        r"criterion\.empty_weight|pixel_mean|pixel_std|.*\.num_batches_tracked",
        whole=True,
    ),
    Family(
        "ResNet of transformers",
        r"embedder\.embedder\.convolution\.weight",
        _TRANSFORMERS_RESNET,
        "",
        _CLASSIFIER,
        whole=False,
    ),
    Family(
        "ResNet of torchvision or timm",
        r"layer1\.0\.conv1\.weight",
        _TORCHVISION,
        "",
        _CLASSIFIER,
        whole=False,
    ),
    Family(
        "ResNet of detectron2",
        r"res2\.0\.conv1\.weight",
        _DETECTRON2_RESNET,
        "",
        _CLASSIFIER,
        whole=False,
    ),
)
# Files that are known but cannot be used: (pattern of a name in it, what the file is).
_FOREIGN = (
    (r"model\.transformer_module\.level_embed.*|.*\.pixel_decoder\.transformer\..*", "Mask2Former"),
    (r".*(swin|patch_embed|embeddings\.patch_embeddings).*", "a network on a Swin transformer"),
    (r"conv1_w|res2_0_branch2a_w", "a Caffe2 ResNet (another channel order, strides in the 1x1)"),
    (r"conv1\.0\.weight", "a ResNet with timm's deep stem"),
)


def family_of(
    arrays: Mapping[str, np.ndarray], source: str
) -> tuple[Family, dict[str, np.ndarray]]:
    """Recognises the family of a file's arrays by their names.

    Args:
      arrays: the file's {name: array}.
      source: the file, for messages.

    Returns:
      The family, and the arrays under the names that its rules give.

    Raises:
      WeightsError: the arrays are of none of the families.
    """
    for pattern, what in _FOREIGN:
        if any(re.fullmatch(pattern, name) for name in arrays):
            raise WeightsError(
                f"{source}: this is {what}, which the model cannot take; it takes MaskFormer on a "
                "ResNet, or a ResNet"
            )
    whole = {current_name(name): array for name, array in _split_projections(arrays).items()}
    bare = {_bare(name): array for name, array in whole.items()}
    for family in FAMILIES:
        names = whole if family.whole else bare
        if any(re.fullmatch(family.marker, name) for name in names):
            return family, names
    titles = ", ".join(family.title for family in FAMILIES)
    raise WeightsError(
        f"{source}: none of {titles}. Its first arrays: {', '.join(list(arrays)[:5])}"
    )


def _bare(name: str) -> str:
    """Returns a backbone's name without the prefix that a wrapper gave it."""
    return re.sub(r"^(resnet|backbone|encoder(?=\.(?:layer\d|conv1|bn1|fc)\.))\.", "", name)


def current_name(name: str) -> str:
    """Returns the name that our rules know, where a program has had two names for an array.

    transformers 5 has new names for some modules in memory, but its files keep the older ones.
    MaskFormer's published files are older than its module `pixel_decoder`, so their names lack it.
    """
    name = re.sub(
        r"^sem_seg_head\.(?=adapter_|layer_|mask_features\.)", "sem_seg_head.pixel_decoder.", name
    )
    if name.startswith(_DETR):
        name = name.replace("_attn.o_proj.", "_attn.out_proj.").replace(".mlp.fc", ".fc")
    return name


def _split_projections(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Splits the arrays [3D, D] and [3D] that hold torch's query, key and value projections."""
    split = {}
    for name, array in arrays.items():
        if match := re.fullmatch(r"(.*\.in_proj)_(weight|bias)", name):
            if len(array) % 3:
                raise WeightsError(f"{name} {array.shape}: not three projections in one")
            for part, piece in zip(("query", "key", "value"), np.split(array, 3)):
                split[f"{match[1]}.{part}.{match[2]}"] = piece
        else:
            split[name] = array
    return split


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
