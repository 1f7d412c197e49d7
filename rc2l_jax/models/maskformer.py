"""MaskFormer: a set of (class, mask) predictions for an image.

Source: Cheng et al., "Per-Pixel Classification is Not All You Need for Semantic Segmentation"
(arXiv 2107.06278), with the defaults of its semantic ResNet configs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rc2l_jax.models.backbones import create_backbone, create_pyramid
from rc2l_jax.models.extent import cell_mask
from rc2l_jax.models.mask_products import mask_products
from rc2l_jax.models.pixel_decoder import PixelDecoder
from rc2l_jax.models.transformer import TransformerDecoder, image_seeds
from rc2l_jax.structs import AXIS, Predictions

# torch's default for a linear layer: uniform within 1 / sqrt(fan_in).
_torch_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
DTYPES = ("float32", "bfloat16")  # of the activations; parameters are always float32


class MaskHead(nn.Module):
    """Three-layer perceptron that maps a query to its mask embedding, in float32.

    Attributes:
      hidden_dim: width of the two hidden layers.
      mask_dim: width C of the embedding.
    """

    hidden_dim: int
    mask_dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps queries [..., D] to mask embeddings [..., C]."""
        widths = (self.hidden_dim, self.hidden_dim, self.mask_dim)
        for index, width in enumerate(widths, start=1):
            x = nn.Dense(width, kernel_init=_torch_linear, name=f"layer{index}")(x)
            x = x if index == len(widths) else nn.relu(x)
        return x


class MaskFormer(nn.Module):
    """MaskFormer on one of several backbones.

    Whatever `dtype` is, these are float32: parameters, normalisation statistics, the transformer
    decoder and its heads, and the accumulation of mask logits. The collections are "params" and,
    of an EfficientNet or a ResNet whose `norm` is not "group", "batch_stats".

    Attributes:
      num_classes: K.
      num_queries: N.
      backbone: a key of `backbones.BACKBONES`.
      backbone_width: channels of the 3x3 convolutions in a ResNet's first stage.
      stem: first layers of a ResNet, "basic" or "deeplab" (see `resnet.ResNet`).
      norm: normalisation of a ResNet: "frozen", "batch" or "group".
      backbone_head: whether an EfficientNet's last feature map is that of its classifier.
      freeze_backbone: whether the backbone stays what it is (see `state.learned`).
      pixel_dim: channels of the pixel decoder, and of a plain transformer's feature pyramid.
      mask_dim: C.
      hidden_dim: width of the transformer decoder.
      num_heads: heads of its attentions.
      ffn_dim: hidden width of its feed-forward networks.
      num_decoder_layers: L.
      dropout: rate in the transformer decoder.
      dtype: of the activations.
      axis_name: pmap axis over which norm "batch" averages its statistics in training; None
        outside pmap.
      remat: whether the backward pass computes the inside of backbone blocks again instead of
        keeping it.
    """

    num_classes: int
    num_queries: int
    backbone: str
    backbone_width: int
    stem: str
    norm: str
    backbone_head: bool
    freeze_backbone: bool
    pixel_dim: int
    mask_dim: int
    hidden_dim: int
    num_heads: int
    ffn_dim: int
    num_decoder_layers: int
    dropout: float
    dtype: Any = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool,
        extent: jax.Array | None = None,
        every_layer: bool = True,
    ) -> Predictions:
        """Predicts classes and masks after every decoder layer, or after the last one.

        Args:
          images: float32 [B, H, W, 3] from `pixels.normalize`, of any size.
          train: whether to drop out (needs the rng stream "dropout" if `dropout` > 0) and, with
            norm "batch", to use this batch's statistics and record them in "batch_stats".
          extent: int32 [B, 2], height and width of the upper left part of each image to look at.
            They, H and W must be multiples of 32. What lies outside of that part does not change
            the predictions, which mean nothing there. None for all of `images`.
          every_layer: False returns the last layer's predictions only, so that L = 1.

        Returns:
          Predictions, float32, with h = ceil(H / 4) and w = ceil(W / 4) (halved and rounded up
          twice).

        Raises:
          ValueError: on an unknown backbone, stem or norm, or widths that do not fit.
        """
        groups = ((images.shape[0], every_layer),)  # a number that an export may leave open
        return self.predict_groups(images, groups, train=train, extent=extent)[0]

    @nn.compact
    def predict_groups(
        self,
        images: jax.Array,
        groups: Sequence[tuple[int, bool]],
        *,
        train: bool,
        extent: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> list[Predictions]:
        """As `__call__`, for groups of images of which some need the last layer's predictions only.

        Args:
          images: as in `__call__`.
          groups: the number of images of each group, together B, and whether to predict after every
            layer.
          train: as in `__call__`.
          extent: as in `__call__`.
          positions: int32 [B], of the images in the global batch. What dropout draws for an image
            follows from its position. None for 0 to B - 1.

        Returns:
          The predictions of each group.
        """
        mask = None if extent is None else cell_mask(extent, images.shape[1:3])
        seeds = None
        if train and self.dropout:
            positions = jnp.arange(len(images)) if positions is None else positions
            seeds = image_seeds(self.make_rng("dropout"), positions)
        backbone = create_backbone(
            self.backbone,
            width=self.backbone_width,
            stem=self.stem,
            norm=self.norm,
            head=self.backbone_head,
            dtype=self.dtype,
            axis_name=self.axis_name,
            remat=self.remat,
        )
        # A frozen backbone keeps its statistics, too.
        features = backbone(images, train=train and not self.freeze_backbone, mask=mask)
        last = jax.lax.stop_gradient(features[-1]).astype(jnp.float32)
        pyramid = create_pyramid(self.backbone, features=self.pixel_dim, dtype=self.dtype)
        if pyramid is not None:
            features = pyramid(features[-1], images.shape[1:3], mask)
        pixel_features = PixelDecoder(
            self.pixel_dim, self.mask_dim, self.dtype, name="pixel_decoder"
        )(features, mask)
        query_embed = self.param(
            "query_embed", nn.initializers.normal(1.0), (self.num_queries, self.hidden_dim)
        )
        queries = TransformerDecoder(
            hidden_dim=self.hidden_dim,
            num_heads=self.num_heads,
            ffn_dim=self.ffn_dim,
            num_layers=self.num_decoder_layers,
            dropout=self.dropout,
            name="transformer",
        )(features[-1], query_embed, seeds, train=train, mask=mask)  # [L, B, N, hidden_dim]

        parts, start = [], 0
        for size, every_layer in groups:
            first = 0 if every_layer else self.num_decoder_layers - 1
            images_of = slice(start, start + size) if len(groups) > 1 else slice(None)
            parts.append((first, images_of))
            start += size
        # One call of each head for all groups, on rows [R, hidden_dim].
        rows = jnp.concatenate([queries[i:, g].reshape(-1, self.hidden_dim) for i, g in parts])
        class_logits = nn.Dense(
            self.num_classes + 1,
            kernel_init=_torch_linear,
            dtype=jnp.float32,
            precision=jax.lax.Precision.HIGHEST,
            name="class_head",
        )(rows)
        mask_embed = MaskHead(self.hidden_dim, self.mask_dim, name="mask_head")(rows)
        mask_embed = mask_embed.astype(self.dtype)

        predictions, start = [], 0
        for first, images_of in parts:
            shape = queries[first:, images_of].shape[:-1]
            end = start + math.prod(shape)
            of_rows = slice(start, end) if len(groups) > 1 else slice(None)
            predictions.append(
                Predictions(
                    class_logits=class_logits[of_rows].reshape(*shape, -1),
                    mask_logits=mask_products(
                        mask_embed[of_rows].reshape(*shape, -1), pixel_features[images_of]
                    ),
                    pixel_features=pixel_features[images_of].astype(jnp.float32),
                    backbone_features=last[images_of],
                )
            )
            start = end
        return predictions


def build_model(config: ConfigDict, axis_name: str | None = AXIS) -> MaskFormer:
    """Builds the model a config describes.

    Args:
      config: the run's; `model`, `data.num_classes`, `dtype` and `remat` are read.
      axis_name: pmap axis of the training step; None to train outside pmap.

    Returns:
      The module, which holds no parameters.

    Raises:
      ValueError: `dtype` is neither of `DTYPES`, or the number of classes is not known yet.
    """
    if not config.data.num_classes:
        raise ValueError("config.data.num_classes = 0, and no data set was opened; give the number")
    if config.dtype not in DTYPES:  # the other names are checked where they are used
        raise ValueError(f"dtype = {config.dtype!r} is unknown; use one of {', '.join(DTYPES)}.")
    return MaskFormer(
        num_classes=config.data.num_classes,
        **config.model,
        dtype=jnp.dtype(config.dtype),
        axis_name=axis_name,
        remat=config.remat,
    )


def abstract_variables(model: MaskFormer) -> Any:
    """Returns the shapes of a model's {"params", "batch_stats"}, which cost nothing to compute."""
    images = jnp.zeros((1, 64, 64, 3))  # of any size: no parameter depends on it
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))


