"""The thread that maps: labels keyframes, brings the map in line with them, and hands the map over. No ROS."""

import time
from collections.abc import Callable

from s4net_core.keyframes import KeyframeBuffer
from s4net_core.mapping import MapPoints, SemanticMap
from s4net_core.models.checkpoint import CheckpointInfo
from s4net_core.models.segmenter import Segmenter
from s4net_ros.worker import Worker


class MapThread:
    """Labels one keyframe at a time, new ones first, then those that older weights have labelled.

    It steps back for other threads of the machine: labels of a map are not urgent.

    Args:
        found: the map.
        keyframes: what is mapped; other threads may add and move them.
        segmenter: labels; other threads may give it new weights.
        niceness: as of `nice`.
        period: seconds between two calls of `publish`.
        publish: called on the thread with the points of a map that has changed since the last call.
        failed: called on the thread with an exception; the keyframe is tried again at the next `poke`.
    """

    def __init__(
        self,
        found: SemanticMap,
        keyframes: KeyframeBuffer,
        segmenter: Segmenter,
        *,
        niceness: int,
        period: float,
        publish: Callable[[MapPoints], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._map = found
        self._keyframes = keyframes
        self._segmenter = segmenter
        self._period = period
        self._publish = publish
        self._labelled: dict[int, CheckpointInfo] = {}
        """Weights that have labelled a keyframe, by its id."""
        self._published: MapPoints | None = None
        self._not_before = time.monotonic()
        self._worker: Worker[bool] = Worker(
            "map", lambda _: self._work(), lambda _, error: failed(error), niceness=niceness
        )

    def poke(self) -> None:
        """Look for something to do; call it when there is something new, and now and then."""
        self._worker.put(True)

    @property
    def waiting(self) -> int:
        """Keyframes that the weights of now have not labelled."""
        info, labelled = self._segmenter.info, dict(self._labelled)
        return sum(labelled.get(id) is not info for id in self._keyframes.ids())

    def stop(self) -> bool:
        """End the thread; returns whether it has ended."""
        return self._worker.stop()

    def _work(self) -> None:
        id = self._next()
        if id is not None:
            info = self._segmenter.info  # before the label: if weights change meanwhile, it is made again
            for keyframe in self._keyframes.views([id]).values():
                self._map.set_label(id, self._segmenter.segment(keyframe.color).label)
            self._labelled[id] = info
        self._map.update(self._keyframes)
        self._hand_over()
        if id is not None:
            self._worker.put(True)

    def _next(self) -> int | None:
        """The keyframe to label: the newest without a label, or the oldest whose label is of older weights."""
        ids, info = self._keyframes.ids(), self._segmenter.info
        self._labelled = {id: self._labelled[id] for id in ids if id in self._labelled}
        new = [id for id in ids if id not in self._labelled]
        stale = [id for id in ids if id in self._labelled and self._labelled[id] is not info]
        return new[-1] if new else stale[0] if stale else None

    def _hand_over(self) -> None:
        if time.monotonic() < self._not_before:
            return
        points = self._map.points()
        if points is self._published or (self._published is None and not len(points)):
            return
        self._publish(points)
        self._published, self._not_before = points, time.monotonic() + self._period
