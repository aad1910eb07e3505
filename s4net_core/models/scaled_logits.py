"""Logits of one image, scaled to its size: the most probable class of each pixel, and how probable it is."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s4net_core.labels import UNLABELLED

PIXELS_AT_ONCE = {"cpu": 1 << 13, "cuda": 1 << 18}
"""Pixels whose logits exist at once: as many as fit a processor's cache, or are no burden to a GPU's memory."""
SMALLEST_REST = 1e-7
"""Lower bound of what all other classes weigh against the most probable one: keeps its logarithm finite."""
_ABOVE_ABOVE_BELOW_BELOW, _LEFT_RIGHT_LEFT_RIGHT = [0, 0, 1, 1], [0, 1, 0, 1]


class ScaledLogits:
    """Logits of one image, scaled to its size bilinearly.

    Where the four logits around a pixel have the same most probable class, interpolation cannot change it. A CPU
    interpolates at the other pixels alone, which are a tenth of a room's image.

    Args:
        logits: (1, C, h, w) float32, fastest in the memory format channels_last.
        size: (H, W) of the image.
        upsampling: factor by which a network's head would scale them, corners onto corners, before what lies beyond
            `size` on the right and at the bottom is cut off; None = they are scaled to `size`, edges onto edges.
        everywhere: interpolate at all pixels; None = on a GPU, which would have to wait to find the few.
    """

    label: Tensor
    """(H, W) uint8, class ids 1..C, the first of equals; 0 where logits are NaN."""

    def __init__(
        self,
        logits: Tensor,
        size: tuple[int, int],
        *,
        upsampling: float | None = None,
        everywhere: bool | None = None,
    ) -> None:
        _, classes, height, width = logits.shape
        self._own_size, self._size = (height, width), size
        self._aligned = upsampling is not None
        self._whole = size if upsampling is None else (int(height * upsampling), int(width * upsampling))
        self._rows = logits[0].permute(1, 2, 0).reshape(-1, classes)
        y, x = (
            _places(*sides, aligned=self._aligned, device=logits.device)
            for sides in zip(self._own_size, self._whole, size, strict=True)
        )
        self._y, self._x = _corners(y, _ABOVE_ABOVE_BELOW_BELOW), _corners(x, _LEFT_RIGHT_LEFT_RIGHT)
        if logits.is_cuda if everywhere is None else everywhere:
            self.label = torch.empty(size, dtype=torch.uint8, device=logits.device)
            pixels = torch.arange(self.label.numel(), device=logits.device)
        else:
            self.label, pixels = self._agreed_labels()
        self._interpolated = pixels.split(PIXELS_AT_ONCE[logits.device.type])
        for part in self._interpolated:
            self.label.view(-1)[part] = _most_probable(self._logits_at(part))

    @cached_property
    def confidence(self) -> Tensor:
        """(H, W) float32, probability 0..1 of the most probable class, NaN where logits are; computed when asked for.

        Where logits are not interpolated, the log odds of the class against all others are. With two classes this is
        the same; with the 37 classes of the demo the probability differs by less than 0.02.
        """
        log_odds = _log_odds_against(self._rows).view(1, 1, *self._own_size)
        log_odds = F.interpolate(log_odds, size=self._whole, mode="bilinear", align_corners=self._aligned)[0, 0]
        log_odds = log_odds[: self._size[0], : self._size[1]].contiguous()
        for part in self._interpolated:
            log_odds.view(-1)[part] = _log_odds_against(self._logits_at(part))
        return log_odds.neg_().sigmoid_()

    def _agreed_labels(self) -> tuple[Tensor, Tensor]:
        """Labels (H, W) where the four logits around a pixel agree, and the flat indices (P,) of the other pixels."""
        own = _most_probable(self._rows).view(self._own_size).numpy()  # NumPy looks up faster than PyTorch
        above, below = self._y.at[:, 0].numpy(), self._y.at[:, 3].numpy()
        left, right = self._x.at[:, 0].numpy(), self._x.at[:, 3].numpy()
        at_left = own.take(left, axis=1)
        same = at_left == own.take(right, axis=1)
        label = at_left.take(above, axis=0)
        agree = (label == at_left.take(below, axis=0)) & same.take(above, axis=0) & same.take(below, axis=0)
        return torch.from_numpy(label), torch.from_numpy(np.flatnonzero(~agree))

    def _logits_at(self, pixels: Tensor) -> Tensor:
        """Flat indices (P,) of pixels -> their logits (P, C), each the weighted sum of four."""
        y, x = self._y.of(pixels // self._size[1]), self._x.of(pixels % self._size[1])
        corners = y.at * self._own_size[1] + x.at
        return F.embedding_bag(corners, self._rows, mode="sum", per_sample_weights=y.share * x.share)


class _Corners(NamedTuple):
    """Row or column of the four logits around each line of pixels, (N, 4) int64, and their shares, (N, 4) float32."""

    at: Tensor
    share: Tensor

    def of(self, lines: Tensor) -> "_Corners":
        """Those of some lines (P,)."""
        return _Corners(self.at.index_select(0, lines), self.share.index_select(0, lines))


def _places(old: int, whole: int, new: int, *, aligned: bool, device: torch.device) -> Tensor:
    """Where the first `new` lines lie among `old` ones that `F.interpolate` scales to `whole`, (N,) float32."""
    lines = torch.arange(new, dtype=torch.float32, device=device)
    places = lines * ((old - 1) / max(whole - 1, 1)) if aligned else lines.add_(0.5).mul_(old / whole).sub_(0.5)
    return places.clamp_(0, old - 1)


def _corners(at: Tensor, order: list[int]) -> _Corners:
    """For lines at places `at`, each interpolated between the two lines beside it; `order` repeats these."""
    second = at.frac()
    two, shares = torch.stack((at.floor(), at.ceil()), dim=1).long(), torch.stack((1 - second, second), dim=1)
    return _Corners(two[:, order], shares[:, order])


def _most_probable(logits: Tensor) -> Tensor:
    """(N, C) -> (N,) uint8 class ids, 0 where a logit is NaN."""
    if logits.is_cuda:
        best = logits.argmax(dim=1)
    else:
        best = torch.from_numpy(logits.numpy().argmax(axis=1))  # half of the time that PyTorch takes
    return (best + 1).to(torch.uint8).masked_fill_(logits.sum(dim=1).isnan(), UNLABELLED)


def _log_odds_against(logits: Tensor) -> Tensor:
    """(N, C) -> (N,) logarithm of what all other classes weigh, as a multiple of the most probable one."""
    weights = (logits - logits.amax(dim=1, keepdim=True)).exp_()
    return weights.sum(dim=1).sub_(1).clamp_(min=SMALLEST_REST).log_()
