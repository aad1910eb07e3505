"""`s4net register`: images in; a capture with poses, or the poses alone, out; and how much of it was registered."""

import importlib.util
import re
from dataclasses import replace

import numpy as np
import pytest
from scenes import make_room_frames

from s4net_core.cli.main import main
from s4net_core.io.bags.writer import write_bag
from s4net_core.io.captures.opening import open_capture
from s4net_core.io.captures.scene_folder import SceneFolder, write_scene_folder

if importlib.util.find_spec("open3d") is None:
    pytest.skip("Open3D is not installed", allow_module_level=True)


@pytest.fixture
def room(tmp_path):
    """A capture of six views without poses; one view is black and has no depth."""
    frames = make_room_frames(6, 160, 120)
    frames[3] = replace(frames[3], color=np.zeros_like(frames[3].color), depth=np.zeros_like(frames[3].depth))
    write_scene_folder(tmp_path / "room", frames, quality=100)
    (tmp_path / "room/poses.txt").rename(tmp_path / "true.txt")
    return tmp_path / "room"


def T_of(frames):
    """Poses in the camera of the first frame, by stamp."""
    frames = list(frames)
    T_first_world = np.linalg.inv(frames[0].T_world_camera)
    return {frame.stamp: T_first_world @ frame.T_world_camera for frame in frames}


def assert_near(found, true):
    for stamp, T in found.items():
        np.testing.assert_allclose(T[:3, 3], true[stamp][:3, 3], atol=0.015)
        np.testing.assert_allclose(T[:3, :3], true[stamp][:3, :3], atol=0.015)


def test_a_capture_without_poses_becomes_one_with_poses(room, tmp_path, capsys):
    assert main(["register", str(room), str(tmp_path / "out"), "--quality", "100"]) == 0
    said = capsys.readouterr().out
    assert "5 of 6 images registered (83%)" in said
    assert "inlier RMSE" in said
    assert "left out: 1 not_registered" in said
    true = T_of(open_capture(room, poses=str(tmp_path / "true.txt")))
    frames = list(SceneFolder(tmp_path / "out"))
    assert len(frames) == 5
    assert_near(T_of(frames), true)
    originals = list(open_capture(room, poses=str(tmp_path / "true.txt")))
    assert np.array_equal(frames[3].color, originals[4].color)
    assert np.array_equal(frames[3].label, originals[4].label)


def test_the_poses_alone_fit_the_capture(room, tmp_path, capsys):
    assert main(["register", str(room), str(tmp_path / "poses.txt"), "--stride", "2"]) == 0
    assert "3 of 3 images registered" in capsys.readouterr().out
    found = T_of(open_capture(room, poses=str(tmp_path / "poses.txt"), stride=2))
    assert len(found) == 3
    assert_near(found, T_of(open_capture(room, poses=str(tmp_path / "true.txt"))))
    assert main(["register", str(room), str(tmp_path / "poses.txt")]) == 2
    assert "--force" in capsys.readouterr().err


def test_poses_are_checked_against_those_that_the_capture_has(room, tmp_path, capsys):
    (tmp_path / "true.txt").rename(room / "poses.txt")
    assert main(["register", str(room), str(tmp_path / "out"), "--frames", "3", "--check"]) == 0
    said = capsys.readouterr().out
    assert "3 of 3 images registered (100%)" in said
    assert "left out" not in said
    assert float(re.search(r"trajectory error ([\d.]+) mm", said)[1]) < 10
    assert len(SceneFolder(tmp_path / "out")) == 3


@pytest.mark.parametrize("output", ["out", "out.txt"])
@pytest.mark.parametrize("kind", ["scene", "bag"])
def test_a_check_without_poses_is_refused_before_the_work(room, tmp_path, capsys, monkeypatch, kind, output):
    if kind == "bag":
        write_bag(tmp_path / "bag", make_room_frames(3, 64, 48), fixed_frame="elsewhere")
        room = tmp_path / "bag"
    monkeypatch.setattr("s4net_core.registration.register.register", lambda *_, **__: pytest.fail("it registers"))
    before = sorted(tmp_path.iterdir())
    assert main(["register", str(room), str(tmp_path / output), "--check"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"--check compares with known poses, and {room} has none that can be read: leave it out" in told
    assert sorted(tmp_path.iterdir()) == before
    assert main(["register", f"{tmp_path}/gone", str(tmp_path / output), "--check"]) == 2
    assert "register: capture" in " ".join(capsys.readouterr().err.split())


def test_a_capture_in_which_nothing_fits_leaves_nothing_behind(tmp_path, capsys):
    frames = [replace(frame, depth=np.zeros_like(frame.depth)) for frame in make_room_frames(3, 64, 48)]
    write_scene_folder(tmp_path / "room", frames)
    assert main(["register", str(tmp_path / "room"), str(tmp_path / "out")]) == 2
    assert "could be tied to each other" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["room"]
