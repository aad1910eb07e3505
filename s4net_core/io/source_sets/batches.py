"""Images of a source set as batches of tensors, in random order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s4net_core.errors import SourceSetError
from s4net_core.geometry.camera import unit_range
from s4net_core.io.source_sets.source_set import LabelledImage, SourceSet, Usable

BYTES_PER_PIXEL = 8
"""uint8 red, green, blue and class, float32 depth."""


@dataclass(frozen=True)
class SourceBatch:
    """Labelled images as tensors.

    Args:
        images: (B, 3, H, W) float32, RGB, 0..1.
        labels: (B, H, W) int64, 0 = unlabelled.
        depth: (B, 1, H, W) float32 metres, 0 = none.
        keys: one an image, (position in the source set, mirrored): equal keys mean equal images; empty = not known.
    """

    images: Tensor
    labels: Tensor
    depth: Tensor
    keys: tuple[tuple[int, bool], ...] = ()

    @classmethod
    def of_bytes(cls, color: Tensor, label: Tensor, depth: Tensor) -> "SourceBatch":
        """A batch from images as they are stored.

        Args:
            color: (B, 3, H, W) uint8, RGB.
            label: (B, H, W) uint8, 0 = unlabelled.
            depth: (B, 1, H, W) float32 metres, 0 = none.
        """
        return cls(unit_range(color), label.long(), depth)

    def to(self, device: torch.device) -> "SourceBatch":
        """The same batch on a device."""
        return SourceBatch(self.images.to(device), self.labels.to(device), self.depth.to(device), self.keys)

    def __len__(self) -> int:
        return len(self.images)


class SourceBatches:
    """Endless batches in random order; every image comes once before any comes again.

    An image that cannot be read is left out, see `Usable`.

    For adaptation: images stay in memory and nothing needs a process of its own on a robot. Pre-training reads with
    `learning.source_loader`, which augments in several processes and can begin at any step.

    Args:
        source: where the images come from.
        batch: images a batch.
        width, height: size to which all are resized, pixels.
        mirror: mirror half of the images, at random.
        rng: source of every random choice.
        cache_megabytes: memory for resized images; images that do not fit are read again every time.
        indices: positions to use; None = all.

    Raises:
        SourceSetError: there is no image to use.
    """

    def __init__(
        self,
        source: SourceSet,
        batch: int,
        width: int,
        height: int,
        mirror: bool,
        rng: np.random.Generator,
        *,
        cache_megabytes: int,
        indices: Sequence[int] | None = None,
    ) -> None:
        self._source = source
        self._batch = batch
        self._width = width
        self._height = height
        self._mirror = mirror
        self._rng = rng
        self._indices = list(range(len(source)) if indices is None else indices)
        if not self._indices:
            raise SourceSetError(f"source set {source.name}: no image is left to train on: add images")
        self._usable = Usable(source.name, len(self._indices))
        self._cache: dict[int, LabelledImage] = {}
        self._cache_size = cache_megabytes * 1_000_000 // (BYTES_PER_PIXEL * width * height)
        self._queue: list[int] = []

    @property
    def left_out(self) -> int:
        """Number of images that cannot be used at the moment."""
        return len(self._usable.left_out)

    def next(self) -> SourceBatch:
        """The next batch; images without depth get a depth of 0 everywhere.

        Raises:
            SourceSetError: too many images cannot be read.
        """
        images: list[tuple[int, LabelledImage]] = []
        while len(images) < self._batch:
            if not self._queue:
                self._queue = self._rng.permutation(self._indices).tolist()
            index = self._queue.pop(0)
            image = self._usable.read(self._image, index)
            if image is not None:
                images.append((index, image))
        mirrored = self._rng.random(self._batch) < 0.5 if self._mirror else np.zeros(self._batch, bool)
        return self._stack(images, mirrored)

    def _stack(self, drawn: Sequence[tuple[int, LabelledImage]], mirrored: NDArray[np.bool_]) -> SourceBatch:
        indices, images = zip(*drawn, strict=True)
        color, label, depth = (
            np.stack([part[:, ::-1] if m else part for part, m in zip(parts, mirrored, strict=True)])
            for parts in zip(*((i.color, i.label, _depth_or_none(i)) for i in images), strict=True)
        )
        batch = SourceBatch.of_bytes(
            torch.from_numpy(color).permute(0, 3, 1, 2), torch.from_numpy(label), torch.from_numpy(depth).unsqueeze(1)
        )
        return replace(batch, keys=tuple(zip(indices, mirrored.tolist(), strict=True)))

    def _image(self, index: int) -> LabelledImage:
        image = self._cache.get(index)
        if image is None:
            image = self._source[index].resized(self._width, self._height)
            if len(self._cache) < self._cache_size:
                self._cache[index] = image
        return image


def _depth_or_none(image: LabelledImage) -> NDArray[np.float32]:
    return np.zeros(image.label.shape, np.float32) if image.depth is None else image.depth
