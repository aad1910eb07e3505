"""RGB-D images without poses, from captures that have some and from those that have none."""

import numpy as np
import pytest
from scenes import make_room_frames
from test_captures import write_tum

from s4net_core.errors import CaptureError
from s4net_core.io.bags.writer import write_bag
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.scene_folder import write_scene_folder
from s4net_core.io.captures.trajectory import UNKNOWN_POSES


@pytest.fixture(scope="module")
def frames():
    return make_room_frames(3, 40, 24)


def assert_same(images, frames, stamps=None):
    for image, frame, stamp in zip(images, frames, stamps or [f.stamp for f in frames], strict=True):
        assert image.stamp == stamp
        assert np.array_equal(image.color, frame.color)
        np.testing.assert_allclose(image.depth, frame.depth, atol=0.5001e-3)


@pytest.mark.parametrize("posed", [True, False])
def test_a_scene_folder_gives_its_images_with_and_without_poses(tmp_path, frames, posed):
    write_scene_folder(tmp_path / "room", frames, quality=100)
    if not posed:
        (tmp_path / "room/poses.txt").unlink()
    capture = open_capture(tmp_path / "room", poses=UNKNOWN_POSES)
    assert (len(capture), capture.name.endswith("/room")) == (3, True)
    assert_same(capture, frames)
    assert next(iter(capture)).intrinsics == frames[0].intrinsics
    assert_same(open_capture(tmp_path / "room", stride=2, poses=UNKNOWN_POSES), frames[::2])


def test_images_without_depth_of_their_own_are_counted(tmp_path, frames):
    write_scene_folder(tmp_path / "room", frames, quality=100)
    (tmp_path / "room/depth/000001.png").unlink()
    capture = open_capture(tmp_path / "room", poses=UNKNOWN_POSES)
    assert_same(capture, frames[::2])
    assert capture.skipped == {"unreadable": 1}


def test_tum_without_ground_truth_gives_its_images(tmp_path):
    large = make_room_frames(2, 640, 480)
    write_tum(tmp_path / "freiburg1_desk", large)
    (tmp_path / "freiburg1_desk/groundtruth.txt").unlink()
    images = list(open_capture(tmp_path / "freiburg1_desk", poses=UNKNOWN_POSES))
    assert_same(images, large, [1305031105_000_000_000, 1305031105_100_000_000])
    assert images[0].intrinsics.fx == 517.3


def test_a_bag_gives_its_images_whatever_its_tf_says(tmp_path, frames):
    write_bag(tmp_path / "bag", frames, fixed_frame="elsewhere")
    assert_same(open_capture(tmp_path / "bag", poses=UNKNOWN_POSES), frames)


@pytest.mark.parametrize("name", ["scene", "tum"])
def test_without_poses_there_is_no_capture_and_the_error_says_what_finds_them(tmp_path, frames, name):
    write_scene_folder(tmp_path / "scene", frames)
    (tmp_path / "scene/poses.txt").unlink()
    write_tum(tmp_path / "tum", frames)
    (tmp_path / "tum/groundtruth.txt").unlink()
    with pytest.raises(CaptureError, match="s4net register"):
        open_capture(tmp_path / name)
