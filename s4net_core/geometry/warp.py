"""Inverse warp (paper, eq. 4): where each pixel of a target view lies in a neighbour, and whether it may be used.

``p' = K_neighbour · T_neighbour_target · d(p) · K_target⁻¹ · p``, folded into one affine map a view:
``p' = d(p) · A p + b``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from s4net_core.config import GeometrySettings
from s4net_core.errors import ShapeError
from s4net_core.geometry.camera import SMALLEST_Z, affine_image, inverse_camera_matrix, working_dtype
from s4net_core.geometry.shapes import check_shape
from s4net_core.geometry.views import Pairs

OUTSIDE = -10.0
"""Normalised coordinate given to invalid pixels: far enough outside that sampling reads zeros there."""


@dataclass(frozen=True)
class Correspondence:
    """Where the pixels of B target views lie in B neighbours.

    Args:
        grid: (B, H, W, 2) float, normalised coordinates x, y in the neighbour for ``grid_sample(align_corners=True)``;
            invalid pixels point far outside, so that nothing can be read there.
        valid: (B, 1, H, W) bool, whether the pixel shows the same 3D point in both views.
        neighbour_size: (h, w) of the neighbours; what is sampled must have this size.
    """

    grid: Tensor
    valid: Tensor
    neighbour_size: tuple[int, int] | None = None


def correspond(pairs: Pairs, settings: GeometrySettings, *, occlusion: bool = True) -> Correspondence:
    """Find the pixels of the target views in their neighbours.

    A pixel is invalid when it has no depth, when its point lies behind the neighbour's camera or outside the
    neighbour's image, or when it is occluded: the neighbour's depth there differs from the point's. Computed in float32
    (float64 for float64 depth) whatever autocast says; differentiable in the target's depth.

    Args:
        pairs: depth outside the settings' range (limits included) counts as none.
        settings: range of depth, and the test of occlusion, which is relative to the point's depth in the neighbour;
            with `require_neighbour_depth` a pixel for which the neighbour has no depth is invalid, otherwise it is not
            tested.
        occlusion: False = no pixel is tested for occlusion, and only the size of the neighbour's depth counts.
    """
    target, neighbour, size = pairs.target, pairs.neighbour, pairs.neighbour.size
    dtype = working_dtype(target.depth)
    depth, valid = usable_depth(target.depth.to(dtype), settings)
    points = project(depth, target.K, pairs.T_neighbour_target, _normalised(neighbour.K.to(dtype), size))
    z = points[:, 2:]
    z_in_front = z.clamp(min=SMALLEST_Z)
    coordinates = points[:, :2] / z_in_front

    # Each pixel is a square of side 1 about its centre: the outer half of a border pixel takes the border's value.
    edge = coordinates.new_tensor([side / max(side - 1, 1) for side in (size[1], size[0])]).view(1, 2, 1, 1)
    inside = coordinates.abs() <= edge
    coordinates = coordinates.clamp(-1.0, 1.0)
    valid = valid & (z == z_in_front) & inside[:, :1] & inside[:, 1:]

    if occlusion:
        at = coordinates.detach().permute(0, 2, 3, 1)
        seen, seen_exists = usable_depth(_grid_sample(neighbour.depth.detach().to(dtype), at, "nearest"), settings)
        same_point = (seen - z).abs() <= settings.occlusion_threshold * z
        valid &= seen_exists & same_point if settings.require_neighbour_depth else ~seen_exists | same_point

    grid = torch.where(valid, coordinates, OUTSIDE).permute(0, 2, 3, 1)
    return Correspondence(grid, valid, size)


def sample(values: Tensor, correspondence: Correspondence) -> tuple[Tensor, Tensor]:
    """Read a neighbour's values at the target's pixels, bilinearly; differentiable in `values` and in the grid.

    Args:
        values: (B, C, h, w) float, any precision.
        correspondence: of B views.

    Returns:
        values (B, C, H, W), at least float32, 0 where invalid; valid (B, 1, H, W) bool.

    Raises:
        ShapeError: `values` has another batch or size than the neighbours.
    """
    _check_neighbour(values, correspondence)
    return _grid_sample(values, correspondence.grid, "bilinear"), correspondence.valid


def sample_nearest(values: Tensor, correspondence: Correspondence) -> tuple[Tensor, Tensor]:
    """Read a neighbour's nearest value at the target's pixels, for labels and masks, which must not be blended.

    Args:
        values: (B, C, h, w), any dtype; integers below 2²⁴.
        correspondence: of B views.

    Returns:
        values (B, C, H, W) of the same dtype, 0 where invalid; valid (B, 1, H, W) bool.

    Raises:
        ShapeError: as `sample`.
    """
    _check_neighbour(values, correspondence)
    return _grid_sample(values, correspondence.grid, "nearest").to(values.dtype), correspondence.valid


def sample_mask(mask: Tensor, correspondence: Correspondence) -> Tensor:
    """Read a mask of the neighbour at the target's pixels.

    Args:
        mask: (B, 1, h, w) bool.
        correspondence: of B views.

    Returns:
        (B, 1, H, W) bool, False where the correspondence is invalid.

    Raises:
        ShapeError: as `sample`.
    """
    check_shape("mask", mask, "B", 1, "h", "w")
    return sample_nearest(mask, correspondence)[0]


def away_from_borders(labels: Tensor, radius: int) -> Tensor:
    """Boundary mask: where no other label lies within `radius` pixels (in a square window).

    Args:
        labels: (B, H, W) integer.
        radius: pixels; 0 = everywhere.

    Returns:
        (B, 1, H, W) bool.

    Raises:
        ShapeError: `labels` has another number of dimensions.
    """
    check_shape("labels", labels, "B", "H", "W")
    # By hand: on a CPU, max_pool2d of labels takes 3 to 10 times as long, at every size and radius that was measured.
    row_changes = _near_change(labels, radius, dim=2)
    near = _near_change(labels, radius, dim=1) | _dilate(row_changes, radius, dim=1)
    return ~near.unsqueeze(1)


@dataclass(frozen=True)
class Merged:
    """Predictions of several views of B targets, added up; the sums of other views may be added to it.

    Args:
        total: (B, C, H, W), sum of the valid class probabilities, at least float32; channel c = class id c + 1.
        views: (B, 1, H, W) int64, number of views that are valid.
    """

    total: Tensor
    views: Tensor

    def __add__(self, other: "Merged") -> "Merged":
        return Merged(self.total + other.total, self.views + other.views)

    @property
    def valid(self) -> Tensor:
        """(B, 1, H, W) bool, where any view is valid."""
        return self.views > 0

    @property
    def labels(self) -> Tensor:
        """(B, H, W) int64, id 1..C of the largest sum (paper, sec. 3.2), 0 where no view is valid."""
        return torch.where(self.valid[:, 0], self.total.max(dim=1).indices + 1, 0)

    @property
    def mean(self) -> Tensor:
        """(B, C, H, W), mean probabilities of the valid views, 0 where there is none."""
        return self.total / self.views.clamp(min=1)


@torch.no_grad()
def merge(probabilities: Tensor, valid: Tensor) -> Merged:
    """Add up the class probabilities of several warped views (paper, sec. 3.2).

    Args:
        probabilities: (N, B, C, H, W), of N views warped into B targets; channel c = class id c + 1.
        valid: (N, B, 1, H, W) bool.

    Raises:
        ShapeError: the two do not fit each other.
    """
    return Merged(_sum_of_valid(probabilities, valid), valid.sum(dim=0))


@torch.no_grad()
def merge_sampled(probabilities: Tensor, correspondence: Correspondence, usable: Tensor | None = None) -> Merged:
    """`merge` of what `sample` reads for one target, in half the time on a CPU: the warped images are never made.

    Args:
        probabilities: (N, C, h, w), of N neighbours; fastest in the memory format ``channels_last``.
        correspondence: of the target with each of them.
        usable: (N, 1, h, w) bool, pixels of the neighbours that may be read; None = all.

    Raises:
        ShapeError: as `sample`.
    """
    _check_neighbour(probabilities, correspondence)
    valid = correspondence.valid if usable is None else sample_mask(usable, correspondence)
    classes, (height, width) = probabilities.shape[1], valid.shape[2:]
    pixels = probabilities.float().permute(0, 2, 3, 1).reshape(-1, classes)
    places, shares, views = _corners(correspondence, valid)
    starts = 4 * (views.cumsum(0, dtype=torch.int32) - views)
    total = functional.embedding_bag(places, pixels, starts, mode="sum", per_sample_weights=shares.to(pixels.dtype))
    return Merged(total.view(1, height, width, -1).permute(0, 3, 1, 2), views.view(1, 1, height, width).long())


def _corners(correspondence: Correspondence, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The four pixels between which a pixel of the target lies, in each neighbour where it is valid.

    Returns:
        int32 places among the pixels of all N neighbours, and their bilinear weights: four for each neighbour, pixel
        after pixel of the target; and the number of neighbours of each pixel, (H * W,) int32.
    """
    assert correspondence.neighbour_size is not None
    height, width = correspondence.neighbour_size
    seen = valid.flatten(1).T.contiguous()
    pair = seen.flatten().nonzero()[:, 0]
    grid = correspondence.grid.flatten(1, 2).transpose(0, 1).reshape(-1, 2).index_select(0, pair)
    x, y = (grid[:, 0] + 1) / 2 * (width - 1), (grid[:, 1] + 1) / 2 * (height - 1)  # as `grid_sample` does
    left, top = x.int(), y.int()
    to_right, down = x - left, y - top
    to_left, up = 1 - to_right, 1 - down
    first = (pair % len(valid)).int() * (height * width)
    upper, lower = first + top * width, first + (top + 1).clamp(max=height - 1) * width
    right = (left + 1).clamp(max=width - 1)
    places = torch.stack([upper + left, upper + right, lower + left, lower + right], dim=1)
    shares = torch.stack([to_left * up, to_right * up, to_left * down, to_right * down], dim=1)
    return places.flatten(), shares.flatten(), seen.sum(dim=1, dtype=torch.int32)


