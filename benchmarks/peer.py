"""The peer's training step: transformers' MaskFormer in PyTorch, with most of the work of ours.

It runs its own model, matcher and loss (deep supervision through `use_auxiliary_loss`) on all
images of a step, a forward pass of a teacher on the unlabelled ones, gradient clipping, AdamW, and
EMA by `torch._foreach`. RC²L's other losses, CutMix and colour augmentation are left out: only our
step does that work.
"""

from __future__ import annotations

import contextlib
import copy
import time

import numpy as np
import torch
from ml_collections import ConfigDict
from transformers import (
    DetrConfig,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    ResNetConfig,
)

from benchmarks import bench
from rc2l_jax.models.resnet import BACKBONES
from rc2l_jax.structs import VOID, Batch


def build_peer(config: ConfigDict) -> MaskFormerForInstanceSegmentation:
    """The network that a config describes, with random weights and frozen batch norms."""
    architecture, model = BACKBONES[config.model.backbone], config.model
    expansion = 4 if architecture.bottleneck else 1
    backbone = ResNetConfig(
        depths=list(architecture.depths),
        embedding_size=model.backbone_width,
        hidden_sizes=[model.backbone_width * 2**stage * expansion for stage in range(4)],
        layer_type="bottleneck" if architecture.bottleneck else "basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    decoder = DetrConfig(
        d_model=model.hidden_dim,
        num_queries=model.num_queries,
        decoder_layers=model.num_decoder_layers,
        decoder_ffn_dim=model.ffn_dim,
        decoder_attention_heads=model.num_heads,
        encoder_attention_heads=model.num_heads,
        dropout=model.dropout,
    )
    peer = MaskFormerForInstanceSegmentation(
        MaskFormerConfig(
            backbone_config=backbone,
            decoder_config=decoder,
            fpn_feature_size=model.pixel_dim,
            mask_feature_size=model.mask_dim,
            num_labels=config.data.num_classes,
            use_auxiliary_loss=True,
        )
    )
    return freeze_norms(peer.train())


def freeze_norms(peer: MaskFormerForInstanceSegmentation) -> MaskFormerForInstanceSegmentation:
    """Makes the batch norms constant, as our step has them."""
    for module in peer.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    return peer


class PeerStep:
    """The peer's training step, repeated on one batch."""

    def __init__(self, config: ConfigDict, batch: Batch, device: str, *, compiled: bool):
        """Builds student, teacher, optimiser and targets.

        Args:
          config: the run's, as for our step; with `dtype = "bfloat16"` the peer uses autocast.
          batch: of one device, [1, B, ...]. Labels of unlabelled images serve as pseudo segments.
          device: "cpu" or "cuda".
          compiled: run the networks through `torch.compile`.
        """
        self._config, self._device = config, device
        self.student = build_peer(config).to(device)
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.teacher.config.use_auxiliary_loss = False  # only the last layer's prediction is used
        trained = [p for p in self.student.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            trained,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=device == "cuda",
        )
        self.averaged = list(self.teacher.parameters()), list(self.student.parameters())
        labeled, unlabeled = (self._images(x) for x in (batch.image, batch.unlabeled_image))
        self.images, self.weak = torch.cat([labeled, unlabeled]), unlabeled
        labels = np.concatenate([batch.label[0], batch.unlabeled_label[0]])
        present = [np.setdiff1d(label, [VOID]) for label in labels]
        self.classes = [torch.tensor(ids.astype(np.int64), device=device) for ids in present]
        self.masks = [
            torch.tensor(np.stack([x == k for k in ids]).astype(np.float32), device=device)
            for x, ids in zip(labels, present)
        ]
        self.forward = torch.compile(self.student) if compiled else self.student
        self.teach = torch.compile(self.teacher) if compiled else self.teacher

    def _images(self, images: np.ndarray) -> torch.Tensor:
        mean, std = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])
        scaled = torch.from_numpy((images[0].astype(np.float32) - mean) / std)
        return scaled.permute(0, 3, 1, 2).contiguous().to(self._device)

    def _precision(self) -> contextlib.AbstractContextManager:
        enabled = self._config.dtype == "bfloat16"
        return torch.autocast(self._device, torch.bfloat16, enabled=enabled)

    def __call__(self) -> float:
        """Takes a step; returns its seconds, the device's work included."""
        self._synchronize()
        start = time.perf_counter()
        with self._precision():
            if len(self.weak):
                with torch.no_grad():
                    self.teach(self.weak)
            # The auxiliary loss reads hidden states that are not returned unless asked for.
            targets = {"mask_labels": self.masks, "class_labels": self.classes}
            loss = self.forward(self.images, **targets, output_hidden_states=True).loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), self._config.grad_clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(*self.averaged, 1 - self._config.ema_decay)
        self._synchronize()
        return time.perf_counter() - start

    def _synchronize(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def peak_memory(self) -> int | None:
        """Largest device memory so far, in bytes; None on a CPU."""
        return torch.cuda.max_memory_allocated() if self._device == "cuda" else None

    def device(self) -> str:
        """The device's name."""
        return torch.cuda.get_device_name() if self._device == "cuda" else bench.processor()
