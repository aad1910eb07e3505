"""A pose graph that corrects the trajectory moves the keyframes, and what is computed from their poses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import make_room_frames
from scipy.spatial.transform import Rotation

from s4net_core.config import GeometrySettings, KeyframeSettings, Settings
from s4net_core.evaluation.agreement import agreement_of_each, compared_views
from s4net_core.frames import Frame
from s4net_core.geometry.poses import inverse
from s4net_core.keyframes import Keyframe, KeyframeBuffer
from s4net_core.keyframes.pairing import Pairing

MIN_OVERLAP = 0.25
FRAMES = 60


def buffer(**more: str) -> KeyframeBuffer:
    chosen = {"min_sharpness": 0.0, "min_translation": 0.1, "max_speed": 0.0, **more}
    settings = KeyframeSettings.model_validate(chosen)
    return KeyframeBuffer(settings, GeometrySettings(), min_overlap=MIN_OVERLAP)


def drift(share: float) -> np.ndarray:
    """Error of odometry after a share of the run: at its end half a metre and six degrees."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", 6 * share, degrees=True).as_matrix()
    T[:3, 3] = (0.4 * share, -0.3 * share, 0.0)
    return T


@pytest.fixture(scope="module")
def true() -> list[Frame]:
    return make_room_frames(FRAMES)


@pytest.fixture(scope="module")
def drifted(true) -> list[Frame]:
    return [replace(f, T_world_camera=drift(i / FRAMES) @ f.T_world_camera) for i, f in enumerate(true)]


def filled(frames: list[Frame]) -> KeyframeBuffer:
    keyframes = buffer()
    for frame in frames:
        keyframes.offer(frame)
    return keyframes


def same_views(keyframes: KeyframeBuffer, true: list[Frame]) -> KeyframeBuffer:
    """The same views, where they really were taken."""
    stamps = {keyframes.get(id).stamp for id in keyframes.ids()}
    settings = KeyframeSettings(min_sharpness=0, min_translation=0, min_rotation=0, max_speed=0)
    undrifted = KeyframeBuffer(settings, GeometrySettings(), min_overlap=MIN_OVERLAP)
    for frame in true:
        if frame.stamp in stamps:
            undrifted.offer(frame)
    return undrifted


def path(true: list[Frame], every: int = 7) -> dict[int, np.ndarray]:
    """The corrected trajectory: nodes between which most keyframes lie."""
    return {frame.stamp: frame.T_world_camera for frame in [*true[::every], true[-1]]}


