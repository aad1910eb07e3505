"""Captures of other data sets, written here in their published formats, and the choice of the right reader."""

import json

import cv2
import numpy as np
import pytest
from scenes import make_room_frames

from s4net_core.config import StreamSettings
from s4net_core.errors import CaptureError
from s4net_core.frames import Capture, FrameSequence, Intrinsics, decoded
from s4net_core.geometry.poses import quaternion_of
from s4net_core.io.bags.writer import write_bag
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.rosbag import BagReader
from s4net_core.io.captures.scene_folder import SceneFolder, write_scene_folder
from s4net_core.io.captures.seven_scenes import SevenScenes
from s4net_core.io.captures.trajectory import UNKNOWN_POSES, write_tum_poses
from s4net_core.io.captures.tum import TumCapture

WIDTH, HEIGHT = 640, 480
START = 1305031105


def write_tum(folder, frames, depth_delay=-0.004):
    """Colour at START + i / 10 s, depth a little earlier, poses 5 ms before and after each colour image.

    As in the published sequences depth goes on after the last colour image: only then is the last match final.
    """
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    rgb, depth, poses = ["# color images"], ["# depth maps"], ["# ground truth trajectory"]
    for i, frame in enumerate(frames):
        seconds = START + i / 10
        cv2.imwrite(str(folder / f"rgb/{i}.png"), frame.color[..., ::-1])
        cv2.imwrite(str(folder / f"depth/{i}.png"), np.rint(frame.depth * 5000).astype(np.uint16))
        rgb.append(f"{seconds:.6f} rgb/{i}.png")
        depth.append(f"{seconds + depth_delay:.6f} depth/{i}.png")
        for shift in (-0.005, 0.005):
            numbers = (*(frame.T_world_camera[:3, 3] + [shift, 0, 0]), *quaternion_of(frame.T_world_camera))
            poses.append(f"{seconds + shift:.4f} " + " ".join(f"{number:.9f}" for number in numbers))
    depth.append(f"{START + len(frames) / 10:.6f} depth/0.png")
    for name, lines in (("rgb", rgb), ("depth", depth), ("groundtruth", poses)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def write_seven_scenes(folder, frames):
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        depth = np.rint(frame.depth * 1000).astype(np.uint16)
        depth[:, :10] = 65535
        cv2.imwrite(str(folder / f"frame-{i:06d}.color.png"), frame.color[..., ::-1])
        cv2.imwrite(str(folder / f"frame-{i:06d}.depth.png"), depth)
        np.savetxt(folder / f"frame-{i:06d}.pose.txt", frame.T_world_camera, fmt="%16.9e", delimiter="\t")


@pytest.fixture(scope="module")
def frames():
    return make_room_frames(3, WIDTH, HEIGHT)


class TestTum:
    def test_stamps_are_exact_depth_is_scaled_and_poses_are_interpolated(self, tmp_path, frames):
        write_tum(tmp_path / "rgbd_dataset_freiburg2_room", frames)
        capture = TumCapture(tmp_path / "rgbd_dataset_freiburg2_room")
        assert isinstance(capture, FrameSequence)
        read = list(capture)
        assert (len(capture), len(read), capture.skipped) == (3, 3, {})
        for i, (frame, written) in enumerate(zip(read, frames, strict=True)):
            assert frame.stamp == START * 10**9 + i * 10**8
            assert np.array_equal(frame.color, written.color)
            np.testing.assert_allclose(frame.depth, written.depth, atol=1.01e-4)
            np.testing.assert_allclose(frame.T_world_camera, written.T_world_camera, atol=1e-6)
            assert (frame.intrinsics.fx, frame.intrinsics.cy) == (520.9, 249.7)

    def test_colour_without_depth_of_its_time_is_left_out(self, tmp_path, frames):
        write_tum(tmp_path / "room", frames)
        lines = (tmp_path / "room/depth.txt").read_text().splitlines()
        (tmp_path / "room/depth.txt").write_text("\n".join([*lines[:2], *lines[3:]]))
        capture = TumCapture(tmp_path / "room")
        assert [frame.stamp - START * 10**9 for frame in capture] == [0, 2 * 10**8]
        assert capture.skipped == {"unmatched": 1}
        assert next(iter(capture)).intrinsics.fx == 525.0

    def test_a_lens_of_its_own_wins_and_a_guess_is_told(self, tmp_path, frames, caplog):
        names = ("freiburg1", "room")
        for name in names:
            write_tum(tmp_path / name, frames[:1])
            TumCapture(tmp_path / name)
        (message,) = caplog.messages  # none about freiburg1
        assert message.startswith(f"{tmp_path}/room does not say which lens its camera has: 640x480 with fx 525, ")
        lens = {"width": WIDTH, "height": HEIGHT, "fx": 614.0, "fy": 613.0, "cx": 320.5, "cy": 238.5}
        for name, scale, factor in (*((name, {}, 1) for name in names), ("room", {"depth_scale": 0.001}, 5)):
            (tmp_path / name / "intrinsics.json").write_text(json.dumps(lens | scale))
            frame = next(iter(TumCapture(tmp_path / name)))
            assert frame.intrinsics == Intrinsics(**lens)
            np.testing.assert_allclose(frame.depth, factor * frames[0].depth, atol=factor * 1.01e-4)
        assert caplog.messages[1:] == [
            f"depth of {tmp_path}/room has 1000 units a metre, as depth_scale in intrinsics.json says, and not the "
            "5000 of its format"
        ]

    def test_a_lens_for_each_image_is_refused(self, tmp_path, frames):
        write_tum(tmp_path / "room", frames[:1])
        lens = {"width": WIDTH, "height": HEIGHT, "cx": 320.5, "cy": 238.5, "per_frame": [{"fx": 614.0, "fy": 613.0}]}
        (tmp_path / "room/intrinsics.json").write_text(json.dumps(lens))
        with pytest.raises(CaptureError, match=r"intrinsics\.json: per_frame is read in a scene folder alone"):
            TumCapture(tmp_path / "room")

    def test_the_slop_is_the_streams(self, tmp_path, frames):
        write_tum(tmp_path / "room", frames, depth_delay=-0.004)
        capture = TumCapture(tmp_path / "room", StreamSettings(sync_slop=0.002))
        with pytest.raises(CaptureError, match="3 x unmatched"):
            list(capture)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("rgb.txt", "1.0 rgb/0.png extra", "has 3 words"),
            ("depth.txt", "soon depth/0.png", "'soon' is not a stamp"),
            ("depth.txt", "9" * 5000 + " depth/0.png", "is not a stamp in seconds"),
            ("groundtruth.txt", "1.0 a b c d e f g", "groundtruth.txt"),
        ],
    )
    def test_damaged_texts_are_named(self, tmp_path, frames, name, content, message):
        write_tum(tmp_path / "room", frames[:1])
        (tmp_path / "room" / name).write_text(content)
        with pytest.raises(CaptureError, match=message):
            list(TumCapture(tmp_path / "room"))

    def test_the_comment_that_tells_the_camera_is_read_within_bounds(self, tmp_path, frames):
        write_tum(tmp_path / "room", frames[:1])
        truth = tmp_path / "room/groundtruth.txt"
        truth.write_text("# freiburg3\n")
        assert next(iter(TumCapture(tmp_path / "room", poses=UNKNOWN_POSES))).intrinsics.fx == 535.4
        truth.write_bytes(b"# freiburg\xff")
        with pytest.raises(CaptureError, match=r"groundtruth\.txt .*is not text"):
            TumCapture(tmp_path / "room", poses=UNKNOWN_POSES)
        with truth.open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(CaptureError, match=r"groundtruth\.txt .*at most 67108864 are read"):
            TumCapture(tmp_path / "room", poses=UNKNOWN_POSES)

    def test_missing_poses_are_named(self, tmp_path, frames):
        write_tum(tmp_path / "room", frames[:1])
        (tmp_path / "room/groundtruth.txt").unlink()
        with pytest.raises(CaptureError, match=r"groundtruth.txt is missing"):
            TumCapture(tmp_path / "room")

    def test_the_real_sequence_is_read(self, shared_data):
        capture = TumCapture(shared_data / "real/tum_fr1_xyz")
        read = list(capture)
        assert (len(capture), len(read), capture.skipped) == (60, 60, {})
        assert read[0].stamp == 1305031105511332000
        assert read[0].intrinsics.fx == 517.3
        steps = np.linalg.norm(np.diff([frame.T_world_camera[:3, 3] for frame in read], axis=0), axis=1)
        assert steps.max() < 0.05


