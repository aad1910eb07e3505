"""Time that goes back: a looped bag, a restarted simulation. The rule is the same live and offline."""

from enum import Enum

TIME_JUMP_NS = 1_000_000_000
"""A stamp that goes back by more than this means that time was restarted, not that a message is late."""

NEAR_NS = TIME_JUMP_NS // 2
"""A stream whose newest stamp is this near to that to which colour went back is not of another time."""

SETTLED_NS = 2 * TIME_JUMP_NS
"""So long after a jump, by the stamps of colour, nothing from before it is expected any more."""

EDGE = "edge to "
"""Before the names of tf's frames, where they are streams."""


class Stamp(Enum):
    """What the stamp of an item says about it."""

    GOES_ON = "goes on"
    WENT_BACK = "went back"
    """The first of its stream in another time; the stream's older items are of no use."""
    LEFT_OVER = "left over"
    """From before a jump that colour has made: to be left out."""


class TimeJumps:
    """Follows colour, and streams beside it (depth, edges of tf) that have no common order with it.

    Time is where colour is: only when colour goes back, other streams are asked to forget. One that has gone back
    before colour keeps what it has brought from the new time; one that still brings an item from the old time after
    colour has left it is told to leave that out.
    """

    def __init__(self) -> None:
        self._color: int | None = None
        self._jump: int | None = None
        self._newest: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._ahead: set[str] = set()

    @property
    def streams(self) -> set[str]:
        """Streams beside colour that have brought something of the present time."""
        return set(self._newest)

    def see_color(self, stamp_ns: int) -> list[str] | None:
        """Note the stamp of a colour image, before the image is used.

        Returns:
            None while time goes on. When it has gone back: the other streams whose items are of the time before.
        """
        if self._color is None or stamp_ns >= self._color - TIME_JUMP_NS:
            self._color = stamp_ns if self._color is None else max(stamp_ns, self._color)
            if self._jump is not None and stamp_ns > self._jump + SETTLED_NS:
                self._jump = None
                self._before.clear()
            return None
        self._color = self._jump = stamp_ns
        stale = [
            stream
            for stream, newest in self._newest.items()
            if stream not in self._ahead and abs(newest - stamp_ns) > NEAR_NS
        ]
        self._before = {stream: self._newest.pop(stream) for stream in stale}
        self._ahead.clear()
        return stale

    def see(self, stream: str, stamp_ns: int) -> Stamp:
        """Note the stamp of an item of another stream, before the item is used."""
        before = self._before.get(stream)
        if before is not None and self._color is not None:
            if abs(stamp_ns - before) < min(TIME_JUMP_NS, abs(stamp_ns - self._color)):
                return Stamp.LEFT_OVER
            del self._before[stream]
        newest = self._newest.get(stream, stamp_ns)
        if stamp_ns < newest - TIME_JUMP_NS:
            self._newest[stream] = stamp_ns
            self._ahead.add(stream)
            return Stamp.WENT_BACK
        self._newest[stream] = max(stamp_ns, newest)
        return Stamp.GOES_ON
