"""A cache that is bounded in bytes, for what the learner would otherwise compute again at every step."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

BYTES_PER_MEGABYTE = 1_000_000


class ByteCache(OrderedDict[Key, Value], Generic[Key, Value]):
    """Values by key, the least recently used first; they go first when memory is full.

    Args:
        megabytes: memory for the values; 0 = none are kept.
        size: bytes of a value.
    """

    def __init__(self, megabytes: int, size: Callable[[Value], int]) -> None:
        super().__init__()
        self.limit = megabytes * BYTES_PER_MEGABYTE
        self._size = size

    @property
    def nbytes(self) -> int:
        """Memory of all values, bytes."""
        return sum(map(self._size, self.values()))

    def used(self, key: Key) -> Value | None:
        """The value of a key, which counts as used now; None = it is not kept."""
        if key in self:
            self.move_to_end(key)
        return self.get(key)

    def keep(self, key: Key, value: Value) -> None:
        """Keep a value, as used now, and drop the least recently used ones until all fit: perhaps this one as well."""
        self[key] = value
        self.move_to_end(key)
        surplus = self.nbytes - self.limit
        while surplus > 0 and self:
            surplus -= self._size(self.popitem(last=False)[1])
