"""New weights: announced, loaded beside the running network, or refused with a reason."""

import math
import os
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("s4net_ros.msg")

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.logging import get_logger

from s4net_core.config import ModelSettings, from_values
from s4net_core.models.checkpoint import CheckpointInfo, read_info
from s4net_core.models.segmenter import Segmenter
from s4net_ros import weights
from s4net_ros.diagnostics import Counts
from s4net_ros.weights import UPDATES_LOADED, UPDATES_REFUSED, WeightsReceiver, update_message

COLOR = np.zeros((36, 50, 3), np.uint8)


@pytest.fixture
def setup(make_checkpoint, ros):
    segmenter = Segmenter(make_checkpoint(class_id=3), "cpu", from_values({"adaptation.niceness": 17}))
    counts = Counts()
    receiver = WeightsReceiver(segmenter, counts, get_logger("test"))
    yield SimpleNamespace(segmenter=segmenter, counts=counts, receiver=receiver, ros=ros)
    receiver.stop()


def announcement(path, /, **changes):
    import hashlib

    message = update_message(path, hashlib.sha256(path.read_bytes()).hexdigest(), read_info(path), Time())
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def test_the_message_says_what_the_file_says(tmp_path):
    model = ModelSettings(architecture="pspnet", encoder="resnet18")
    info = CheckpointInfo(model=model, version=4, parent="ab", metrics={"source_miou": 0.5})
    message = update_message(tmp_path / "w.safetensors", "cd", info, Time(sec=7))
    assert (message.version, message.sha256, message.parent, message.header.stamp.sec) == (4, "cd", "ab", 7)
    assert message.path == str(tmp_path / "w.safetensors")
    assert (message.architecture, message.label_space) == ("pspnet/resnet18", "sunrgbd37")
    assert message.source_miou == 0.5
    assert math.isnan(message.agreement)


def test_announced_weights_serve(setup, make_checkpoint):
    assert (setup.segmenter.segment(COLOR).label == 3).all()
    setup.receiver.offer(announcement(make_checkpoint(class_id=9, version=2)))
    setup.ros.wait_for(lambda: setup.counts[UPDATES_LOADED])
    result = setup.segmenter.segment(COLOR)
    assert (result.label == 9).all()
    assert result.version == 2


@pytest.mark.parametrize(("runtime", "expected"), [("torch", 17), ("onnx", 0)])
def test_loading_steps_back_but_where_threads_that_label_are_made_by_it(
    setup, make_checkpoint, monkeypatch, runtime, expected
):
    seen, load = [], setup.segmenter.load

    def watched(*args):
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return load(*args)

    monkeypatch.setattr(setup.segmenter, "load", watched)
    setup.segmenter.settings.segmentation.runtime = runtime
    receiver = WeightsReceiver(setup.segmenter, setup.counts, get_logger("test"))
    receiver.offer(announcement(make_checkpoint(class_id=9, version=2)))
    setup.ros.wait_for(lambda: setup.counts[UPDATES_LOADED])
    assert receiver.stop()
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert seen == [max(expected, own)]


def damaged(path):
    path.write_bytes(path.read_bytes()[:-100])


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def enormous(path):
    with path.open("r+b") as file:
        file.truncate(3 << 30)


@pytest.mark.parametrize(
    ("spoil", "changes", "said"),
    [
        (damaged, {}, "SHA-256"),
        (lambda path: path.unlink(), {}, "same file system"),
        (None, {"architecture": "pspnet/resnet18"}, "architecture 'pspnet/resnet18'"),
        (None, {"label_space": "nyu40"}, "label space 'nyu40'"),
        (None, {"sha256": ""}, "64 hex digits"),
        (None, {"sha256": "12ab"}, "64 hex digits"),
        (None, {"path": "new.safetensors"}, "is relative"),
        (None, {"path": "/" + "x" * 5000}, "same file system"),
        (None, {"path": "/proc/kmsg"}, "/proc/kmsg"),
        (pipe, {}, "no regular file"),
        (enormous, {}, "at most"),
    ],
)
def test_unusable_weights_are_refused_and_the_old_ones_keep_serving(
    setup, make_checkpoint, tmp_path, spoil, changes, said
):
    path = tmp_path / "new.safetensors"
    path.write_bytes(make_checkpoint(class_id=9, version=2).read_bytes())
    message = announcement(path, **changes)
    if spoil:
        spoil(path)
    setup.receiver.offer(message)
    setup.ros.wait_for(lambda: setup.counts[UPDATES_REFUSED])
    assert said in setup.receiver.problem
    assert len(setup.receiver.problem) < 600
    assert (setup.segmenter.segment(COLOR).label == 3).all()
    setup.receiver.offer(announcement(make_checkpoint(class_id=9, version=2)))
    setup.ros.wait_for(lambda: setup.counts[UPDATES_LOADED])
    assert setup.receiver.last_refusal == ""


def test_the_same_announcement_is_loaded_once(setup, make_checkpoint, monkeypatch):
    loads = []
    load = setup.segmenter.load
    monkeypatch.setattr(setup.segmenter, "load", lambda *a: loads.append(a) or load(*a))
    message = announcement(make_checkpoint(class_id=9, version=2))
    for _ in range(2):
        setup.receiver.offer(message)
        setup.ros.wait_for(lambda: setup.counts[UPDATES_LOADED])
    setup.receiver.stop()
    assert len(loads) == 1


def test_offering_never_waits_for_loading(setup, make_checkpoint, monkeypatch):
    loading, go_on, loads = threading.Event(), threading.Event(), []

    def load(path, sha256):
        loads.append(path)
        loading.set()
        go_on.wait(60)
        return SimpleNamespace(version=1)

    monkeypatch.setattr(setup.segmenter, "load", load)
    paths = [make_checkpoint(class_id=k, version=k) for k in (5, 6, 7)]
    setup.receiver.offer(announcement(paths[0]))
    assert loading.wait(60)
    for path in paths[1:]:
        setup.receiver.offer(announcement(path))
    go_on.set()
    setup.ros.wait_for(lambda: setup.counts[UPDATES_LOADED] == 2)
    assert loads == [str(paths[0]), str(paths[2])]  # the one in between was out of date before its turn


@pytest.mark.parametrize("hangs", ["look", "load"])
def test_loading_that_hangs_is_told(setup, make_checkpoint, monkeypatch, hangs):
    """A dead network file system already hangs when it is asked whether the file is there."""
    monkeypatch.setattr(weights, "SLOW_S", 0.0)
    loading, go_on = threading.Event(), threading.Event()

    def hanging(access):
        def slow(*args):
            loading.set()
            go_on.wait(60)
            return access(*args)

        return slow

    if hangs == "look":
        path = SimpleNamespace(isabs=os.path.isabs, exists=hanging(os.path.exists))
        monkeypatch.setattr(weights, "os", SimpleNamespace(path=path))
    else:
        monkeypatch.setattr(setup.segmenter, "load", hanging(setup.segmenter.load))
    path = make_checkpoint(class_id=5, version=5)
    setup.receiver.offer(announcement(path))
    assert loading.wait(60)
    assert f"loading {path} has taken" in setup.receiver.problem
    go_on.set()
    setup.ros.wait_for(lambda: setup.counts[UPDATES_LOADED])
    assert setup.receiver.problem == ""
