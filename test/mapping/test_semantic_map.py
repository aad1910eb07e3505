"""The semantic map: votes of keyframes, taken back exactly; segments; limits; files."""

import importlib.util
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import BOX, FLOOR, PICTURE, TABLE, WALL, make_room_frames
from scipy.spatial.transform import Rotation

from s4net_core.config import GeometrySettings, KeyframeSettings, MapSettings
from s4net_core.errors import S4NetError
from s4net_core.frames import Frame
from s4net_core.keyframes import Keyframe, KeyframeBuffer
from s4net_core.labels import SUNRGBD37, LabelSpace
from s4net_core.mapping import SemanticMap
from s4net_core.mapping.map_file import write_ply
from s4net_core.mapping.points import LEAST_VOXELS, MapPoints, places_of

FRAMES = make_room_frames(24)
SETTINGS = MapSettings(min_votes=1)


def buffer(**settings: Any) -> KeyframeBuffer:
    values = {"min_sharpness": 0.0, "min_translation": 0.1, "max_speed": 0.0, "max_gap": 0.0} | settings
    return KeyframeBuffer(KeyframeSettings.model_validate(values), GeometrySettings(), min_overlap=0.25)


def filled(frames: list[Frame] = FRAMES, **settings: Any) -> KeyframeBuffer:
    keyframes = buffer(**settings)
    for frame in frames:
        keyframes.offer(frame)
    return keyframes


def mapped(
    keyframes: KeyframeBuffer, labels: dict[int, np.ndarray] | None = None, settings: MapSettings = SETTINGS
) -> SemanticMap:
    found = SemanticMap(SUNRGBD37, settings)
    for id, label in (truth(keyframes) if labels is None else labels).items():
        found.set_label(id, label)
    found.update(keyframes)
    return found


def truth(keyframes: KeyframeBuffer, frames: list[Frame] = FRAMES) -> dict[int, np.ndarray]:
    labels = {frame.stamp: frame.label for frame in frames}
    return {id: labels[keyframes.get(id).stamp] for id in keyframes.ids()}


def noisy(labels: dict[int, np.ndarray], share: float = 0.3) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        id: np.where(rng.random(label.shape) < share, rng.integers(1, 38, label.shape), label).astype(np.uint8)
        for id, label in labels.items()
    }


def contents(found: SemanticMap) -> tuple[bytes, ...]:
    points = found.points()
    return tuple(array.tobytes() for array in (points.xyz, points.color, points.label, points.confidence))


def test_every_pixel_with_depth_and_a_class_votes_once_in_its_voxel() -> None:
    keyframes = filled()
    labels = noisy(truth(keyframes))
    for label in labels.values():
        label[:5] = 0
    settings = MapSettings(min_votes=1, max_range=2.5, voxel_size=0.1)
    votes: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    for id, label in labels.items():
        k = keyframes.get(id)
        lens = k.intrinsics
        for v, u in np.ndindex(label.shape):
            z = float(k.depth[v, u])
            if 0 < z <= 2.5 and label[v, u]:
                camera = np.array([(u - lens.cx) / lens.fx * z, (v - lens.cy) / lens.fy * z, z, 1.0])
                voxel = tuple(np.floor((k.T_world_camera @ camera)[:3] / 0.1).astype(int).tolist())
                votes.setdefault(voxel, []).append((int(label[v, u]), k.color[v, u]))
    points = mapped(keyframes, labels, settings).points()
    assert [tuple(row) for row in np.floor(points.xyz / 0.1).astype(int).tolist()] == sorted(votes)
    for voxel, color, label, confidence in zip(
        sorted(votes), points.color, points.label, points.confidence, strict=True
    ):
        classes = np.bincount([one for one, _ in votes[voxel]])
        assert label == classes.argmax()
        assert confidence == pytest.approx(classes.max() / classes.sum())
        assert np.abs(color - np.mean([rgb for _, rgb in votes[voxel]], axis=0)).max() <= 0.5


