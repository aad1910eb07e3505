"""L_DG: views of one place must look alike when they are warped into each other with the predicted depth."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from s4net_core.config import GeometrySettings
from s4net_core.geometry.views import Pairs
from s4net_core.geometry.warp import correspond, sample, sample_mask, sample_nearest
from s4net_core.keyframes import Keyframe, views_of
from s4net_core.learning.teacher import Teacher
from s4net_core.losses import photometric_loss
from s4net_core.models.predict import to_tensor


def depth_geometric_loss(
    images: Tensor,
    depth: Tensor,
    drawn: Sequence[tuple[Keyframe, Sequence[Keyframe]]],
    teacher: Teacher,
    settings: GeometrySettings,
) -> Tensor:
    """L_DG = Σ_{e} Σ_{e'∈N(e)} L_INT( I_e, Warp_{e'→e}(I_e') ) with the predicted depth of e (paper: sec. 3.3).

    A pixel counts where the teacher sees the same class in both views, away from the borders of its segments. This
    replaces the test of occlusion, which would leave out the very pixels whose depth is wrong. Masks have no gradient.

    Args:
        images: (B, 3, H, W) float32, 0..1, of the target views e.
        depth: (B, 1, H, W) float32, metres, predicted; the only thing that gets a gradient.
        drawn: each target view with its neighbours N(e).
        teacher: predicts the segments.
        settings: range of depth.

    Returns:
        Scalar, mean over the pixels that count in all pairs; 0 with zero gradient when none does.
    """
    targets = [target for target, neighbours in drawn for _ in neighbours]
    neighbours = [neighbour for _, neighbours in drawn for neighbour in neighbours]
    of_pair = torch.tensor([i for i, (_, n) in enumerate(drawn) for _ in n], device=depth.device)
    unknown = depth.new_zeros(()).expand(len(neighbours), *depth.shape[1:])  # only its size counts
    pairs = Pairs(
        views_of(targets, depth.device, depth=depth[of_pair]), views_of(neighbours, depth.device, depth=unknown)
    )
    correspondence = correspond(pairs, settings, occlusion=False)
    warped, valid = sample(to_tensor([view.color for view in neighbours], depth.device), correspondence)
    fixed = replace(correspondence, grid=correspondence.grid.detach())
    here, here_inner = teacher.segments(targets)
    there, there_inner = teacher.segments(neighbours)
    same = here == sample_nearest(there, fixed)[0]
    counts = valid & same & here_inner & sample_mask(there_inner, fixed)
    return photometric_loss(images[of_pair], warped, counts)
