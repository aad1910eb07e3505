"""The thread that maps: new keyframes first, then old labels; failures and a slow listener change neither."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from scenes import make_room_frames

from s4net_core.config import GeometrySettings, KeyframeSettings, MapSettings
from s4net_core.keyframes import KeyframeBuffer
from s4net_core.labels import SUNRGBD37
from s4net_core.mapping import SemanticMap
from s4net_ros.mapping.map_thread import MapThread


class Segmenter:
    """Labels a whole image with the id of the weights that serve, when it is let go on."""

    def __init__(self):
        self.info = SimpleNamespace(id=1)
        self.seen = []
        self.fail = False
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def segment(self, color):
        self.inside.set()
        assert self.go_on.wait(60)
        if self.fail:
            raise RuntimeError("out of memory")
        self.seen.append(color)
        return SimpleNamespace(label=np.full(color.shape[:2], self.info.id, np.uint8))


@pytest.fixture
def keyframes():
    settings = KeyframeSettings(min_sharpness=0.0, min_translation=0.1)
    buffer = KeyframeBuffer(settings, GeometrySettings(), min_overlap=0.25)
    for frame in make_room_frames(12):
        buffer.offer(frame)
    return buffer


@pytest.fixture
def start(keyframes):
    threads = []

    def make(period=0.0):
        segmenter, published, failed = Segmenter(), [], []
        found = SemanticMap(SUNRGBD37, MapSettings(min_votes=1))
        options = {"niceness": 0, "period": period, "publish": published.append, "failed": failed.append}
        thread = MapThread(found, keyframes, segmenter, **options)
        threads.append((thread, segmenter))
        return SimpleNamespace(thread=thread, map=found, segmenter=segmenter, published=published, failed=failed)

    yield make
    for thread, segmenter in threads:
        segmenter.go_on.set()
        assert thread.stop()


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_the_newest_keyframe_is_labelled_first_and_all_are_in_the_end(start, keyframes):
    s = start()
    assert s.thread.waiting == len(keyframes)
    s.thread.poke()
    wait_for(lambda: s.thread.waiting == 0)
    wait_for(lambda: s.map.keyframes == len(keyframes))
    ids = [next(id for id in keyframes.ids() if keyframes.get(id).color is color) for color in s.segmenter.seen]
    assert ids == keyframes.ids()[::-1]


def test_new_weights_label_the_oldest_first_but_a_new_keyframe_comes_before(start, keyframes):
    s = start()
    s.thread.poke()
    wait_for(lambda: s.thread.waiting == 0 and s.map.keyframes == len(keyframes))
    before = keyframes.ids()
    s.segmenter.go_on.clear()
    s.segmenter.seen.clear()
    s.segmenter.info = SimpleNamespace(id=2)
    new = next(id for frame in make_room_frames(20)[12:] if (id := keyframes.offer(frame).id) is not None)
    s.thread.poke()
    s.segmenter.go_on.set()
    wait_for(lambda: s.thread.waiting == 0 and set(s.map.points().label) == {2})
    ids = [next(id for id in keyframes.ids() if keyframes.get(id).color is color) for color in s.segmenter.seen]
    assert new in ids[:2], "one may have been in hand"
    assert [id for id in ids if id in before] == before


def test_weights_that_change_while_a_keyframe_is_labelled_label_it_again(start, keyframes):
    s = start()
    s.segmenter.go_on.clear()
    s.thread.poke()
    assert s.segmenter.inside.wait(60)
    s.segmenter.info = SimpleNamespace(id=2)
    s.segmenter.go_on.set()
    wait_for(lambda: s.thread.waiting == 0)
    assert len(s.segmenter.seen) == len(keyframes) + 1
    wait_for(lambda: set(s.map.points().label) == {2})


def test_a_failure_is_told_and_tried_again_at_the_next_look(start, keyframes):
    s = start()
    s.segmenter.fail = True
    s.thread.poke()
    wait_for(lambda: s.failed)
    assert str(s.failed[0]) == "out of memory"
    assert s.thread.waiting == len(keyframes)
    s.segmenter.fail = False
    s.thread.poke()
    wait_for(lambda: s.thread.waiting == 0)


def test_the_map_is_handed_over_when_it_has_changed_and_no_more_often_than_asked(start, keyframes):
    s = start(period=3600.0)
    s.thread.poke()
    wait_for(lambda: s.thread.waiting == 0 and s.map.keyframes == len(keyframes))
    assert len(s.published) == 1
    quick = start()
    quick.thread.poke()
    wait_for(lambda: quick.thread.waiting == 0 and quick.published and quick.published[-1] is quick.map.points())
    count = len(quick.published)
    for _ in range(5):
        quick.thread.poke()
        time.sleep(0.01)
    assert len(quick.published) == count
