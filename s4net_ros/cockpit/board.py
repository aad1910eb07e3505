"""What the cockpit shows at this moment: written by the node, read by the server for each browser."""

import threading
from collections.abc import Mapping, MutableMapping
from typing import Any


class Board:
    """Newest values by name. What nobody has read is replaced, so a slow reader gets the newest and never a queue."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, tuple[int, Any]] = {}
        self._changes = 0

    def put(self, name: str, value: Any) -> None:
        """Replace a value; the same value again is no news. It must not be changed afterwards."""
        with self._lock:
            if name not in self._values or self._values[name][1] != value:
                self._changes += 1
                self._values[name] = (self._changes, value)

    def drop(self, name: str) -> None:
        """Forget a value."""
        with self._lock:
            self._values.pop(name, None)

    def news(self, seen: MutableMapping[str, int]) -> Mapping[str, Any]:
        """Values that a reader has not seen yet.

        Args:
            seen: what this reader has seen, empty at first; brought up to date.
        """
        with self._lock:
            fresh = {name: value for name, (change, value) in self._values.items() if seen.get(name) != change}
            seen.update((name, self._values[name][0]) for name in fresh)
            return fresh
