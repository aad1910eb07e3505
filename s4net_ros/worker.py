"""A thread that always works on the newest item: callbacks hand over and never wait; and what all threads need."""

import errno
import os
import threading
import traceback
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from rclpy.impl.rcutils_logger import RcutilsLogger

from s4net_core.errors import S4NetError

T = TypeVar("T")

JOIN_S = 4.0
"""Seconds that a thread gets at shutdown to finish its item; ``ros2 launch`` kills after 5 s."""


class Stoppable(Protocol):
    """What has a thread of its own."""

    def stop(self) -> bool:
        """End the thread; returns whether it has ended in time."""
        ...


class Worker(Generic[T]):
    """A thread that handles the newest item, one at a time; an exception ends that item, never the thread.

    Args:
        name: of the thread.
        handle: called on the thread with each item.
        failed: called on the thread with an item and the exception that `handle` raised.
        niceness: as of `step_back`.
    """

    def __init__(
        self, name: str, handle: Callable[[T], None], failed: Callable[[T, Exception], None], *, niceness: int = 0
    ) -> None:
        self._handle = handle
        self._failed = failed
        self._niceness = niceness
        self._condition = threading.Condition()
        self._item: T | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> bool:
        """Hand over an item; never waits. Returns whether it replaced an item that was still waiting."""
        with self._condition:
            superseded = self._item is not None
            self._item = item
            self._condition.notify()
            return superseded

    def stop(self, timeout: float = JOIN_S) -> bool:
        """End the thread after the item in hand. Returns whether it has ended within `timeout` seconds."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _take(self) -> T | None:
        """Wait for an item; None = the end."""
        with self._condition:
            self._condition.wait_for(lambda: self._item is not None or self._stopping)
            item, self._item = self._item, None
            return None if self._stopping else item

    def _run(self) -> None:
        step_back(self._niceness)
        while (item := self._take()) is not None:
            try:
                self._handle(item)
            except Exception as error:
                self._failed(item, error)


def step_back(niceness: int) -> None:
    """Make this thread, and those that PyTorch starts for it, at least as nice as this; Linux counts it by thread.

    Args:
        niceness: as of `nice`; more than 19 counts as 19.
    """
    own = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, own, max(niceness, os.getpriority(os.PRIO_PROCESS, own)))


def step_back_on_gpu(niceness: int) -> None:
    """Let this process's kernels come after those of other processes, where NVIDIA's MPS shares the GPU among them.

    Must come before CUDA starts, and holds until the process ends. PyTorch's default stream has the lowest priority
    already, but streams are ordered within one process alone. Without MPS the GPU divides its time among processes, and
    this has no effect.

    Args:
        niceness: 0 = like other processes, unless CUDA_MPS_CLIENT_PRIORITY is set; all else = after them.
    """
    if niceness > 0:
        os.environ.setdefault("CUDA_MPS_CLIENT_PRIORITY", "1")


def stop_or_warn(name: str, thread: Stoppable, logger: RcutilsLogger) -> None:
    """End a thread of a node, and say so if it does not end in time."""
    if not thread.stop():
        logger.warning(f"the thread for {name} did not end in time: it is left to finish its last item")


def for_log(error: BaseException) -> str:
    """An error for the log. Our own errors keep their text; of others, which nobody foresaw, it says where they are."""
    return str(error) if isinstance(error, S4NetError) else "".join(traceback.format_exception(error))


def describe(error: BaseException) -> str:
    """An error in one line. Our own errors keep their text; an error of the file system gets a remedy."""
    if isinstance(error, OSError):
        name = f" ({error.filename})" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = ": free some space" if full else ": check that the folder exists and may be written"
        return f"file system: {error.strerror or error}{name}{remedy}"
    if isinstance(error, S4NetError):
        return str(error)
    return f"{type(error).__name__}: {error}"
