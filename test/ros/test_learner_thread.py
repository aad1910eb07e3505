"""The learner's thread: when it works, how it rests, and that nothing ends it silently."""

import itertools
import os
import threading
import time
from concurrent.futures import CancelledError
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from watched_learner import WAIT_S, WatchedLearner

from s4net_core.config import Settings
from s4net_core.errors import BadFrame, CheckpointError, LearningError, SourceSetError
from s4net_ros.adaptation import learner_thread
from s4net_ros.worker import describe


class Niceness:
    """Learning that notes how nice its thread is."""

    state = "learning"

    def __init__(self):
        self.seen = set()

    def advance(self):
        self.seen.add((own_niceness(), os.sched_getscheduler(0)))

    def save(self):
        pass


def own_niceness():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


class Learning:
    """Counts steps; waits in each of them while `gate` is closed."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.state = "learning"
        self.steps = 0
        self.saves = 0
        self.fail = None
        self.fail_save = None
        self.handover = None
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()

    def advance(self):
        self.inside.set()
        opened = self.gate.wait(WAIT_S)
        time.sleep(self.seconds)
        self.inside.clear()
        assert opened
        if self.fail:
            raise self.fail
        self.steps += 1
        return self.handover

    def save(self):
        if self.fail_save:
            raise self.fail_save
        self.saves += 1


@pytest.fixture
def start():
    threads = []

    def make(learning, duty_cycle=1.0, active=True):
        events = SimpleNamespace(handovers=[], failures=[])
        settings = Settings()
        settings.adaptation.duty_cycle = duty_cycle
        thread = WatchedLearner(
            learning,
            settings,
            on_handover=events.handovers.append,
            on_failure=lambda reason, trace: events.failures.append((reason, trace)),
        )
        threads.append((thread, learning))
        thread.set_active(active)
        return thread, events

    yield make
    for thread, learning in threads:
        learning.gate.set()
        thread.stop(WAIT_S)


def wait_for(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_it_learns_only_while_active(start):
    learning = Learning()
    thread, _ = start(learning, active=False)
    thread.settle()
    assert learning.steps == 0
    thread.set_active(True)
    wait_for(lambda: learning.steps > 3)
    thread.set_active(False)
    thread.settle()
    steps = learning.steps
    thread.settle()
    assert learning.steps == steps


def test_it_waits_for_keyframes_and_then_starts_by_itself(start, monkeypatch):
    monkeypatch.setattr(learner_thread, "POLL_SECONDS", 0.01)
    looks = []

    class Waiting(Learning):
        @property
        def state(self):
            looks.append(self._state)
            return self._state

        @state.setter
        def state(self, state):
            self._state = state

    learning = Waiting()
    learning.state = "waiting"
    start(learning)
    wait_for(lambda: len(looks) >= 2)  # whatever the first look leads to is done
    assert learning.steps == 0
    learning.state = "learning"
    wait_for(lambda: learning.steps)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_it_takes_its_share_of_the_time_and_no_more(start, share):
    learning = Learning(seconds=0.02)
    began = time.monotonic()
    start(learning, duty_cycle=share)
    wait_for(lambda: learning.steps >= 8)
    whole = time.monotonic() - began
    # Eight steps and seven rests; a loaded machine makes it longer, never shorter.
    assert whole >= 8 * 0.02 + 7 * 0.02 * (1 - share) / share


def test_a_pause_returns_at_once_and_no_further_step_begins(start):
    learning = Learning()
    learning.gate.clear()
    thread, _ = start(learning)
    wait_for(learning.inside.is_set)
    thread.pause()
    assert learning.inside.is_set()  # the step goes on
    assert thread.paused
    learning.gate.set()
    wait_for(lambda: learning.steps == 1)
    thread.settle()
    assert learning.steps == 1
    thread.resume()
    wait_for(lambda: learning.steps > 1)


def test_work_is_done_between_two_steps(start):
    learning = Learning()
    learning.gate.clear()
    thread, _ = start(learning)
    wait_for(learning.inside.is_set)
    future = thread.submit(lambda: (learning.inside.is_set(), threading.current_thread().name))
    assert not future.done()
    learning.gate.set()
    assert future.result(WAIT_S) == (False, learner_thread.THREAD_NAME)


def test_work_does_not_wait_for_a_rest_or_a_pause(start):
    learning = Learning(seconds=0.1)
    thread, _ = start(learning, duty_cycle=0.01)  # a rest of 100 s
    wait_for(lambda: learning.steps)
    assert thread.submit(lambda: 1).result(WAIT_S) == 1
    thread.pause()
    assert thread.submit(lambda: 2).result(WAIT_S) == 2


def test_an_error_in_submitted_work_reaches_who_asked_and_learning_goes_on(start):
    learning = Learning()
    thread, events = start(learning)
    with pytest.raises(ZeroDivisionError):
        thread.submit(lambda: 1 // 0).result(WAIT_S)
    steps = learning.steps
    wait_for(lambda: learning.steps > steps)
    assert not events.failures


def test_an_error_in_a_step_is_told_and_pauses_learning_until_somebody_resumes(start):
    learning = Learning()
    learning.fail = RuntimeError("CUDA out of memory")
    thread, events = start(learning)
    wait_for(lambda: events.failures)
    reason, trace = events.failures[0]
    assert thread.failure == "RuntimeError: CUDA out of memory"
    assert reason == f"learning is paused: {thread.failure}"
    assert "advance" in trace
    thread.settle()
    assert (thread.failures, thread.alive) == (1, True)
    learning.fail = None
    thread.resume()
    wait_for(lambda: learning.steps)
    assert thread.failure == ""


def test_new_weights_end_a_failure_but_not_a_pause(start):
    learning = Learning()
    learning.fail = RuntimeError("broken")
    thread, events = start(learning)
    wait_for(lambda: events.failures)
    learning.fail = None
    thread.pause()
    thread.submit(thread.recover).result(WAIT_S)
    assert thread.failure == ""
    thread.settle()
    assert learning.steps == 0
    thread.resume()
    wait_for(lambda: learning.steps)


def disk_full():
    error = CheckpointError("weights cannot be written to /state: no space left")
    error.__cause__ = OSError(28, "No space left on device")
    return error


@pytest.mark.parametrize("error", [disk_full(), PermissionError(13, "Permission denied", "/state")])
def test_after_an_error_of_the_disk_it_tries_again_by_itself(start, monkeypatch, error):
    monkeypatch.setattr(learner_thread, "DISK_RETRY_SECONDS", 0.05)
    learning = Learning()
    learning.fail = error
    thread, events = start(learning)
    wait_for(lambda: len(events.failures) >= 2)
    assert "/state" in thread.failure
    assert "next attempt" in thread.failure
    learning.fail = None
    wait_for(lambda: learning.steps)
    wait_for(lambda: not thread.failure)


def test_a_handover_is_reported_and_saved(start):
    learning = Learning(seconds=0.01)
    learning.handover = SimpleNamespace(reasons=())
    _, events = start(learning)
    wait_for(lambda: events.handovers and learning.saves)
    assert events.handovers[0] is learning.handover


def test_it_saves_when_it_ends(start):
    learning = Learning()
    thread, _ = start(learning, active=False)
    assert thread.stop(WAIT_S)
    assert learning.saves == 1
    assert not thread.alive
    assert thread.submit(lambda: 1).cancelled()


def test_a_failing_save_at_the_end_is_told(start):
    learning = Learning()
    learning.fail_save = OSError(28, "No space left on device")
    thread, events = start(learning, active=False)
    assert thread.stop(WAIT_S)
    reason, trace = events.failures[0]
    assert "free some space" in reason
    assert not trace


def test_a_finished_session_is_still_saved_and_does_the_work_that_is_asked_for(start, monkeypatch):
    monkeypatch.setattr(learner_thread, "SAVE_SECONDS", 0.05)
    monkeypatch.setattr(learner_thread, "POLL_SECONDS", 0.01)
    learning = Learning()
    learning.state = "finished"
    thread, _ = start(learning)
    wait_for(lambda: learning.saves >= 2)
    assert thread.submit(lambda: 1).result(WAIT_S) == 1
    assert learning.steps == 0


def test_free_memory_is_returned_after_each_handover_and_not_after_each_step(start, monkeypatch):
    returned = []
    monkeypatch.setattr(learner_thread, "return_free_memory", lambda: returned.append(len(events.handovers)))
    learning = Learning()
    _, events = start(learning)
    wait_for(lambda: learning.steps > 3)
    assert returned == []
    learning.handover = SimpleNamespace(reasons=())
    wait_for(lambda: len(returned) > 3)
    assert returned[:3] == [1, 2, 3]


def test_free_memory_is_returned_while_there_is_nothing_to_learn(start, monkeypatch):
    returned = []
    monkeypatch.setattr(learner_thread, "return_free_memory", lambda: returned.append(time.monotonic()))
    monkeypatch.setattr(learner_thread, "SAVE_SECONDS", 0.05)
    monkeypatch.setattr(learner_thread, "POLL_SECONDS", 0.002)
    learning = Learning()
    learning.state = "waiting"
    start(learning)
    wait_for(lambda: len(returned) > 3)
    assert min(after - before for before, after in itertools.pairwise(returned)) >= 0.05


@pytest.mark.parametrize("refused", [False, True])
def test_keyframes_are_saved_while_it_rests_after_refusals_or_tries_to_read_a_file(start, monkeypatch, refused):
    monkeypatch.setattr(learner_thread, "SAVE_SECONDS", 0.05)
    monkeypatch.setattr(learner_thread, "BACK_OFF_AFTER", 1)
    learning = Learning()
    learning.handover = SimpleNamespace(reasons=("worse",))
    learning.fail = None if refused else OSError("the disk of the source set is gone")
    start(learning)
    wait_for(lambda: learning.saves > 4)
    assert learning.steps == refused


@pytest.mark.parametrize("failed", [False, True])
def test_keyframes_are_saved_although_no_step_comes_because_of_a_pause_or_a_failure(start, monkeypatch, failed):
    """A robot drives on meanwhile, and a power cut must not cost what it has seen."""
    monkeypatch.setattr(learner_thread, "SAVE_SECONDS", 0.05)
    learning = Learning()
    learning.fail = LearningError("nothing can be learnt") if failed else None
    thread, events = start(learning, active=False)
    if not failed:
        thread.pause()
    thread.set_active(True)
    wait_for(lambda: learning.saves > 3)
    assert (learning.steps, thread.paused, bool(thread.failure)) == (0, not failed, failed)
    learning.fail_save = OSError("disk full")
    wait_for(lambda: any("state was not saved" in reason for reason, _ in events.failures))
    learning.fail_save, saves = None, learning.saves
    wait_for(lambda: learning.saves > saves)


def test_a_step_that_does_not_end_is_given_up_and_tells_nobody_any_more(start):
    learning = Learning()
    learning.handover = SimpleNamespace(reasons=())
    learning.gate.clear()
    thread, events = start(learning)
    wait_for(learning.inside.is_set)
    waiting = thread.submit(lambda: 1)
    assert not thread.stop(0.05)
    assert waiting.cancelled()
    learning.fail_save = OSError(28, "No space left on device")
    learning.gate.set()
    wait_for(lambda: not thread.alive)
    assert learning.steps == 1
    assert (events.handovers, events.failures) == ([], [])


def test_who_waits_for_work_that_does_not_end_is_told_when_it_is_given_up(start):
    learning = Learning()
    thread, _ = start(learning, active=False)
    begun, may_end = threading.Event(), threading.Event()
    work = thread.submit(lambda: (begun.set(), may_end.wait(WAIT_S)))
    assert begun.wait(WAIT_S)
    assert not thread.stop(0.05)
    with pytest.raises(CancelledError):
        work.result(WAIT_S)
    may_end.set()
    wait_for(lambda: not thread.alive)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file or directory", "/x/y"), "/x/y"),
        (OSError(28, "No space left on device"), "free some space"),
        (CheckpointError("plain words"), "plain words"),
        (KeyError("id"), "KeyError: 'id'"),
    ],
)
def test_errors_are_told_in_one_line(error, text):
    assert text in describe(error)
    assert "\n" not in describe(error)


def test_weights_that_are_refused_again_and_again_are_tried_ever_more_rarely(start, monkeypatch):
    monkeypatch.setattr(learner_thread, "BACK_OFF_SECONDS", 1e6)
    monkeypatch.setattr(learner_thread, "LONGEST_REST_SECONDS", 1e6)
    learning = Learning()
    learning.handover = SimpleNamespace(reasons=("bad",))
    thread, events = start(learning)
    wait_for(lambda: len(events.handovers) == learner_thread.BACK_OFF_AFTER)
    assert thread.submit(lambda: 1).result(WAIT_S) == 1
    assert learning.steps == learner_thread.BACK_OFF_AFTER
    rests = []
    monkeypatch.setattr(learner_thread, "BACK_OFF_SECONDS", 5.0)
    monkeypatch.setattr(learner_thread, "LONGEST_REST_SECONDS", 300.0)
    for thread._refusals in (0, 2, 3, 4, 5, 40, 5000):
        rests.append(thread._back_off())
    assert rests == [0, 0, 5, 10, 20, 300, 300]
    thread.recover()
    assert thread._back_off() == 0


def test_a_thread_that_has_ended_by_itself_says_so_and_refuses_work(start, monkeypatch):
    learning = Learning()
    thread, events = start(learning, active=False)
    thread.settle()
    queued = []

    def broken():
        queued.append(thread.submit(lambda: 1))
        return 1 / 0

    monkeypatch.setattr(thread, "_next", broken)
    thread.submit(lambda: 1)  # wakes it
    wait_for(lambda: not thread.alive)
    for future in (*queued, thread.submit(lambda: 1)):
        with pytest.raises(LearningError, match="has ended"):
            future.result(WAIT_S)
    assert "ZeroDivisionError" in thread.failure
    assert "restart the node" in events.failures[0][0]
    assert learning.saves == 1


def test_a_read_error_at_the_bottom_of_a_source_sets_error_is_tried_again(start, monkeypatch):
    monkeypatch.setattr(learner_thread, "DISK_RETRY_SECONDS", 0.02)
    learning = Learning()
    learning.fail = SourceSetError("2 of 9 images cannot be used")
    learning.fail.__cause__ = BadFrame("unreadable", "x.jpg")
    learning.fail.__cause__.__cause__ = OSError(5, "Input/output error")
    _, events = start(learning)
    wait_for(lambda: len(events.failures) >= 2)
    learning.fail = None
    wait_for(lambda: learning.steps)


@pytest.mark.parametrize(
    ("niceness", "expected"),
    [(17, (17, os.SCHED_OTHER)), (0, (own_niceness(), os.SCHED_OTHER)), (20, (19, os.SCHED_IDLE))],
)
def test_it_steps_back_for_others_and_never_comes_forward(niceness, expected):
    learning, settings, before = Niceness(), Settings(), own_niceness()
    settings.adaptation.niceness = niceness
    thread = WatchedLearner(learning, settings, on_handover=print, on_failure=print)
    thread.set_active(True)
    wait_for(lambda: learning.seen)
    assert thread.stop(WAIT_S)
    assert learning.seen == {expected}
    assert (own_niceness(), os.sched_getscheduler(0)) == (before, os.SCHED_OTHER)
