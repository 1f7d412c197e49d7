"""The peer's training input: PyTorch's DataLoader over files that Pillow reads and augments.

It does what MaskFormer, UniMatch and most repositories of the field do: open, resize the short edge
(bilinear; masks by nearest neighbour), pad, crop and flip; then a batch of uint8. Scales, places
and flips are drawn as ours are. Optionally it also changes colours, for repositories that do so on
the host with torchvision's `ColorJitter` (of which this is the work on Pillow's images: enhancers,
and hue through HSV).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch.utils.data import DataLoader, RandomSampler

from rc2l_jax.input_pipeline.geometry import Geometry
from rc2l_jax.structs import IMAGE_PAD, VOID

Bilinear, Nearest = Image.Resampling.BILINEAR, Image.Resampling.NEAREST


class PeerDataset(torch.utils.data.Dataset):
    """Random views of a "folder" data set's training images."""

    def __init__(self, root: Path, geometry: Geometry, *, labels: bool, jitter: bool):
        """Lists the files.

        Args:
          root: holds images/train and labels/train.
          geometry: of the views.
          labels: whether to read masks.
          jitter: whether to change colours, with probability 0.8.
        """
        self._images = sorted(f for f in (root / "images" / "train").rglob("*") if f.is_file())
        self._masks = []
        if labels:
            parts = [file.relative_to(root / "images") for file in self._images]
            self._masks = [root / "labels" / part.with_suffix(".png") for part in parts]
        self._geometry, self._jitter = geometry, jitter

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        """Image uint8 [S, S, 3] and, with labels, mask uint8 [S, S]."""
        with Image.open(self._images[index]) as opened:
            planes = [opened.convert("RGB")]
        if self._masks:
            with Image.open(self._masks[index]) as opened:
                opened.load()
                planes.append(opened)
        planes = self._view(planes)
        if self._jitter and random.random() < 0.8:
            planes[0] = jitter(planes[0])
        return tuple(torch.from_numpy(np.array(plane)) for plane in planes)

    def _view(self, planes: list[Image.Image]) -> list[Image.Image]:
        """The same resizing, padding, crop and flip for an image and its mask."""
        side = self._geometry.crop_size
        short, long = sorted(planes[0].size)
        ratio = random.choice(self._geometry.short_edges) / short
        ratio = min(ratio, self._geometry.max_long_edge / long)
        size = tuple(int(extent * ratio + 0.5) for extent in planes[0].size)
        missing = [max(side - extent, 0) for extent in size]
        left, top = (random.randint(0, max(extent - side, 0)) for extent in size)
        mirror = self._geometry.flip and random.random() < 0.5
        views = []
        for plane, method, fill in zip(planes, (Bilinear, Nearest), (IMAGE_PAD, VOID)):
            plane = plane.resize(size, method)
            if any(missing):
                colour = (fill,) * 3 if plane.mode == "RGB" else fill
                plane = ImageOps.expand(plane, (0, 0, *missing), colour)
            plane = plane.crop((left, top, left + side, top + side))
            views.append(plane.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else plane)
        return views


def jitter(image: Image.Image) -> Image.Image:
    """Changes colours as UniMatch's `ColorJitter(0.5, 0.5, 0.5, 0.25)` does."""
    kinds = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    for kind in random.sample(kinds, 3):
        image = kind(image).enhance(random.uniform(0.5, 1.5))
    hue, saturation, value = image.convert("HSV").split()
    turned = np.array(hue) + np.uint8(random.randrange(-64, 65) % 256)
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


def batches(dataset: PeerDataset, batch_size: int, workers: int) -> Iterator[list[torch.Tensor]]:
    """Endless batches of images drawn at random."""
    torch.set_num_threads(1)
    # One epoch without an end: workers are started once.
    sampler = RandomSampler(dataset, replacement=True, num_samples=2**40)
    loader = DataLoader(dataset, batch_size=batch_size, sampler=sampler, num_workers=workers)
    return itertools.chain.from_iterable(itertools.repeat(loader))
