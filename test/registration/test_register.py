"""Poses from images alone: a rendered room, images that cannot be registered, and real captures with known poses."""

import importlib.util
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from scenes import make_room_frames
from scipy.spatial.transform import Rotation

from s4net_core.config import from_values
from s4net_core.errors import BadFrame, RegistrationError
from s4net_core.geometry.camera import undistort_frame
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.trajectory import UNKNOWN_POSES
from s4net_core.registration import library
from s4net_core.registration.register import register, trajectory_error
from s4net_core.registration.view import prepare

if importlib.util.find_spec("open3d") is None:
    pytest.skip("Open3D is not installed", allow_module_level=True)

SETTINGS = from_values({})


def blind(frame):
    """A view as it would be with the lens covered."""
    return replace(frame, color=np.zeros_like(frame.color), depth=np.zeros_like(frame.depth))


def patterned(frame):
    """The view of a room papered with cells of 12 cm, each of its own brightness: features to be found again."""
    lens, depth = frame.intrinsics, frame.depth.astype(float)
    v, u = np.mgrid[: lens.height, : lens.width]
    camera = np.stack([(u - lens.cx) / lens.fx * depth, (v - lens.cy) / lens.fy * depth, depth], axis=-1)
    cells = np.floor((camera @ frame.T_world_camera[:3, :3].T + frame.T_world_camera[:3, 3]) / 0.12 + 0.5).astype(int)
    brightness = np.abs(np.sin(cells @ [12.9898, 78.233, 37.719]) * 43758.5453) % 1
    return replace(frame, color=(frame.color * (0.3 + 0.7 * brightness[..., None])).astype(np.uint8))


def errors(frames, poses):
    """Metres and degrees by which each pose is off, in the camera of the first frame; nothing is fitted."""
    T_first_world = np.linalg.inv(frames[0].T_world_camera)
    off = [np.linalg.inv(T_first_world @ f.T_world_camera) @ poses[f.stamp] for f in frames if f.stamp in poses]
    angles = [np.degrees(Rotation.from_matrix(T[:3, :3]).magnitude()) for T in off]
    return np.array([np.linalg.norm(T[:3, 3]) for T in off]), np.array(angles)


@pytest.fixture(scope="module")
def frames():
    return make_room_frames(15, 160, 120)


@pytest.fixture(scope="module")
def registered(frames):
    return register(frames, SETTINGS)


def test_every_view_of_a_room_gets_its_pose(frames, registered):
    assert list(registered.poses) == [frame.stamp for frame in frames]
    metres, degrees = errors(frames, registered.poses)
    assert metres.max() < 0.01  # of a path of 0.9 m
    assert degrees.max() < 0.5


def test_the_residual_says_how_well_views_fit(registered):
    assert registered.frames == 15
    assert 2 <= registered.keyframes < 15
    assert registered.pruned == 0
    assert 0.7 < registered.fitness <= 1
    assert 0 < registered.rmse < SETTINGS.registration.max_distance / 2


def test_poses_are_rigid_and_start_at_the_first_camera(frames, registered):
    np.testing.assert_allclose(registered.poses[frames[0].stamp], np.eye(4), atol=1e-9)
    for T in registered.poses.values():
        np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)


def test_places_that_are_seen_again_close_loops(frames):
    there_and_back = [*frames[:12:2], *frames[10::-2]]
    views = [replace(patterned(frame), stamp=index) for index, frame in enumerate(there_and_back)]
    found = register(views, from_values({"registration.neighbours": 0, "keyframes.min_translation": 0.1}))
    assert found.loops > 0
    assert errors(views, found.poses)[0].max() < 0.02


def test_a_camera_that_was_lost_is_found_again_by_what_it_sees(frames):
    """The middle of the path is missing; the end shows the beginning."""
    views = [*frames[:6], *[blind(frame) for frame in frames[6:9]], *frames[5:1:-1]]
    views = [replace(patterned(frame), stamp=index) for index, frame in enumerate(views)]
    found = register(views, SETTINGS)
    assert set(found.poses) == set(range(len(views))) - {6, 7, 8}
    assert errors(views, found.poses)[0].max() < 0.02


