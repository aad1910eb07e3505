"""Feature maps of a frozen encoder: computed once an image, then kept, because every step shows the same images."""

import copy
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from s4net_core.learning.byte_cache import ByteCache
from s4net_core.models.build import SegmentationNetwork

ENCODER = "body.encoder."
"""Prefix of the encoder's weights among those of a `SegmentationNetwork`."""


class FeatureCache:
    """What a frozen encoder makes of images, kept in half precision until memory is full.

    Args:
        network: its encoder never changes.
        megabytes: memory for the feature maps; the least recently used go first.
    """

    def __init__(self, network: SegmentationNetwork, megabytes: int) -> None:
        self._network = network
        self._cache: ByteCache[Hashable, list[Tensor]] = ByteCache(megabytes, _nbytes)
        self._levels: list[bool] = []

    @property
    def nbytes(self) -> int:
        """Memory of the feature maps, bytes."""
        return self._cache.nbytes

    def features(self, keys: Sequence[Hashable], images: Tensor) -> list[Tensor]:
        """Feature maps of a batch, as `SegmentationNetwork.decode` takes them.

        Args:
            keys: one an image: equal keys mean equal images.
            images: (B, 3, H, W) float32, RGB, 0..1.

        Returns:
            (B, ., ., .) each, of half precision values; levels that no decoder reads are empty.
        """
        known = {key: maps for key in keys if (maps := self._cache.used(key)) is not None}
        new = {key: i for i, key in enumerate(keys) if key not in known}
        fresh = dict(zip(new, self._encode(images[list(new.values())]), strict=True)) if new else {}
        for key, maps in fresh.items():
            self._cache.keep(key, maps)
        all_maps = known | fresh
        return [torch.cat(level).float() for level in zip(*(all_maps[key] for key in keys), strict=True)]

    def fit(self, weights: Mapping[str, Tensor]) -> bool:
        """Whether a network with these weights has an equal encoder, so that these are its feature maps as well."""
        own, other = (
            {name: value for name, value in of.items() if name.startswith(ENCODER)}
            for of in (self._network.state_dict(), weights)
        )
        return own.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in own.items())

    def clear(self) -> None:
        """Forget all feature maps, because the encoder becomes another one."""
        self._cache.clear()

    @torch.no_grad()
    def _encode(self, images: Tensor) -> list[list[Tensor]]:
        """Feature maps of each image, (1, ., ., .) each."""
        levels = self._network.encode(images)
        if not self._levels:
            self._levels = self._read_by_decoders(levels, (images.shape[2], images.shape[3]))
        kept = [
            level.half() if used else level.new_empty((len(images), 0), dtype=torch.float16)
            for level, used in zip(levels, self._levels, strict=True)
        ]
        # Copies: a slice would keep the whole batch in memory.
        return [[level[i : i + 1].clone() for level in kept] for i in range(len(images))]

    def _read_by_decoders(self, levels: list[Tensor], size: tuple[int, int]) -> list[bool]:
        """Which levels have an influence on any output."""
        network = copy.deepcopy(self._network)  # live batch norm would count this batch
        devices = [levels[0].device] if levels[0].is_cuda else []
        with torch.random.fork_rng(devices=devices), torch.enable_grad():  # dropout must not depend on what is cached
            leaves = [level[:1].detach().requires_grad_() for level in levels]
            outputs = network.decode(leaves, size)
            parts = (outputs.logits, outputs.auxiliary, outputs.depth)
            total = torch.stack([part.float().sum() for part in parts if part is not None]).sum()
            gradients = torch.autograd.grad(total, leaves, allow_unused=True)
        return [gradient is not None for gradient in gradients]


def _nbytes(maps: list[Tensor]) -> int:
    return sum(level.nbytes for level in maps)