def test_the_map_read_back_into_views_is_better_than_noisy_labels_of_single_views() -> None:
    keyframes = filled()
    labels = noisy(truth(keyframes))
    found = mapped(keyframes, labels)
    single, read = [], []
    for id, true in truth(keyframes).items():
        k = keyframes.get(id)
        answer = found.read_back(k.depth, k.intrinsics, k.T_world_camera)
        assert (answer > 0).all(), "every pixel of a keyframe has its own voxel"
        single.append(np.mean(labels[id] == true))
        read.append(np.mean(answer == true))
    assert np.mean(read) > np.mean(single) + 0.1


def test_pixels_without_depth_or_voxel_are_read_back_as_nothing() -> None:
    keyframes = filled(FRAMES[:1])
    found = mapped(keyframes, {0: np.full((48, 64), WALL, np.uint8)})
    depth = keyframes.get(0).depth
    depth[:10] = 0
    depth[10:20] *= 0.5
    label = found.read_back(depth, FRAMES[0].intrinsics, FRAMES[0].T_world_camera)
    assert not label[:20].any()
    assert (label[20:] == WALL).all()
    assert not SemanticMap(SUNRGBD37, SETTINGS).read_back(depth, FRAMES[0].intrinsics, np.eye(4)).any()


def test_labels_of_new_weights_take_the_place_of_the_old_ones_exactly() -> None:
    keyframes = filled()
    true = truth(keyframes)
    found = mapped(keyframes, noisy(true))
    assert contents(found) != contents(mapped(keyframes, true))
    for id, label in true.items():
        found.set_label(id, label)
    assert found.update(keyframes)
    assert contents(found) == contents(mapped(keyframes, true))
    assert not found.update(keyframes), "there is nothing left to do"


def test_voxels_move_with_the_keyframes() -> None:
    keyframes = filled()
    labels = noisy(truth(keyframes))
    found = mapped(keyframes, labels)
    before = contents(found)
    shifted = {frame.stamp: np.array(frame.T_world_camera) for frame in FRAMES}
    for i, T in enumerate(shifted.values()):
        T[:3, 3] += (0.01 * i, 0.4, 0.0)
    assert keyframes.move(shifted)
    assert found.update(keyframes)
    assert contents(found) != before
    assert contents(found) == contents(mapped(keyframes, labels))


def test_an_evicted_keyframe_takes_its_votes_along() -> None:
    view_bytes = 64 * 48 * 5
    keyframes = filled([], max_megabytes=1, min_translation=0.02, min_rotation=1.0)
    found = SemanticMap(SUNRGBD37, SETTINGS)
    frames = [replace(f, stamp=f.stamp + turn * 10**12) for turn in range(2) for f in make_room_frames(45, seed=turn)]
    for frame in frames:
        id = keyframes.offer(frame).id
        if id is not None:
            found.set_label(id, frame.label)
            found.update(keyframes)
    assert keyframes.evicted > 0
    assert found.keyframes == len(keyframes) <= 1_000_000 // view_bytes
    assert contents(found) == contents(mapped(keyframes, truth(keyframes, frames)))


def test_frames_of_a_segment_that_nothing_joins_do_not_smear_into_the_map() -> None:
    T_new_old = np.eye(4)  # tracking was lost, and went on in a world that is turned and shifted
    T_new_old[:3, :3] = Rotation.from_euler("z", 40, degrees=True).as_matrix()
    T_new_old[:2, 3] = 1.5, 0.7
    here = FRAMES[:12]
    there = [replace(f, stamp=f.stamp + 10**12, T_world_camera=T_new_old @ f.T_world_camera) for f in FRAMES]
    limits = {"max_speed": 2.0, "max_gap": 2.0}
    keyframes = filled(here + there[:8], **limits)
    groups = list(keyframes.segments().values())
    assert len(set(groups)) == 2
    assert groups.count(0) > len(groups) / 2
    found = mapped(keyframes, truth(keyframes, here + there))
    assert contents(found) == contents(mapped(filled(here, **limits)))
    for frame in there[8:]:  # the new world outgrows the old one
        keyframes.offer(frame)
    for id, label in truth(keyframes, here + there).items():
        found.set_label(id, label)
    found.update(keyframes)
    alone = filled(there, **limits)
    assert contents(found) == contents(mapped(alone, truth(alone, there)))


def test_a_capture_that_is_played_again_adds_no_voxel() -> None:
    keyframes = filled()
    found = mapped(keyframes)
    before = contents(found)
    for frame in FRAMES:
        id = keyframes.offer(frame).id
        if id is not None:
            found.set_label(id, frame.label)
        found.update(keyframes)
    assert contents(found) == before