def seen_points(view: Keyframe, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (2, N), and the points seen there, (4, N) in camera coordinates: of every `step`-th row and column."""
    lens = view.intrinsics
    u, v = (a.ravel() for a in np.meshgrid(np.arange(0, lens.width, step), np.arange(0, lens.height, step)))
    z = view.depth[v, u]
    points = np.stack([(u - lens.cx) / lens.fx * z, (v - lens.cy) / lens.fy * z, z, np.ones_like(z)])
    return np.stack([u, v])[:, z > 0], points[:, z > 0]


def worst_pixel(keyframes: KeyframeBuffer, true: list[Frame]) -> float:
    """Largest distance, pixels, between points of the views where they are seen and where the poses say they are."""
    poses = {frame.stamp: frame.T_world_camera for frame in true}
    worst = 0.0
    for id in keyframes.ids():
        view = keyframes.get(id)
        lens = view.intrinsics
        pixels, points = seen_points(view, step=8)
        seen = inverse(view.T_world_camera) @ poses[view.stamp] @ points
        expected = np.stack([seen[0] / seen[2] * lens.fx + lens.cx, seen[1] / seen[2] * lens.fy + lens.cy])
        worst = max(worst, float(np.abs(expected - pixels).max()))
    return worst


def cubes(keyframes: KeyframeBuffer, true: list[Frame]) -> dict[int, np.ndarray]:
    """Labels that all views share: one of five classes for each cube of 20 cm of the room, by keyframe id."""
    poses = {frame.stamp: frame.T_world_camera for frame in true}
    labels = {}
    for id, view in keyframes.views(keyframes.ids()).items():
        (u, v), points = seen_points(view)
        cube = np.floor((poses[view.stamp] @ points)[:3] / 0.2 + 0.3).astype(int)  # no wall on a border of cubes
        labels[id] = np.zeros(view.depth_mm.shape, np.uint8)
        labels[id][v, u] = 1 + (cube * [[1], [2], [3]]).sum(0) % 5
    return labels


def overlaps(keyframes: KeyframeBuffer) -> dict[int, dict[int, float]]:
    return {id: dict(keyframes.overlapping(id, 0.0)) for id in keyframes.ids()}


def test_known_points_are_seen_where_the_corrected_poses_say(true, drifted) -> None:
    keyframes = filled(drifted)
    assert worst_pixel(keyframes, true) > 5
    assert keyframes.move(path(true), frame="map") > len(keyframes) / 2
    assert worst_pixel(keyframes, true) < 1
    assert keyframes.move(path(true), frame="map") == 0


def test_after_a_trajectory_in_the_frame_of_the_stream_new_views_are_taken_as_they_come(true) -> None:
    keyframes = filled(true)
    nudge = np.eye(4)
    nudge[:3, 3] = (0.3, 0.0, 0.0)
    for shift, frame in ((nudge, "map"), (np.eye(4), "")):
        assert keyframes.move({view.stamp: shift @ view.T_world_camera for view in true}, frame=frame)
        pose = keyframes._trail.corrected(np.eye(4), 0)
        assert np.allclose(pose, shift)


def test_overlaps_are_those_of_a_run_without_drift(true, drifted) -> None:
    keyframes = filled(drifted)
    undrifted = same_views(keyframes, true)
    refused = keyframes.pairs.refused
    keyframes.move(path(true, every=1), frame="map")
    assert keyframes.pairs.refused < refused
    assert keyframes.pairs == undrifted.pairs
    new, wanted = overlaps(keyframes), overlaps(undrifted)
    assert {id: set(found) for id, found in new.items()} == {id: set(found) for id, found in wanted.items()}
    differences = [abs(share - wanted[id][other]) for id, found in new.items() for other, share in found.items()]
    assert max(differences) < 0.02


def test_views_agree_as_in_a_run_without_drift(true, drifted) -> None:
    """In the labels of one network, which knows nothing of poses."""
    keyframes, settings = filled(drifted), Settings()
    settings.learner.neighbours = 0
    labels, undrifted = cubes(keyframes, true), same_views(keyframes, true)

    def agreement(keyframes) -> float:
        return agreement_of_each([labels], compared_views(keyframes, labels, settings), settings)[0].mean

    wanted = agreement(undrifted)
    assert wanted - agreement(keyframes) > 0.05
    keyframes.move(path(true), frame="map")
    assert agreement(keyframes) == pytest.approx(wanted, abs=0.01)


def test_views_that_stay_are_compared_anew_with_an_older_one_that_moved(true) -> None:
    keyframes = filled(true)
    before = set(overlaps(keyframes)[0])
    nudge = np.eye(4)
    nudge[:3, 3] = (0.02, 0.0, 0.0)
    path_of_two = {true[0].stamp: nudge @ true[0].T_world_camera, true[1].stamp: true[1].T_world_camera}
    assert keyframes.move(path_of_two) == 1
    assert len(before) > 1
    assert set(overlaps(keyframes)[0]) == before


def test_a_view_that_stays_is_compared_with_an_older_one_that_comes_near(true) -> None:
    away = np.eye(4)
    away[:3, 3] = (50.0, 0.0, 0.0)
    keyframes = buffer()
    first = keyframes.offer(replace(true[0], T_world_camera=away @ true[0].T_world_camera)).id
    second = keyframes.offer(true[8]).id
    assert overlaps(keyframes) == {first: {}, second: {}}
    assert keyframes.move({f.stamp: f.T_world_camera for f in (true[0], true[8])}) == 1
    assert overlaps(keyframes) == overlaps(filled([true[0], true[8]]))
    assert set(overlaps(keyframes)[second]) == {first}


def test_until_all_are_measured_again_the_same_views_teach_and_what_is_outdated_is_not_saved(
    true, drifted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learner draws, and the guard judges, while a large room is measured again."""
    keyframes = filled(drifted)
    before, seen, measure_again = keyframes.trainable(MIN_OVERLAP), [], Pairing.measure_again

    def watched(pairing: Pairing, id: int, moved: dict[int, np.ndarray]) -> None:
        if not seen:
            keyframes.save(tmp_path)
        seen.append(keyframes.trainable(MIN_OVERLAP))
        measure_again(pairing, id, moved)

    monkeypatch.setattr(Pairing, "measure_again", watched)
    moved = keyframes.move(path(true), frame="map")
    assert len(before) > 2
    assert len(seen) >= moved > 2
    assert all(trainable == before for trainable in seen)
    loaded = buffer()
    assert loaded.load(tmp_path) == []
    assert loaded.pairs.usable + loaded.pairs.refused < keyframes.pairs.usable / 2


def test_the_world_of_the_keyframes_is_told_until_they_are_cleared(true, drifted) -> None:
    keyframes = filled(drifted)
    assert keyframes.move(path(true)) > 0
    assert keyframes.frame == ""
    assert keyframes.move(path(drifted), frame="map") > 0
    assert keyframes.frame == "map"
    keyframes.clear()
    assert keyframes.frame == ""


def test_views_to_come_are_corrected_as_the_newest_one_is(true, drifted) -> None:
    keyframes = filled(drifted[:40])
    keyframes.move(path(true[:40]), frame="map")
    error = inverse(drift(39 / FRAMES))
    decision = keyframes.offer(drifted[50])
    assert decision.id is not None
    np.testing.assert_allclose(keyframes.get(decision.id).T_world_camera, error @ drifted[50].T_world_camera, atol=1e-9)


@pytest.fixture
def shift() -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = (0.0, 0.4, 0.0)
    return T


def test_a_correction_that_moves_no_keyframe_holds_for_views_to_come(true, shift) -> None:
    """The robot drives back through known places, and the pose graph corrects the way back alone."""
    keyframes = filled(true[:40])
    back = replace(true[39], stamp=true[39].stamp + 10**8)
    assert keyframes.offer(back).reason == "known_view"
    corrected = {frame.stamp: frame.T_world_camera for frame in true[:40]} | {back.stamp: shift @ back.T_world_camera}
    assert keyframes.move(corrected, frame="map") == 0
    assert keyframes.frame == "map"
    decision = keyframes.offer(replace(true[50], stamp=true[39].stamp + 2 * 10**8))
    np.testing.assert_allclose(keyframes.get(decision.id).T_world_camera, shift @ true[50].T_world_camera, atol=1e-9)


def test_a_pause_does_not_undo_the_correction(true, shift) -> None:
    keyframes = filled(true[:40])
    keyframes.move({frame.stamp: shift @ frame.T_world_camera for frame in true[:40]}, frame="map")
    later = replace(true[50], stamp=true[39].stamp + 10**10)
    decision = keyframes.offer(later)
    assert keyframes.get(decision.id).segment == 1
    np.testing.assert_allclose(keyframes.get(decision.id).T_world_camera, shift @ later.T_world_camera, atol=1e-9)


def test_views_to_come_stay_where_the_stream_puts_them_if_it_is_corrected_itself(true, drifted) -> None:
    keyframes = filled(drifted[:40])
    keyframes.move(path(true[:40]))
    decision = keyframes.offer(true[50])
    assert decision.id is not None
    np.testing.assert_array_equal(keyframes.get(decision.id).T_world_camera, true[50].T_world_camera)


def test_a_moved_view_has_another_key_and_an_unmoved_one_its_own(true, drifted) -> None:
    keyframes = filled(drifted)
    before = {id: keyframes.get(id).key for id in keyframes.ids()}
    keyframes.move(path(true), frame="map")
    assert keyframes.get(0).key == before[0]
    last = keyframes.ids()[-1]
    assert keyframes.get(last).key == (last, 1)


def test_a_path_of_other_times_moves_nothing(true, drifted) -> None:
    keyframes = filled(drifted)
    assert keyframes.move({stamp + 10**12: T for stamp, T in path(true).items()}, frame="map") == 0
    assert keyframes.move({}, frame="map") == 0


def test_moved_keyframes_are_saved_where_they_are(true, drifted, tmp_path: Path) -> None:
    keyframes = filled(drifted)
    keyframes.save(tmp_path)
    keyframes.move(path(true), frame="map")
    keyframes.save(tmp_path)
    restored = buffer()
    assert restored.load(tmp_path) == []
    assert restored.frame == "map"
    assert overlaps(restored) == overlaps(keyframes)
    assert restored.pairs == keyframes.pairs
    assert worst_pixel(restored, true) < 1
    assert len(list(tmp_path.glob("keyframe_*.npz"))) == len(keyframes)


@pytest.mark.parametrize("frame", ["map", ""])
def test_after_a_restart_views_to_come_are_corrected_as_before(true, drifted, tmp_path: Path, frame: str) -> None:
    keyframes, half = filled(drifted[: FRAMES // 2]), FRAMES // 2
    keyframes.move(path(true[:half]), frame=frame)
    keyframes.save(tmp_path)
    restored = buffer(after_restart="keep")
    assert restored.load(tmp_path) == []
    for view in drifted[half:]:
        assert restored.offer(view) == keyframes.offer(view)
    places = [[k.T_world_camera.tolist() for k in map(b.get, b.ids())] for b in (keyframes, restored)]
    assert places[0] == places[1]
    assert len(keyframes) > len(filled(drifted[:half]))
