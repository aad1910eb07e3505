"""Keyframes on disk: they come back after a restart, and damaged ones are left out."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from walls import TEXTURE, buffer, contents, corridor, filled, view

from s4net_core.config import GeometrySettings, KeyframeSettings
from s4net_core.errors import KeyframeError
from s4net_core.keyframes import KeyframeBuffer, store


def test_saved_keyframes_come_back_and_go_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    frames = corridor(90)
    keyframes = filled(frames[:70], max_megabytes=1)
    keyframes.save(tmp_path)
    restored = buffer(max_megabytes=1, after_restart="keep")
    assert restored.load(tmp_path) == []
    assert contents(restored) == contents(keyframes)
    assert (restored.nbytes, restored.evicted) == (keyframes.nbytes, keyframes.evicted)
    for frame in frames[70:]:
        assert restored.offer(frame) == keyframes.offer(frame)
    assert contents(restored) == contents(keyframes)


def test_saving_again_writes_only_what_is_new_and_deletes_what_was_evicted(tmp_path: Path) -> None:
    frames = corridor(80)
    keyframes = filled(frames[:60], max_megabytes=1)
    keyframes.save(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("keyframe_*.npz")}
    for frame in frames[60:]:
        keyframes.offer(frame)
    keyframes.save(tmp_path)
    now = {path: path.stat().st_mtime_ns for path in tmp_path.glob("keyframe_*.npz")}
    assert len(now) == len(keyframes)
    assert all(now[path] == stamp for path, stamp in written.items() if path in now)
    assert set(written) - set(now)
    assert not list(tmp_path.glob("*.tmp"))


def test_what_a_crash_left_half_written_goes_with_the_next_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyframes = filled(corridor(2))
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *paths: os._exit(9))  # the machine goes off before the file has its name
        if (child := os.fork()) == 0:
            keyframes.save(tmp_path)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
    keyframes.save(tmp_path)
    assert not list(tmp_path.glob("*.tmp"))
    assert len(list(tmp_path.iterdir())) == 4


def test_another_buffer_saved_into_the_same_folder_replaces_the_first(tmp_path: Path) -> None:
    filled(corridor(5)).save(tmp_path)
    other = filled(corridor(3, start=50))  # the same ids, other views
    other.save(tmp_path)
    restored = buffer()
    assert restored.load(tmp_path) == []
    assert contents(restored) == contents(other)


DAMAGES = [
    "truncated",
    "empty",
    "flipped",
    "missing",
    "foreign",
    "pickled",
    "prefixed",
    "pose",
    "pipe",
    "device",
    "terabytes",
    "encrypted",
    "npy",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_keyframe_is_reported_and_left_out(tmp_path: Path, damage: str) -> None:
    keyframes = filled(corridor(6))
    keyframes.save(tmp_path)
    path = sorted(tmp_path.glob("keyframe_*.npz"))[2]
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        path.write_bytes(b"not a zip file at all" * 50)
    elif damage == "pickled":
        np.savez(path, id=np.array([{}], dtype=object), color=np.array([{}], dtype=object))
    elif damage == "prefixed":  # still a zip file to Python's zipfile, but not to NumPy
        path.write_bytes(b"garbage" + content)
    elif damage == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif damage == "device":
        path.unlink()
        path.symlink_to("/dev/zero")
    elif damage == "terabytes":
        with zipfile.ZipFile(path, "w") as file, file.open("color.npy", "w") as member:
            shape = {"descr": "|u1", "fortran_order": False, "shape": (1_000_000, 1_000_000, 3)}
            np.lib.format.write_array_header_1_0(member, shape)
    elif damage == "encrypted":  # one bit that says so of the first array
        content[content.index(b"PK\x01\x02") + 8] |= 1
        path.write_bytes(content)
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, TEXTURE)
    elif damage == "pose":
        (places,) = tmp_path.glob("places_*.npz")
        with np.load(places) as data:
            T = data["T_world_camera"].copy()
            T[2] = np.nan
            np.savez(places, **{**data, "T_world_camera": T})
    else:
        content[3000] ^= 0xFF
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "flipped": content}[damage])
    restored = buffer()
    problems = restored.load(tmp_path)
    assert len(problems) == 1
    assert path.name in problems[0]
    assert "pickle" not in problems[0]  # NumPy's text, which advises to run what the file holds
    assert restored.ids() == [0, 1, 3, 4, 5]
    assert all(other != 2 for id in restored.ids() for other, _ in restored.overlapping(id, 0.0))
    assert restored.offer(view(x=50)).id == 6


def test_a_second_keyframe_of_the_same_id_is_reported_and_left_out(tmp_path: Path) -> None:
    filled(corridor(3)).save(tmp_path / "a")
    filled(corridor(3, start=9)).save(tmp_path / "b")
    copied = sorted((tmp_path / "b").glob("keyframe_*.npz"))[1]
    (tmp_path / "a" / copied.name).write_bytes(copied.read_bytes())
    index = json.loads((tmp_path / "a" / "index.json").read_text())
    index["files"].append(copied.name)
    (tmp_path / "a" / "index.json").write_text(json.dumps(index))
    keyframes = buffer()
    (problem,) = keyframes.load(tmp_path / "a")
    assert copied.name in problem
    assert "another file holds a keyframe 1 as well" in problem
    assert contents(keyframes) == contents(filled(corridor(3)))


def test_saved_keyframes_of_another_size_are_left_out_with_one_reason(tmp_path: Path) -> None:
    filled(corridor(3)).save(tmp_path)
    keyframes = KeyframeBuffer(KeyframeSettings(), GeometrySettings(), min_overlap=0.25, size=(32, 24))
    assert keyframes.load(tmp_path) == ["left out, images are processed at 32x24 now"]
    assert keyframes.ids() == []
    assert keyframes.offer(view()).id == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 99, "next_id": 0, "evicted": 0, "files": []}', "version 99"),
        ('{"version": 3, "next_id"', "damaged"),
        ("[]", "version None"),
        ('{"version": 3, "next_id": 3, "evicted": 0}', "lacks"),
        ('{"version": 3, "next_id": 3, "evicted": 0, "files": []}', "lacks.*predicted_depth"),
        ('{"version": 3, "next_id": 3, "evicted": 0, "predicted_depth": false, "files": []}', "lacks.*places"),
        ('{"version": 1, "next_id": 3, "evicted": 0, "predicted_depth": false, "files": []}', "version 1, known is 3"),
    ],
)
def test_an_index_that_cannot_be_read_is_an_error_with_a_remedy(tmp_path: Path, text: str, message: str) -> None:
    filled(corridor(2)).save(tmp_path)
    (tmp_path / "index.json").write_text(text)
    keyframes = filled(corridor(3))
    with pytest.raises(KeyframeError, match=message) as error:
        keyframes.load(tmp_path)
    assert "delete the folder" in str(error.value)
    assert len(keyframes) == 3  # what was there is kept


@pytest.mark.parametrize("damage", ["missing", "empty", "foreign", "truncated", "shapes", "stranger", "correction"])
def test_damaged_poses_are_an_error_with_a_remedy(tmp_path: Path, damage: str) -> None:
    filled(corridor(3)).save(tmp_path)
    (path,) = tmp_path.glob("places_*.npz")
    content = path.read_bytes()
    with np.load(path) as data:
        places = dict(data)
    if damage == "missing":
        path.unlink()
    elif damage == "shapes":
        np.savez(path, **{**places, "segment": places["segment"][1:]})
    elif damage == "correction":
        np.savez(path, **{**places, "correction": 2 * np.eye(4)[None]})
    elif damage == "stranger":
        np.savez(path, **{**places, "pairs": places["pairs"] + 1})
    else:
        spoiled = {"truncated": content[: len(content) // 2], "foreign": b"not a zip file" * 50, "empty": b""}
        path.write_bytes(spoiled[damage])
    keyframes = filled(corridor(2))
    with pytest.raises(KeyframeError, match=rf"{path.name} are damaged or missing .* delete the folder") as error:
        keyframes.load(tmp_path)
    assert "pickle" not in str(error.value)
    assert len(keyframes) == 2  # what was there is kept


def test_a_keyframe_without_a_pose_is_reported_and_left_out(tmp_path: Path) -> None:
    keyframes = filled(corridor(3))
    keyframes.save(tmp_path)
    (path,) = tmp_path.glob("places_*.npz")
    with np.load(path) as data:
        places, kept = dict(data), data["pairs"].max(axis=1) < 2
    of_first_two = {name: places[name][:2] for name in ("id", "T_world_camera", "segment", "revision")}
    pairs_of_them = {name: places[name][kept] for name in ("pairs", "shares", "verdicts")}
    np.savez(path, **{**places, **of_first_two, **pairs_of_them})
    (problem,) = buffer().load(tmp_path)
    assert "keyframe 2 has no pose" in problem


def test_moved_keyframes_are_saved_without_their_images(tmp_path: Path) -> None:
    frames = corridor(6)
    keyframes = filled(frames)
    keyframes.save(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("keyframe_*.npz")}
    nudge = np.eye(4)
    nudge[:3, 3] = (0.0, 0.05, 0.0)
    assert keyframes.move({frame.stamp: nudge @ frame.T_world_camera for frame in frames}) == 6
    keyframes.save(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("keyframe_*.npz")} == written
    assert len(list(tmp_path.glob("places_*.npz"))) == 1
    restored = buffer()
    assert restored.load(tmp_path) == []
    assert contents(restored) == contents(keyframes)


def test_poses_and_pairs_that_are_saved_are_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = corridor(6)
    keyframes = filled(frames)
    before = contents(keyframes)
    assert keyframes.overlapping(1, 0.0)
    apart = np.eye(4)
    apart[:3, 3] = (0.0, 50.0, 0.0)
    write = store.write

    def move_and_write(folder: Path, saved: store.Saved) -> None:
        assert keyframes.move(
            {f.stamp: (apart if i == 1 else np.eye(4)) @ f.T_world_camera for i, f in enumerate(frames)}
        )
        write(folder, saved)

    monkeypatch.setattr(store, "write", move_and_write)
    keyframes.save(tmp_path)
    assert not keyframes.overlapping(1, 0.0)
    restored = buffer()
    assert restored.load(tmp_path) == []
    assert contents(restored) == before


def test_loading_from_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyframeError, match="no saved keyframes"):
        buffer().load(tmp_path / "nothing")


def test_a_file_name_in_the_index_cannot_leave_the_folder(tmp_path: Path) -> None:
    filled(corridor(1)).save(tmp_path / "a")
    filled(corridor(1, start=9)).save(tmp_path / "b")
    stranger = next((tmp_path / "a").glob("keyframe_*.npz"))
    index = json.loads((tmp_path / "b" / "index.json").read_text())
    index["files"].append(f"../a/{stranger.name}")
    (tmp_path / "b" / "index.json").write_text(json.dumps(index))
    keyframes = buffer()
    assert len(keyframes.load(tmp_path / "b")) == 1
    assert len(keyframes) == 1


def test_loading_into_less_memory_evicts(tmp_path: Path) -> None:
    filled(corridor(90)).save(tmp_path)
    small = buffer(max_megabytes=1)
    assert small.load(tmp_path) == []
    assert small.nbytes <= 1_000_000
    assert small.evicted == 90 - len(small)