def test_a_full_map_counts_what_it_refuses_and_gives_all_back() -> None:
    keyframes = filled()
    found = mapped(keyframes, settings=MapSettings(min_votes=1, max_voxels=1000))
    assert len(found) == 1000
    assert found.refused > 0
    before = contents(found)
    assert set(map(bytes, found.points().xyz)) <= set(map(bytes, mapped(keyframes).points().xyz))
    last = keyframes.ids()[-1]
    found.set_label(last, np.full((48, 64), WALL, np.uint8))
    found.update(keyframes)
    found.set_label(last, truth(keyframes)[last])
    found.update(keyframes)
    assert len(found) == 1000
    assert contents(found) == before
    keyframes.clear()
    found.update(keyframes)
    assert len(found) == found.refused == 0


def test_in_a_full_map_a_keyframe_that_is_labelled_anew_is_the_only_one_that_is_fused_again(monkeypatch) -> None:
    keyframes = filled()
    found = mapped(keyframes, settings=MapSettings(min_votes=1, max_voxels=1000))
    fused, fuse = [], SemanticMap.fuse
    monkeypatch.setattr(SemanticMap, "fuse", lambda self, keyframe: (fused.append(keyframe.id), fuse(self, keyframe)))
    last = keyframes.ids()[-1]
    found.set_label(last, np.full((48, 64), WALL, np.uint8))
    found.update(keyframes)
    assert len(found) == 1000
    assert fused == [last]


def test_what_a_full_map_refused_is_in_it_when_there_is_room_again() -> None:
    keyframes = filled()
    all_voxels = len(mapped(keyframes, settings=MapSettings(min_votes=1)))
    found = mapped(keyframes, settings=MapSettings(min_votes=1, max_voxels=all_voxels - 1))
    assert found.refused > 0
    first = keyframes.ids()[0]
    found.set_label(first, np.zeros((48, 64), np.uint8))  # a network that knows nothing there
    found.update(keyframes)
    assert found.refused == 0
    unknown = {first: np.zeros((48, 64), np.uint8)}
    assert contents(found) == contents(mapped(keyframes, truth(keyframes) | unknown, MapSettings(min_votes=1)))


def test_a_world_far_from_its_origin_is_mapped_as_finely() -> None:
    offset = np.array([500_000.0, 4_000_000.0, 300.0])  # UTM
    far = [replace(f, T_world_camera=f.T_world_camera + np.pad(offset[:, None], ((0, 1), (3, 0)))) for f in FRAMES]
    near, away = mapped(filled()).points(), mapped(filled(far)).points()
    assert len(away) == pytest.approx(len(near), rel=0.02)
    assert away.xyz.mean(axis=0) - offset == pytest.approx(near.xyz.mean(axis=0), abs=0.05)


def test_voxels_that_few_pixels_saw_are_not_shown() -> None:
    keyframes = filled()
    everything, often = mapped(keyframes), mapped(keyframes, settings=MapSettings(min_votes=5))
    assert len(often) == len(everything) == len(everything.points())
    assert 0 < len(often.points()) < len(everything)


def test_what_is_saved_is_loaded_and_goes_on(tmp_path: Path) -> None:
    keyframes = filled()
    found = mapped(keyframes, noisy(truth(keyframes)))
    found.save(tmp_path / "map.npz")
    loaded = SemanticMap(SUNRGBD37, SETTINGS)
    loaded.load(tmp_path / "map.npz")
    assert contents(loaded) == contents(found)
    loaded.save(tmp_path / "again.npz")
    again = SemanticMap(SUNRGBD37, SETTINGS)
    again.load(tmp_path / "again.npz")
    assert contents(again) == contents(found)
    for id, label in truth(keyframes).items():
        loaded.set_label(id, label)
    loaded.update(keyframes)
    assert len(loaded) == len(found), "views of the same place add no voxel"
    keyframes.clear()
    loaded.update(keyframes)
    assert contents(loaded) == contents(found), "what was loaded stays"


