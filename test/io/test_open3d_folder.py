"""Folders of Redwood and Open3D: images, trajectory.log, a lens as JSON."""

import importlib.util
import json

import cv2
import numpy as np
import pytest
from scenes import make_room_frames

from s4net_core.errors import CaptureError
from s4net_core.frames import FrameSequence, Intrinsics
from s4net_core.io.captures.open3d_folder import Open3dFolder
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.scene_folder import SceneFolder, write_scene_folder
from s4net_core.io.captures.trajectory import UNKNOWN_POSES
from s4net_core.registration import library


@pytest.fixture(scope="module")
def frames():
    return make_room_frames(4, 40, 24)


def lens_json(lens, **more):
    """Open3D's PinholeCameraIntrinsic: column by column."""
    matrix = [lens.fx, 0, 0, 0, lens.fy, 0, lens.cx, lens.cy, 1]
    return {"width": lens.width, "height": lens.height, "intrinsic_matrix": matrix, **more}


def write(folder, frames, color="color", suffix=".png", scale=1000, lens=True, log=True):
    (folder / color).mkdir(parents=True)
    (folder / "depth").mkdir()
    lines = []
    for i, frame in enumerate(frames):
        cv2.imwrite(str(folder / color / f"{i:05d}{suffix}"), frame.color[..., ::-1])
        cv2.imwrite(str(folder / f"depth/{i:05d}.png"), np.rint(frame.depth * scale).astype(np.uint16))
        lines += [f"{i} {i} {i + 1}", *(" ".join(f"{x:.8f}" for x in row) for row in frame.T_world_camera)]
    if lens:
        extra = {} if scale == 1000 else {"depth_scale": scale}
        (folder / "camera_intrinsic.json").write_text(json.dumps(lens_json(frames[0].intrinsics, **extra)))
    if log:
        (folder / "trajectory.log").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("color", "suffix", "scale"), [("color", ".png", 1000), ("rgb", ".png", 5000), ("image", ".jpg", 1000)]
)
def test_frames_are_read_as_open3d_writes_them(tmp_path, frames, color, suffix, scale):
    write(tmp_path / "lounge", frames, color, suffix, scale)
    capture = open_capture(tmp_path / "lounge")
    assert isinstance(capture, Open3dFolder)
    assert isinstance(capture, FrameSequence)
    assert len(capture) == 4
    for read, written in zip(capture, frames, strict=True):
        np.testing.assert_allclose(read.depth, written.depth, atol=0.5001 / scale)
        np.testing.assert_allclose(read.T_world_camera, written.T_world_camera, atol=1e-7)
        np.testing.assert_allclose(read.intrinsics.matrix, written.intrinsics.matrix)
        error = np.abs(read.color.astype(int) - written.color).mean()
        assert error == 0 if suffix == ".png" else error < 8
    assert np.all(np.diff([frame.stamp for frame in capture]) == 33_333_333)


def test_the_trajectory_may_lie_where_open3ds_pipeline_puts_it_or_have_redwoods_name(tmp_path, frames):
    write(tmp_path / "room", frames)
    (tmp_path / "room/scene").mkdir()
    (tmp_path / "room/trajectory.log").rename(tmp_path / "room/scene/trajectory.log")
    assert len(list(open_capture(tmp_path / "room"))) == 4
    (tmp_path / "room/scene/trajectory.log").rename(tmp_path / "room/lounge_trajectory.log")
    (tmp_path / "room/odometry.log").write_text("not a trajectory")
    assert len(list(open_capture(tmp_path / "room"))) == 4


def test_a_trajectory_of_open3d_brings_poses_and_the_lens(tmp_path, frames):
    write(tmp_path / "room", frames, lens=False, log=False)
    cameras = [
        {
            "class_name": "PinholeCameraParameters",
            "extrinsic": np.linalg.inv(frame.T_world_camera).T.ravel().tolist(),
            "intrinsic": lens_json(frame.intrinsics),
        }
        for frame in frames
    ]
    content = {"class_name": "PinholeCameraTrajectory", "parameters": cameras, "version_major": 1}
    (tmp_path / "room/trajectory.json").write_text(json.dumps(content))
    for read, written in zip(open_capture(tmp_path / "room"), frames, strict=True):
        np.testing.assert_allclose(read.T_world_camera, written.T_world_camera, atol=1e-9)
        assert read.intrinsics.cy == pytest.approx(written.intrinsics.cy)


