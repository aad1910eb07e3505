"""Points of pixels against a loop over pixels, rescaling and undistortion against OpenCV's own point functions."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from s4net_core.errors import BadFrame, ShapeError
from s4net_core.frames import Frame, Intrinsics
from s4net_core.geometry.camera import rescale_frame, undistort_frame, unproject, working_frame

LENS = Intrinsics(width=14, height=9, fx=12.0, fy=13.0, cx=6.2, cy=4.4)


def frame_of(color: np.ndarray, depth: np.ndarray | None, lens: Intrinsics, label: np.ndarray | None = None) -> Frame:
    return Frame(7, color, depth, np.eye(4), lens, "camera", label)


def test_unproject_equals_a_loop_over_pixels() -> None:
    depth = np.random.default_rng(0).uniform(0.5, 3, (9, 14))
    depth[2, 3], depth[5, 6], depth[8, 13], depth[0, 1] = 0, np.nan, np.inf, -1
    K = np.array([[12.0, 0.3, 6.2], [0, 13.0, 4.4], [0, 0, 1]])  # with skew
    points, valid = unproject(torch.as_tensor(depth)[None, None], torch.as_tensor(K)[None])
    for y, x in np.ndindex(9, 14):
        usable = np.isfinite(depth[y, x]) and depth[y, x] > 0
        expected = depth[y, x] * np.linalg.inv(K) @ [x, y, 1] if usable else np.zeros(3)
        assert valid[0, 0, y, x] == usable
        np.testing.assert_allclose(points[0, :, y, x], expected, atol=1e-12)


def test_half_precision_input_gives_single_precision_geometry() -> None:
    points, _ = unproject(torch.full((1, 1, 4, 6), 2.0, dtype=torch.float16), torch.eye(3, dtype=torch.float16)[None])
    assert points.dtype == torch.float32


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(ShapeError, match="depth"):
        unproject(torch.ones(1, 9, 14), torch.eye(3)[None])
    with pytest.raises(ShapeError, match="K"):
        unproject(torch.ones(2, 1, 9, 14), torch.eye(3)[None])


def test_rescaling_keeps_every_point_where_it_was() -> None:
    """A slanted plane seen at both sizes: the points of the small view lie on it, at most half a pixel off."""
    v, u = np.mgrid[:90, :140]
    lens = Intrinsics(140, 90, 120.0, 110.0, 68.0, 47.0)
    depth = (2 + 0.004 * u + 0.002 * v).astype(np.float32)
    small = rescale_frame(frame_of(np.zeros((90, 140, 3), np.uint8), depth, lens), 40, 30)
    assert small.color.shape == (30, 40, 3)
    assert small.depth is not None
    for y, x in [(0, 0), (29, 39), (11, 25)]:
        ray = np.linalg.inv(small.intrinsics.matrix) @ [x, y, 1]
        at = lens.matrix @ ray
        assert abs(small.depth[y, x] - (2 + 0.004 * at[0] + 0.002 * at[1])) <= 0.5 * (0.004 + 0.002) + 1e-6


def test_rescaling_mixes_colour_but_never_depth_or_label() -> None:
    color = np.zeros((8, 12, 3), np.uint8)
    color[:, ::2] = 200
    depth = np.where(np.arange(12) % 2, 1.0, 5.0).astype(np.float32) * np.ones((8, 1), np.float32)
    label = np.where(np.arange(12) % 2, 3, 30).astype(np.uint8) * np.ones((8, 1), np.uint8)
    small = rescale_frame(frame_of(color, depth, LENS.scaled(12, 8), label), 6, 4)
    assert (small.color == 100).all()
    assert set(np.unique(small.depth)) <= {1.0, 5.0}
    assert set(np.unique(small.label)) <= {3, 30}
    assert small.depth is not None
    assert small.depth.dtype == np.float32
    assert small.true_depth is None
    large = rescale_frame(frame_of(color, depth, LENS.scaled(12, 8), label), 18, 16)
    assert set(np.unique(large.label)) == {3, 30}


def test_images_of_another_shape_are_told_once(caplog):
    upright = frame_of(np.zeros((16, 12, 3), np.uint8), None, LENS.scaled(12, 16))
    for _ in range(2):
        working_frame(upright, 8, 6)
    (told,) = caplog.messages
    assert "images of 12x16 are squeezed to 8x6" in told


def test_rescaling_to_the_same_size_changes_nothing() -> None:
    frame = frame_of(np.zeros((9, 14, 3), np.uint8), None, LENS)
    assert rescale_frame(frame, 14, 9) is frame


def test_a_lens_without_distortion_is_left_alone() -> None:
    for distortion in ((), (0.0, 0.0, 0.0, 0.0, 0.0)):
        frame = frame_of(np.zeros((9, 14, 3), np.uint8), None, Intrinsics(14, 9, 12, 12, 7, 4, distortion))
        assert undistort_frame(frame) is frame


def test_undistorted_pixels_lie_where_the_pinhole_sees_them() -> None:
    """Blobs drawn where the distorted lens shows known directions are found at those directions' pinhole pixels."""
    lens = Intrinsics(160, 120, 130.0, 125.0, 80.5, 58.0, (-0.25, 0.05, 0.002, -0.001, 0.01))
    color, depth = np.zeros((120, 160, 3), np.uint8), np.full((120, 160), 1.0, np.float32)
    directions = np.array([[-0.45, -0.3, 1], [0.4, -0.25, 1], [0.0, 0.35, 1], [-0.3, 0.1, 1]])
    distorted, _ = cv2.projectPoints(directions, np.zeros(3), np.zeros(3), lens.matrix, np.array(lens.distortion))
    for i, (x, y) in enumerate(distorted.reshape(-1, 2)):
        cv2.circle(color, (round(x), round(y)), 4, (0, 0, 60 * (i + 1)), -1)
        cv2.circle(depth, (round(x), round(y)), 4, 2.0 + i, -1)  # type: ignore[call-overload]
    straight = undistort_frame(frame_of(color, depth, lens))
    assert straight.intrinsics.distortion == ()
    assert straight.depth is not None
    for i, direction in enumerate(directions):
        u, v, _ = lens.matrix @ direction
        moved = np.hypot(u - distorted[i, 0, 0], v - distorted[i, 0, 1])
        assert moved > (1.5 if i < 2 else 0.5)  # the lens bends most near the corners
        rows, columns = np.nonzero(straight.depth == 2.0 + i)
        assert np.hypot(columns.mean() - u, rows.mean() - v) < 1.0
        assert straight.color[round(v), round(u), 2] == 60 * (i + 1)


