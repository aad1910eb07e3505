"""A keyframe that most of those near it in time contradict is forgotten, and its place can be seen anew."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from keyframes.walls import SECOND
from scenes import make_room_frames

from s4net_core.config import GeometrySettings, KeyframeSettings
from s4net_core.frames import Frame
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.keyframes.pairing import NEAR_IN_TIME

FRAMES = 60
MIN_OVERLAP = 0.25


@pytest.fixture(scope="module")
def true() -> list[Frame]:
    return make_room_frames(FRAMES)


def after(frames: Sequence[Frame], seconds: int) -> list[Frame]:
    """The same views, taken later."""
    return [replace(frame, stamp=frame.stamp + seconds * SECOND) for frame in frames]


def frozen(frames: Sequence[Frame]) -> list[Frame]:
    """The depth camera stands still."""
    return [replace(frame, depth=frames[0].depth) for frame in frames]


def elsewhere(frame: Frame) -> Frame:
    """A pose that is half a metre off."""
    T = frame.T_world_camera.copy()
    T[:3, 3] += (0.3, -0.4, 0.0)
    return replace(frame, T_world_camera=T)


def watched(frames: Sequence[Frame]) -> KeyframeBuffer:
    settings = KeyframeSettings.model_validate({"min_sharpness": 0.0, "min_translation": 0.1, "max_speed": 0.0})
    keyframes = KeyframeBuffer(settings, GeometrySettings(), min_overlap=MIN_OVERLAP)
    for frame in frames:
        keyframes.offer(frame)
    return keyframes


def stamps(keyframes: KeyframeBuffer) -> list[int]:
    return [keyframes.get(id).stamp for id in keyframes.ids()]


def test_views_that_fit_are_kept(true: list[Frame]) -> None:
    keyframes = watched(true)
    assert keyframes.contradicted == 0
    assert keyframes.doubt == ""
    assert keyframes.ids() == list(range(keyframes.taken))


def test_a_bad_pose_is_forgotten_and_the_views_around_it_stay(true: list[Frame]) -> None:
    bad = [*true[:30], elsewhere(true[30]), *true[31:]]
    keyframes = watched(bad)
    assert keyframes.contradicted == 1
    assert true[30].stamp not in stamps(keyframes)
    assert len(keyframes) >= len(watched(true)) - 1
    assert keyframes.pairs.refused == 0
    assert keyframes.doubt == ""  # one is bad luck


def test_after_depth_has_stood_still_the_same_places_are_seen_anew(true: list[Frame]) -> None:
    keyframes = watched([*frozen(true), *after(true, 1000)])
    good = watched(after(true, 1000))
    seen = [stamp for stamp in stamps(keyframes) if stamp >= 1000 * SECOND]
    assert len(seen) >= len(good) - 1
    assert len(keyframes) - len(seen) <= NEAR_IN_TIME
    assert keyframes.contradicted > 10


def test_the_doubt_names_what_to_check_and_passes_when_views_fit_again(true: list[Frame]) -> None:
    keyframes = watched(frozen(true))
    counted = keyframes.contradicted
    assert keyframes.doubt.startswith(f"{min(counted, 20)} of the last ")
    assert "check that poses are camera to world in metres" in keyframes.doubt
    for frame in after(true, 1000):
        keyframes.offer(frame)
    assert keyframes.doubt == ""
    keyframes.clear()
    assert keyframes.contradicted >= counted


def test_poses_that_begin_anew_elsewhere_raise_no_doubt(true: list[Frame]) -> None:
    """Odometry has restarted: the two halves contradict each other, and each fits itself."""
    half = FRAMES // 2
    moved = [elsewhere(frame) for frame in after(true[half:], 1000)]
    keyframes = watched([*true[:half], *moved])
    assert keyframes.pairs.refused > 0
    assert keyframes.contradicted == 0
    assert keyframes.doubt == ""


def test_forgotten_keyframes_do_not_count_as_taken(true: list[Frame]) -> None:
    """Otherwise the learner would make steps for views that nobody learns from."""
    keyframes = watched(frozen(true))
    assert keyframes.taken == len(keyframes)
    assert keyframes.ids()[-1] == keyframes.taken + keyframes.contradicted - 1


def test_a_reloaded_buffer_judges_no_view_again(true: list[Frame], tmp_path) -> None:
    keyframes = watched(frozen(true))
    keyframes.save(tmp_path)
    again = watched([])
    assert again.load(tmp_path) == []
    assert again.ids() == keyframes.ids()
