"""The inverse warp against a loop over pixels in NumPy, and each of its validity tests alone."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from s4net_core.config import GeometrySettings
from s4net_core.errors import ShapeError
from s4net_core.geometry.views import Pairs, Views
from s4net_core.geometry.warp import (
    Correspondence,
    away_from_borders,
    correspond,
    merge,
    merge_sampled,
    sample,
    sample_mask,
    sample_nearest,
)

LIMITS = GeometrySettings(occlusion_threshold=0.05, require_neighbour_depth=True, min_depth=0.1, max_depth=10.0)


def loop_warp(
    depth_target, K_target, T_neighbour_target, depth_neighbour, K_neighbour, values, *, threshold=0.05, need=True
):
    """Eq. 4 pixel by pixel: warped values (C, H, W) and valid (H, W)."""
    height, width = depth_target.shape
    h, w = depth_neighbour.shape
    out, valid = np.zeros((values.shape[0], height, width)), np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            d = depth_target[y, x]
            if not (np.isfinite(d) and 0.1 <= d <= 10):
                continue
            point = T_neighbour_target @ np.append(d * np.linalg.inv(K_target) @ [x, y, 1], 1)
            if point[2] <= 0:
                continue
            u, v = (K_neighbour @ (point[:3] / point[2]))[:2]
            if not (-0.5 <= u <= w - 0.5 and -0.5 <= v <= h - 0.5):
                continue
            u, v = np.clip(u, 0, w - 1), np.clip(v, 0, h - 1)
            seen = depth_neighbour[round(v), round(u)]
            if 0.1 <= seen <= 10:
                if abs(seen - point[2]) > threshold * point[2]:
                    continue
            elif need:
                continue
            u0, v0 = int(u), int(v)
            u1, v1, a, b = min(u0 + 1, w - 1), min(v0 + 1, h - 1), u - u0, v - v0
            out[:, y, x] = (1 - b) * ((1 - a) * values[:, v0, u0] + a * values[:, v0, u1]) + b * (
                (1 - a) * values[:, v1, u0] + a * values[:, v1, u1]
            )
            valid[y, x] = True
    return out, valid


def batch(array: np.ndarray, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """(B, ...) tensor of one or more arrays; an (H, W) image gets batch and channel."""
    tensor = torch.as_tensor(np.asarray(array), dtype=dtype)
    return tensor[None, None] if tensor.ndim == 2 and tensor.shape not in ((3, 3), (4, 4)) else tensor[None]


def camera(width: int, height: int, focal: float) -> np.ndarray:
    return np.array([[focal, 0, (width - 1) / 2 + 0.7], [0, focal * 1.1, (height - 1) / 2 - 0.4], [0, 0, 1]])


def pairs_of(depth_target, K_target, T_neighbour_target, depth_neighbour, K_neighbour) -> Pairs:
    """Pairs whose neighbours stand in the world's origin."""
    origin = np.tile(np.eye(4), (len(K_neighbour), 1, 1))
    return Pairs(
        Views(depth_target, K_target, np.asarray(T_neighbour_target)), Views(depth_neighbour, K_neighbour, origin)
    )


def wall(distance: float = 2.0, size: tuple[int, int] = (9, 14)) -> np.ndarray:
    return np.full(size, distance)


