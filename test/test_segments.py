"""Views whose poses are not in one frame do not teach each other, and neither do views that contradict each other."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scenes import make_room_frames
from scipy.spatial.transform import Rotation

from s4net_core.config import GeometrySettings, KeyframeSettings
from s4net_core.frames import Frame, Intrinsics
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.keyframes.gate import STRAIN
from s4net_core.keyframes.segments import Segments

SECOND = 1_000_000_000
MIN_OVERLAP = 0.25


def buffer(**settings: float | str) -> KeyframeBuffer:
    chosen = KeyframeSettings.model_validate({"min_sharpness": 0.0, "min_translation": 0.1, **settings})
    return KeyframeBuffer(chosen, GeometrySettings(), min_overlap=MIN_OVERLAP)


def offered(keyframes: KeyframeBuffer, frames: list[Frame]) -> list[int]:
    """Ids of the keyframes that the frames became."""
    decisions = [keyframes.offer(frame) for frame in frames]
    return [decision.id for decision in decisions if decision.id is not None]


def taught_pairs(keyframes: KeyframeBuffer) -> set[frozenset[int]]:
    return {frozenset((id, other)) for id in keyframes.ids() for other, _ in keyframes.overlapping(id, MIN_OVERLAP)}


def later(frames: list[Frame], seconds: float) -> list[Frame]:
    return [replace(frame, stamp=frame.stamp + round(seconds * SECOND)) for frame in frames]


def moved(frames: list[Frame], metres: tuple[float, float, float], degrees: float) -> list[Frame]:
    """The same images with poses of another origin."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix(), metres
    return [replace(frame, T_world_camera=T @ frame.T_world_camera) for frame in frames]


@pytest.fixture(scope="module")
def room() -> list[Frame]:
    return make_room_frames(48, hz=10.0)