class TestSevenScenes:
    def test_frames_are_read_as_published(self, tmp_path, frames):
        write_seven_scenes(tmp_path / "chess/seq-01", frames)
        capture = SevenScenes(tmp_path / "chess/seq-01")
        assert isinstance(capture, FrameSequence)
        read = list(capture)
        assert (capture.name, len(capture), len(read)) == ("chess/seq-01", 3, 3)
        for frame, written in zip(read, frames, strict=True):
            assert np.array_equal(frame.color, written.color)
            assert not frame.depth[:, :10].any()
            np.testing.assert_allclose(frame.depth[:, 10:], written.depth[:, 10:], atol=0.5001e-3)
            np.testing.assert_allclose(frame.T_world_camera, written.T_world_camera, atol=1e-6)
            lens = frame.intrinsics
            assert (lens.fx, lens.fy, lens.cx, lens.cy) == (585, 585, 320, 240)
        assert np.all(np.diff([frame.stamp for frame in read]) == 33_333_333)

    def test_frames_that_cannot_be_used_are_left_out_and_counted(self, tmp_path, frames):
        write_seven_scenes(tmp_path / "seq", frames)
        (tmp_path / "seq/frame-000000.pose.txt").write_text("1 0 0")
        (tmp_path / "seq/frame-000002.depth.png").unlink()
        capture = SevenScenes(tmp_path / "seq")
        assert len(list(capture)) == 1
        assert capture.skipped == {"pose": 1, "unreadable": 1}

    def test_the_folder_above_the_sequences_is_refused(self, tmp_path):
        with pytest.raises(CaptureError, match="one sequence"):
            SevenScenes(tmp_path)


