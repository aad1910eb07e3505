"""Recordings of a RealSense: made here by librealsense itself from a simulated camera, and read through it."""

import subprocess
import sys
import time

import numpy as np
import pytest

from s4net_core.errors import CaptureError
from s4net_core.frames import FrameSequence, Intrinsics
from s4net_core.io.captures import realsense
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.realsense import RealsenseRecording
from s4net_core.io.captures.scene_folder import SceneFolder, write_scene_folder
from s4net_core.io.captures.trajectory import UNKNOWN_POSES

try:
    rs = realsense.load_pyrealsense2()
except CaptureError as error:
    pytest.skip(str(error), allow_module_level=True)

COLOR = Intrinsics(64, 48, 50.0, 51.0, 33.0, 23.0)
DEPTH = Intrinsics(80, 60, 45.0, 46.0, 41.0, 28.0)
BASELINE, COUNT = 0.05, 12
WALL, STEP = 2000, 1000
"""Millimetres: a wall, before which the right half of what depth sees stands out by a metre."""


def stream(kind, form, bytes_a_pixel, lens, uid):
    video = rs.video_stream()
    video.type, video.fmt, video.bpp, video.index, video.uid = kind, form, bytes_a_pixel, 0, uid
    video.width, video.height, video.fps = lens.width, lens.height, 30
    calibration = rs.intrinsics()
    calibration.width, calibration.height = lens.width, lens.height
    calibration.fx, calibration.fy, calibration.ppx, calibration.ppy = lens.fx, lens.fy, lens.cx, lens.cy
    calibration.model, calibration.coeffs = rs.distortion.brown_conrady, [0.0] * 5
    video.intrinsics = calibration
    return video


def camera():
    """A simulated camera: device, and for depth and colour each the sensor and its profile."""
    device = rs.software_device()
    depth, color = device.add_sensor("Stereo Module"), device.add_sensor("RGB Camera")
    depth_profile = depth.add_video_stream(stream(rs.stream.depth, rs.format.z16, 2, DEPTH, 1))
    color_profile = color.add_video_stream(stream(rs.stream.color, rs.format.rgb8, 3, COLOR, 2))
    depth.add_read_only_option(rs.option.depth_units, 0.001)
    extrinsics = rs.extrinsics()
    extrinsics.rotation, extrinsics.translation = np.eye(3).ravel().tolist(), [BASELINE, 0.0, 0.0]
    depth_profile.register_extrinsics_to(color_profile, extrinsics)
    device.create_matcher(rs.matchers.default)
    return device, (depth, depth_profile), (color, color_profile)


def software_frame(profile, image, number):
    frame = rs.software_video_frame()
    frame.pixels, frame.stride, frame.bpp = image, image.strides[0], image.itemsize * image[0, 0].size
    frame.timestamp, frame.domain = 1000.0 + 50 * number, rs.timestamp_domain.system_time
    frame.frame_number, frame.profile = number, profile.as_video_stream_profile()
    if image.dtype == np.uint16:
        frame.depth_units = 0.001
    return frame


def depth_image(number):
    depth = np.full((DEPTH.height, DEPTH.width), WALL, np.uint16)
    depth[:, 40:] = WALL - STEP
    return depth + np.uint16(number)


