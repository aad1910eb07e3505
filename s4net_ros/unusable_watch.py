"""Why no view becomes a keyframe; apart from `diagnostics`, because the node that labels need not load keyframes."""

import time
from collections.abc import Callable

from s4net_core.keyframes import REMEDIES, Decision


class UnusableWatch:
    """Tells why no view could become a keyframe, when that has lasted for a while.

    Args:
        after: seconds that count as a while.
        clock: seconds, monotonic.
    """

    def __init__(self, after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._after = after
        self._clock = clock
        self._lasting: tuple[float, str] | None = None
        """Since when, and the last reason; one attribute, because views are noted on another thread."""

    def note(self, decision: Decision) -> None:
        """Note what became of a view."""
        if decision.reason not in REMEDIES:
            self._lasting = None
        else:
            self._lasting = self._lasting[0] if self._lasting else self._clock(), decision.reason

    def reason(self) -> str:
        """Why views are left out, and what to do; empty while one of them could be used."""
        lasting = self._lasting
        if lasting is None or (seconds := self._clock() - lasting[0]) < self._after:
            return ""
        return f"no view could be used for {seconds:.0f} s ({lasting[1]}): {REMEDIES[lasting[1]]}"
