"""The thread in which the adaptation node learns: duty cycle, pause, and work that fits between two steps. No ROS."""

import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, TypeVar

from s4net_core.config import Settings
from s4net_core.errors import LearningError, S4NetError
from s4net_core.learning.session import Session
from s4net_core.learning.status import Handover
from s4net_core.learning.stopping import LEARNING
from s4net_core.machine.process import CoreWatch, return_free_memory
from s4net_ros.worker import describe, step_back

T = TypeVar("T")

THREAD_NAME = "learner"
POLL_SECONDS = 0.2
"""Seconds between two looks for enough keyframes while there is nothing to learn."""
DISK_RETRY_SECONDS = 30.0
"""Pause after an error of the file system: somebody may free space meanwhile."""
BACK_OFF_AFTER = 3
"""Refusals in a row after which learning rests before it tries again, twice as long each time."""
BACK_OFF_SECONDS, LONGEST_REST_SECONDS = 5.0, 300.0
_ENDED = "the learner's thread has ended: restart the node"
ONLY_IDLE_CORES = 20
"""`adaptation.niceness` for Linux's policy SCHED_IDLE, which a thread cannot leave again without privileges."""
SAVE_SECONDS = 60.0
"""Keyframes are saved this often, so that a power cut costs a minute; and free memory is returned."""