def semantic_inference(
    class_logits: jax.Array, mask_logits: jax.Array, size: tuple[int, int]
) -> jax.Array:
    """Scores every class at every pixel (MaskFormer, section 3.4, `semantic_inference`).

    As in MaskFormer, mask logits are upsampled before the sigmoid. Images are processed one after
    the other, so that the N upsampled masks of only one image are in memory.

    Args:
      class_logits: float32 [B, N, K+1]; the last class is no-object.
      mask_logits: float32 [B, N, h, w].
      size: (H, W) of the network's (padded) input.

    Returns:
      float32 [B, K, H, W]: the sum over queries of p(class) times p(mask).
    """

    def one(logits: tuple[jax.Array, jax.Array]) -> jax.Array:
        classes, masks = logits
        masks = jax.image.resize(masks, (masks.shape[0], *size), "bilinear", antialias=False)
        return semantic_scores(classes, masks)

    return jax.lax.map(one, (class_logits, mask_logits))


def semantic_scores(class_logits: jax.Array, mask_logits: jax.Array) -> jax.Array:
    """The score of every class at every pixel: the sum over queries of p(class) times p(mask).

    It is computed in full float32, because scores are compared and thresholded and accelerators
    multiply float32 matrices with fewer bits by default.

    Args:
      class_logits: float32 [..., N, K+1]; the last class is no-object.
      mask_logits: float32 [..., N, h, w].

    Returns:
      float32 [..., K, h, w].
    """
    return jnp.einsum(
        "...nk,...nhw->...khw",
        jax.nn.softmax(class_logits)[..., :-1],
        jax.nn.sigmoid(mask_logits),
        precision=jax.lax.Precision.HIGHEST,
    )
