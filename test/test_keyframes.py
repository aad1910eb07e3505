"""What the keyframe buffer takes, finds, forgets, and brings back after a restart."""

import json
import os
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from s4net_core.config import GeometrySettings, KeyframeSettings
from s4net_core.errors import BadFrame, KeyframeError
from s4net_core.frames import Frame, Intrinsics
from s4net_core.geometry.camera import working_frame
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.keyframes.view import sharpness

WIDTH, HEIGHT = 64, 48
LENS = Intrinsics(WIDTH, HEIGHT, 50.0, 50.0, 31.5, 23.5)
TEXTURE = cv2.resize(
    np.random.default_rng(0).integers(0, 255, (HEIGHT // 12, WIDTH // 16, 3), dtype=np.uint8),
    (WIDTH, HEIGHT),
    interpolation=cv2.INTER_NEAREST,
)
SECOND = 1_000_000_000


def view(x: float = 0.0, yaw: float = 0.0, stamp: int = 0, color: np.ndarray = TEXTURE, depth: float = 2.0) -> Frame:
    """A textured wall at `depth` metres, seen from `x` metres along it with the head turned by `yaw` degrees."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
    T[0, 3] = x
    return Frame(stamp, color, np.full((HEIGHT, WIDTH), depth, np.float32), T, LENS, "camera")


def buffer(**settings: Any) -> KeyframeBuffer:
    """One segment whatever the stamps: views of a wall cannot show that two segments fit."""
    in_one_segment: dict[str, Any] = {"max_speed": 0.0, "max_gap": 0.0}
    return KeyframeBuffer(KeyframeSettings(**(in_one_segment | settings)), GeometrySettings(), min_overlap=0.25)


def corridor(n: int, step: float = 0.2, start: float = 0.0) -> list[Frame]:
    return [view(start + i * step, stamp=i * SECOND) for i in range(n)]


def filled(frames: list[Frame], **settings: float) -> KeyframeBuffer:
    keyframes = buffer(**settings)
    for frame in frames:
        keyframes.offer(frame)
    return keyframes


def contents(keyframes: KeyframeBuffer) -> list:
    """Everything that can be read from a buffer, in a form that can be compared."""
    return [
        (k.id, k.stamp, k.color.tobytes(), k.depth_mm.tobytes(), k.T_world_camera.tolist(), k.intrinsics, k.frame_id,
         keyframes.overlapping(k.id, 0.0))
        for k in map(keyframes.get, keyframes.ids())
    ]  # fmt: skip


def test_a_keyframe_holds_the_frame_in_millimetres_and_its_own_memory() -> None:
    frame = view(x=1.0, yaw=20, stamp=5, depth=1.2345)
    frame.depth[0, :4] = (0, np.nan, 70.0, -1)  # type: ignore[index]
    keyframes = buffer()
    answer = keyframes.offer(frame)
    assert answer.reason == "new"
    assert answer.id is not None
    kept = keyframes.get(answer.id)
    assert (kept.color == TEXTURE).all()
    assert not np.shares_memory(kept.color, frame.color)
    assert kept.depth_mm.dtype == np.uint16
    assert kept.depth_mm[0, :5].tolist() == [0, 0, 0, 0, 1234]
    assert kept.depth[1, 1] == pytest.approx(1.234, abs=1e-6)
    assert (kept.stamp, kept.frame_id, kept.intrinsics) == (5, "camera", LENS)
    np.testing.assert_array_equal(kept.T_world_camera, frame.T_world_camera)
    assert kept.nbytes == keyframes.nbytes == WIDTH * HEIGHT * 5
    with pytest.raises(ValueError, match="read-only"):
        kept.color[0, 0] = 1


@pytest.mark.parametrize(
    ("second", "taken"),
    [
        ({"x": 0.16}, True),
        ({"x": 0.14}, False),
        ({"yaw": 11.0}, True),
        ({"yaw": 9.0}, False),
        ({"x": 0.14, "yaw": -9.0}, False),
        ({"x": 0.01, "yaw": 350.5}, False),
    ],
)
def test_a_view_is_new_when_it_is_moved_or_turned_enough(second: dict[str, float], taken: bool) -> None:
    keyframes = filled([view()], min_translation=0.15, min_rotation=10)
    answer = keyframes.offer(view(**second, stamp=1))
    assert (answer.id is not None) == taken
    assert answer.reason == ("new" if taken else "known_view")


def test_a_view_is_compared_with_every_near_keyframe_not_only_the_last() -> None:
    frames = [view(yaw=15.0 * i, stamp=i) for i in range(24)]  # turns once about itself
    keyframes = filled(frames)
    assert len(keyframes) == 24
    assert keyframes.offer(view(x=0.05, yaw=152, stamp=30)).reason == "known_view"
    assert keyframes.offer(view(x=0.2, yaw=152, stamp=31)).reason == "new"


def test_revisiting_a_place_adds_no_keyframes() -> None:
    there = corridor(100)
    keyframes = filled(there)
    assert len(keyframes) == 100
    back = [view(19.8 - 0.07 * i, yaw=3, stamp=(200 + i) * SECOND) for i in range(280)]
    assert {keyframes.offer(frame).reason for frame in back} == {"known_view"}


def test_a_looped_bag_leaves_the_buffer_as_it_was() -> None:
    frames = [
        replace(frame, color=cv2.blur(TEXTURE, (15, 1)) if i % 5 == 2 else TEXTURE)
        for i, frame in enumerate(corridor(60, step=0.08))
    ]
    keyframes = buffer()
    assert {keyframes.offer(frame).reason for frame in frames} == {"new", "known_view", "blurred"}
    before = contents(keyframes)
    assert 10 < len(before) < 60
    for frame in frames * 2:
        assert keyframes.offer(frame).id is None
    assert contents(keyframes) == before


def test_a_looped_bag_is_judged_blurred_the_second_time_as_well() -> None:
    """In the second round only the blurred images are new views; they are compared with views of the first round."""
    frames = corridor(20)
    for i in (2, 11):
        frames[i] = replace(frames[i], color=cv2.blur(TEXTURE, (11, 1)))
    keyframes = filled(frames, sharpness_window=9)
    before = contents(keyframes)
    assert len(before) == 18
    assert [keyframes.offer(frame).reason for frame in frames].count("blurred") == 2
    assert contents(keyframes) == before


def test_same_frames_give_the_same_buffer_and_the_same_neighbours() -> None:
    frames = corridor(90)
    one, two = filled(frames, max_megabytes=1), filled(frames, max_megabytes=1)
    assert one.evicted > 0
    assert contents(one) == contents(two)
    draws = [[k.neighbours(i, 4, 0.25, np.random.default_rng(3)) for i in k.ids()] for k in (one, two)]
    assert draws[0] == draws[1]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_blurred_frame_is_refused(axis: int) -> None:
    keyframes = filled(corridor(10))
    box = (1, 11) if axis == 0 else (11, 1)
    answer = keyframes.offer(view(x=5, stamp=20 * SECOND, color=cv2.blur(TEXTURE, box)))
    assert (answer.id, answer.reason) == (None, "blurred")
    assert keyframes.offer(view(x=5, stamp=21 * SECOND)).reason == "new"


def test_sharpness_check_can_be_switched_off() -> None:
    keyframes = filled(corridor(10), min_sharpness=0.0)
    assert keyframes.offer(view(x=5, stamp=20 * SECOND, color=cv2.blur(TEXTURE, (15, 15)))).reason == "new"


def test_a_scene_with_little_texture_is_not_taken_for_blurred() -> None:
    faint = (TEXTURE // 8 + 100).astype(np.uint8)
    keyframes = filled(corridor(10))
    assert keyframes.offer(view(x=5, stamp=20 * SECOND, color=faint)).reason == "new"


def test_sharpness_of_real_frames_falls_with_motion_blur(demo: Path) -> None:
    for path in sorted((demo / "capture" / "color").iterdir())[::60]:
        color = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        sharp = sharpness(color)
        assert sharpness(cv2.blur(color, (9, 1))) < 0.75 * sharp
        assert sharpness(cv2.blur(color, (1, 15))) < 0.7 * sharp


def test_an_image_of_one_colour_has_no_sharpness() -> None:
    assert sharpness(np.full((40, 60, 3), 90, np.uint8)) == 0


def test_too_little_or_no_usable_depth_is_refused_with_its_reason() -> None:
    keyframes = buffer(min_depth_coverage=0.3)
    frame = view()
    depth = np.zeros((HEIGHT, WIDTH), np.float32)
    assert keyframes.offer(replace(frame, depth=None)).reason == "no_depth"
    assert keyframes.offer(replace(frame, depth=depth)).reason == "no_depth"
    assert keyframes.offer(replace(frame, depth=np.full_like(depth, 50.0))).reason == "no_depth"  # all out of range
    depth[:, : int(WIDTH * 0.29)] = 2.0
    assert keyframes.offer(replace(frame, depth=depth)).reason == "little_depth"
    depth[:, : int(WIDTH * 0.32)] = 2.0
    assert keyframes.offer(replace(frame, depth=depth)).reason == "new"


def test_depth_is_predicted_only_for_a_view_that_is_new_and_sharp() -> None:
    asked: list[bytes] = []

    def predict(color: np.ndarray) -> np.ndarray:
        asked.append(color.tobytes())
        return np.full(color.shape[:2], 3.0, np.float32)

    keyframes = KeyframeBuffer(KeyframeSettings(), GeometrySettings(), min_overlap=0.25, predict_depth=predict)
    blurred = cv2.blur(TEXTURE, (15, 15))
    assert keyframes.offer(replace(view(), depth=None)).reason == "new"
    assert keyframes.offer(replace(view(x=0.01, stamp=1), depth=None)).reason == "known_view"
    assert keyframes.offer(replace(view(x=1.0, stamp=2, color=blurred), depth=None)).reason == "blurred"
    assert keyframes.offer(view(x=1.0, stamp=3)).reason == "new"  # its own 2 m do not count
    assert len(asked) == 2
    assert all((keyframes.get(id).depth_mm == 3000).all() for id in keyframes.ids())


def test_nobody_waits_for_a_prediction() -> None:
    """A prediction must not lock the buffer: it takes as long as a learner step, which draws from the buffer."""
    begun, go_on = threading.Event(), threading.Event()

    def predict(color: np.ndarray) -> np.ndarray:
        begun.set()
        assert go_on.wait(10)
        return np.full(color.shape[:2], 2.0, np.float32)

    keyframes = KeyframeBuffer(KeyframeSettings(), GeometrySettings(), min_overlap=0.25, predict_depth=predict)
    reasons: list[str] = []

    def offer() -> None:
        reasons.append(keyframes.offer(replace(view(), depth=None)).reason)

    def ask() -> None:
        keyframes.draw(4, 4, 0.25, np.random.default_rng(0))

    offers = [threading.Thread(target=offer) for _ in range(2)]
    asking = threading.Thread(target=ask)
    offers[0].start()
    assert begun.wait(10)
    offers[1].start()
    asking.start()
    asking.join(5)
    waited = asking.is_alive()
    go_on.set()
    for thread in (*offers, asking):
        thread.join()
    assert not waited
    assert sorted(reasons) == ["known_view", "new"]


def test_a_prediction_out_of_range_is_no_depth() -> None:
    def far(color: np.ndarray) -> np.ndarray:
        return np.full(color.shape[:2], 50.0, np.float32)

    keyframes = KeyframeBuffer(KeyframeSettings(), GeometrySettings(), min_overlap=0.25, predict_depth=far)
    assert keyframes.offer(replace(view(), depth=None)).reason == "no_depth"


def test_views_overlap_although_their_predicted_depths_contradict_each_other() -> None:
    depths = iter([2.0, 3.0])

    def predict(color: np.ndarray) -> np.ndarray:
        return np.full(color.shape[:2], next(depths), np.float32)

    frames = [view(), view(x=0.4, stamp=SECOND)]
    keyframes = KeyframeBuffer(KeyframeSettings(), GeometrySettings(), min_overlap=0.25, predict_depth=predict)
    for frame in frames:
        keyframes.offer(frame)
    assert keyframes.trainable(0.25) == [0, 1]
    assert keyframes.any_trainable(0.25)
    measured = filled([frames[0], view(x=0.4, stamp=SECOND, depth=3.0)])
    assert measured.trainable(0.25) == []
    assert not measured.any_trainable(0.25)


class Undecoded:
    """A view whose images are decoded when somebody asks for them, which is counted."""

    def __init__(self, frame: Frame) -> None:
        self.stamp, self.T_world_camera = frame.stamp, frame.T_world_camera
        self.decoded = 0
        self._frame = frame

    def decode(self) -> Frame:
        self.decoded += 1
        return self._frame


def test_a_known_view_is_refused_before_it_is_decoded() -> None:
    keyframes = buffer()
    views = [Undecoded(view(x)) for x in (0.0, 0.1, 0.2)]
    assert [keyframes.offer(one).reason for one in views] == ["new", "known_view", "new"]
    assert [one.decoded for one in views] == [1, 0, 1]


def test_an_image_that_cannot_be_decoded_is_an_error_and_the_place_stays_new() -> None:
    class Damaged(Undecoded):
        def decode(self) -> Frame:
            raise BadFrame("color_format", "not a JPEG")

    keyframes = buffer()
    with pytest.raises(BadFrame, match="not a JPEG"):
        keyframes.offer(Damaged(view()))
    assert keyframes.offer(view(stamp=1)).reason == "new"


def test_views_are_brought_to_the_size_of_the_buffer_without_distortion() -> None:
    lens = replace(LENS.scaled(128, 96), distortion=(0.1, 0.0, 0.0, 0.0))
    color = cv2.resize(TEXTURE, (128, 96), interpolation=cv2.INTER_NEAREST)
    frame = Frame(0, color, np.full((96, 128), 2.0, np.float32), np.eye(4), lens)
    keyframes = KeyframeBuffer(KeyframeSettings(), GeometrySettings(), min_overlap=0.25, size=(WIDTH, HEIGHT))
    assert keyframes.size == (WIDTH, HEIGHT)
    kept = keyframes.get(keyframes.offer(frame).id)
    expected = working_frame(frame, WIDTH, HEIGHT)
    np.testing.assert_array_equal(kept.color, expected.color)
    assert kept.intrinsics == expected.intrinsics == LENS


def test_sharpness_is_judged_among_views_from_new_places() -> None:
    """Many sharp images from a camera that stands still must not cause softer images from new places to be refused."""
    soft = cv2.blur(TEXTURE, (7, 7))
    keyframes = filled([view(2.0 * i, stamp=i, color=soft) for i in range(3)])
    for stamp in range(3, 40):
        assert keyframes.offer(view(4.0, stamp=stamp)).reason == "known_view"
    assert keyframes.offer(view(6.0, stamp=40, color=soft)).reason == "new"


def test_of_views_equally_near_the_older_one_is_measured() -> None:
    """Keyframes on a grid: the two beside the new view are equally far, and only one candidate is asked for."""
    frames = [view(2.0, stamp=0), view(1.0, stamp=1), view(1.5, stamp=2)]
    keyframes = filled(frames, candidates=1)
    assert [other for other, _ in keyframes.overlapping(2, 0.0)] == [0]


def test_overlaps_are_shares_of_the_target_view() -> None:
    keyframes = filled([view(), view(x=1.28, stamp=1), view(x=0.5, yaw=180, stamp=2)])
    # a wall 2 m away is 64 px · 2 m / 50 px = 2.56 m wide in view: half of it is left after 1.28 m
    assert keyframes.overlapping(0, 0.25) == [(1, pytest.approx(0.5, abs=0.05))]
    assert keyframes.overlapping(2, 0.0) == []
    assert keyframes.trainable(0.25) == [0, 1]
    assert keyframes.trainable(0.7) == []


def test_neighbours_come_at_random_from_those_that_overlap_enough() -> None:
    keyframes = filled(corridor(30))
    able = {id for id, share in keyframes.overlapping(15, 0.25)}
    assert 10 < len(able) < 29
    rng = np.random.default_rng(0)
    drawn = [keyframes.neighbours(15, 4, 0.25, rng) for _ in range(200)]
    assert all(len(set(ids)) == 4 and set(ids) <= able for ids in drawn)
    assert set().union(*drawn) == able
    assert sorted(keyframes.neighbours(15, 100, 0.25, rng)) == sorted(able)
    assert keyframes.neighbours(15, 4, 0.9999, rng) == []
    assert keyframes.neighbours(999, 4, 0.25, rng) == []


def test_a_draw_gives_different_targets_each_with_neighbours_that_see_enough_of_it() -> None:
    keyframes = filled(corridor(30))
    drawn = keyframes.draw(4, 3, 0.25, np.random.default_rng(0))
    assert len({target.id for target, _ in drawn}) == len(drawn) == 4
    for target, others in drawn:
        able = {id for id, _ in keyframes.overlapping(target.id, 0.25)}
        assert {view.id for view in others} <= able
        assert len({view.id for view in others}) == len(others) == 3
        assert all(view is keyframes.get(view.id) for view in (target, *others))


def test_draws_follow_from_the_generator_and_reach_every_view_that_has_a_neighbour() -> None:
    keyframes = filled([*corridor(12), view(x=50, stamp=20 * SECOND)], holdout=0)

    def draws(seed: int) -> list:
        rng = np.random.default_rng(seed)
        drawn = [keyframes.draw(4, 2, 0.25, rng) for _ in range(40)]
        return [[(target.id, [view.id for view in others]) for target, others in one] for one in drawn]

    assert draws(3) == draws(3) != draws(4)
    assert {id for one in draws(3) for id, _ in one} == set(keyframes.trainable(0.25)) == set(range(12))


def test_a_draw_takes_what_there_is() -> None:
    rng = np.random.default_rng(0)
    assert buffer().draw(4, 4, 0.25, rng) == []
    assert filled([view()]).draw(4, 4, 0.25, rng) == []
    drawn = filled(corridor(2)).draw(4, 4, 0.25, rng)
    assert {target.id: [view.id for view in others] for target, others in drawn} == {0: [1], 1: [0]}


def test_held_out_views_are_never_targets_but_are_neighbours() -> None:
    keyframes = filled([*corridor(12), view(x=50, stamp=20 * SECOND)], holdout=3)
    rng = np.random.default_rng(0)
    drawn = [pair for _ in range(20) for pair in keyframes.draw(4, 0, 0.25, rng)]
    assert keyframes.held_out(0.25) == [2, 5, 8, 11]
    assert {target.id for target, _ in drawn} == {0, 1, 3, 4, 6, 7, 9, 10}
    for target, others in drawn:
        assert [view.id for view in others] == sorted(id for id, _ in keyframes.overlapping(target.id, 0.25))
    assert {view.id for _, others in drawn for view in others} >= {2, 5, 8, 11}


def test_what_is_held_out_does_not_change_when_views_come_or_go() -> None:
    """A view that has been learnt from may never become one to measure on, nor the other way round."""
    keyframes = filled(corridor(100), holdout=4, max_megabytes=1)
    held = keyframes.ids()
    assert keyframes.evicted > 0
    assert keyframes.held_out(0.25) == [id for id in held if id % 4 == 3]
    assert filled(corridor(12), holdout=0).held_out(0.25) == []


def test_a_draw_is_whole_while_another_thread_makes_the_buffer_evict() -> None:
    """Every offer to this full buffer pushes a view out: ids asked for in one step are stale in the next."""
    keyframes = filled(corridor(65), max_megabytes=1)
    failures: list[Exception] = []

    def keep_offering() -> None:
        try:
            for i in range(60):
                keyframes.offer(view(0.2 * (65 + i), stamp=(65 + i) * SECOND))
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=keep_offering)
    thread.start()
    rng, drawn = np.random.default_rng(0), []
    while thread.is_alive() or not drawn:
        drawn.append(keyframes.draw(8, 4, 0.25, rng))
    thread.join()
    assert not failures
    assert keyframes.evicted >= 60
    assert all(len(one) == 8 and all(others for _, others in one) for one in drawn)


def test_views_are_those_that_are_still_held_in_the_order_asked_for() -> None:
    keyframes = filled(corridor(80), max_megabytes=1)
    gone = sorted(set(range(80)) - set(keyframes.ids()))
    first, last = keyframes.ids()[0], keyframes.ids()[-1]
    found = keyframes.views([last, gone[0], first, 999])
    assert list(found) == [last, first]
    assert found[first] is keyframes.get(first)


def test_memory_stays_within_its_bound_and_the_most_covered_views_go_first() -> None:
    crowded = [view(0.16 * i, stamp=i) for i in range(30)]
    lonely = [view(100 + 3 * i, stamp=100 + i) for i in range(5)]
    rest = [view(200 + 0.5 * i, stamp=200 + i) for i in range(60)]
    keyframes = buffer(max_megabytes=1)
    for frame in crowded + lonely + rest:
        answer = keyframes.offer(frame)
        assert answer.id in keyframes  # never the newest
        assert keyframes.nbytes <= 1_000_000
    assert keyframes.nbytes == len(keyframes) * WIDTH * HEIGHT * 5
    assert keyframes.evicted == 95 - len(keyframes) == 95 - 1_000_000 // (WIDTH * HEIGHT * 5)
    stamps = {keyframes.get(id).stamp for id in keyframes.ids()}
    assert {frame.stamp for frame in lonely} <= stamps
    assert sum(frame.stamp in stamps for frame in crowded) < 15
    for id in keyframes.ids():
        assert all(other in keyframes for other, _ in keyframes.overlapping(id, 0.0))


def test_the_newest_view_is_never_the_one_to_go() -> None:
    capacity = 1_000_000 // (WIDTH * HEIGHT * 5)
    keyframes = filled(corridor(capacity, step=2.0), max_megabytes=1)
    assert keyframes.evicted == 0
    answer = keyframes.offer(view(1.0, stamp=1000 * SECOND))  # between two others, which cover it more than any
    assert answer.id in keyframes
    assert keyframes.evicted == 1


def test_a_view_larger_than_the_buffer_is_refused_with_the_setting_to_raise() -> None:
    lens = LENS.scaled(640, 480)
    frame = Frame(0, np.zeros((480, 640, 3), np.uint8), np.ones((480, 640), np.float32), np.eye(4), lens)
    with pytest.raises(KeyframeError, match=r"keyframes\.max_megabytes = 1"):
        buffer(max_megabytes=1).offer(frame)


def test_a_view_of_another_size_is_refused() -> None:
    keyframes = filled([view()])
    lens = LENS.scaled(32, 24)
    small = Frame(1, TEXTURE[::2, ::2].copy(), np.ones((24, 32), np.float32), view(x=5).T_world_camera, lens)
    with pytest.raises(KeyframeError, match="32x24"):
        keyframes.offer(small)


def test_asking_for_a_keyframe_that_is_gone_says_so() -> None:
    with pytest.raises(KeyframeError, match="keyframe 4"):
        buffer().get(4)


def test_clearing_forgets_everything_but_never_reuses_an_id() -> None:
    keyframes = filled(corridor(5))
    keyframes.clear()
    assert (len(keyframes), keyframes.nbytes, keyframes.ids()) == (0, 0, [])
    assert keyframes.offer(view()).id == 5


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
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    for frame in frames[60:]:
        keyframes.offer(frame)
    keyframes.save(tmp_path)
    now = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
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
    assert len(list(tmp_path.iterdir())) == 3


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
    "pose",
    "pipe",
    "device",
    "terabytes",
    "npy",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_keyframe_is_reported_and_left_out(tmp_path: Path, damage: str) -> None:
    keyframes = filled(corridor(6))
    keyframes.save(tmp_path)
    path = sorted(tmp_path.glob("*.npz"))[2]
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        path.write_bytes(b"not a zip file at all" * 50)
    elif damage == "pickled":
        np.savez(path, id=np.array([{}], dtype=object), color=np.array([{}], dtype=object))
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
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, TEXTURE)
    elif damage == "pose":
        with np.load(path) as data:
            np.savez(path, **{**data, "T_world_camera": np.full((4, 4), np.nan)})
    else:
        content[3000] ^= 0xFF
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "flipped": content}[damage])
    restored = buffer()
    problems = restored.load(tmp_path)
    assert len(problems) == 1
    assert path.name in problems[0]
    assert restored.ids() == [0, 1, 3, 4, 5]
    assert all(other != 2 for id in restored.ids() for other, _ in restored.overlapping(id, 0.0))
    assert restored.offer(view(x=50)).id == 6


def test_a_second_keyframe_of_the_same_id_is_reported_and_left_out(tmp_path: Path) -> None:
    filled(corridor(3)).save(tmp_path / "a")
    filled(corridor(3, start=9)).save(tmp_path / "b")
    copied = sorted((tmp_path / "b").glob("*.npz"))[1]
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
        ('{"version": 1, "next_id"', "damaged"),
        ("[]", "version None"),
        ('{"version": 1, "next_id": 3, "evicted": 0}', "lacks"),
        ('{"version": 1, "next_id": 3, "evicted": 0, "files": []}', "lacks.*predicted_depth"),
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


def test_loading_from_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyframeError, match="no saved keyframes"):
        buffer().load(tmp_path / "nothing")


def test_a_file_name_in_the_index_cannot_leave_the_folder(tmp_path: Path) -> None:
    filled(corridor(1)).save(tmp_path / "a")
    filled(corridor(1, start=9)).save(tmp_path / "b")
    stranger = next((tmp_path / "a").glob("*.npz"))
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


def test_offers_queries_and_saves_from_several_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    frames, keyframes, failures = corridor(120), buffer(max_megabytes=1), []

    def ask() -> None:
        rng = np.random.default_rng(0)
        try:
            while not done.is_set():
                for id in keyframes.trainable(0.25):
                    keyframes.neighbours(id, 4, 0.25, rng)
                keyframes.save(tmp_path)
        except Exception as error:
            failures.append(error)

    done = threading.Event()
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for frame in frames:
        keyframes.offer(frame)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert contents(keyframes) == contents(filled(frames, max_megabytes=1))