def _sum_of_valid(probabilities: Tensor, valid: Tensor) -> Tensor:
    """(B, C, H, W), at least float32."""
    check_shape("probabilities", probabilities, "N", "B", "C", "H", "W")
    views, batch, _, height, width = probabilities.shape
    check_shape("valid", valid, views, batch, 1, height, width)
    dtype = torch.promote_types(probabilities.dtype, torch.float32)
    total = torch.zeros_like(probabilities[0], dtype=dtype)
    for view in range(views):  # in place: the product of all views at once would take N times the memory
        total.addcmul_(probabilities[view].to(dtype), valid[view].to(dtype))
    return total


def usable_depth(depth: Tensor, settings: GeometrySettings) -> tuple[Tensor, Tensor]:
    """Depth within the settings' range.

    Args:
        depth: any shape, metres.
        settings: `min_depth` and `max_depth`, limits included.

    Returns:
        Depth, 0 where it is unusable, and a bool mask of usable depth; both of the shape of `depth`.
    """
    # Comparing with the clamped depth also refuses NaN.
    exists = depth == depth.clamp(max(settings.min_depth, SMALLEST_Z), settings.max_depth)
    return torch.where(exists, depth, 0.0), exists


def project(depth: Tensor, K_target: Tensor, T_neighbour_target: Tensor, K_neighbour: Tensor) -> Tensor:
    """Homogeneous neighbour coordinates of the target's pixels.

    Args:
        depth: (B, 1, H, W) of the target, metres.
        K_target, K_neighbour: (B, 3, 3).
        T_neighbour_target: (B, 4, 4).

    Returns:
        (B, 3, H, W), x'z', y'z' and z', with x' and y' in the units of `K_neighbour`.
    """
    with torch.autocast(depth.device.type, enabled=False):
        T = T_neighbour_target.to(depth.dtype)
        A = K_neighbour @ T[:, :3, :3] @ inverse_camera_matrix(K_target.to(depth.dtype))
        b = K_neighbour @ T[:, :3, 3:]
    return torch.addcmul(b.unsqueeze(-1), affine_image(A, depth.shape[2], depth.shape[3]), depth)


