"""A thread that always works on the newest item: callbacks hand over and never wait."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

JOIN_S = 4.0
"""Seconds that a thread gets at shutdown to finish its item; ``ros2 launch`` kills after 5 s."""


class Worker(Generic[T]):
    """A thread that handles the newest item, one at a time; an exception ends that item, never the thread.

    Args:
        name: of the thread.
        handle: called on the thread with each item.
        failed: called on the thread with an item and the exception that `handle` raised.
    """

    def __init__(self, name: str, handle: Callable[[T], None], failed: Callable[[T, Exception], None]) -> None:
        self._handle = handle
        self._failed = failed
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
        while (item := self._take()) is not None:
            try:
                self._handle(item)
            except Exception as error:
                self._failed(item, error)