class TestOpenCapture:
    def test_every_format_is_recognised(self, tmp_path, frames):
        small = make_room_frames(2, 32, 24)
        write_scene_folder(tmp_path / "scene", small)
        write_bag(tmp_path / "bag", small)
        write_tum(tmp_path / "tum", frames[:1])
        write_seven_scenes(tmp_path / "seven", frames[:1])
        expected = {"scene": SceneFolder, "bag": BagReader, "tum": TumCapture, "seven": SevenScenes}
        assert {name: type(open_capture(tmp_path / name)) for name in expected} == expected
        assert isinstance(open_capture(tmp_path / "bag/bag.mcap"), BagReader)

    def test_stream_settings_reach_the_bag(self, tmp_path):
        write_bag(tmp_path / "bag", make_room_frames(2, 32, 24), fixed_frame="map")
        assert len(list(open_capture(tmp_path / "bag", stream=StreamSettings(fixed_frame="map")))) == 2

    def test_other_poses_are_for_every_format(self, tmp_path, frames):
        small = make_room_frames(2, 32, 24)
        write_scene_folder(tmp_path / "scene", small)
        (tmp_path / "scene/poses.txt").rename(tmp_path / "scene/slam.txt")
        assert len(open_capture(tmp_path / "scene", poses="slam.txt")) == 2
        write_bag(tmp_path / "bag", small)
        write_tum(tmp_path / "tum", frames[:2])
        (tmp_path / "tum/groundtruth.txt").unlink()
        write_seven_scenes(tmp_path / "seven", frames[:2])
        moved = "\n".join(f"{i} 1 0 0 0.{i} 0 1 0 5 0 0 1 0 0 0 0 1" for i in range(2))
        (tmp_path / "moved.txt").write_text(moved)
        for name in ("bag", "bag/bag.mcap", "tum", "seven"):
            read = list(open_capture(tmp_path / name, poses=str(tmp_path / "moved.txt")))
            assert [frame.T_world_camera[:3, 3].tolist() for frame in read] == [[0, 5, 0], [0.1, 5, 0]]

    def test_a_file_of_poses_that_is_not_there_is_named(self, tmp_path):
        write_scene_folder(tmp_path / "scene", make_room_frames(1, 32, 24))
        with pytest.raises(CaptureError, match=r"pose file slam.txt is neither in .*scene"):
            open_capture(tmp_path / "scene", poses="slam.txt")

    def test_poses_by_time_are_refused_where_images_have_no_stamps_unless_they_were_found_for_them(
        self, tmp_path, frames
    ):
        write_seven_scenes(tmp_path / "seven", frames)
        found = {frame.stamp: frame.T_world_camera for frame in list(SevenScenes(tmp_path / "seven"))[1:]}
        write_tum_poses(tmp_path / "found.txt", found)
        assert len(list(open_capture(tmp_path / "seven", poses=str(tmp_path / "found.txt")))) == len(found)
        (tmp_path / "slam.txt").write_text("0.9 0 0 0 0 0 0 1\n1.1 0 0 0 0 0 0 1\n")
        with pytest.raises(
            CaptureError, match=r"slam\.txt has poses by time, and .*seven does not say .*: begin every"
        ):
            open_capture(tmp_path / "seven", poses=str(tmp_path / "slam.txt"))

    def test_images_without_a_pose_are_left_out_and_counted(self, tmp_path):
        small = make_room_frames(3, 32, 24)
        write_bag(tmp_path / "bag", small)
        write_scene_folder(tmp_path / "scene", small)
        (tmp_path / "tum.txt").write_text("1.0 0 0 0 0 0 0 1\n1.2 2 0 0 0 0 0 1\n")
        for name in ("bag", "scene"):
            capture = open_capture(tmp_path / name, poses=str(tmp_path / "tum.txt"))
            assert [frame.T_world_camera[0, 3] for frame in capture] == [0, 2]
            assert capture.skipped == {"no_pose": 1}

    def test_every_nth_frame_is_taken_of_every_format(self, tmp_path, frames):
        write_scene_folder(tmp_path / "scene", frames)
        write_bag(tmp_path / "bag", frames)
        write_tum(tmp_path / "tum", frames)
        write_seven_scenes(tmp_path / "seven", frames)
        for name in ("scene", "bag", "tum", "seven"):
            everything, some = open_capture(tmp_path / name), open_capture(tmp_path / name, stride=2)
            assert len(some) == 2
            assert [frame.stamp for frame in some] == [frame.stamp for frame in everything][::2]
            with pytest.raises(CaptureError, match="stride is 0"):
                open_capture(tmp_path / name, stride=0)

    def test_views_of_every_format_have_their_poses_before_anything_is_decoded(self, tmp_path, frames, monkeypatch):
        write_scene_folder(tmp_path / "scene", frames)
        write_bag(tmp_path / "bag", frames)
        write_tum(tmp_path / "tum", frames)
        write_seven_scenes(tmp_path / "seven", frames)
        captures = [open_capture(tmp_path / name) for name in ("scene", "bag", "tum", "seven")]
        expected = [[(f.stamp, f.T_world_camera.tolist()) for f in capture] for capture in captures]

        def read(*_: object, **__: object) -> None:
            raise AssertionError("decoded without being asked for")

        for where in ("scene_folder", "tum", "seven_scenes"):
            monkeypatch.setattr(f"s4net_core.io.captures.{where}.read_color", read)
        monkeypatch.setattr("s4net_core.io.captures.rosbag.color_from_image", read)
        for capture, known in zip(captures, expected, strict=True):
            assert isinstance(capture, Capture)
            views = list(capture.views())
            assert [(v.stamp, v.T_world_camera.tolist()) for v in views] == known
            with pytest.raises(AssertionError, match="decoded"):
                views[0].decode()

    @pytest.mark.parametrize("name", ["scene", "seven", "tum"])
    def test_a_damaged_image_is_counted_when_its_view_is_decoded(self, tmp_path, frames, name):
        write_scene_folder(tmp_path / "scene", frames, quality=100)
        write_seven_scenes(tmp_path / "seven", frames)
        write_tum(tmp_path / "tum", frames)
        image = {"scene": "color/000001.png", "seven": "frame-000001.color.png", "tum": "rgb/1.png"}[name]
        (tmp_path / name / image).write_bytes(b"damaged")
        capture = open_capture(tmp_path / name)
        assert len(list(capture.views())) == 3
        assert capture.skipped == {}
        read = [frame.stamp for frame in decoded(capture.views())]
        assert (len(read), sum(capture.skipped.values())) == (2, 1)
        assert read == [frame.stamp for frame in capture]

    def test_a_foreign_folder_is_refused_with_the_formats_that_are_read(self, tmp_path):
        (tmp_path / "notes.txt").write_text("hello")
        with pytest.raises(
            CaptureError, match=r"no format that can be read: scene folder.*name one of them.*own-capture"
        ):
            open_capture(tmp_path)
        with pytest.raises(CaptureError, match="no format"):
            open_capture(tmp_path / "notes.txt")

    def test_a_path_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(CaptureError, match="nowhere does not exist"):
            open_capture(tmp_path / "nowhere")
