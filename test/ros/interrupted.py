"""Programs of this package that get a signal at one line of Python after the other; tests run this file.

``python interrupted.py player BAG`` or ``python interrupted.py node``. A handler runs between two lines of the main
thread, perhaps while it holds a lock. A program that hangs ends with its traceback and exit code 1.
"""

import faulthandler
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import rclpy
from rclpy.signals import SignalHandlerOptions

from s4net_ros import node_base
from s4net_ros.player import play
from s4net_ros.replay import bag_player

HANG_S = 30.0
"""A program that has not ended so long after its signal hangs; it takes a tenth of a second."""


class Moment:
    """Raises a signal before the `number`-th line that runs inside a function or its callees.

    Args:
        number: counted from 0.
        raised: the signal.
        function: code of the function.
    """

    def __init__(self, number: int, raised: signal.Signals, function: CodeType) -> None:
        self.reached = False
        self._left = number
        self._signal = raised
        self._function = function
        self._files = {function.co_filename, threading.__file__}

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Count the lines of this thread."""
        sys.settrace(self._on_call)
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        try:
            yield
        finally:
            sys.settrace(None)
            faulthandler.cancel_dump_traceback_later()

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not self.reached and frame.f_code.co_filename in self._files and self._inside(frame):
            return self._on_line
        return None

    def _inside(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code is self._function:
                return True
            frame = frame.f_back
        return False

    def _on_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and not self.reached:
            self.reached = self._left == 0
            self._left -= 1
            if self.reached:
                signal.raise_signal(self._signal)
        return self._on_line


def interrupt_player(bag: Path) -> int:
    """A short bag, again and again, with SIGINT at every 13th line of `BagPlayer.play`; returns how often."""
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    options = bag_player.PlayerOptions(rate=20.0, topics=("/count",))
    for count in range(40):
        moment = Moment(13 * count, signal.SIGINT, bag_player.BagPlayer.play.__code__)
        with moment.armed():
            play(bag, options)
        if not moment.reached:
            return count
    return 40


class Idle(node_base.S4NetNode[None]):
    """A node that has nothing to do but to end."""

    def configure(self, undo: ExitStack) -> None:
        pass

    def activate(self, configured: None, undo: ExitStack) -> None:
        self.activated()

    def activated(self) -> None:
        """For tests to replace."""


def interrupt_node() -> int:
    """SIGINT, and at every line of its handler SIGTERM, as a launch system and a terminal send them together."""
    for count in range(10):
        moment: list[Moment] = []

        def interrupt(moments: list[Moment] = moment, number: int = count) -> None:
            handler = signal.getsignal(signal.SIGINT)
            moments.append(Moment(number, signal.SIGTERM, handler.__code__))  # type: ignore[union-attr]
            with moments[0].armed():
                signal.raise_signal(signal.SIGINT)

        def make(act: Callable[[], None] = interrupt) -> Idle:
            node = Idle("interrupted")
            node.activated = act  # type: ignore[method-assign]
            return node

        assert node_base.run(make, []) == 0
        if not moment[0].reached:
            return count
    return 10


if __name__ == "__main__":
    print(interrupt_player(Path(sys.argv[2])) if sys.argv[1] == "player" else interrupt_node())
