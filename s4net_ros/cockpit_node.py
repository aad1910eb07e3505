"""The cockpit: serves a page on which a browser shows what the robot learns, and steers it.

While no browser looks it only keeps the curves: images are not subscribed, and no network is loaded.
"""

if __name__ == "__main__":  # until there is a node, a signal ends this program without a traceback
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)

import os
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import QoSProfile

from s4net_core.config import Settings
from s4net_ros.cockpit.board import Board
from s4net_ros.cockpit.buttons import Buttons
from s4net_ros.cockpit.readings import Readings
from s4net_ros.cockpit.server import Server, address_of
from s4net_ros.cockpit.watching import Watching
from s4net_ros.diagnostics import DiagnosticsPublisher, Report
from s4net_ros.msg import AdaptationStatus, ModelUpdate
from s4net_ros.node_base import S4NetNode, run
from s4net_ros.qos import OUTPUT_DEPTH, latched_qos

NAME = "cockpit"
MAX_COMMANDS = 8
"""Presses of buttons that wait for the executor."""


class CockpitNode(S4NetNode[None]):
    """Listens to the two nodes, and serves the page. The server's thread only wakes the executor's."""

    _server: Server
    _buttons: Buttons

    def __init__(self, defaults: Settings | None = None, **options: Any) -> None:
        super().__init__(NAME, defaults, **options)
        self._board = Board()
        self._watching: Watching | None = None
        self._commands: deque[str] = deque(maxlen=MAX_COMMANDS)
        self._wake = self.create_guard_condition(self._serve)

    def configure(self, undo: ExitStack) -> None:
        """Nothing is needed before the page is served."""

    def activate(self, configured: None, undo: ExitStack) -> None:
        """Listen to the nodes, and serve the page."""
        self._commands.clear()  # whoever pressed while the node was being deactivated means that moment, and not now
        namespace = self.get_namespace().rstrip("/")
        readings = Readings(self._board, f"{namespace}/segmentation", f"{namespace}/adaptation")
        queue = QoSProfile(depth=OUTPUT_DEPTH)
        for subscription in (
            self.create_subscription(AdaptationStatus, "adaptation/status", readings.on_status, queue),
            self.create_subscription(ModelUpdate, "model_update", readings.on_update, latched_qos()),
            self.create_subscription(
                DiagnosticArray, "/diagnostics", lambda m: readings.on_diagnostics(m.status), queue
            ),
        ):
            undo.callback(self.destroy_subscription, subscription)
        self._buttons = Buttons(self, self._board, undo)
        undo.callback(self._watch, False)
        cockpit = self.settings.cockpit
        self._server = Server(cockpit, self._board, self._wake.trigger, self._on_command)
        undo.callback(self._server.stop)
        undo.callback(DiagnosticsPublisher(self, self._report).destroy)
        self.get_logger().info(f"open {address_of(cockpit)}" + ("?token=... with cockpit.token" * bool(cockpit.token)))

    def _on_command(self, name: str) -> None:
        """On the server's thread."""
        self._commands.append(name)
        self._wake.trigger()

    # On the executor's thread.

    def _serve(self) -> None:
        if not self.running:
            return
        self._watch(self._server.browsers > 0)
        while self._commands:
            self._buttons.press(self._commands.popleft())

    def _watch(self, wanted: bool) -> None:
        if wanted and self._watching is None:
            self._watching = Watching(self, self._board)
        elif not wanted and self._watching is not None:
            self._watching.destroy()
            self._watching = None

    def _report(self) -> Report:
        return Report(DiagnosticStatus.OK, "serving", {"browsers": self._server.browsers})


def main(args: Sequence[str] | None = None) -> int:
    """Entry point: ``python -m s4net_ros.cockpit_node --ros-args ...``."""
    code = run(CockpitNode, args)
    # A frame that is being drawn would use objects that the interpreter destroys when it exits.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
