"""The newest item wins, and nothing that fails ends the thread."""

import os
import threading
import time

import pytest

from s4net_core.config import from_values
from s4net_ros import adaptation_node, semantic_map_node
from s4net_ros.worker import Worker, step_back_on_gpu

MPS = "CUDA_MPS_CLIENT_PRIORITY"


def test_a_worker_that_waits_for_work_can_be_stopped():
    done = []
    worker = Worker("test", done.append, lambda *_: None)
    assert worker.stop()
    worker.put("too late")
    assert done == []


def test_a_worker_survives_an_item_that_fails():
    done, failed = [], []

    def handle(item):
        if item == "bad":
            raise ValueError("no good")
        done.append(item)

    worker = Worker("test", handle, lambda item, error: failed.append((item, str(error))))
    worker.put("bad")
    while not failed:
        time.sleep(0.001)
    worker.put("good")
    while not done:
        time.sleep(0.001)
    assert (done, failed) == (["good"], [("bad", "no good")])
    assert worker.stop()


def test_a_busy_worker_takes_only_the_newest_of_those_that_waited():
    busy, go_on, done = threading.Event(), threading.Event(), []

    def handle(item):
        busy.set()
        go_on.wait(60)
        done.append(item)

    worker = Worker("test", handle, lambda *_: None)
    worker.put(1)
    busy.wait(60)
    assert [worker.put(n) for n in (2, 3, 4)] == [False, True, True]
    go_on.set()
    while len(done) < 2:
        time.sleep(0.001)
    worker.stop()
    assert done == [1, 4]


@pytest.fixture
def unset(monkeypatch):
    """The environment says nothing of the GPU's priority, and what a test sets is taken back."""
    monkeypatch.setenv(MPS, "")
    monkeypatch.delenv(MPS)


@pytest.mark.parametrize(("niceness", "expected"), [(0, None), (1, "1"), (20, "1")])
def test_a_nice_process_steps_back_on_a_shared_gpu(unset, niceness, expected):
    step_back_on_gpu(niceness)
    assert os.environ.get(MPS) == expected


def test_the_environment_wins_over_the_niceness(monkeypatch):
    monkeypatch.setenv(MPS, "0")
    step_back_on_gpu(10)
    assert os.environ[MPS] == "0"


class Opened(Exception):
    """Raised where a base model would be opened."""


def open_session(settings, ros):
    adaptation_node.open_session(settings, None)


def configure_map(settings, ros):
    ros.add(semantic_map_node.SemanticMapNode(settings, context=ros.context)).configure(None)


@pytest.mark.parametrize(("module", "open_it"), [(adaptation_node, open_session), (semantic_map_node, configure_map)])
def test_nodes_beside_the_labels_step_back_before_they_open_a_network(unset, monkeypatch, ros, module, open_it):
    def opens(*_):
        raise Opened(os.environ.get(MPS))

    monkeypatch.setattr(module, "base_model_file", opens)
    with pytest.raises(Opened, match="1"):
        open_it(from_values({"adaptation.niceness": 10}), ros)