def test_a_view_without_anything_to_see_is_left_out_and_those_behind_it_are_found_again(frames):
    covered = [blind(replace(frames[5], stamp=frames[5].stamp + delay)) for delay in range(3)]
    views = [*frames[:5], *covered, *frames[6:10]]
    found = register(views, SETTINGS)
    assert found.frames == 12
    assert set(found.poses) == {frame.stamp for frame in (*frames[:5], *frames[6:10])}
    assert errors(views, found.poses)[0].max() < 0.01
    with pytest.raises(BadFrame, match="could not be tied") as caught:
        found.at(frames[5].stamp, 5)
    assert caught.value.reason == "not_registered"
    assert np.array_equal(found.at(frames[6].stamp, 6), found.poses[frames[6].stamp])


def test_of_places_that_nothing_connects_the_largest_is_registered(frames):
    elsewhere = [replace(frame, stamp=frame.stamp + 10**12) for frame in make_room_frames(3, 160, 120, seed=5)]
    turned = [replace(f, color=np.ascontiguousarray(f.color[::-1]), depth=f.depth[::-1].copy()) for f in elsewhere]
    found = register([*turned, *frames[:5]], SETTINGS)
    assert set(found.poses) == {frame.stamp for frame in frames[:5]}
    np.testing.assert_allclose(found.poses[frames[0].stamp], np.eye(4), atol=1e-9)


def test_nothing_to_register_is_an_error_that_says_what_to_look_at(frames):
    for views in ([], frames[:1], [blind(frame) for frame in frames[:3]]):
        with pytest.raises(RegistrationError, match="could be tied to each other: is depth aligned"):
            register(views, SETTINGS)


def test_images_of_another_lens_are_refused(frames):
    zoomed = replace(frames[1], intrinsics=replace(frames[1].intrinsics, fx=200.0))
    with pytest.raises(RegistrationError, match="another lens"):
        register([frames[0], zoomed], SETTINGS)


def test_lens_distortion_is_undone_before_views_are_aligned(frames):
    frame = patterned(frames[1])
    bent = replace(frame, intrinsics=replace(frame.intrinsics, distortion=(0.1, 0.0, 0.0, 0.0, 0.0)))
    found, straight = prepare(bent, SETTINGS), prepare(undistort_frame(bent), SETTINGS)
    assert found.lens.distortion == found.full_lens.distortion == ()
    assert np.array_equal(found.features.pixels, straight.features.pixels)
    assert not np.array_equal(found.features.pixels, prepare(frame, SETTINGS).features.pixels)


def test_images_without_depth_are_refused(frames):
    with pytest.raises(RegistrationError, match=f"the image at {frames[0].stamp} ns has no depth"):
        register([replace(frames[0], depth=None)], SETTINGS)


def test_without_open3d_the_error_names_the_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "open3d" else find(name))
    library.open3d.cache_clear()
    with pytest.raises(RegistrationError, match=r"pip install open3d"):
        library.open3d()


def test_the_trajectory_error_is_what_is_left_after_the_best_fit(frames):
    """Poses in another world, off by 3 cm to alternating sides of a path along x."""
    T_other_world = np.eye(4)
    T_other_world[:3, :3], T_other_world[:3, 3] = Rotation.from_rotvec([0.3, -1.0, 0.7]).as_matrix(), (5, -2, 1)
    true, found = {}, {}
    for stamp in range(8):
        true[stamp], found[stamp] = np.eye(4), np.eye(4)
        true[stamp][0, 3] = stamp
        found[stamp] = T_other_world @ true[stamp]
    assert trajectory_error(found, true) == pytest.approx(0, abs=1e-12)
    for stamp, side in zip(range(8), (1, -1, -1, 1, 1, -1, -1, 1), strict=True):
        found[stamp] = found[stamp] @ [[1, 0, 0, 0], [0, 1, 0, 0.03 * side], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert trajectory_error(found, true) == pytest.approx(0.03, rel=1e-3)
    assert trajectory_error({0: found[0], 3: found[3], 99: found[1]}, true) == pytest.approx(0, abs=1e-12)
    with pytest.raises(RegistrationError, match="share 1 pose"):
        trajectory_error({0: found[0]}, true)


@pytest.mark.parametrize(("name", "stride", "limit"), [("tum_fr1_xyz", 4, 0.03), ("hololens", 1, 0.06)])
def test_real_captures_are_registered_as_their_trackers_saw_them(shared_data, name, stride, limit):
    path = shared_data / "real" / name
    found = register(islice(open_capture(path, stride=stride, poses=UNKNOWN_POSES), 8), SETTINGS)
    true = {frame.stamp: frame.T_world_camera for frame in islice(open_capture(path, stride=stride), 8)}
    assert len(found.poses) == 8
    assert trajectory_error(found.poses, true) < limit
