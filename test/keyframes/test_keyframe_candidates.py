"""A view must be sharp and have depth to become a keyframe; a known one is neither decoded nor given a depth."""

import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from walls import HEIGHT, SECOND, TEXTURE, WIDTH, buffer, corridor, filled, view

from s4net_core.config import GeometrySettings, KeyframeSettings
from s4net_core.errors import BadFrame
from s4net_core.frames import Frame
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.keyframes.view import sharpness


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
        assert go_on.wait(60)
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
    assert begun.wait(60)
    offers[1].start()
    asking.start()
    asking.join(20)  # less than the prediction waits
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


def test_sharpness_is_judged_among_views_from_new_places() -> None:
    """Many sharp images from a camera that stands still must not cause softer images from new places to be refused."""
    soft = cv2.blur(TEXTURE, (7, 7))
    keyframes = filled([view(2.0 * i, stamp=i, color=soft) for i in range(3)])
    for stamp in range(3, 40):
        assert keyframes.offer(view(4.0, stamp=stamp)).reason == "known_view"
    assert keyframes.offer(view(6.0, stamp=40, color=soft)).reason == "new"