def test_the_lens_may_be_described_as_in_a_scene_folder(tmp_path, frames, caplog):
    write(tmp_path / "room", frames, color="rgb", lens=False)
    lens = {"width": 40, "height": 24, "fx": 31.0, "fy": 32.0, "cx": 18.5, "cy": 12.5, "depth_scale": 0.002}
    (tmp_path / "room/intrinsics.json").write_text(json.dumps(lens))
    read = next(iter(open_capture(tmp_path / "room")))
    assert read.intrinsics == Intrinsics(40, 24, 31.0, 32.0, 18.5, 12.5)
    np.testing.assert_allclose(read.depth, 2 * frames[0].depth, atol=1.0001e-3)
    assert [message.split(",")[0] for message in caplog.messages] == [f"depth of {tmp_path}/room has 500 units a metre"]


@pytest.mark.parametrize("name", ["trajectory.log", "scene/trajectory.log", "trajectory.json"])
def test_with_the_lens_that_its_warning_asks_for_it_is_no_scene_folder_without_poses(tmp_path, frames, name):
    room = tmp_path / "room"
    write(room, frames, lens=False)
    (room / name).parent.mkdir(exist_ok=True)
    (room / "trajectory.log").rename(room / name)
    if name.endswith(".json"):
        cameras = [
            {
                "extrinsic": np.linalg.inv(frame.T_world_camera).T.ravel().tolist(),
                "intrinsic": lens_json(frame.intrinsics),
            }
            for frame in frames
        ]
        (room / name).write_text(json.dumps({"parameters": cameras}))
    lens = {"width": 40, "height": 24, "fx": 31.0, "fy": 32.0, "cx": 18.5, "cy": 12.5, "depth_scale": 0.002}
    (room / "intrinsics.json").write_text(json.dumps(lens))
    capture = open_capture(room)
    assert isinstance(capture, Open3dFolder)
    for read, written in zip(capture, frames, strict=True):
        np.testing.assert_allclose(read.T_world_camera, written.T_world_camera, atol=1e-7)
        np.testing.assert_allclose(read.depth, 2 * written.depth, atol=1.0001e-3)
        assert read.intrinsics == Intrinsics(40, 24, 31.0, 32.0, 18.5, 12.5)
    if name.endswith(".log"):
        (room / "camera.json").write_text(json.dumps(lens_json(frames[0].intrinsics, depth_scale=500)))
        (room / "intrinsics.json").write_text(json.dumps({k: v for k, v in lens.items() if k != "depth_scale"}))
        read = next(iter(open_capture(room, poses=name)))  # the trajectory that it reads by itself
        assert read.intrinsics == Intrinsics(40, 24, 31.0, 32.0, 18.5, 12.5)
        np.testing.assert_allclose(read.depth, 2 * frames[0].depth, atol=1.0001e-3)
    rows = (f"{i} {' '.join(map(str, frame.T_world_camera.ravel()))}\n" for i, frame in enumerate(frames))
    (room / "poses.txt").write_text("".join(rows))
    assert isinstance(open_capture(room), SceneFolder)


def test_with_poses_that_are_given_it_is_a_scene_folder_with_its_labels(tmp_path, frames):
    """A trajectory beside a scene folder is perhaps another program's."""
    write_scene_folder(tmp_path / "room", frames)
    (tmp_path / "room/poses.txt").rename(tmp_path / "room/slam.txt")
    (tmp_path / "room/trajectory.log").write_text("")
    capture = open_capture(tmp_path / "room", poses="slam.txt")
    assert isinstance(capture, SceneFolder)
    assert all(frame.label is not None for frame in capture)


def test_without_a_lens_it_is_redwoods_camera(tmp_path, caplog):
    write(tmp_path / "room", make_room_frames(1, 640, 480), lens=False)
    (frame,) = open_capture(tmp_path / "room")
    lens = frame.intrinsics
    assert (lens.fx, lens.fy, lens.cx, lens.cy) == (525, 525, 319.5, 239.5)
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}/room does not say which lens its camera has: 640x480 with fx 525, fy 525, ")
    assert f'write {tmp_path}/room/intrinsics.json, e.g. {{"width": 640' in message