def color_image(number):
    return np.full((COLOR.height, COLOR.width, 3), (10 * number, 100, 200 - 10 * number), np.uint8)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A file of `COUNT` images, in the form that the installed librealsense writes."""
    folder = tmp_path_factory.mktemp("realsense")
    device, (depth, depth_profile), (color, color_profile) = camera()
    try:
        path = folder / "room.db3"
        recorder = rs.recorder(str(path), device)
    except RuntimeError:  # before 2.58
        path = folder / "room.bag"
        recorder = rs.recorder(str(path), device)
    queue = rs.frame_queue(2 * COUNT)
    sensors = recorder.query_sensors()
    for sensor, profile in zip(sensors, (depth_profile, color_profile), strict=True):
        sensor.open(profile)
        sensor.start(queue)
    for number in range(COUNT):
        depth.on_video_frame(software_frame(depth_profile, depth_image(number), number))
        color.on_video_frame(software_frame(color_profile, color_image(number), number))
        time.sleep(0.01)  # the recorder works behind
    for sensor in sensors:
        sensor.stop()
        sensor.close()
    del recorder, sensors, sensor  # only then is the file closed
    return path


@pytest.fixture
def poses(tmp_path):
    lines = [f"{1 + 0.05 * number:.3f} {0.01 * number:.2f} 0 0 0 0 0 1" for number in range(COUNT)]
    (tmp_path / "slam.txt").write_text("\n".join(lines))
    return str(tmp_path / "slam.txt")


def number_of(frame):
    return round((frame.stamp / 1e6 - 1000) / 50)


def test_images_come_aligned_to_colour(recording):
    images = list(open_capture(recording, poses=UNKNOWN_POSES))
    numbers = [number_of(image) for image in images]
    assert numbers == list(range(COUNT))
    for image, number in zip(images, numbers, strict=True):
        assert image.intrinsics == COLOR
        assert np.abs(image.color.astype(int) - color_image(number)).max() <= 3  # .db3 holds JPEG
        assert image.depth.dtype == np.float32
        assert set(np.unique(np.rint(image.depth * 1000))) - {0} == {STEP + number, WALL + number}
        edge = COLOR.fx * ((39.5 - DEPTH.cx) / DEPTH.fx + BASELINE * 1000 / (STEP + number)) + COLOR.cx
        nearer = np.flatnonzero((image.depth[24] > 0) & (image.depth[24] < 1.5))
        assert abs(nearer[0] - edge) <= 1


def test_frames_take_their_poses_from_a_file(recording, poses):
    capture = open_capture(recording, poses=poses)
    assert isinstance(capture, RealsenseRecording)
    assert isinstance(capture, FrameSequence)
    assert len(capture) == COUNT
    for frame in capture:
        np.testing.assert_allclose(frame.T_world_camera[:3, 3], [0.01 * number_of(frame), 0, 0], atol=1e-9)
    every_second = [number_of(frame) for frame in open_capture(recording, poses=poses, stride=2)]
    assert set(np.diff(every_second)) == {2}


def test_a_slow_reader_loses_nothing(recording):
    numbers = []
    for image in open_capture(recording, poses=UNKNOWN_POSES):
        time.sleep(0.05)
        numbers.append(number_of(image))
    assert numbers == list(range(COUNT))


def test_without_poses_the_error_says_what_finds_them(recording):
    with pytest.raises(CaptureError, match=r"has no poses.*--poses FILE.*s4net register"):
        open_capture(recording)


def test_it_becomes_a_scene_folder(recording, poses, tmp_path):
    count = write_scene_folder(tmp_path / "room", open_capture(recording, poses=poses), quality=100)
    assert count == COUNT
    assert SceneFolder(tmp_path / "room")[0].intrinsics == COLOR


def test_a_program_that_has_read_a_recording_ends_well(recording, poses, tmp_path):
    """A process that loads librealsense runs its clean-up at exit; with Open3D it holds two copies of the library."""
    s4net = [sys.executable, "-m", "s4net_core.cli.main"]
    convert = [*s4net, "convert", str(recording), str(tmp_path / "room"), "--poses", poses, "--format", "scene"]
    done = subprocess.run(convert, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    register = [*s4net, "register", str(recording), str(tmp_path / "poses.txt")]
    done = subprocess.run(register, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr  # a blank wall shows nothing that could be registered
    assert "s4net register: " in done.stderr


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_truncated_recording_is_an_error(recording, poses, tmp_path, share):
    path = tmp_path / recording.name
    path.write_bytes(recording.read_bytes()[: int(share * recording.stat().st_size)])
    with pytest.raises(CaptureError, match=r"cannot be (read|played)"):
        list(open_capture(path, poses=poses))


def test_a_machine_without_the_library_is_told_what_to_install(recording, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    with pytest.raises(CaptureError, match=r"pip install pyrealsense2"):
        open_capture(recording, poses=UNKNOWN_POSES)
