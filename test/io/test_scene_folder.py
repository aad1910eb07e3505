"""Scene folders: written and read back, stamps, lenses, and every way in which one can be damaged."""

import json
import os
import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scenes import make_room_frames

from s4net_core.errors import CaptureError, S4NetError
from s4net_core.frames import FrameSequence
from s4net_core.geometry.poses import quaternion_of
from s4net_core.io.captures.open3d_folder import Open3dFolder
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.scene_folder import POSES_FILE, SceneFolder, write_scene_folder
from s4net_core.io.captures.trajectory import write_tum_poses


@pytest.fixture
def frames():
    return make_room_frames(4, 40, 24)


@pytest.fixture
def folder(tmp_path, frames):
    write_scene_folder(tmp_path / "room" / "scan1", frames, quality=100)
    return tmp_path / "room" / "scan1"


def test_frames_come_back_as_they_were_written(folder, frames):
    capture = SceneFolder(folder)
    assert isinstance(capture, FrameSequence)
    assert (capture.name, len(capture)) == ("room/scan1", 4)
    for read, written in zip(capture, frames, strict=True):
        assert read.stamp == written.stamp
        assert np.array_equal(read.color, written.color)
        assert np.array_equal(read.label, written.label)
        np.testing.assert_allclose(read.depth, written.depth, atol=0.5001e-3)
        np.testing.assert_array_equal(read.T_world_camera, written.T_world_camera)
        assert read.intrinsics == written.intrinsics


def test_exact_depth_lies_beside_the_camera_s_and_frames_without_it_stay(tmp_path, frames):
    exact = [replace(frame, depth=frame.depth * 0, true_depth=frame.depth) for frame in frames]
    write_scene_folder(tmp_path / "room", exact)
    (tmp_path / "room" / "depth_gt" / "000002.png").unlink()
    read = list(SceneFolder(tmp_path / "room"))
    assert [frame.true_depth is None for frame in read] == [False, False, True, False]
    np.testing.assert_allclose(read[0].true_depth, frames[0].depth, atol=0.5001e-3)
    assert not read[0].depth.any()


def test_exact_depth_may_begin_with_a_later_frame(tmp_path, frames):
    write_scene_folder(tmp_path / "room", [frames[0], replace(frames[1], true_depth=frames[1].depth)])
    assert [frame.true_depth is None for frame in SceneFolder(tmp_path / "room")] == [True, False]


def test_jpeg_changes_colours_only_a_little(tmp_path):
    written = make_room_frames(1, 64, 48)[0]
    write_scene_folder(tmp_path / "jpeg", [written], quality=90)
    read = SceneFolder(tmp_path / "jpeg")[0]
    assert (tmp_path / "jpeg/color/000000.jpg").is_file()
    assert 0 < np.abs(read.color.astype(int) - written.color).mean() < 6


def test_stride_takes_every_nth_frame(folder, frames):
    assert [frame.stamp for frame in SceneFolder(folder, stride=3)] == [frames[0].stamp, frames[3].stamp]


def test_without_timestamps_frames_are_100_ms_apart_and_none_has_stamp_0(folder):
    (folder / "timestamps.txt").unlink()
    stamps = [frame.stamp for frame in SceneFolder(folder)]
    assert np.all(np.diff(stamps) == 100_000_000)
    assert stamps[0] > 0


def test_images_may_be_numbered_with_any_number_of_digits(folder):
    for kind in ("color", "depth", "label"):
        for path in (folder / kind).iterdir():
            path.rename(path.with_name(f"{int(path.stem):04d}{path.suffix}"))
    assert len(list(SceneFolder(folder))) == 4


def test_every_image_may_have_its_own_focal_length(tmp_path, frames):
    zoomed = replace(frames[1], intrinsics=replace(frames[1].intrinsics, fx=99.0, fy=98.0))
    write_scene_folder(tmp_path / "zoom", [frames[0], zoomed])
    assert [frame.intrinsics.fx for frame in SceneFolder(tmp_path / "zoom")] == [frames[0].intrinsics.fx, 99.0]


def test_distortion_is_kept(tmp_path, frames):
    lens = replace(frames[0].intrinsics, distortion=(0.1, -0.2, 0.0, 0.001, 0.0))
    write_scene_folder(tmp_path / "fisheye", [replace(frames[0], intrinsics=lens)])
    assert SceneFolder(tmp_path / "fisheye")[0].intrinsics == lens


def test_frames_of_different_size_do_not_fit_one_folder(tmp_path, frames):
    with pytest.raises(CaptureError, match="differ in size"):
        write_scene_folder(tmp_path / "mixed", [frames[0], make_room_frames(1, 24, 40)[0]])


def test_colour_and_poses_are_enough(tmp_path, frames):
    write_scene_folder(tmp_path / "color", [replace(frame, depth=None, label=None) for frame in frames])
    frame = SceneFolder(tmp_path / "color")[0]
    assert frame.depth is None
    assert frame.label is None