def test_an_empty_map_is_saved_and_loaded(tmp_path: Path) -> None:
    SemanticMap(SUNRGBD37, SETTINGS).save(tmp_path / "map.npz")
    found = SemanticMap(SUNRGBD37, SETTINGS)
    found.load(tmp_path / "map.npz")
    assert len(found) == len(found.points()) == 0
    assert found.find(WALL) == []


def test_the_name_says_what_is_saved_and_a_point_cloud_is_not_loaded(tmp_path: Path) -> None:
    keyframes = filled()
    found = mapped(keyframes, settings=MapSettings(min_votes=5))
    before = contents(found)
    assert found.save(tmp_path / "map.npz") == len(found)
    assert found.save(tmp_path / "map.ply") == len(found.points()) < len(found)
    write_ply(tmp_path / "points.ply", found.points())
    assert (tmp_path / "map.ply").read_bytes() == (tmp_path / "points.ply").read_bytes()
    for name in ("map.xyz", "sub/", "NPZ", ".ply"):
        with pytest.raises(S4NetError, match=r"ends neither in .npz nor in .ply: name a file of one of the two"):
            found.save(f"{tmp_path}/{name}")
    with pytest.raises(S4NetError, match=r"map.ply is a point cloud, which cannot be loaded as a map: give the .npz"):
        found.load(tmp_path / "map.ply")
    assert contents(found) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.npz", "map.ply", "points.ply"]


@pytest.mark.parametrize("there", ["keyframes", "text", "folder"])
def test_a_map_replaces_maps_alone(tmp_path: Path, there: str) -> None:
    found, path = mapped(filled()), tmp_path / "there.npz"
    if there == "keyframes":
        np.savez(path, id=np.arange(3), T_world_camera=np.eye(4))
    elif there == "text":
        path.write_text("notes")
    else:
        path.mkdir()
    with pytest.raises(S4NetError, match=r"there.npz is there.* not overwritten.*: name another file"):
        found.save(path)
    assert path.is_dir() or path.read_bytes()[:2] in (b"PK", b"no")
    for name in ("map.npz", "map.ply"):
        assert found.save(tmp_path / name) == found.save(tmp_path / name) > 0


