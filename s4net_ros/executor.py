"""The executor of all nodes, for topics at camera rate."""

import time
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.service import Service
from rclpy.waitable import Waitable

LOOK_S = 0.1
"""Seconds between two looks at services and events of QoS while messages stream; otherwise a call is seen at once."""


class StreamExecutor(SingleThreadedExecutor):
    """Does a node's callbacks at little cost while messages stream.

    Before each wait rclpy walks through everything that a node has. In a lifecycle node these are about 50 entities, of
    which four bring messages at camera rate. Services and events of QoS are left out of most waits.

    Args:
        bunch: seconds to sleep when everything that has come is done, so that one wait finds much; 0 = do not.
    """

    def __init__(self, bunch: float = 0.0) -> None:
        super().__init__()
        self._bunch = bunch
        self._everything = True
        self._look_at = 0.0
        self.waits = True
        """Whether nothing has come for a while, so that `spin_on` waits instead of sleeping."""
        self._found = False
        self._idle = 2
        """Waits in a row that have found nothing."""

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

    def wait_for_ready_callbacks(self, *args: Any, **kwargs: Any) -> Any:
        """As of the base class, which raises if nothing is ready."""
        found = super().wait_for_ready_callbacks(*args, **kwargs)
        self._found = True
        return found

    def spin_on(self) -> None:
        """Do a callback. If none is left, sleep, or wait at most `LOOK_S` for one."""
        self._found = False
        self.spin_once(timeout_sec=LOOK_S if self.waits else 0.0)
        self._idle = 0 if self._found else self._idle + 1
        if not self._bunch:
            return
        if (self._found and self.waits) or self._idle == 2:  # rclpy took one message of each topic: there may be more
            self.waits = False
            time.sleep(self._bunch)
        elif self._idle > 2:
            self.waits = True


class HeldBack(MutuallyExclusiveCallbackGroup):
    """Subscriptions whose messages stay with the middleware while `held`: it keeps the newest and drops the others."""

    def __init__(self) -> None:
        super().__init__()
        self.held = False

    def can_execute(self, entity: Any) -> bool:
        """As of the base class; executors leave an entity out of the next wait if this is False."""
        return not self.held and super().can_execute(entity)
