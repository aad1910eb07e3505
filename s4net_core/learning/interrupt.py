"""Turns Ctrl-C and SIGTERM into a flag that a loop checks between steps, so that it can save before it ends."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While the context is open, the first signal only sets `asked`; a second one has its usual effect.

    Outside the main thread Python allows no handlers, so signals keep their usual effect.
    """

    def __init__(self) -> None:
        self.asked = False
        """Whether a signal has asked the loop to end."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
