"""What can be asked of the keyframes: neighbours, draws for learning, counts. Safe from any thread."""

import threading
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from s4net_core.config import KeyframeSettings
from s4net_core.errors import KeyframeError
from s4net_core.keyframes.pairing import PairCounts, Pairing
from s4net_core.keyframes.view import Keyframe

Item = TypeVar("Item")


class KeyframeQueries:
    """The half of `KeyframeBuffer` that changes nothing.

    Args:
        settings: `holdout`.
    """

    _pairing: Pairing
    """The keyframes; `_lock` guards them."""

    def __init__(self, settings: KeyframeSettings) -> None:
        self._settings = settings
        self._lock = threading.RLock()

    def neighbours(self, id: int, n: int, min_overlap: float, rng: np.random.Generator) -> list[int]:
        """Up to `n` keyframes at random among those that see at least `min_overlap` of view `id`; [] if there is none.

        Args:
            id: of the target; an evicted one has no neighbours.
            n: number wanted; 0 = all, in the order in which they came.
            min_overlap: share of the target's view.
            rng: source of the choice; not asked for all.
        """
        with self._lock:
            able = [other for other, share in self._pairing.graph.seen_by(id).items() if share >= min_overlap]
        if not n:
            return sorted(able)
        if not able:
            return []
        chosen = rng.permutation(len(able))[:n]
        return [able[i] for i in chosen.tolist()]

    def overlapping(self, id: int, min_overlap: float) -> list[tuple[int, float]]:
        """Keyframes that see at least `min_overlap` of view `id`, with that share, largest first."""
        with self._lock:
            able = [(other, share) for other, share in self._pairing.graph.seen_by(id).items() if share >= min_overlap]
        return sorted(able, key=lambda pair: (-pair[1], pair[0]))

    def draw(
        self, count: int, neighbours: int, min_overlap: float, rng: np.random.Generator
    ) -> list[tuple[Keyframe, list[Keyframe]]]:
        """Target views at random, each with some of its neighbours at random (the paper's e and N(e)).

        Keyframes that are held out are never targets, but may be neighbours.
        Other threads may offer views meanwhile: what is drawn is what the buffer held at one moment.

        Args:
            count: target views wanted; fewer come when fewer have a neighbour.
            neighbours: largest number of neighbours of each; 0 = all.
            min_overlap: share of the target's view that a neighbour sees.
            rng: source of the choice.

        Returns:
            (target, neighbours), no target twice, at least one neighbour each; [] when no view has one.
        """
        with self._lock:
            able = self.trainable(min_overlap)
            targets = rng.choice(able, size=min(count, len(able)), replace=False).tolist() if able else []
            return [
                (
                    self._pairing.keyframes[id],
                    [self._pairing.keyframes[i] for i in self.neighbours(id, neighbours, min_overlap, rng)],
                )
                for id in targets
            ]

    def trainable(self, min_overlap: float) -> list[int]:
        """Ids of the keyframes that may be learned from, ascending: not held out, with a neighbour of this overlap."""
        with self._lock:
            return [id for id in self._pairing.keyframes if self._has_neighbour(id, min_overlap, held_out=False)]

    def held_out(self, min_overlap: float) -> list[int]:
        """Ids of the keyframes that the learner must not learn from, ascending: every `keyframes.holdout`-th one.

        Args:
            min_overlap: only those that have a neighbour with at least this overlap.
        """
        with self._lock:
            return [id for id in self._pairing.keyframes if self._has_neighbour(id, min_overlap, held_out=True)]

    def any_trainable(self, min_overlap: float) -> bool:
        """Whether `trainable` would return any id; stops at the first."""
        with self._lock:
            return any(self._has_neighbour(id, min_overlap, held_out=False) for id in self._pairing.keyframes)

    def __len__(self) -> int:
        return len(self._pairing.keyframes)

    def __contains__(self, id: object) -> bool:
        return id in self._pairing.keyframes

    def ids(self) -> list[int]:
        """Ids of all keyframes, ascending, which is the order in which they came."""
        with self._lock:
            return list(self._pairing.keyframes)

    def get(self, id: int) -> Keyframe:
        """The keyframe `id`.

        Raises:
            KeyframeError: it is not in the buffer, or no longer.
        """
        with self._lock:
            if id not in self._pairing.keyframes:
                raise KeyframeError(
                    f"keyframe {id} is not in the buffer of {len(self)}: it may have been evicted; ask ids() again"
                )
            return self._pairing.keyframes[id]

    def views(self, ids: Iterable[int]) -> dict[int, Keyframe]:
        """The keyframes among `ids` that are still in the buffer, by id, in the order given."""
        with self._lock:
            return {id: self._pairing.keyframes[id] for id in ids if id in self._pairing.keyframes}

    @property
    def pairs(self) -> PairCounts:
        """How many pairs teach each other, and how many do not although they overlap."""
        with self._lock:
            return self._pairing.counts

    def refused_pairs(self) -> list[tuple[int, int]]:
        """Ids of the keyframes, the newer first, whose depths contradict each other."""
        with self._lock:
            return self._pairing.refused()

    def segments(self) -> dict[int, int]:
        """Segment of each keyframe by its id; segments that were shown to fit have the same number, the smallest."""
        with self._lock:
            return {
                id: self._pairing.segments.group(keyframe.segment) for id, keyframe in self._pairing.keyframes.items()
            }

    @property
    def nbytes(self) -> int:
        """Memory of colour and depth of all keyframes, bytes."""
        return self._pairing.nbytes

    @property
    def newest(self) -> Keyframe | None:
        """The keyframe that came last; None = there is none."""
        with self._lock:
            return next(reversed(self._pairing.keyframes.values()), None)

    def _has_neighbour(self, id: int, min_overlap: float, *, held_out: bool) -> bool:
        """Whether a keyframe has a neighbour with this overlap, and is held out or not as asked."""
        every = self._settings.holdout
        return held_out == (every > 0 and id % every == every - 1) and self._pairing.graph.best(id) >= min_overlap


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of `items`, or all if there are fewer, spread evenly."""
    count = min(count, len(items))
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]