def shift(x: float = 0.0, z: float = 0.0, y: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


def warp_wall(depth_target=None, depth_neighbour=None, T=None, **changes) -> Correspondence:
    """A wall at 2 m seen by two equal cameras of 14 x 9 pixels; only what a test is about differs."""
    K = batch(camera(14, 9, 12.0))
    depth_target = wall() if depth_target is None else depth_target
    depth_neighbour = wall() if depth_neighbour is None else depth_neighbour
    T = np.eye(4) if T is None else T
    return correspond(
        pairs_of(batch(depth_target), K, T[None], batch(depth_neighbour), K), LIMITS.model_copy(update=changes)
    )


@pytest.mark.parametrize("need_neighbour_depth", [True, False])
def test_equals_a_loop_over_pixels(need_neighbour_depth: bool) -> None:
    rng = np.random.default_rng(3)
    views = []
    for _ in range(3):
        depth_target = 2 + rng.uniform(-0.2, 0.2, (11, 17))
        depth_target[rng.random((11, 17)) < 0.1] = 0
        depth_neighbour = 2 + rng.uniform(-0.1, 0.1, (13, 10))
        depth_neighbour[rng.random((13, 10)) < 0.1] = 0
        T = np.eye(4)
        T[:3, :3] = Rotation.from_rotvec(rng.uniform(-0.15, 0.15, 3)).as_matrix()
        T[:3, 3] = rng.uniform(-0.2, 0.2, 3)
        views.append(
            (depth_target, camera(17, 11, 15), T, depth_neighbour, camera(10, 13, 12), rng.random((4, 13, 10)))
        )
    stacked = [torch.as_tensor(np.stack(part)) for part in zip(*views, strict=True)]

    found = correspond(
        pairs_of(stacked[0][:, None], stacked[1], stacked[2], stacked[3][:, None], stacked[4]),
        LIMITS.model_copy(update={"require_neighbour_depth": need_neighbour_depth}),
    )
    values, valid = sample(stacked[5], found)

    assert values.shape == (3, 4, 11, 17)
    assert 0.2 < valid.float().mean() < 0.9  # the test would be empty otherwise
    for i, view in enumerate(views):
        expected, expected_valid = loop_warp(*view, need=need_neighbour_depth)
        np.testing.assert_array_equal(valid[i, 0].numpy(), expected_valid)
        np.testing.assert_allclose(values[i].numpy(), expected, atol=1e-9)


def test_float32_differs_by_less_than_a_thousandth_of_a_pixel_at_full_size() -> None:
    rng = np.random.default_rng(0)
    depth = 2 + rng.random((360, 480))
    K, T = camera(480, 360, 400), shift(0.1, -0.1)
    T[:3, :3] = Rotation.from_rotvec([0.05, -0.1, 0.2]).as_matrix()
    grids = []
    for dtype in (torch.float32, torch.float64):
        image, matrix = batch(depth, dtype), batch(K, dtype)
        pairs = pairs_of(image, matrix, T[None], image, matrix)
        grids.append(correspond(pairs, LIMITS.model_copy(update={"occlusion_threshold": 1.0})))
    both = (grids[0].valid & grids[1].valid)[:, 0]
    error_pixels = (grids[0].grid.double() - grids[1].grid)[both].abs() * torch.tensor([479 / 2, 359 / 2])
    assert both.float().mean() > 0.4
    assert error_pixels.max() < 1e-3


def test_identity_maps_every_pixel_onto_itself_up_to_the_border() -> None:
    image = torch.rand(1, 3, 9, 14, dtype=torch.float64)
    values, valid = sample(image, warp_wall())
    assert valid.all()
    torch.testing.assert_close(values, image)


@pytest.mark.parametrize("hole", [0.0, -1.0, np.nan, np.inf, -np.inf, 0.05, 11.0])
def test_a_hole_or_depth_out_of_range_is_invalid_and_reads_zero(hole: float) -> None:
    depth = wall()
    depth[4, 6] = hole
    # The neighbour steps back and its depth is not asked for: a point at depth 0 would lie before it, within its image.
    T = shift(z=0.3)
    found = warp_wall(depth_target=depth, T=T, depth_neighbour=np.zeros((9, 14)), require_neighbour_depth=False)
    values, valid = sample(torch.ones(1, 1, 9, 14), found)
    assert not valid[0, 0, 4, 6]
    assert valid.sum() == valid.numel() - 1
    assert values[0, 0, 4, 6] == 0


def test_a_point_behind_the_neighbours_camera_is_invalid() -> None:
    T = shift(z=-4.0)  # the wall, 2 m before the target, lies 2 m behind the neighbour: mirrored into its image
    found = warp_wall(T=T, depth_neighbour=np.zeros((9, 14)), require_neighbour_depth=False)
    assert not found.valid.any()
    assert (sample(torch.ones(1, 1, 9, 14), found)[0] == 0).all()


def test_a_point_behind_the_camera_on_its_axis_is_invalid() -> None:
    """Straight behind, however small z is made before the division, the pixel is the principal point."""
    K = torch.tensor([[12.0, 0, 7], [0, 12, 4], [0, 0, 1]])[None]
    depth = torch.full((1, 1, 9, 15), 2.0)
    limits = LIMITS.model_copy(update={"require_neighbour_depth": False})
    found = correspond(pairs_of(depth, K, shift(z=-4.0)[None], torch.zeros(1, 1, 9, 15), K), limits)
    assert not found.valid.any()


def test_a_point_in_the_camera_plane_is_invalid() -> None:
    found = warp_wall(T=shift(z=-2.0), depth_neighbour=np.zeros((9, 14)), require_neighbour_depth=False)
    assert not found.valid.any()


def test_points_beside_the_neighbours_image_are_invalid() -> None:
    found = warp_wall(T=shift(x=0.5))  # 0.5 m · 12 px / 2 m = 3 pixels to the right
    assert found.valid[0, 0, :, :11].all()
    assert not found.valid[0, 0, :, 11:].any()
    upwards = warp_wall(T=shift(y=-0.5))  # 0.5 m · 13.2 px / 2 m = 3.3 pixels up
    assert upwards.valid[0, 0, 3:].all()
    assert not upwards.valid[0, 0, :3].any()


def test_a_border_pixel_reaches_half_a_pixel_beyond_its_centre() -> None:
    inside, outside = warp_wall(T=shift(x=0.49 / 6)), warp_wall(T=shift(x=0.51 / 6))
    assert inside.valid.all()
    assert not outside.valid[0, 0, :, 13].any()
    ramp = torch.arange(14, dtype=torch.float64).expand(1, 1, 9, 14)
    assert (sample(ramp, inside)[0][0, 0, :, 13] == 13).all()  # not mixed with zeros from outside


def test_a_point_hidden_by_something_nearer_is_invalid() -> None:
    depth_neighbour = wall()
    depth_neighbour[:, 5:8] = 1.0
    valid = warp_wall(depth_neighbour=depth_neighbour).valid
    assert not valid[0, 0, :, 5:8].any()
    assert valid.sum() == 9 * 11


def test_a_point_before_what_the_neighbour_sees_is_invalid() -> None:
    assert not warp_wall(depth_neighbour=wall(3.0)).valid.any()


def test_occlusion_threshold_is_relative_to_depth() -> None:
    for distance in (0.5, 4.0):
        assert warp_wall(wall(distance), wall(distance * 1.04)).valid.all()
        assert not warp_wall(wall(distance), wall(distance * 1.06)).valid.any()


@pytest.mark.parametrize("hole", [0.0, np.nan, np.inf, 11.0])
def test_a_neighbour_without_depth_is_invalid_only_where_depth_is_required(hole: float) -> None:
    depth_neighbour = wall()
    depth_neighbour[2, 3] = hole
    for threshold in (0.05, 1.0):
        assert not warp_wall(depth_neighbour=depth_neighbour, occlusion_threshold=threshold).valid[0, 0, 2, 3]
    assert warp_wall(depth_neighbour=depth_neighbour, require_neighbour_depth=False).valid.all()


def test_without_the_test_of_occlusion_the_depth_of_the_neighbour_does_not_count() -> None:
    K = batch(camera(14, 9, 12.0))
    for depth in (wall(1.0), wall(0.0)):
        found = correspond(pairs_of(batch(wall()), K, shift(x=0.5)[None], batch(depth), K), LIMITS, occlusion=False)
        torch.testing.assert_close(found.grid, warp_wall(T=shift(x=0.5)).grid, rtol=0, atol=0)


def test_neighbour_depth_out_of_range_counts_as_none_even_where_it_would_fit() -> None:
    assert not warp_wall(wall(9.9), wall(10.1)).valid.any()
    assert warp_wall(wall(9.9), wall(10.1), max_depth=20).valid.all()


def test_a_pose_that_is_not_finite_makes_everything_invalid() -> None:
    found = warp_wall(T=shift(x=float("nan")))
    assert not found.valid.any()
    assert torch.isfinite(found.grid).all()


def test_gradients_of_sampling_are_right() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 3, 5, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    grid = torch.rand(2, 4, 6, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.8
    grid.requires_grad_()
    valid = torch.ones(2, 1, 4, 6, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda v, g: sample(v, Correspondence(g, valid))[0], (values, grid))


def test_the_jacobian_of_the_warp_in_depth_pose_and_values_is_right() -> None:
    """Against central differences, on a view of another size whose depth and pose change slowly."""
    generator = torch.Generator().manual_seed(1)
    depth = (2 + 0.1 * torch.rand(2, 1, 4, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    T = torch.cat([batch(shift(x=0.11, z=0.05)), batch(shift(x=-0.07, y=0.03))]).requires_grad_()
    values = torch.rand(2, 3, 9, 14, generator=generator, dtype=torch.float64, requires_grad=True)
    K_target, K_neighbour = (batch(K).expand(2, 3, 3) for K in (camera(6, 4, 8.0), camera(14, 9, 15.0)))
    nothing, poses = torch.zeros(2, 1, 9, 14, dtype=torch.float64), np.tile(np.eye(4), (2, 1, 1))

    def found(depth: torch.Tensor, T: torch.Tensor) -> Correspondence:
        pairs = Pairs(Views(depth, K_target, poses), Views(nothing, K_neighbour, poses))
        vars(pairs)["T_neighbour_target"] = T  # in place of the one from the poses, which takes no gradient
        return correspond(pairs, LIMITS, occlusion=False)

    def warp(depth: torch.Tensor, T: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return sample(values, found(depth, T))[0]

    assert found(depth, T).valid.all()
    assert torch.autograd.gradcheck(warp, (depth, T, values))


def test_soft_merge_is_the_mean_of_the_valid_views() -> None:
    probabilities = torch.rand(3, 2, 4, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    valid = torch.rand(3, 2, 1, 2, 5, generator=torch.Generator().manual_seed(1)) > 0.5
    merged = merge(probabilities, valid)
    soft, any_valid = merged.mean, merged.valid
    for b, y, x in np.ndindex(2, 2, 5):
        counted = [probabilities[n, b, :, y, x].numpy() for n in range(3) if valid[n, b, 0, y, x]]
        expected = np.mean(counted, axis=0) if counted else np.zeros(4)
        np.testing.assert_allclose(soft[b, :, y, x].numpy(), expected, rtol=1e-12)
        assert bool(any_valid[b, 0, y, x]) == bool(counted)


def test_gradient_reaches_the_target_depth_and_is_finite_at_holes() -> None:
    depth = batch(wall() + np.random.default_rng(0).random((9, 14)) * 0.02)
    depth[0, 0, 1, 1], depth[0, 0, 2, 2] = 0, float("nan")
    depth.requires_grad_()
    K, image = batch(camera(14, 9, 12.0)), torch.rand(1, 2, 9, 14, dtype=torch.float64)
    found = correspond(pairs_of(depth, K, shift(x=0.1)[None], batch(wall()), K), LIMITS)
    sample(image, found)[0].sum().backward()
    assert torch.isfinite(depth.grad).all()
    assert depth.grad[found.valid].abs().max() > 0
    assert (depth.grad[~found.valid] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_do_not_touch_the_geometry(dtype: torch.dtype) -> None:
    depth, K, T = batch(wall(), torch.float32), batch(camera(14, 9, 12.0), torch.float32), shift(0.1)[None]
    expected = correspond(pairs_of(depth, K, T, depth, K), LIMITS)
    image = torch.rand(1, 3, 9, 14)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = correspond(pairs_of(depth, K, T, depth, K), LIMITS)
        values, _ = sample(image.to(dtype), found)
    torch.testing.assert_close(found.grid, expected.grid, rtol=0, atol=0)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, sample(image.to(dtype).float(), expected)[0])
    depth, K = depth.to(dtype), K.to(dtype)
    half = correspond(pairs_of(depth, K, T, depth, K), LIMITS)
    assert half.grid.dtype == torch.float32
    assert half.valid.any()


def test_nearest_sampling_keeps_labels_unmixed_and_zero_where_invalid() -> None:
    labels = torch.arange(9 * 14).view(1, 1, 9, 14)
    found = warp_wall(T=shift(x=0.4 / 6 + 1 / 6))  # 1.4 pixels
    read, valid = sample_nearest(labels, found)
    assert read.dtype == torch.int64
    torch.testing.assert_close(read[0, 0, :, :12], labels[0, 0, :, 1:13])
    assert not valid[0, 0, :, 13].any()
    assert (read[0, 0, :, 13] == 0).all()


def test_mask_sampling_is_false_where_invalid() -> None:
    mask = torch.ones(1, 1, 9, 14, dtype=torch.bool)
    mask[0, 0, 3, 5] = False
    read = sample_mask(mask, warp_wall(T=shift(x=1 / 6)))
    assert read.dtype == torch.bool
    assert not read[0, 0, 3, 4]
    assert not read[0, 0, :, 13].any()
    assert read.sum() == 9 * 13 - 1


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 20])
def test_border_mask_equals_a_search_of_every_window(radius: int) -> None:
    labels = np.ones((2, 12, 19), np.int64)
    labels[0, 4:9, 6:] = 2
    labels[0, 11, 0] = 7  # one pixel in a corner
    labels[1, 5, 9] = 3
    away = away_from_borders(torch.as_tensor(labels), radius)
    assert away.shape == (2, 1, 12, 19)
    for b, y, x in np.ndindex(labels.shape):
        window = labels[b, max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        assert away[b, 0, y, x] == (np.unique(window).size == 1), (b, y, x)


def test_merge_sums_the_probabilities_of_valid_views_only() -> None:
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.rand(3, 2, 5, 4, 6, generator=generator)
    valid = torch.rand(3, 2, 1, 4, 6, generator=generator) > 0.5
    merged = merge(probabilities[:1], valid[:1]) + merge(probabilities[1:], valid[1:])
    labels, any_valid = merged.labels, merged.valid
    p, ok = probabilities.numpy(), valid.numpy()
    for b, y, x in np.ndindex(2, 4, 6):
        views = [n for n in range(3) if ok[n, b, 0, y, x]]
        expected = 1 + int(np.argmax(sum(p[n, b, :, y, x] for n in views))) if views else 0
        assert labels[b, y, x] == expected
        assert any_valid[b, 0, y, x] == bool(views)
    assert labels.dtype == torch.int64
    assert (labels == 0).any()


@pytest.mark.parametrize("masked", [True, False])
def test_views_merged_as_they_are_sampled_are_those_warped_and_then_merged(masked: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    ids = torch.rand(3, 1, 9, 14, generator=generator) > 0.2
    probabilities = torch.rand(3, 5, 9, 14, generator=generator).half()
    K = batch(camera(14, 9, 12.0)).expand(3, 3, 3)
    depth = batch(wall()).repeat(3, 1, 1, 1)
    depth[:, 0, 4, 5:8] = 0  # nobody sees the target there
    T = np.stack([shift(x=0.13), shift(y=-0.2, z=0.1), shift(x=50.0)])  # the last one sees nothing
    found = correspond(pairs_of(depth, K, T, depth, K), LIMITS)
    warped, valid = sample(probabilities, found)
    expected = merge(warped[:, None], (valid & sample_mask(ids, found) if masked else valid)[:, None])
    merged = merge_sampled(probabilities, found, ids if masked else None)
    assert {0, 1, 2} == set(merged.views.unique().tolist())
    assert torch.equal(merged.views, expected.views)
    torch.testing.assert_close(merged.total, expected.total.float(), rtol=1e-5, atol=1e-6)
    assert not merge_sampled(
        probabilities[2:], correspond(pairs_of(*(a[2:] for a in (depth, K, T, depth, K))), LIMITS)
    ).views.any()


def test_merge_of_agreeing_weak_views_beats_one_strong_view() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.1, 0.9]]).view(3, 1, 2, 1, 1).half()
    assert merge(probabilities, torch.ones(3, 1, 1, 1, 1, dtype=torch.bool)).labels.item() == 2


def test_values_of_another_size_than_the_neighbour_are_refused() -> None:
    with pytest.raises(ShapeError, match="rescale"):
        sample(torch.rand(1, 3, 18, 28), warp_wall())


def test_a_real_frame_warped_into_the_next_looks_like_it(demo: Path) -> None:
    """Colour agreement of two real frames rises a lot by the warp, and falls again with a wrong pose."""
    folder = demo / "capture"
    lens = json.loads((folder / "intrinsics.json").read_text())
    K = torch.tensor([[lens["fx"], 0, lens["cx"]], [0, lens["fy"], lens["cy"]], [0, 0, 1]])[None]
    poses = {int(row[0]): row[1:].reshape(4, 4) for row in np.loadtxt(folder / "poses.txt", ndmin=2)}
    first, second = sorted(poses)[100], sorted(poses)[102]
    files = {kind: {int(f.stem): f for f in (folder / kind).iterdir()} for kind in ("color", "depth")}

    def color(i: int) -> torch.Tensor:
        image = cv2.GaussianBlur(cv2.imread(str(files["color"][i])), (5, 5), 0)
        return torch.as_tensor(image).permute(2, 0, 1)[None] / 255

    def depth(i: int) -> torch.Tensor:
        return torch.as_tensor(cv2.imread(str(files["depth"][i]), -1).astype(np.float32) / 1000)[None, None]

    def difference(T: np.ndarray, **changes: float) -> float:
        pairs = pairs_of(depth(first), K, T[None], depth(second), K)
        found = correspond(pairs, LIMITS.model_copy(update=changes))
        warped, valid = sample(color(second), found)
        assert valid.float().mean() > 0.2
        return (warped - color(first)).abs().mean(1, keepdim=True)[valid].mean().item()

    T_neighbour_target = np.linalg.inv(poses[second]) @ poses[first]
    warped = difference(T_neighbour_target)
    unwarped = (color(second) - color(first)).abs().mean().item()
    assert warped < 0.6 * unwarped
    assert warped < 0.7 * difference(np.linalg.inv(T_neighbour_target), occlusion_threshold=1.0)
