"""Which keyframes see each other, and how much of each other."""

import math

from s4net_core.keyframes.gate import Overlaps


class OverlapGraph:
    """Overlaps between keyframes, as measured when the newer of the two came in.

    Args:
        min_overlap: a view seen by another one to at least this share counts as covered by it.
    """

    def __init__(self, min_overlap: float) -> None:
        self.min_overlap = min_overlap
        self._seen_by: dict[int, dict[int, float]] = {}
        self._coverage: dict[int, float] = {}
        self._best: dict[int, float] = {}

    def add(self, id: int, overlaps: Overlaps) -> None:
        """Insert a keyframe.

        Args:
            id: of the new keyframe.
            overlaps: with other keyframes; ids that are not in the graph are left out.
        """
        self._seen_by[id] = {}
        for other, pair in overlaps.items():
            if other in self._seen_by and other != id:
                self._connect(id, other, pair.of_new)
                self._connect(other, id, pair.of_other)

    def remove(self, id: int) -> None:
        """Take a keyframe out."""
        for other in self._seen_by.pop(id):
            self._seen_by[other].pop(id, None)
            self._forget(other)
        self._forget(id)

    def seen_by(self, id: int) -> dict[int, float]:
        """For every other keyframe that was measured: share of the view `id` that it sees; empty for unknown ids."""
        return self._seen_by.get(id, {})

    def best(self, id: int) -> float:
        """Largest share of the view `id` that another keyframe sees; 0 when none does."""
        if id not in self._best:
            self._best[id] = max(self._seen_by[id].values(), default=0.0)
        return self._best[id]

    def most_covered(self, but: int) -> int:
        """The view that the others see most of, summed over those that cover it; the oldest of equals.

        Args:
            but: never chosen.

        Raises:
            ValueError: there is no other view.
        """
        return max((id for id in self._seen_by if id != but), key=lambda id: (self._covered(id), -id))

    def _covered(self, id: int) -> float:
        if id not in self._coverage:
            # fsum: the same sum whatever the order, so that a reloaded buffer evicts as the saved one would
            self._coverage[id] = math.fsum(o for o in self._seen_by[id].values() if o >= self.min_overlap)
        return self._coverage[id]

    def _connect(self, id: int, other: int, share: float) -> None:
        self._seen_by[id][other] = share
        self._forget(id)

    def _forget(self, id: int) -> None:
        self._coverage.pop(id, None)
        self._best.pop(id, None)