def pose(x: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
    T[0, 3] = x
    return T


def numbers(steps: list[tuple[float, float, float]], **settings: float) -> list[int]:
    """Segments of views at (seconds, x, yaw)."""
    segments = Segments(KeyframeSettings(**settings))
    return [segments.follow(round(seconds * SECOND), pose(x, yaw)) for seconds, x, yaw in steps]


def drive(start: float, x: float, yaw: float = 0.0) -> list[tuple[float, float, float]]:
    """A second of driving at 0.3 m/s, thirty views."""
    return [(start + i / 30, x + 0.01 * i, yaw) for i in range(30)]


@pytest.mark.parametrize(
    ("second", "breaks"),
    [
        (drive(1.0, 0.30), False),
        (drive(1.0, 0.66), True),
        (drive(1.0, 0.30, yaw=20.0), True),
        (drive(2.5, 0.30), False),
        (drive(3.5, 0.30), True),
        (drive(-5.0, 0.30), True),
    ],
    ids=["no break", "jump of 36 cm", "turn of 20 degrees", "short pause", "gap", "time back"],
)
def test_a_segment_ends_where_nobody_knows_whether_the_origin_is_the_same(second, breaks) -> None:
    assert numbers(drive(0.0, 0.0) + second) == [0] * 30 + [int(breaks)] * 30


def test_a_capture_of_few_views_is_no_series_of_jumps_and_gaps() -> None:
    rare = [(5.0 * i, 0.5 * i, 0.0) for i in range(10)]
    far = [(0.1 * i, 0.8 * i, 25.0 * i) for i in range(10)]
    assert numbers(rare) == [0] * 10
    assert numbers(far) == [0] * 10


def test_both_checks_can_be_switched_off() -> None:
    assert numbers(drive(0.0, 0.0) + drive(9.0, 5.0), max_speed=0.0, max_gap=0.0) == [0] * 60


def test_no_pair_crosses_to_a_new_origin_of_odometry(room) -> None:
    keyframes = buffer()
    old = offered(keyframes, room)
    new = offered(keyframes, later(moved(room, (0.3, 0.2, 0.0), 8.0), 10.0))
    assert len(new) == len(old)  # views near keyframes of the other origin are not known
    assert set(keyframes.segments().values()) == {0, 1}
    assert not any(other in new for id in old for other, _ in keyframes.overlapping(id, 0.0))
    assert not any(other in old for id in new for other, _ in keyframes.overlapping(id, 0.0))
    assert set(keyframes.trainable(MIN_OVERLAP)) >= {*old[:5], *new[:5]}  # each part goes on learning


def test_segments_in_one_frame_are_joined_after_a_few_views(room) -> None:
    keyframes = buffer()
    old = offered(keyframes, room)
    new = offered(keyframes, later(room, 10.0))
    assert 1 <= len(new) <= 8
    assert set(keyframes.segments().values()) == {0}
    assert keyframes.pairs.parted == 0
    assert any(other in old for other, _ in keyframes.overlapping(new[0], MIN_OVERLAP))


def test_a_recording_that_is_played_again_adds_nothing_wherever_it_begins(room) -> None:
    keyframes = buffer()
    offered(keyframes, room)
    stamps = {keyframes.get(id).stamp for id in keyframes.ids()}
    begin = next(i for i, view in enumerate(room) if view.stamp not in stamps)
    assert offered(keyframes, room[begin:]) == []
    assert offered(keyframes, room) == []


def test_a_recording_that_is_played_again_adds_nothing_if_the_round_before_began_later(room) -> None:
    keyframes = buffer()
    offered(keyframes, room)
    stamps = {keyframes.get(id).stamp for id in keyframes.ids()}
    begin = next(i for i, view in enumerate(room) if view.stamp not in stamps)
    assert offered(keyframes, room[begin + 1 :]) == []
    assert offered(keyframes, room[begin:]) == []


def test_a_bare_wall_shows_no_two_segments_to_fit() -> None:
    """It looks the same wherever the camera is along it, so that a new origin would go unnoticed."""
    rng, lens = np.random.default_rng(0), Intrinsics(64, 48, 50.0, 50.0, 31.5, 23.5)
    color = np.full((48, 64, 3), 128, np.uint8)

    def wall(start: float) -> list[Frame]:
        depths = [np.float32(2.0) + rng.normal(0, 0.03, (48, 64)).astype(np.float32) for _ in range(10)]
        places = [(round((start + 0.3 * i) * SECOND), pose(0.2 * i)) for i in range(10)]
        return [Frame(t, color, depth, T, lens, "camera") for depth, (t, T) in zip(depths, places, strict=True)]

    keyframes = buffer()
    offered(keyframes, wall(0.0) + wall(60.0))
    assert set(keyframes.segments().values()) == {0, 1}
    assert keyframes.pairs.refused == 0
    assert keyframes.pairs.parted > 10


def test_views_with_a_wrong_pose_are_forgotten(room) -> None:
    """Every eighth view stands 20 cm and 5 degrees beside its pose."""
    rng = np.random.default_rng(1)
    wrong = {frame.stamp for frame in room[3::8]}
    frames = []
    for frame in room:
        T = frame.T_world_camera.copy()
        if frame.stamp in wrong:
            shift, axis = rng.normal(size=(2, 3))
            T[:3, 3] += 0.2 * shift / np.linalg.norm(shift)
            T[:3, :3] @= Rotation.from_rotvec(np.radians(5) * axis / np.linalg.norm(axis)).as_matrix()
        frames.append(replace(frame, T_world_camera=T))
    keyframes = buffer(max_speed=0.0, min_translation=0.0, min_rotation=0.0)
    offered(keyframes, frames)
    kept = {keyframes.get(id).stamp for id in keyframes.ids()}
    assert kept == {frame.stamp for frame in frames} - wrong
    assert keyframes.contradicted == len(wrong)


def test_views_of_a_drifting_trajectory_teach_each_other(room) -> None:
    """Odometry is 12 cm off after the round: views of one place contradict each other, but no single view is bad."""
    drifting = []
    for i, frame in enumerate(room):
        T = frame.T_world_camera.copy()
        T[0, 3] += 0.12 * i / len(room)
        drifting.append(replace(frame, T_world_camera=T))
    defaults = KeyframeSettings()
    limits = {"max_free_space": defaults.max_free_space / STRAIN, "max_residual": defaults.max_residual / STRAIN}
    keyframes, without_strain = buffer(), buffer(**limits)
    assert offered(keyframes, drifting) == offered(without_strain, drifting)
    assert without_strain.pairs.refused > 20
    assert keyframes.pairs.refused == 0


def test_people_who_move_do_not_teach(room) -> None:
    """In a third of the views a person a metre away hides a quarter of the image, elsewhere in each."""
    frames = list(room)
    for i in range(16, 32):
        depth = room[i].depth.copy()
        left = (i * 11) % (depth.shape[1] * 3 // 4)
        depth[:, left : left + depth.shape[1] // 4] = 1.0
        frames[i] = replace(room[i], depth=depth)
    stamps = {frame.stamp for frame in frames[16:32]}
    crowded, still = buffer(), buffer()
    assert offered(crowded, frames) == offered(still, room)
    people = {id for id in still.ids() if still.get(id).stamp in stamps}
    with_people = [[pair for pair in taught_pairs(keyframes) if pair & people] for keyframes in (crowded, still)]
    assert len(with_people[0]) < 0.3 * len(with_people[1])  # what is left overlaps where nobody stands
    assert taught_pairs(crowded) - set(with_people[0]) == taught_pairs(still) - set(with_people[1])


def test_frozen_depth_does_not_teach(room) -> None:
    frozen = [replace(frame, depth=room[0].depth) for frame in room[:1] + room[12::4]]
    keyframes = buffer(max_speed=0.0)
    offered(keyframes, frozen)
    assert keyframes.pairs.refused > keyframes.pairs.usable


def test_segments_survive_a_restart_and_the_next_view_begins_a_new_one(room, tmp_path: Path) -> None:
    keyframes = buffer()
    offered(keyframes, room)
    offered(keyframes, later(room, 10.0))
    offered(keyframes, later(moved(room, (0.3, 0.2, 0.0), 8.0), 20.0))
    keyframes.save(tmp_path)
    restored = buffer()
    assert restored.load(tmp_path) == []
    assert restored.segments() == keyframes.segments()
    assert restored.pairs == keyframes.pairs
    assert restored.refused_pairs() == keyframes.refused_pairs()
    new = restored.offer(later(moved(room[:1], (5.0, 0.0, 0.0), 0.0), 30.0)[0])
    assert new.id is not None
    assert restored.get(new.id).segment == max(k.segment for k in keyframes.views(keyframes.ids()).values()) + 1


def test_with_a_frame_that_stays_the_next_view_continues_the_segment(room, tmp_path: Path) -> None:
    keyframes = buffer(after_restart="keep")
    offered(keyframes, room[:24])
    keyframes.save(tmp_path)
    restored = buffer(after_restart="keep")
    restored.load(tmp_path)
    offered(restored, later(room[24:], 100.0))
    assert set(restored.segments().values()) == {0}
    assert any(first.segment == second.segment == 0 for first, second in pairwise(map(restored.get, restored.ids())))
