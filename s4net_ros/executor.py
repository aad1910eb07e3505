"""The executor of both nodes, for topics at camera rate."""

import time
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.service import Service
from rclpy.waitable import Waitable

LOOK_S = 0.1
"""Seconds between two looks at services and events of QoS while messages stream; otherwise a call is seen at once."""
WAITED_S = 0.002
"""A callback that comes this long after the one before is the first of a bunch."""


class StreamExecutor(SingleThreadedExecutor):
    """Does a node's callbacks at little cost while messages stream.

    Before each wait rclpy walks through everything that a node has. In a lifecycle node these are about 50 entities, of
    which four bring messages at camera rate. Services and events of QoS are left out of most waits.

    Args:
        bunch: seconds to sleep after the first message of a bunch, so that one wait finds all others; 0 = do not.
    """

    def __init__(self, bunch: float = 0.0) -> None:
        super().__init__()
        self._bunch = bunch
        self._everything = True
        self._look_at = 0.0

    def get_nodes(self) -> list[Node]:
        """As of the base class, which calls this before each wait."""
        now = time.monotonic()
        self._everything = now >= self._look_at
        if self._everything:
            self._look_at = now + LOOK_S
        return super().get_nodes()

    def can_execute(self, entity: Any) -> bool:
        """As of the base class, which leaves an entity out of the next wait if this is False."""
        return (self._everything or not isinstance(entity, (Service, Waitable))) and super().can_execute(entity)

    def spin_on(self) -> None:
        """Wait at most `LOOK_S` for a callback, and do it."""
        started = time.monotonic()
        self.spin_once(timeout_sec=LOOK_S)
        if self._bunch and time.monotonic() - started > WAITED_S:
            time.sleep(self._bunch)
