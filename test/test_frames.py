"""Frames and lenses: what is refused when data enters, and how a lens scales."""

import numpy as np
import pytest

from s4net_core.errors import BadFrame
from s4net_core.frames import MAX_ROTATION_ERROR, Frame, Intrinsics, LazyView, check_pose, decoded

LENS = Intrinsics(7, 5, 6.0, 6.5, 3.0, 2.0)


def frame(**changes):
    values = {
        "stamp": 1,
        "color": np.zeros((5, 7, 3), np.uint8),
        "depth": np.ones((5, 7), np.float32),
        "T_world_camera": np.eye(4),
        "intrinsics": LENS,
        **changes,
    }
    return Frame(**values)


def turned(scale=1.0, mirror=False):
    T = np.eye(4)
    T[:3, :3] *= scale
    if mirror:
        T[0, 0] = -1
    return T


def test_a_good_frame_passes_with_and_without_depth_and_label():
    assert frame().depth is not None
    assert frame(depth=None, label=np.zeros((5, 7), np.uint8)).depth is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"color": np.zeros((5, 7), np.uint8)}, "color_format"),
        ({"color": np.zeros((5, 7, 3), np.float32)}, "color_format"),
        ({"depth": np.ones((5, 7), np.uint16)}, "depth_format"),
        ({"depth": np.ones((7, 5), np.float32)}, "depth_size"),
        ({"true_depth": np.ones((7, 5), np.float32)}, "depth_size"),
        ({"intrinsics": Intrinsics(5, 7, 6, 6, 2, 3)}, "intrinsics_size"),
        ({"label": np.zeros((7, 5), np.uint8)}, "label_format"),
        ({"T_world_camera": np.full((4, 4), np.nan)}, "pose"),
        ({"T_world_camera": np.full((4, 4), -np.inf)}, "pose"),
        ({"T_world_camera": np.eye(3)}, "pose"),
        ({"T_world_camera": turned(scale=2.0)}, "pose"),
        ({"T_world_camera": turned(mirror=True)}, "pose"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(changes, reason):
    with pytest.raises(BadFrame) as caught:
        frame(**changes)
    assert caught.value.reason == reason


def test_unaligned_depth_names_both_sizes_and_the_remedy():
    with pytest.raises(BadFrame, match=r"depth is 9x6 but colour is 7x5.*align_depth"):
        frame(depth=np.ones((6, 9), np.float32))


@pytest.mark.parametrize("broken", [{"fx": 0.0}, {"fy": float("nan")}, {"width": 0}, {"cx": float("inf")}])
def test_unusable_intrinsics_are_refused(broken):
    values = {"width": 7, "height": 5, "fx": 6.0, "fy": 6.0, "cx": 3.0, "cy": 2.0, **broken}
    with pytest.raises(BadFrame, match="intrinsics"):
        Intrinsics(**values)


def test_a_scaled_lens_sees_the_same_rays_at_the_images_corners():
    """The outer corner of the image, half a pixel beyond the last centre, lies on the same ray at any size."""
    scaled = LENS.scaled(21, 10)
    for x, y, sx, sy in ((-0.5, -0.5, -0.5, -0.5), (6.5, 4.5, 20.5, 9.5)):
        assert (sx - scaled.cx) / scaled.fx == pytest.approx((x - LENS.cx) / LENS.fx)
        assert (sy - scaled.cy) / scaled.fy == pytest.approx((y - LENS.cy) / LENS.fy)
    assert LENS.scaled(7, 5) == LENS


def test_a_lazy_view_reads_its_frame_when_asked_and_not_before():
    loads = []
    view = LazyView(1, np.eye(4), lambda: loads.append("read") or frame())
    assert (view.stamp, view.T_world_camera.shape, loads) == (1, (4, 4), [])
    assert view.decode().color.shape == (5, 7, 3)
    assert loads == ["read"]


def test_a_lazy_view_tells_once_that_it_cannot_be_used():
    refused = []

    def load():
        raise BadFrame("color_format", "cut short")

    view = LazyView(1, np.eye(4), load, refused.append)
    for _ in range(2):
        with pytest.raises(BadFrame, match="cut short"):
            view.decode()
    assert [error.reason for error in refused] == ["color_format"]
    assert next(iter(decoded([view, frame(stamp=7)]))).stamp == 7


def test_a_lazy_view_has_a_rigid_pose():
    with pytest.raises(BadFrame, match="no proper rotation"):
        LazyView(1, turned(2.0), frame)


def test_a_transposed_pose_is_refused():
    T = np.eye(4)
    T[3, 0] = 0.5
    with pytest.raises(BadFrame, match=r"last row of the pose is \[0.5, 0.0, 0.0, 1.0\]: .* transposed"):
        check_pose(T)


def test_a_rotation_that_is_not_quite_one_is_judged_as_by_its_matrix_products() -> None:
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(400):
        T = np.eye(4)
        R = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.choice([-1, 1])
        T[:3, :3] = R = R + rng.normal(scale=rng.choice([1e-5, 4e-4]), size=(3, 3))
        rigid = np.abs(R @ R.T - np.eye(3)).max() <= MAX_ROTATION_ERROR and np.linalg.det(R) > 0
        if not rigid:
            with pytest.raises(BadFrame, match="no proper rotation"):
                check_pose(T)
        else:
            check_pose(T)
        verdicts.append(rigid)
    assert 100 < sum(verdicts) < 200  # the others are mirrored or too far off


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 1), (1, 3), (3, 3)])
def test_a_pose_with_a_number_that_is_none_is_refused(place: tuple[int, int], value: float) -> None:
    T = np.eye(4)
    T[place] = value
    with pytest.raises(BadFrame, match="finite"):
        check_pose(T)


def test_a_pose_nowhere_on_earth_is_refused() -> None:
    T = np.eye(4)
    T[0, 3] = 1e300
    with pytest.raises(BadFrame, match="nowhere on Earth"):
        check_pose(T)
    T[0, 3] = 6.4e6
    check_pose(T)
