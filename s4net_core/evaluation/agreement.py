"""Agreement between views: how often two views give the same 3D point the same class. Needs no labels."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s4net_core.config import Settings
from s4net_core.errors import ShapeError
from s4net_core.geometry.views import Pairs, Views
from s4net_core.geometry.warp import correspond, sample_nearest
from s4net_core.keyframes import Keyframe, KeyframeBuffer, views_of
from s4net_core.labels import UNLABELLED


@dataclass(frozen=True)
class Agreement:
    """How well views agree in the labels of one network.

    Args:
        mean: share 0..1 of the compared pixels whose classes are equal; NaN when there is none.
        pixels: compared pixels.
        pairs: ordered pairs of views with at least one compared pixel.
    """

    mean: float
    pixels: int
    pairs: int


def compared_views(
    keyframes: KeyframeBuffer, ids: Iterable[int], settings: Settings
) -> list[tuple[Keyframe, list[Keyframe]]]:
    """Each view with those among `ids` that it is compared with, as the buffer holds them now.

    Args:
        keyframes: may evict or move some later; ids that it no longer holds are left out.
        ids: of keyframes.
        settings: `learner.neighbours` views at most (0 = all) are compared with each, of those that overlap it by
            `learner.min_overlap`.
    """
    views = keyframes.views(ids)
    overlapping = {id: keyframes.overlapping(id, settings.learner.min_overlap) for id in views}  # largest overlap first
    return [
        (view, [views[other] for other, _ in overlapping[id] if other in views][: settings.learner.neighbours or None])
        for id, view in views.items()
    ]


def agreement_of_each(
    labels: Sequence[Mapping[int, NDArray[np.uint8]]],
    views: Sequence[tuple[Keyframe, Sequence[Keyframe]]],
    settings: Settings,
    device: torch.device | None = None,
    *,
    depths: Mapping[int, NDArray[np.float32]] | None = None,
    on_view: Callable[[], None] = lambda: None,
    on_share: Callable[[int, NDArray[np.float64]], None] = lambda id, shares: None,
) -> list[Agreement]:
    """Compare every view with others that it overlaps, in the labels that several networks give to them.

    Each pixel of a view is looked up in the other view, once for all networks, by the same correspondence that the
    geometric loss uses, and the class of the nearest pixel there is compared. Agreement alone proves nothing: a network
    that answers "wall" everywhere agrees perfectly.

    Args:
        labels: of each network, (H, W) uint8 class ids of each view by keyframe id, at the keyframes' size; 0 = no
            answer, not compared. All have the same keyframes.
        views: from `compared_views`.
        settings: group `geometry`.
        device: where to compute; None = CPU.
        depths: (H, W) float32 metres of each view by keyframe id, for views whose depth is predicted; None = the depth
            that the keyframes hold.
        on_view: called after every view.
        on_share: called with the id of every view that was compared, and with (networks,) float64: the share 0..1 of
            its pixels that agree with its neighbours.

    Raises:
        ShapeError: labels have another size than their keyframe.
    """
    device = device or torch.device("cpu")
    equal, compared, pairs = np.zeros((3, len(labels)), np.int64)
    for view, neighbours in views:
        if neighbours:
            same, both = _compare(view, neighbours, labels, settings, device, depths)
            equal_here = (same & both).sum(dim=(0, 2, 3)).cpu().numpy()
            compared_here = both.sum(dim=(0, 2, 3)).cpu().numpy()
            if compared_here.all():
                on_share(view.id, equal_here / compared_here)
            equal += equal_here
            compared += compared_here
            pairs += both.flatten(2).any(dim=2).sum(dim=0).cpu().numpy()
        on_view()
    return [
        Agreement(int(e) / int(c) if c else math.nan, int(c), int(p))
        for e, c, p in zip(equal, compared, pairs, strict=True)
    ]


def _compare(
    target: Keyframe,
    neighbours: Sequence[Keyframe],
    labels: Sequence[Mapping[int, NDArray[np.uint8]]],
    settings: Settings,
    device: torch.device,
    depths: Mapping[int, NDArray[np.float32]] | None,
) -> tuple[Tensor, Tensor]:
    """Whether classes are equal and whether both views have one: (N, networks, H, W) bool each, N neighbours."""

    def with_depth(keyframes: Sequence[Keyframe]) -> Views:
        depth = None if depths is None else _tensor([depths[view.id] for view in keyframes], device).unsqueeze(1)
        return views_of(keyframes, device, depth=depth)

    def with_labels(view: Keyframe) -> NDArray[np.uint8]:
        return np.stack([_label(view, of_network) for of_network in labels])

    pairs = Pairs(with_depth([target]).repeated(len(neighbours)), with_depth(neighbours))
    correspondence = correspond(pairs, settings.geometry)
    here = _tensor([with_labels(target)], device)
    there, valid = sample_nearest(_tensor([with_labels(view) for view in neighbours], device), correspondence)
    return here == there, valid & (here != UNLABELLED) & (there != UNLABELLED)


def _label(view: Keyframe, labels: Mapping[int, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    label = labels[view.id]
    if label.shape != view.depth_mm.shape:
        raise ShapeError(f"labels of keyframe {view.id} are {label.shape} but the keyframe is {view.depth_mm.shape}")
    return label


def _tensor(arrays: list[NDArray[np.float32]] | list[NDArray[np.uint8]], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).to(device)