def test_other_poses_can_be_chosen(folder):
    text = (folder / "poses.txt").read_text().splitlines()
    (folder / "poses_noisy.txt").write_text("\n".join(text[:2]))
    assert len(SceneFolder(folder, "poses_noisy.txt")) == 2


def test_frames_that_cannot_be_used_are_left_out_and_counted_each_time(folder):
    (folder / "color/000000.png").write_bytes((folder / "color/000000.png").read_bytes()[:100])
    (folder / "color/000001.png").unlink()
    cv2.imwrite(str(folder / "depth/000002.png"), np.ones((24, 39), np.uint16))
    capture = SceneFolder(folder)
    for _ in range(2):
        assert len(list(capture)) == 1
        assert capture.skipped == {"color_format": 1, "no_color": 1, "depth_size": 1}


@pytest.mark.parametrize("left", [50, -400, -1])
@pytest.mark.parametrize("kind", ["color", "depth"])
def test_an_image_that_is_cut_off_is_left_out(folder, kind, left):
    path = folder / kind / "000002.png"
    path.write_bytes(path.read_bytes()[:left])
    assert len(list(SceneFolder(folder))) == 3


def test_a_missing_depth_image_is_not_taken_for_a_camera_without_depth(folder):
    (folder / "depth/000003.png").unlink()
    capture = SceneFolder(folder)
    assert len(list(capture)) == 3
    assert capture.skipped == {"unreadable": 1}


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [(40_000, 40_000, "image_size"), (2_000_000, 4, "unreadable")],  # OpenCV raises for the second one's width
)
def test_a_header_that_claims_a_huge_image_is_a_frame_left_out(folder, width, height, reason):
    path = sorted((folder / "depth").iterdir())[2]
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    png = path.read_bytes()
    path.write_bytes(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])
    capture = SceneFolder(folder)
    assert len(list(capture)) == len(capture) - 1
    assert capture.skipped == {reason: 1}


def test_eight_bit_depth_is_refused(folder):
    cv2.imwrite(str(folder / "depth/000000.png"), np.ones((24, 40), np.uint8))
    capture = SceneFolder(folder)
    list(capture)
    assert capture.skipped == {"depth_format": 1}


def test_a_frame_whose_tracking_was_lost_is_left_out(folder):
    lines = (folder / "poses.txt").read_text().splitlines()
    lines[1] = "1 " + " ".join(["nan"] * 16)
    (folder / "poses.txt").write_text("\n".join(lines))
    capture = SceneFolder(folder)
    assert len(list(capture)) == 3
    assert capture.skipped == {"pose": 1}


def test_class_ids_outside_the_label_space_are_an_error_that_names_file_and_ids(folder):
    cv2.imwrite(str(folder / "label/000001.png"), np.full((24, 40), 38, np.uint8))
    with pytest.raises(S4NetError, match=r"label/000001.png has class ids \[38\]"):
        list(SceneFolder(folder))


def test_255_in_a_label_is_unlabelled(folder):
    cv2.imwrite(str(folder / "label/000000.png"), np.full((24, 40), 255, np.uint8))
    assert not SceneFolder(folder)[0].label.any()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("poses.txt", "0 1 2 3", "poses.txt:1"),
        ("poses.txt", "# nothing\n", "holds no pose"),
        ("timestamps.txt", "0 now", "timestamps.txt:1"),
        ("intrinsics.json", "{", "must be JSON"),
        ("intrinsics.json", '{"width": 40, "height": 24}', "must be JSON"),
        ("intrinsics.json", json.dumps({"width": 40, "height": 24, "fx": 0, "fy": 1, "cx": 1, "cy": 1}), "not usable"),
    ],
)
def test_damaged_texts_are_named(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(CaptureError, match=message):
        SceneFolder(folder)


def test_a_missing_file_of_poses_is_named(folder):
    with pytest.raises(CaptureError, match=r"slam.txt is missing"):
        SceneFolder(folder, "slam.txt")


def test_a_foreign_folder_is_refused(tmp_path):
    with pytest.raises(CaptureError, match="is not a scene folder"):
        SceneFolder(tmp_path)


def test_without_its_lens_it_is_still_a_scene_folder_and_the_missing_file_is_named(folder):
    (folder / "intrinsics.json").unlink()
    for poses in ("", "poses.txt"):
        with pytest.raises(CaptureError, match=r'scan1/intrinsics\.json is missing: .*"width": 640, .*"fx"'):
            open_capture(folder, poses=poses)


@pytest.mark.parametrize("own", ["trajectory.log", "camera.json"])
def test_a_folder_of_open3d_with_a_file_of_poses_stays_one(folder, own):
    (folder / "intrinsics.json").unlink()
    (folder / own).write_text("{}")
    assert isinstance(open_capture(folder, poses="poses.txt"), Open3dFolder)


@pytest.mark.parametrize("stride", [1, 3])
def test_without_a_usable_frame_the_capture_and_every_reason_are_named(folder, stride):
    for path in sorted((folder / "depth").iterdir()):
        cv2.imwrite(str(path), np.ones((12, 20), np.uint16))
    (folder / "color/000001.png").rename(folder / "color/000009.png")
    expected = r"scan1 has no frame that can be used .*\d x depth_size: depth is 20x12 but.*1 x no_pose"
    with pytest.raises(CaptureError, match=expected):
        list(SceneFolder(folder, stride=stride))


def test_views_that_nobody_decoded_are_no_fault_of_the_capture(folder):
    (folder / "color/000001.png").unlink()
    assert len(list(SceneFolder(folder).views())) == 3


def test_nothing_is_overwritten_and_nothing_empty_is_written(folder, frames, tmp_path):
    with pytest.raises(CaptureError, match="exists already"):
        write_scene_folder(folder, frames)
    with pytest.raises(CaptureError, match="no frame to write"):
        write_scene_folder(tmp_path / "empty", [])


def test_the_capture_of_the_demo_is_read(demo):
    capture = SceneFolder(demo / "capture", stride=12)
    frames = list(capture)
    assert (len(frames), capture.skipped) == (10, {})
    assert frames[3].color.shape == (180, 240, 3)
    assert 0.85 < np.mean([(frame.depth > 0).mean() for frame in frames]) < 0.95
    assert 0.5 < np.median(frames[0].depth[frames[0].depth > 0]) < 6


def test_pipes_among_the_files_are_not_waited_for(folder):
    color = sorted((folder / "color").iterdir())[1]
    color.unlink()
    os.mkfifo(color)
    capture = SceneFolder(folder)
    assert len(list(capture)) == len(capture) - 1
    assert capture.skipped == {"unreadable": 1}


@pytest.mark.parametrize("name", ["intrinsics.json", POSES_FILE])
def test_a_pipe_instead_of_a_description_is_named_and_not_waited_for(folder, name):
    path = folder / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CaptureError, match=name):
        SceneFolder(folder)