class LearnerThread:
    """Calls `Session.advance` as often as duty cycle and pause allow; an error never ends it silently.

    An exception inside a step pauses learning: `failure` says why until `resume` or a successful reset or roll-back.
    After an error of the file system the thread tries again by itself. It saves once a minute, after each hand-over and
    at its end. When it has saved it returns free memory, because more and more of it would stay between what is kept.

    One lock guards all fields. Steps, saving and submitted work are done without it. The callbacks, which log and
    publish, are made under it: none may come after `stop` has given the thread up. `watch` tells whether the thread
    gets a core.

    Args:
        session: learns; other threads may call only its `offer`, `status`, `save` and `close`.
        settings: `adaptation.niceness`, and `adaptation.duty_cycle`, which is read after each step.
        on_handover: called in this thread with every outcome, accepted or refused.
        on_failure: called in this thread with what has failed, and the traceback.
    """

    def __init__(
        self,
        session: Session,
        settings: Settings,
        *,
        on_handover: Callable[[Handover], None],
        on_failure: Callable[[str, str], None],
    ) -> None:
        self.session = session
        self._settings = settings
        self._on_handover = on_handover
        self._on_failure = on_failure
        self._changed = threading.Condition(threading.RLock())
        self._work: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._active = self._paused = self._stopping = self._given_up = self._ended = False
        self._failure = ""
        self._failures = 0
        self._refusals = 0
        """In a row."""
        self._not_before = 0.0
        self._save_at = time.monotonic() + SAVE_SECONDS
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()
        self.watch = CoreWatch(self._thread.native_id or 0)

    @property
    def paused(self) -> bool:
        """Whether somebody asked for a pause."""
        return self._paused

    @property
    def failure(self) -> str:
        """Why learning stopped by itself; empty = it did not."""
        return self._failure

    @property
    def failures(self) -> int:
        """Number of exceptions since the thread started."""
        return self._failures

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def set_active(self, active: bool) -> None:
        """True = learn; False = only do submitted work. Returns at once."""
        with self._changed:
            self._active = active
            self._changed.notify_all()

    def pause(self) -> None:
        """No further step until `resume`; returns at once, a running step ends by itself."""
        with self._changed:
            self._paused = True

    def resume(self) -> None:
        """Learn again, also after a failure."""
        with self._changed:
            self._paused = False
            self.recover()

    def recover(self) -> None:
        """Forget failures and refusals, e.g. because the weights were replaced; a pause that was asked for stays."""
        with self._changed:
            self._failure = ""
            self._refusals = 0
            self._not_before = 0.0
            self._changed.notify_all()

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Do `work` in the learner thread as soon as the running step has ended, also while paused.

        Returns:
            Future of its result or exception; `CancelledError` when the thread is stopped first, `LearningError` when
            it has ended by itself.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._stopping:
                future.cancel()
            elif self._ended:
                future.set_exception(LearningError(_ENDED))
            else:
                self._work.append((work, future))
                self._changed.notify_all()
        return future

    def stop(self, timeout: float) -> bool:
        """End after the running step, and save.

        A thread that takes longer is given up: it makes no more callbacks, and its futures get `CancelledError`.

        Returns:
            False when it was given up after `timeout` seconds.
        """
        with self._changed:
            self._stopping = True
            for _, future in self._work:
                future.cancel()  # has no effect on the work that is running
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            self._given_up = self._thread.is_alive()
            for _, future in self._work if self._given_up else ():
                if not future.done():
                    future.set_exception(CancelledError())
            return not self._given_up

    def _run(self) -> None:
        try:
            step_back(self._settings.adaptation.niceness)
            if self._settings.adaptation.niceness == ONLY_IDLE_CORES:
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # a core with this alone counts as free
            while (action := self._next()) is not None:
                action()
        except Exception as error:  # a defect of ours: nobody must wait for this thread any more
            self._end(error)
        self._save()

    def _end(self, error: Exception) -> None:
        with self._changed:
            self._ended = True
            for _, future in self._work:
                if not future.done():
                    future.set_exception(LearningError(_ENDED))
            self._failures += 1
            self._failure = f"the learner's thread has ended ({describe(error)}): restart the node"
        self._tell(self._on_failure, f"learning is paused: {self._failure}", traceback.format_exc())

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next thing to do: submitted work first, then a step; None = the end."""
        with self._changed:
            while not (self._stopping or self._work or self._learning_is_due() or self._saving_is_due()):
                self._changed.wait(self._wait_seconds())
            if self._stopping:
                return None
            if self._work:
                return partial(self._execute, *self._work[0])
            return self._learn if self._learning_is_due() else self._save_now

    def _learning_is_due(self) -> bool:
        if not self._active or self._paused or time.monotonic() < self._not_before:
            return False
        return not self._failure or self._not_before > 0

    def _rests_for_good(self) -> bool:
        """Whether no step comes until somebody asks for it: frames come all the same, and become keyframes."""
        return self._active and (self._paused or bool(self._failure and not self._not_before))

    def _saving_is_due(self) -> bool:
        return self._active and time.monotonic() >= self._save_at

    def _wait_seconds(self) -> float | None:
        if not self._active:
            return None
        until = self._save_at if self._rests_for_good() else min(self._not_before, self._save_at)
        return max(0.0, until - time.monotonic())

    def _learn(self) -> None:
        started = time.monotonic()
        try:
            learning = self.session.state == LEARNING
            handover = self.session.advance() if learning else None
            if handover is not None:
                self._refusals = self._refusals + 1 if handover.reasons else 0
                self._tell(self._on_handover, handover)
            if handover is not None or started >= self._save_at:
                self.session.save()
                self._saved()
        except Exception as error:  # any error is logged and counted, and the thread goes on
            self._fail(error)
            return
        share = self._settings.adaptation.duty_cycle
        rest = (time.monotonic() - started) * (1.0 - share) / share if learning else POLL_SECONDS
        rest = max(rest, self._back_off() if handover is not None else 0.0)
        with self._changed:
            self._failure = ""
            self._not_before = time.monotonic() + rest

    def _back_off(self) -> float:
        """Seconds to rest because the weights were refused so often."""
        beyond = self._refusals - BACK_OFF_AFTER
        return min(BACK_OFF_SECONDS * 2.0 ** min(beyond, 30), LONGEST_REST_SECONDS) if beyond >= 0 else 0.0

    def _execute(self, work: Callable[[], Any], future: "Future[Any]") -> None:
        result, failure = None, None
        if future.set_running_or_notify_cancel():
            try:
                result = work()
            except Exception as error:  # the caller gets it from the future
                failure = error
        with self._changed:
            self._work.popleft()
            if future.done():  # cancelled, or given up
                return
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)

    def _fail(self, error: Exception) -> None:
        retry = _comes_from_file_system(error)
        reason = describe(error) + (f"; next attempt in {DISK_RETRY_SECONDS:.0f} s" if retry else "")
        with self._changed:
            self._failures += 1
            self._failure = reason
            self._not_before = time.monotonic() + DISK_RETRY_SECONDS if retry else 0.0
        self._tell(self._on_failure, f"learning is paused: {reason}", _trace(error))

    def _save_now(self) -> None:
        self._save()
        self._saved()

    def _saved(self) -> None:
        return_free_memory()
        self._save_at = time.monotonic() + SAVE_SECONDS

    def _save(self) -> None:
        try:
            self.session.save()
        except Exception as error:  # of no step, so that nobody else could report it
            self._tell(self._on_failure, f"state was not saved: {describe(error)}", _trace(error))

    def _tell(self, callback: Callable[..., None], *what: Any) -> None:
        """Call back, unless the thread was given up: the node may be gone by then."""
        with self._changed:
            if not self._given_up:
                callback(*what)


def _trace(error: Exception) -> str:
    """The traceback of an error that nobody foresaw; empty for others, whose text says all."""
    return "" if isinstance(error, S4NetError | OSError) else "".join(traceback.format_exception(error))


def _comes_from_file_system(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    return cause is not None
