"""The thread in which the adaptation node learns: duty cycle, pause, and work that fits between two steps. No ROS."""

import errno
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from s4net_core.errors import S4NetError
from s4net_core.learning.adapt import Adaptation, Handover

T = TypeVar("T")

THREAD_NAME = "learner"
POLL_SECONDS = 0.2
"""How often it looks for enough keyframes while there is nothing to learn."""
DISK_RETRY_SECONDS = 30.0
"""Pause after an error of the file system; a full disk may be emptied by somebody."""
SAVE_SECONDS = 60.0
"""Keyframes and weights are saved this often, so that a power cut costs a minute."""


class LearnerThread:
    """Calls `Adaptation.advance` whenever it may, and never dies silently.

    An exception inside a step pauses learning: `failure` says why until `resume` or a successful reset or roll-back.
    After an error of the file system it tries again by itself.

    Args:
        adaptation: what learns; used by this thread alone, apart from `offer` and `status`.
        duty_cycle: asked after each step for the share of the time that learning may take, 0..1.
        on_handover: called in this thread with every outcome, accepted or refused.
        on_failure: called in this thread with the reason and the traceback.
    """

    def __init__(
        self,
        adaptation: Adaptation,
        *,
        duty_cycle: Callable[[], float],
        on_handover: Callable[[Handover], None],
        on_failure: Callable[[str, str], None],
    ) -> None:
        self.adaptation = adaptation
        self._duty_cycle = duty_cycle
        self._on_handover = on_handover
        self._on_failure = on_failure
        self._changed = threading.Condition()
        self._work: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._active = False
        self._paused = False
        self._stopping = False
        self._failure = ""
        self._failures = 0
        self._not_before = 0.0
        self._save_at = time.monotonic() + SAVE_SECONDS
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()

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
        """Exceptions so far."""
        return self._failures

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def set_active(self, active: bool) -> None:
        """Learn, or only do the work that is submitted; returns at once."""
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
            self._clear_failure()

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Do `work` in the learner thread as soon as the running step has ended, also while paused.

        Returns:
            Future of its result or exception; cancelled when the thread stops first.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._stopping:
                future.cancel()
            else:
                self._work.append((work, future))
                self._changed.notify_all()
        return future

    def recover(self) -> None:
        """Forget a failure because the weights were replaced; a pause that was asked for stays."""
        with self._changed:
            self._clear_failure()

    def stop(self, timeout: float) -> bool:
        """Save the state and end after the running step. Returns False when that took longer than `timeout` seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _clear_failure(self) -> None:
        self._failure = ""
        self._not_before = 0.0
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._stopping or self._work or self._learning_is_due()):
                    self._changed.wait(self._wait_seconds())
                if self._stopping:
                    break
                item = self._work.popleft() if self._work else None
            if item is None:
                self._learn()
            else:
                _execute(*item)
        self._save()
        for _, future in self._work:
            future.cancel()

    def _learning_is_due(self) -> bool:
        if not self._active or self._paused or time.monotonic() < self._not_before:
            return False
        return not self._failure or self._not_before > 0

    def _wait_seconds(self) -> float | None:
        if not self._active or self._paused or (self._failure and not self._not_before):
            return None
        return max(0.0, self._not_before - time.monotonic())

    def _learn(self) -> None:
        started = time.monotonic()
        try:
            ready = self.adaptation.ready
            handover = self.adaptation.advance() if ready else None
            if handover is not None:
                self._on_handover(handover)
            self._save_if_due(now=handover is not None)
        except Exception as error:  # whatever it is: said, counted, and the thread goes on
            self._fail(error)
            return
        self._failure = ""
        share = self._duty_cycle()
        self._rest((time.monotonic() - started) * (1.0 - share) / share if ready else POLL_SECONDS)

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._not_before = time.monotonic() + seconds

    def _fail(self, error: Exception) -> None:
        retry = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
        reason = describe(error)
        with self._changed:
            self._failures += 1
            self._failure = f"{reason}; next attempt in {DISK_RETRY_SECONDS:.0f} s" if retry else reason
            self._not_before = time.monotonic() + DISK_RETRY_SECONDS if retry else 0.0
        self._on_failure(self._failure, "" if isinstance(error, S4NetError | OSError) else traceback.format_exc())

    def _save_if_due(self, *, now: bool = False) -> None:
        if now or time.monotonic() >= self._save_at:
            self.adaptation.save_state()
            self._save_at = time.monotonic() + SAVE_SECONDS

    def _save(self) -> None:
        try:
            self.adaptation.save_state()
        except Exception as error:  # the last words of a thread: nobody above could hear more
            self._failures += 1
            self._on_failure(f"state was not saved: {describe(error)}", traceback.format_exc())


def _execute(work: Callable[[], Any], future: "Future[Any]") -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except Exception as error:  # handed to whoever asked for the work
        future.set_exception(error)


def describe(error: BaseException) -> str:
    """One line for a person: our own errors speak for themselves, a full disk gets its remedy."""
    if isinstance(error, OSError):
        name = f" ({error.filename})" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = ": free some space" if full else ": check that the folder exists and may be written"
        return f"file system: {error.strerror or error}{name}{remedy}"
    if isinstance(error, S4NetError):
        return str(error)
    return f"{type(error).__name__}: {error}"