def test_images_without_a_pose_are_counted(folder):
    lines = (folder / POSES_FILE).read_text().splitlines()
    (folder / POSES_FILE).write_text("\n".join(lines[:1]) + "\n")
    capture = SceneFolder(folder)
    assert len(list(capture)) == 1
    assert capture.skipped == {"no_pose": 3}


def tum_lines(frames, stamps):
    """Poses as SLAM systems write them."""
    return "".join(
        f"{stamp} {' '.join(map(str, (*frame.T_world_camera[:3, 3], *quaternion_of(frame.T_world_camera))))}\n"
        for stamp, frame in zip(stamps, frames, strict=True)
    )


@pytest.mark.parametrize("name", [POSES_FILE, "slam.txt"])
def test_poses_by_time_need_images_with_stamps(folder, frames, name):
    stamps = (folder / "timestamps.txt").read_text()
    (folder / "timestamps.txt").unlink()
    (folder / name).write_text(tum_lines(frames, ["0.9", "1.0", "1.1", "1.2"]))
    poses = "" if name == POSES_FILE else name
    with pytest.raises(CaptureError, match=rf"{name} has poses by time, and .*scan1 does not say .*write a timestamps"):
        open_capture(folder, poses=poses)
    (folder / "timestamps.txt").write_text(stamps)
    (folder / name).write_text(tum_lines(frames, [f"{frame.stamp / 1e9:.9f}" for frame in frames]))
    for read, written in zip(open_capture(folder, poses=poses), frames, strict=True):
        np.testing.assert_allclose(read.T_world_camera, written.T_world_camera, atol=1e-9)


def test_poses_that_were_found_for_images_without_stamps_fit_them(folder, frames):
    (folder / "timestamps.txt").unlink()
    found = {frame.stamp: frame.T_world_camera for frame in list(SceneFolder(folder))[1:]}
    write_tum_poses(folder / "found.txt", found)
    capture = open_capture(folder, poses="found.txt")
    for read, written in zip(capture, frames[1:], strict=True):
        np.testing.assert_allclose(read.T_world_camera, written.T_world_camera, atol=1e-6)
    assert capture.skipped == {"no_pose": 1}


@pytest.mark.parametrize("name", ["kueche bild {}.png", "{}.tiff"])
def test_images_of_other_names_or_formats_are_refused_with_one_of_them(folder, name):
    for path in (folder / "color").iterdir():
        path.rename(path.with_name(name.format(path.stem)))
    told = rf"color has no image that can be read, but '{name.format('000000')}': .* e\.g\. 000000\.jpg, and \.jpg,"
    with pytest.raises(CaptureError, match=told):
        SceneFolder(folder)


def test_depth_of_another_format_is_refused_with_one_of_its_files(folder):
    for path in (folder / "depth").iterdir():
        path.rename(path.with_suffix(".npy"))
    told = r"depth has no image that can be read, but '000000\.npy': depth must be 16-bit PNG .* e\.g\. 000000\.png"
    with pytest.raises(CaptureError, match=told):
        SceneFolder(folder)