def test_a_file_that_does_not_fit_is_refused_and_the_map_stays(tmp_path: Path) -> None:
    keyframes = filled()
    found = mapped(keyframes)
    before = contents(found)
    found.save(tmp_path / "map.npz")
    whole = (tmp_path / "map.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("no map")
    np.savez(tmp_path / "other.npz", keys=np.arange(3))
    with np.load(tmp_path / "map.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "column.npz", **arrays | {"column": arrays["column"] + np.uint8(200)})
    np.savez(tmp_path / "order.npz", **arrays | {"keys": arrays["keys"][::-1]})
    np.savez(tmp_path / "short.npz", **arrays | {"votes": arrays["votes"][:-1]})
    np.savez_compressed(tmp_path / "bomb.npz", **arrays | {"votes": np.zeros(50_000_000, np.uint32)})
    with pytest.raises(S4NetError, match=r"bomb.npz is no map.*unpacks to 200\d+ bytes"):
        found.load(tmp_path / "bomb.npz")
    np.savez(tmp_path / "pickled.npz", **arrays | {"votes": np.array([{}], dtype=object)})
    (tmp_path / "prefixed.npz").write_bytes(b"garbage" + whole)
    for name in ("cut", "text", "other", "column", "order", "short", "pickled", "prefixed"):
        with pytest.raises(S4NetError, match=f"{name}.npz is no map, or is damaged") as error:
            found.load(tmp_path / f"{name}.npz")
        assert "pickle" not in str(error.value).replace(name, "")  # NumPy's advice to run what the file holds
    with pytest.raises(S4NetError, match=r"gone.npz cannot be read"):
        found.load(tmp_path / "gone.npz")
    with pytest.raises(S4NetError, match=r"cannot be written"):
        found.save(tmp_path / "text.npz" / "map.npz")
    assert contents(found) == before
    own = LabelSpace("own", ("thing", "stuff"), ((1, 2, 3), (4, 5, 6)))
    for space, settings, message in (
        (own, SETTINGS, r"has 37 classes \(wall, floor.*but the weights have 'own'"),
        (SUNRGBD37, MapSettings(voxel_size=0.1), r"voxels of 0.05 m but map.voxel_size is 0.1"),
        (SUNRGBD37, MapSettings(max_voxels=1000), rf"has {len(found)} voxels but map.max_voxels is 1000"),
    ):
        with pytest.raises(S4NetError, match=message):
            SemanticMap(space, settings).load(tmp_path / "map.npz")


def test_a_place_is_the_box_around_voxels_that_touch() -> None:
    def block(low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
        return np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), -1).reshape(-1, 3)

    blocks = [block((0, 0, 0), (4, 3, 2)), block((4, 3, 2), (5, 4, 6)), block((20, 0, 0), (22, 2, 3))]
    crumbs = block((40, 0, 0), (40 + LEAST_VOXELS - 1, 1, 1))
    other = block((6, 0, 0), (19, 3, 3))  # of another class, between the two
    indices = np.vstack([*blocks, crumbs, other])
    label = np.where(np.arange(len(indices)) < len(indices) - len(other), TABLE, FLOOR).astype(np.uint8)
    n = len(indices)
    points = MapPoints((indices + 0.5) * 0.1, np.zeros((n, 3), np.uint8), label, np.full(n, 0.75, np.float32))
    first, second = places_of(points, TABLE, 0.1)
    assert (first.voxels, second.voxels) == (4 * 3 * 2 + 4, 2 * 2 * 3)
    assert np.allclose(first.center, (0.25, 0.2, 0.3))
    assert np.allclose(first.size, (0.5, 0.4, 0.6))
    assert np.allclose(second.center, (2.1, 0.1, 0.15))
    assert first.confidence == pytest.approx(0.75)
    assert places_of(points, PICTURE, 0.1) == []


def test_furniture_of_the_room_is_found_where_it_stands() -> None:
    frames = make_room_frames(80, 128, 96)
    keyframes = filled(frames)
    found = mapped(keyframes, truth(keyframes, frames))
    places = found.find(BOX)
    assert len(places) == 1
    low, high = (np.array(places[0].center) + sign * np.array(places[0].size) / 2 for sign in (-1, 1))
    assert low[0] == pytest.approx(3.5, abs=0.06), "scenes.py puts its front there"
    assert high[2] == pytest.approx(0.6, abs=0.06)
    assert places[0].confidence > 0.9


def test_a_view_of_the_usual_size_is_fused_ten_times_a_second() -> None:
    frame = make_room_frames(1, 640, 480)[0]
    depth_mm = (frame.depth * 1000).astype(np.uint16)
    found = SemanticMap(SUNRGBD37, SETTINGS)
    random = np.random.default_rng(0).integers(0, 10_000, depth_mm.size)
    times: dict[str, list[float]] = {"fuse": [], "sort": []}
    for i in range(5):
        keyframe = Keyframe(i, i, frame.color, depth_mm, frame.intrinsics, frame.T_world_camera, "camera")
        found.set_label(i, frame.label)
        for name, call in (("fuse", partial(found.fuse, keyframe)), ("sort", partial(np.argsort, random))):
            start = time.thread_time()
            call()
            times[name].append(time.thread_time() - start)
    fuse, sort = (min(values) for values in times.values())
    assert fuse < max(0.1, 12 * sort), "100 ms, or on a slow machine what it costs to sort the pixels twelve times"


def test_the_ply_file_is_opened_by_open3d(tmp_path: Path) -> None:
    points = mapped(filled()).points()
    write_ply(tmp_path / "map.ply", points)
    if importlib.util.find_spec("open3d") is None:
        pytest.skip("open3d is not installed")
    from s4net_core.registration.library import open3d

    read = open3d().t.io.read_point_cloud(str(tmp_path / "map.ply")).point
    assert np.array_equal(read.positions.numpy(), points.xyz)
    assert np.array_equal(read.colors.numpy(), points.color)
    assert np.array_equal(read.label.numpy().ravel(), points.label)
    assert np.array_equal(read.confidence.numpy().ravel(), points.confidence)


def test_a_label_of_another_size_is_refused() -> None:
    keyframes = filled(FRAMES[:1])
    with pytest.raises(S4NetError, match=r"label is \(4, 5\) but keyframe 0 is \(48, 64\)"):
        mapped(keyframes, {0: np.ones((4, 5), np.uint8)})
