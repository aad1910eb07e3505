"""Corrected trajectories: how far a pose graph has moved the poses that a stream gave earlier."""

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from s4net_core.geometry.poses import interpolate, inverse
from s4net_core.keyframes.segments import same_pose
from s4net_core.keyframes.view import Keyframe

LONGEST_TRAIL = 20_000
"""Number of poses of the stream that are remembered; older corrected poses count only at the stamps of keyframes."""
LONGEST_PAUSE_NS = 1_000_000_000
"""The stream's pose is not interpolated across a longer pause than this."""

Knots = dict[int, NDArray[np.float64]]
"""Corrections (4, 4) by stamp, nanoseconds: each maps the world as it was to the corrected world."""


class Trail:
    """The latest poses of a stream, in which the stamps of a corrected trajectory are looked up; and its correction.

    Args:
        newest: correction, (4, 4), of an earlier run of the same stream; None = there is none.

    Attributes:
        newest: correction with which a new segment begins, because a pause does not undo it; None = there is none.
    """

    def __init__(self, newest: NDArray[np.float64] | None = None) -> None:
        self.newest = newest
        self._poses: OrderedDict[int, tuple[int, NDArray[np.float64]]] = OrderedDict()
        """By stamp, the latest last: segment, and corrected pose. Poses from before time went back are among them."""
        self._stamps: deque[int] = deque(maxlen=LONGEST_TRAIL)
        """Of the views since time went back, ascending."""
        self._corrections: dict[int, NDArray[np.float64]] = {}
        """By segment: maps the stream's world to the corrected one, for views to come."""

    def corrected(self, T_world_camera: NDArray[np.float64], segment: int) -> NDArray[np.float64]:
        """Corrected pose, (4, 4), of a view to which the stream gives this pose."""
        if self.newest is not None:
            self._corrections.setdefault(segment, self.newest)
        correction = self._corrections.get(segment)
        return T_world_camera if correction is None else correction @ T_world_camera

    def add(self, stamp: int, segment: int, T_world_camera: NDArray[np.float64]) -> None:
        """Remember the pose of a view; when time goes back, earlier ones are used by `played_again` alone."""
        if self._stamps and stamp <= self._stamps[-1]:
            self._stamps.clear()
        self._stamps.append(stamp)
        self._poses[stamp] = segment, T_world_camera
        self._poses.move_to_end(stamp)
        if len(self._poses) > LONGEST_TRAIL:
            self._poses.popitem(last=False)

    def played_again(self, stamp: int) -> tuple[int, NDArray[np.float64]] | None:
        """Segment and pose that a view of this very stamp had in an earlier round; to be asked before `add`.

        Not only in the round before: frames are lost where a recording begins anew, other ones each time.
        """
        return self._poses.get(stamp)

    def knots(self, path: Mapping[int, NDArray[np.float64]]) -> dict[int, Knots]:
        """Corrections at those stamps of a corrected trajectory at which the stream's pose is known, by segment.

        Args:
            path: corrected T_world_camera, (4, 4), by stamp, nanoseconds.
        """
        stamps = list(self._stamps)
        known = []  # stamp, segment, the poses around it, and how far it lies between them
        for stamp in path:
            after = bisect_left(stamps, stamp)
            if after == len(stamps):
                continue
            time = stamps[after]
            segment, T_after = self._poses[time]
            if time == stamp:
                known.append((stamp, segment, T_after, T_after, 1.0))
            elif after > 0:
                before = stamps[after - 1]
                segment_before, T_before = self._poses[before]
                if time - before <= LONGEST_PAUSE_NS and segment_before == segment:
                    known.append((stamp, segment, T_before, T_after, (stamp - before) / (time - before)))
        if not known:
            return {}
        found: dict[int, Knots] = {}
        of_path, segments, poses_before, poses_after, shares = zip(*known, strict=True)
        T_stream = interpolate(np.stack(poses_before), np.stack(poses_after), np.array(shares))
        corrections = np.stack([path[stamp] for stamp in of_path]) @ inverse(T_stream)
        for stamp, segment, correction in zip(of_path, segments, corrections, strict=True):
            found.setdefault(segment, {})[stamp] = correction
        return found

    def move(self, knots: Mapping[int, Knots], *, follow: bool) -> None:
        """Bring the remembered poses into the corrected world.

        Args:
            knots: by segment.
            follow: whether views to come need the newest correction too; otherwise the stream gives them as they are.
        """
        for segment, own in sorted(knots.items()):
            if follow:
                self._corrections[segment] = own[max(own)] @ self._corrections.get(segment, np.eye(4))
            else:
                self._corrections.pop(segment, None)
            self.newest = self._corrections.get(segment)
            chosen = [stamp for stamp, (of_pose, _) in self._poses.items() if of_pose == segment]
            for stamp, correction in zip(chosen, at(own, chosen), strict=True):
                self._poses[stamp] = segment, correction @ self._poses[stamp][1]


def at(knots: Knots, stamps: list[int]) -> NDArray[np.float64]:
    """Corrections (N, 4, 4) at stamps, interpolated; before the first knot the first holds, after the last the last."""
    T = np.tile(np.eye(4), (len(stamps), 1, 1))
    known = sorted(knots)
    values = np.stack([knots[stamp] for stamp in known])
    if len(known) == 1 or not stamps:
        T[:] = values[0]
        return T
    seconds = (np.array(known) - known[0]) / 1e9
    wanted = np.clip((np.array(stamps) - known[0]) / 1e9, 0, seconds[-1])
    T[:, :3, :3] = Slerp(seconds, Rotation.from_matrix(values[:, :3, :3]))(wanted).as_matrix()
    T[:, :3, 3] = np.stack([np.interp(wanted, seconds, values[:, axis, 3]) for axis in range(3)], axis=1)
    return T


def moved_poses(keyframes: Mapping[int, Keyframe], knots: Mapping[int, Knots]) -> dict[int, NDArray[np.float64]]:
    """Corrected poses, (4, 4) by id, of the keyframes that corrections move by more than the warp would notice.

    Args:
        keyframes: by id.
        knots: corrections by segment.
    """
    moved = dict[int, NDArray[np.float64]]()
    for segment, own in knots.items():
        concerned = [keyframe for keyframe in keyframes.values() if keyframe.segment == segment]
        if not concerned:
            continue
        before = np.stack([keyframe.T_world_camera for keyframe in concerned])
        after = at(own, [keyframe.stamp for keyframe in concerned]) @ before
        stays = same_pose(before, after)
        moved |= {keyframe.id: T for keyframe, T, same in zip(concerned, after, stays, strict=True) if not same}
    return moved