def _normalised(K: Tensor, size: tuple[int, int]) -> Tensor:
    """Camera matrices (B, 3, 3) that give normalised coordinates, -1 and 1 at the centres of the outermost pixels."""
    height, width = size
    scale = K.new_tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1), 1.0]).view(3, 1)
    shift = K.new_tensor([1.0, 1.0, 0.0]).view(3, 1)
    return scale * K - shift * K[:, 2:]


def _grid_sample(values: Tensor, grid: Tensor, mode: str) -> Tensor:
    """Values (B, C, h, w) at normalised coordinates (B, H, W, 2), in float32 or better; 0 outside."""
    dtype = torch.promote_types(values.dtype, grid.dtype)
    with torch.autocast(values.device.type, enabled=False):
        return functional.grid_sample(
            values.to(dtype), grid.to(dtype), mode=mode, padding_mode="zeros", align_corners=True
        )


def _near_change(labels: Tensor, radius: int, dim: int) -> Tensor:
    """Where a line of `radius` pixels to either side along `dim` holds more than one label; shape of `labels`, bool."""
    near = torch.zeros_like(labels, dtype=torch.bool)
    length = labels.shape[dim]
    changes = labels.narrow(dim, 1, length - 1) != labels.narrow(dim, 0, length - 1)
    for step in range(min(radius, length - 1)):  # a change between pixels i and i + 1 is near both, then wider
        count = length - 1 - step
        near.narrow(dim, 0, count).logical_or_(changes.narrow(dim, step, count))
        near.narrow(dim, step + 1, count).logical_or_(changes.narrow(dim, 0, count))
    return near


def _dilate(mask: Tensor, radius: int, dim: int) -> Tensor:
    """`mask` or any of its neighbours up to `radius` pixels away along `dim`."""
    dilated = mask.clone()
    length = mask.shape[dim]
    for step in range(1, min(radius, length - 1) + 1):
        count = length - step
        dilated.narrow(dim, 0, count).logical_or_(mask.narrow(dim, step, count))
        dilated.narrow(dim, step, count).logical_or_(mask.narrow(dim, 0, count))
    return dilated


def _check_neighbour(values: Tensor, correspondence: Correspondence) -> None:
    check_shape("values", values, "B", "C", "h", "w", B=correspondence.grid.shape[0])
    size = correspondence.neighbour_size
    if size is not None and tuple(values.shape[2:]) != size:
        raise ShapeError(
            f"values are {tuple(values.shape[2:])} but the neighbour is {size}: rescale the depth with which the "
            "correspondence is made, or the values"
        )