def test_images_of_other_names_belong_together_by_order(tmp_path, frames):
    write(tmp_path / "room", frames)
    for i in range(4):
        (tmp_path / f"room/color/{i:05d}.png").rename(tmp_path / f"room/color/{i:05d}-{i * 33369:012d}.png")
    for read, written in zip(open_capture(tmp_path / "room"), frames, strict=True):
        assert np.array_equal(read.color, written.color)
    (tmp_path / "room/depth/00003.png").unlink()
    with pytest.raises(CaptureError, match="4 images of colour and 3 of depth"):
        open_capture(tmp_path / "room")


def test_images_without_a_pose_and_damaged_ones_are_left_out_and_counted(tmp_path, frames):
    write(tmp_path / "room", frames)
    lines = (tmp_path / "room/trajectory.log").read_text().splitlines()
    (tmp_path / "room/trajectory.log").write_text("\n".join([*lines[:5], *lines[10:]]))
    (tmp_path / "room/depth/00003.png").write_bytes(b"")
    capture = open_capture(tmp_path / "room")
    assert np.diff([frame.stamp for frame in capture]).tolist() == [2 * 33_333_333]
    assert capture.skipped == {"no_pose": 1, "unreadable": 1}


def test_poses_by_time_are_refused_because_images_have_no_stamps(tmp_path, frames):
    write(tmp_path / "room", frames)
    (tmp_path / "room/slam.txt").write_text("1.0 0 0 0 0 0 0 1\n1.1 0 0 0 0 0 0 1\n")
    with pytest.raises(CaptureError, match=r"slam\.txt has poses by time, and .*room does not say when"):
        open_capture(tmp_path / "room", poses="slam.txt")


def test_without_poses_there_is_no_capture_but_there_are_images(tmp_path, frames):
    write(tmp_path / "room", frames, log=False)
    with pytest.raises(CaptureError, match=r"has no trajectory.log: .*s4net register"):
        open_capture(tmp_path / "room")
    assert len(list(open_capture(tmp_path / "room", stride=2, poses=UNKNOWN_POSES))) == 2


@pytest.mark.parametrize(
    "text", ["{", '{"intrinsic_matrix": [1, 2]}', '{"intrinsic_matrix": [1]}', '{"parameters": []}']
)
def test_a_damaged_lens_is_named(tmp_path, frames, text):
    write(tmp_path / "room", frames)
    (tmp_path / "room/camera_intrinsic.json").write_text(text)
    with pytest.raises(CaptureError, match=r"camera_intrinsic.json cannot be read"):
        open_capture(tmp_path / "room")


def test_open3d_itself_writes_what_is_read(tmp_path, frames):
    if importlib.util.find_spec("open3d") is None:
        pytest.skip("open3d is not installed")
    o3d = library.open3d()  # brings the libusb that a bare machine lacks
    write(tmp_path / "room", frames, lens=False, log=False)
    trajectory = o3d.camera.PinholeCameraTrajectory()
    cameras = []
    for frame in frames:
        camera = o3d.camera.PinholeCameraParameters()
        lens = frame.intrinsics
        camera.intrinsic = o3d.camera.PinholeCameraIntrinsic(40, 24, lens.fx, lens.fy, lens.cx, lens.cy)
        camera.extrinsic = np.linalg.inv(frame.T_world_camera)
        cameras.append(camera)
    trajectory.parameters = cameras
    o3d.io.write_pinhole_camera_intrinsic(str(tmp_path / "room/camera.json"), cameras[0].intrinsic)
    for name in ("trajectory.log", "trajectory.json"):
        o3d.io.write_pinhole_camera_trajectory(str(tmp_path / "room" / name), trajectory)
        capture = open_capture(tmp_path / "room", poses=name)
        for read, written in zip(capture, frames, strict=True):
            np.testing.assert_allclose(read.T_world_camera, written.T_world_camera, atol=1e-6)
            np.testing.assert_allclose(read.intrinsics.matrix, written.intrinsics.matrix)
