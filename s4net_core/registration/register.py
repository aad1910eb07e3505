"""Poses for a capture that has none: views are tied to keyframes, keyframes to each other; a pose graph fits all."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from s4net_core.config import RegistrationSettings, Settings
from s4net_core.errors import BadFrame, RegistrationError
from s4net_core.frames import Frame
from s4net_core.geometry.poses import inverse
from s4net_core.registration.alignment import Alignment, measure
from s4net_core.registration.pose_graph import largest_group, solve
from s4net_core.registration.tracker import Tie, Tracker
from s4net_core.registration.view import prepare

MIN_FRAMES = 2
"""Smallest number of views with poses, for a result and for a comparison of trajectories."""


@dataclass(frozen=True)
class Registration:
    """Poses of the views that could be tied to each other.

    Args:
        poses: T_world_camera (4, 4) float64 by stamp; the first view's camera is the world.
        frames: number of views that were tried.
        keyframes: number of keyframes among them.
        loops: number of ties beyond the followed ones that agree with the rest.
        pruned: number of such ties that did not agree and were dropped.
        fitness: share of a view's points, 0..1, on the surface of the keyframe to which it is tied, mean over all
            ties, with the poses of the solved graph.
        rmse: distance of these points from that surface, metres, root mean square over the ties.
    """

    poses: dict[int, NDArray[np.float64]]
    frames: int
    keyframes: int
    loops: int
    pruned: int
    fitness: float
    rmse: float

    def at(self, stamp: int, number: int) -> NDArray[np.float64]:
        """T_world_camera of the view at `stamp`; `open_capture` calls this for each frame.

        Raises:
            BadFrame: ``not_registered``, the view has no pose.
        """
        if stamp not in self.poses:
            raise BadFrame("not_registered", f"the view at {stamp} ns could not be tied to the others")
        return self.poses[stamp]


def register(
    frames: Iterable[Frame], settings: Settings, *, on_frame: Callable[[], None] = lambda: None
) -> Registration:
    """Find the poses of RGB-D views, for the largest group that ties connect.

    Args:
        frames: in time order, with depth; their poses are not looked at, see `trajectory.UNKNOWN_POSES`.
        settings: groups `registration`, `keyframes` (when a view is a new keyframe), `geometry.min_depth`.
        on_frame: called after every view.

    Raises:
        RegistrationError: Open3D is not installed, a view has no depth, the lens changes, or no two views could be
            tied to each other.
    """
    tracker = Tracker(settings)
    for frame in frames:
        tracker.add(prepare(frame, settings))
        on_frame()
    tried = len(tracker.followers)
    group = largest_group(tracker.ties, tracker.followers)
    ties = [tie for tie in tracker.ties if tie.moving in group]
    T_world, kept = solve(tracker.keyframes, group, ties, settings.registration)
    pruned = len(ties) - len(kept)
    followers = [follower for follower in tracker.followers if follower.keyframe in group]
    group = largest_group(kept, followers)  # a dropped loop may have split the group
    members = [follower for follower in followers if follower.keyframe in group]
    if len(members) < MIN_FRAMES:
        raise RegistrationError(
            f"no two of {tried} images could be tied to each other: is depth aligned to colour and in metres, and "
            "do textured views overlap? If so, lower registration.min_fitness"
        )
    kept = [tie for tie in kept if tie.moving in group]
    poses = {m.stamp: T_world[m.keyframe] @ m.alignment.T_fixed_moving for m in members}
    T_first_world = inverse(poses[members[0].stamp])
    measured = _residuals(tracker, kept, T_world, settings.registration)
    measured += [m.alignment for m in members if m.stamp != tracker.keyframes[m.keyframe].stamp]
    return Registration(
        poses={stamp: _rigid(T_first_world @ T) for stamp, T in poses.items()},
        frames=tried,
        keyframes=len(group),
        loops=sum(tie.loop for tie in kept),
        pruned=pruned,
        fitness=float(np.mean([tie.fitness for tie in measured])),
        rmse=float(np.sqrt(np.mean([tie.rmse**2 for tie in measured]))),
    )


def trajectory_error(found: Mapping[int, NDArray[np.float64]], true: Mapping[int, NDArray[np.float64]]) -> float:
    """Absolute trajectory error, metres rms, between positions of the same stamp after the best rigid fit.

    Args:
        found, true: T_world_camera (4, 4) by stamp, each in a world of its own.

    Raises:
        RegistrationError: the trajectories share fewer than two stamps.
    """
    stamps = sorted(found.keys() & true.keys())
    if len(stamps) < MIN_FRAMES:
        raise RegistrationError(f"the trajectories share {len(stamps)} pose(s), which is too few to compare them")
    a, b = (np.array([poses[stamp][:3, 3] for stamp in stamps]) for poses in (found, true))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    # On a straight path one angle is free, and SciPy warns of it. That angle does not change the error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        rotation, _ = Rotation.align_vectors(b, a)
    return float(np.sqrt(((rotation.apply(a) - b) ** 2).sum(axis=1).mean()))


def _residuals(
    tracker: Tracker, ties: list[Tie], T_world: dict[int, NDArray[np.float64]], settings: RegistrationSettings
) -> list[Alignment]:
    """How well the views of every tie fit with the solved poses."""
    views = tracker.keyframes
    return [
        measure(views[tie.moving], views[tie.fixed], inverse(T_world[tie.fixed]) @ T_world[tie.moving], settings)
        for tie in ties
    ]


def _rigid(T: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest rigid transform: rounding makes products of many rotations slightly non-rigid."""
    U, _, Vt = np.linalg.svd(T[:3, :3])
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = U @ Vt, T[:3, 3]
    return rigid
