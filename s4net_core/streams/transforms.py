"""Every transform at any stamp: stands in for tf2 where there is no ROS (offline, or ROS from PyPI).

Its rules are those of tf2, so that live and offline give the same poses. Stamps are integer nanoseconds throughout.
"""

import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from s4net_core.errors import BadFrame, S4NetError
from s4net_core.frames import check_pose
from s4net_core.geometry.poses import interpolate, inverse

MAX_TREE_DEPTH = 1000
"""Longest chain of frames; a longer one is a loop (tf2 uses the same bound)."""

TransformReason = Literal["bad_name", "unknown_frame", "not_connected", "too_old", "too_new"]


class TransformUnavailable(S4NetError):
    """There is no transform between two frames at a stamp.

    Args:
        reason: ``unknown_frame`` and ``not_connected`` may heal when more transforms arrive, ``too_new`` heals when the
            transform's publisher catches up, ``too_old`` and ``bad_name`` never heal.
        message: which frames and stamps, and the remedy.
    """

    def __init__(self, reason: TransformReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def may_heal(self) -> bool:
        """Whether the transform may still become available."""
        return self.reason not in ("too_old", "bad_name")


class TransformBuffer:
    """Tree of coordinate frames with a bounded history; safe to fill and ask from different threads.

    A frame has one parent; a frame that gets another parent starts a new history.

    Args:
        history_ns: dynamic transforms older than this, counted from the newest of the same edge, are forgotten, or
            ignored when they come.
    """

    def __init__(self, history_ns: int) -> None:
        self.history_ns = history_ns
        self._edges: dict[str, _Edge] = {}
        self._lock = threading.RLock()

    def anew(self) -> "TransformBuffer":
        """A new buffer with only the static transforms of this one, because a recording contains them only once."""
        fresh = TransformBuffer(self.history_ns)
        with self._lock:
            fresh._edges = {child: edge for child, edge in self._edges.items() if edge.static}
        return fresh

    def frames(self) -> list[str]:
        """Names of all frames, sorted."""
        with self._lock:
            return sorted(set(self._edges) | {edge.parent for edge in self._edges.values()})

    def set(
        self, parent: str, child: str, stamp_ns: int, T_parent_child: NDArray[np.float64], static: bool = False
    ) -> None:
        """Add one transform; a leading ``/`` of a name is ignored here, as in tf2, but not in `lookup`.

        Args:
            T_parent_child: (4, 4) float64, maps coordinates of `child` to `parent`, metres.
            static: holds at every stamp; `stamp_ns` is ignored.

        Raises:
            BadFrame: ``pose`` when the matrix is not a rigid transform, or a name is empty, or both are the same.
        """
        check_pose(T_parent_child)
        parent, child = parent.removeprefix("/"), child.removeprefix("/")
        if not parent or not child or parent == child:
            raise BadFrame("pose", f"transform from '{child}' to '{parent}': two different frame names are needed")
        with self._lock:
            edge = self._edges.get(child)
            if edge is None or edge.parent != parent or edge.static or static:
                edge = self._edges[child] = _Edge(parent, static)
            edge.insert(stamp_ns, np.array(T_parent_child, np.float64), self.history_ns)

    def lookup(self, target: str, source: str, stamp_ns: int) -> NDArray[np.float64]:
        """T_target_source (4, 4) float64 at a stamp: maps coordinates of `source` to `target`.

        Args:
            stamp_ns: 0 = the newest stamp at which the whole chain is known, as in tf2.

        Raises:
            TransformUnavailable: with its reason.
        """
        if target == source:  # also of a frame that nobody knows
            return np.eye(4)
        with self._lock:
            stamp_ns = stamp_ns or self._latest(*self._path(target, source))
            down, up = self._path(target, source, stamp_ns)
            T_common_target, T_common_source = (self._climb(names, stamp_ns) for names in (down, up))
        return inverse(T_common_target) @ T_common_source

    def latest(self, target: str, source: str) -> int:
        """Newest stamp at which `lookup` can answer; 0 when all transforms between the two are static.

        Raises:
            TransformUnavailable: ``bad_name``, ``unknown_frame`` or ``not_connected``.
        """
        with self._lock:
            return self._latest(*self._path(target, source))

    def _latest(self, down: list[str], up: list[str]) -> int:
        return min((self._edges[n].stamps[-1] for n in (*down, *up) if not self._edges[n].static), default=0)

    def _path(self, target: str, source: str, stamp_ns: int | None = None) -> tuple[list[str], list[str]]:
        """Frames from `target`, and from `source`, up to below their nearest common ancestor.

        As in tf2, a walk upwards ends where a transform does not know the stamp: a publisher that has stopped leaves no
        loop behind. None = at any stamp.
        """
        self._check_name(target)
        self._check_name(source)
        up = self._chain(source, target, stamp_ns)
        if up[-1] == target:
            return [], up[:-1]
        down = self._chain(target, source, stamp_ns)
        common = next((name for name in up if name in down), None)
        if common is not None:
            return down[: down.index(common)], up[: up.index(common)]
        for end in (down[-1], up[-1]):
            if stamp_ns is not None and end in self._edges:
                raise self._edges[end].outside(stamp_ns, end)
        raise TransformUnavailable(
            "not_connected",
            f"frames {target} and {source} are in different trees (roots {down[-1]}, {up[-1]}): publish the transform "
            "that connects them",
        )

    def _check_name(self, name: str) -> None:
        if not name or name.startswith("/"):
            raise TransformUnavailable(
                "bad_name", f"frame '{name}' cannot be looked up: tf2 takes no empty name and none with a leading '/'"
            )
        if name not in self._edges and all(edge.parent != name for edge in self._edges.values()):
            raise TransformUnavailable(
                "unknown_frame", f"frame {name} is not in the transform tree, which has {self.frames() or 'no frames'}"
            )

    def _chain(self, name: str, end: str, stamp_ns: int | None) -> list[str]:
        """`name`, its parent, ... up to `end`, to the root, or to a frame whose transform does not know the stamp."""
        chain = [name]
        while chain[-1] != end and (edge := self._edges.get(chain[-1])) is not None:
            if stamp_ns is not None and not edge.knows(stamp_ns):
                break
            chain.append(edge.parent)
            if len(chain) > MAX_TREE_DEPTH:
                raise TransformUnavailable("not_connected", f"the parents of frame {name} form a loop: {chain[:4]}...")
        return chain

    def _climb(self, names: list[str], stamp: int) -> NDArray[np.float64]:
        """Transform from the first of `names` to the parent of the last."""
        T = np.eye(4)
        for name in names:
            T = self._edges[name].at(stamp) @ T
        return T


@dataclass
class _Edge:
    """History of T_parent_child for one child; a static edge has one entry that holds at every stamp."""

    parent: str
    static: bool
    stamps: list[int] = field(default_factory=list)
    transforms: list[NDArray[np.float64]] = field(default_factory=list)

    def insert(self, stamp: int, T_parent_child: NDArray[np.float64], history_ns: int) -> None:
        if self.stamps:  # as tf2: the history is counted from the newest transform before this one
            begin = self.stamps[-1] - history_ns
            if stamp < begin:
                return
            expired = bisect_left(self.stamps, begin)
            del self.stamps[:expired], self.transforms[:expired]
        i = bisect_left(self.stamps, stamp)
        if i < len(self.stamps) and self.stamps[i] == stamp:
            self.transforms[i] = T_parent_child
            return
        self.stamps.insert(i, stamp)
        self.transforms.insert(i, T_parent_child)

    def knows(self, stamp: int) -> bool:
        """Whether `at` can answer."""
        return self.static or self.stamps[0] <= stamp <= self.stamps[-1]

    def at(self, stamp: int) -> NDArray[np.float64]:
        """T_parent_child at a stamp that it knows."""
        if self.static:
            return self.transforms[0]
        i = bisect_left(self.stamps, stamp)
        if self.stamps[i] == stamp:
            return self.transforms[i]
        return interpolate(
            self.transforms[i - 1],
            self.transforms[i],
            (stamp - self.stamps[i - 1]) / (self.stamps[i] - self.stamps[i - 1]),
        )

    def outside(self, stamp: int, child: str) -> TransformUnavailable:
        """Why `at` cannot answer."""
        older = stamp < self.stamps[0]
        gap = (self.stamps[0] - stamp if older else stamp - self.stamps[-1]) / 1e9
        return TransformUnavailable(
            "too_old" if older else "too_new",
            f"transform {self.parent} -> {child} is asked for {gap:.3f} s "
            + (
                "before its history: raise stream.tf_history or start the camera after its tracking"
                if older
                else "after its newest one: is its publisher running, fast enough, and on the same clock?"
            ),
        )
