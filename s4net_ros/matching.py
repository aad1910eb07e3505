"""Matches colour with depth by message_filters, for all nodes that need depth."""

from collections.abc import Callable
from typing import Any

from s4net_core.config import StreamSettings
from s4net_ros.compat import message_filters


class ImageMatcher:
    """Pairs each colour image with the depth image of its time. Use it on the executor's thread.

    The synchroniser of message_filters cannot be emptied, so `begin_anew` makes another. It stays locked for ever when
    its callback raises.

    Args:
        stream: slop and length of the queues.
        on_pair: called with colour and depth; must neither wait nor raise.
    """

    def __init__(self, stream: StreamSettings, on_pair: Callable[[Any, Any], None]) -> None:
        self._stream = stream
        self._on_pair = on_pair
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget all images that wait."""
        self._color, self._depth = message_filters.SimpleFilter(), message_filters.SimpleFilter()
        filters = [self._color, self._depth]
        if self._stream.sync_slop > 0:
            synchroniser = message_filters.ApproximateTimeSynchronizer(
                filters, self._stream.sync_queue, self._stream.sync_slop
            )
        else:  # message_filters compares with `<`: slop 0 would match nothing
            synchroniser = message_filters.TimeSynchronizer(filters, self._stream.sync_queue)
        synchroniser.registerCallback(self._on_pair)

    def color(self, message: Any) -> None:
        """Add a colour image, or any object with its header."""
        self._color.signalMessage(message)

    def depth(self, message: Any) -> None:
        """Add a depth image."""
        self._depth.signalMessage(message)
