"""The newest item wins, and nothing that fails ends the thread."""

import threading
import time

from s4net_ros.worker import Worker


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
