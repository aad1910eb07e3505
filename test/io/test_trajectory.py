"""Files of poses: every format gives T_world_camera, by time or by number, and says what is wrong with it."""

import json
import os

import numpy as np
import pytest

from s4net_core.errors import BadFrame, CaptureError
from s4net_core.io.captures.trajectory import NumberedPoses, StampedPoses, read_pose, read_poses

TURN = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
"""A quarter turn about z, then to (1, 2, 3): not its own inverse, nor symmetric."""


def write(path, text):
    path.write_text(text)
    return path


def rows(matrix):
    return "\n".join(" ".join(str(number) for number in row) for row in matrix)


def test_tum_text_is_by_time(tmp_path):
    half = np.sqrt(0.5)
    poses = read_poses(write(tmp_path / "slam.txt", f"# a comment\n1305031105.5 1 2 3 0 0 {half} {half}\n"))
    assert isinstance(poses, StampedPoses)
    np.testing.assert_allclose(poses.at(1305031105_500_000_000, 7), TURN, atol=1e-12)
    np.testing.assert_allclose(poses.at(1305031105_500_400_000, 7), TURN, atol=1e-12)


def test_between_two_near_poses_there_is_one_between_and_in_a_gap_there_is_none(tmp_path):
    text = "0.0 0 0 0 0 0 0 1\n0.1 1 0 0 0 0 0 1\n0.5 5 0 0 0 0 0 1\n"
    poses = read_poses(write(tmp_path / "slam.txt", text))
    np.testing.assert_allclose(poses.at(25_000_000, 0)[:3, 3], [0.25, 0, 0])
    for stamp in (300_000_000, 600_000_000, 10**18):
        with pytest.raises(BadFrame, match="no pose around") as caught:
            poses.at(stamp, 0)
        assert caught.value.reason == "no_pose"


def test_text_of_17_words_is_by_number(tmp_path):
    poses = read_poses(write(tmp_path / "poses.txt", "4 " + " ".join(str(x) for x in TURN.ravel())))
    assert isinstance(poses, NumberedPoses)
    assert np.array_equal(poses.at(0, 4), TURN)
    with pytest.raises(BadFrame, match="no pose of image 3"):
        poses.at(0, 3)


def test_a_log_is_by_number(tmp_path):
    poses = read_poses(write(tmp_path / "t.log", f"0 0 1\n{rows(np.eye(4))}\n2 2 3\n{rows(TURN)}\n"))
    assert list(poses.poses) == [0, 2]
    assert np.array_equal(poses.at(0, 2), TURN)


def test_a_trajectory_of_open3d_is_inverted(tmp_path):
    camera = {"extrinsic": np.linalg.inv(TURN).T.ravel().tolist(), "intrinsic": {}}
    content = {"class_name": "PinholeCameraTrajectory", "parameters": [camera]}
    np.testing.assert_allclose(read_poses(write(tmp_path / "t.json", json.dumps(content))).at(0, 0), TURN)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "# nothing\n", "a.txt holds no pose"),
        ("a.txt", "1.0 a b c d e f g\n", "a.txt:1: a pose is a stamp and 7 numbers"),
        ("a.txt", "1.0 0 0 0 0 0 0 1\n1.1 0 0\n", "a.txt:2: a pose is a stamp and 7 numbers"),
        ("a.txt", "1.0 0 0 0 0 0 0 0\n", "a.txt:1"),
        ("a.txt", "9" * 5000 + " 0 0 0 0 0 0 1\n", "a.txt:1: a pose is a stamp and 7 numbers"),
        (
            "a.txt",
            "0 1 2\n",
            "a.txt:1: a pose is the image's number and 16 numbers, 17 in all, and this line has 3 and",
        ),
        (
            "a.txt",
            f"{' 1' * 16}\n",
            "this line has 16 and begins with '1': put the number in the image's name before its",
        ),
        ("a.txt", f"0.5 {' 1' * 16}\n", "has 17 and begins with '0.5'$"),
        ("a.log", "0 0 1\n1 0 0 0\n", "a.log:1: .*truncated"),
        ("a.log", f"0 0 1\n{rows(TURN)}\n0 0 1\n{rows(TURN)}\n", "a.log:6: image 0 has a second pose"),
        ("a.log", "", "a.log holds no pose"),
        ("a.json", "{}", "is no PinholeCameraTrajectory"),
        ("a.json", '{"parameters": []}', "a.json holds no pose"),
    ],
)
def test_damaged_files_are_named_with_the_line(tmp_path, name, text, message):
    with pytest.raises(CaptureError, match=message):
        read_poses(write(tmp_path / name, text))


def test_a_file_that_is_too_large_or_a_pipe_is_not_read(tmp_path):
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(1 << 40)
    os.mkfifo(tmp_path / "pipe.txt")
    for name, told in (("large", "at most 67108864 are read"), ("pipe", "no regular file")):
        with pytest.raises(CaptureError, match=rf"{name}\.txt .*{told}"):
            read_poses(tmp_path / f"{name}.txt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CaptureError, match=r"nowhere.txt is missing"):
        read_poses(tmp_path / "nowhere.txt")


@pytest.mark.parametrize("text", [rows(np.full((4, 4), -np.inf)), "1 0 0", ""])
def test_the_pose_of_a_lost_tracker_is_none(tmp_path, text):
    with pytest.raises(BadFrame) as caught:
        read_pose(write(tmp_path / "0.txt", text))
    assert caught.value.reason == "pose"