def test_what_the_lens_did_not_see_has_no_depth_after_undistortion() -> None:
    lens = Intrinsics(60, 40, 30.0, 30.0, 29.5, 19.5, (0.4, 0.0, 0.0, 0.0))
    frame = frame_of(
        np.full((40, 60, 3), 9, np.uint8), np.ones((40, 60), np.float32), lens, np.ones((40, 60), np.uint8)
    )
    straight = undistort_frame(frame)
    assert straight.depth is not None
    assert straight.label is not None
    assert straight.depth[0, 0] == 0
    assert straight.label[0, 0] == 0
    assert straight.depth[20, 30] == 1
    assert set(np.unique(straight.depth)) == {0.0, 1.0}


def test_exact_depth_goes_the_way_of_the_camera_s_depth() -> None:
    lens = Intrinsics(60, 40, 30.0, 30.0, 29.5, 19.5, (0.4, 0.0, 0.0, 0.0))
    depth = np.random.default_rng(0).random((40, 60)).astype(np.float32)
    frame = replace(frame_of(np.zeros((40, 60, 3), np.uint8), depth, lens), true_depth=depth)
    for changed in (undistort_frame(frame), rescale_frame(frame, 24, 16)):
        assert changed.true_depth is not None
        np.testing.assert_array_equal(changed.true_depth, changed.depth)


def test_an_unknown_number_of_coefficients_is_named() -> None:
    frame = frame_of(np.zeros((9, 14, 3), np.uint8), None, Intrinsics(14, 9, 12, 12, 7, 4, (0.1, 0.2, 0.3)))
    with pytest.raises(BadFrame, match="3 coefficients"):
        undistort_frame(frame)
