"""A cache that is bounded in bytes, for what the learner would otherwise compute again at every step."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

BYTES_PER_MEGABYTE = 1_000_000


class ByteCache(Generic[Key, Value]):
    """Values by key, the least recently used first; they go first when memory is full.

    Args:
        megabytes: memory for the values; 0 = none are kept.
        size: bytes of a value.
    """

    def __init__(self, megabytes: int, size: Callable[[Value], int]) -> None:
        self.limit = megabytes * BYTES_PER_MEGABYTE
        self.nbytes = 0
        """Memory of all values, bytes."""
        self._size = size
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def used(self, key: Key) -> Value | None:
        """The value of a key, which counts as used now; None = it is not kept."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def keep(self, key: Key, value: Value) -> None:
        """Keep a value, as used now, and drop the least recently used ones until all fit: perhaps this one as well."""
        if key in self._values:
            self.nbytes -= self._size(self._values.pop(key))
        self._values[key] = value
        self.nbytes += self._size(value)
        while self.nbytes > self.limit:
            self.nbytes -= self._size(self._values.popitem(last=False)[1])

    def clear(self) -> None:
        """Drop all values."""
        self._values.clear()
        self.nbytes = 0
