"""The thread between topics and keyframes: takes every view that becomes complete, in order."""

import threading
from collections.abc import Callable

from s4net_core.errors import BadFrame
from s4net_core.frames import LazyView
from s4net_ros.frame_assembly import FrameAssembly
from s4net_ros.worker import JOIN_S

POLL_S = 0.1
"""Seconds between two polls: a transform can complete a view, and its arrival wakes nobody."""


class FrameThread:
    """Polls an assembly until it is stopped; an exception ends one frame, never the thread.

    Args:
        assembly: gives the views, and is told which of them `take` can use.
        take: called on the thread with each view, not decoded.
        failed: called on the thread with any exception of `take` or the assembly but BadFrame.
    """

    def __init__(
        self, assembly: FrameAssembly, take: Callable[[LazyView], object], failed: Callable[[Exception], None]
    ) -> None:
        self._assembly = assembly
        self._take = take
        self._failed = failed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="frames", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = JOIN_S) -> bool:
        """End the thread after the frame in hand. Returns whether it has ended within `timeout` seconds."""
        self._stopping.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._assembly.wait(POLL_S)
            try:
                self._take_all()
            except Exception as error:
                self._failed(error)
                self._stopping.wait(POLL_S)  # an error that repeats must not fill the disk with its log

    def _take_all(self) -> None:
        while not self._stopping.is_set() and (view := self._assembly.poll()) is not None:
            try:
                self._take(view)
            except Exception as error:
                view.refuse(error)
                if not isinstance(error, BadFrame):
                    raise
            else:
                self._assembly.note_used()
