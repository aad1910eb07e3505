"""What the keyframe buffer takes, and what it forgets."""

import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from walls import HEIGHT, LENS, SECOND, TEXTURE, WIDTH, buffer, contents, corridor, filled, view

from s4net_core.config import GeometrySettings, KeyframeSettings
from s4net_core.errors import KeyframeError
from s4net_core.frames import Frame
from s4net_core.geometry.camera import working_frame
from s4net_core.keyframes import KeyframeBuffer


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


def test_clearing_forgets_everything_but_never_reuses_an_id() -> None:
    keyframes = filled(corridor(5))
    keyframes.clear()
    assert (len(keyframes), keyframes.nbytes, keyframes.ids()) == (0, 0, [])
    assert keyframes.offer(view()).id == 5


def test_a_view_that_is_decoded_while_the_buffer_is_cleared_begins_a_new_world() -> None:
    keyframes, frame = filled([view(stamp=10 * SECOND)]), view(x=1.0, stamp=5 * SECOND)  # time goes back: segment 1

    class Decoded:
        stamp, T_world_camera, frame_id = frame.stamp, frame.T_world_camera, frame.frame_id

        def decode(self) -> Frame:
            keyframes.clear()
            return frame

    id = keyframes.offer(Decoded()).id
    assert id is not None
    assert keyframes.get(id).segment == 0
    assert keyframes.offer(frame).reason == "known_view"


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
