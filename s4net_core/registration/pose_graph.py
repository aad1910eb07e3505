"""Poses of keyframes from the ties between them: the largest connected group, solved by Open3D's pose graph."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from s4net_core.config import RegistrationSettings
from s4net_core.geometry.poses import inverse
from s4net_core.registration.alignment import information
from s4net_core.registration.library import open3d
from s4net_core.registration.tracker import Follower, Tie
from s4net_core.registration.view import PreparedView

EDGE_PRUNE = 0.25
"""Loops with less confidence, 0..1, in the solved graph are dropped (Open3D's default)."""


def largest_group(ties: Sequence[Tie], followers: Sequence[Follower]) -> list[int]:
    """Keyframes of the connected group with the most views, in ascending order."""
    parents = {follower.keyframe: follower.keyframe for follower in followers}

    def root(keyframe: int) -> int:
        while parents[keyframe] != keyframe:
            keyframe = parents[keyframe]
        return keyframe

    for tie in ties:
        parents[root(tie.moving)] = root(tie.fixed)
    sizes = Counter(root(follower.keyframe) for follower in followers)
    largest = max(sizes, key=lambda keyframe: sizes[keyframe], default=None)
    return sorted(keyframe for keyframe in parents if root(keyframe) == largest)


def solve(
    views: Sequence[PreparedView], keyframes: Sequence[int], ties: Sequence[Tie], settings: RegistrationSettings
) -> tuple[dict[int, NDArray[np.float64]], list[Tie]]:
    """Find the poses that fit all ties best.

    Args:
        views: keyframes by their position.
        keyframes: positions of the keyframes to solve for.
        ties: between these keyframes; they connect all of them.
        settings: group `registration`.

    Returns:
        T_world_camera (4, 4) float64 by position, where the first keyframe's camera is the world, and the ties that
        the solution keeps.
    """
    if not ties:
        return {keyframe: np.eye(4) for keyframe in keyframes}, []
    first = _chained(keyframes, ties)
    o3d = open3d().pipelines.registration
    node_of = {keyframe: node for node, keyframe in enumerate(keyframes)}
    graph = o3d.PoseGraph()
    for keyframe in keyframes:
        graph.nodes.append(o3d.PoseGraphNode(first[keyframe]))
    for tie in ties:
        firmness = information(views[tie.moving], views[tie.fixed], tie.alignment, settings)
        ends = node_of[tie.moving], node_of[tie.fixed]
        graph.edges.append(o3d.PoseGraphEdge(*ends, tie.alignment.T_fixed_moving, firmness, uncertain=tie.loop))
    o3d.global_optimization(
        graph,
        o3d.GlobalOptimizationLevenbergMarquardt(),
        o3d.GlobalOptimizationConvergenceCriteria(),
        o3d.GlobalOptimizationOption(
            max_correspondence_distance=settings.max_distance, edge_prune_threshold=EDGE_PRUNE, reference_node=0
        ),
    )
    believed = {(edge.source_node_id, edge.target_node_id) for edge in graph.edges}
    solved = {keyframe: np.array(graph.nodes[node].pose) for keyframe, node in node_of.items()}
    return solved, [tie for tie in ties if (node_of[tie.moving], node_of[tie.fixed]) in believed]


def _chained(keyframes: Sequence[int], ties: Sequence[Tie]) -> dict[int, NDArray[np.float64]]:
    """Initial poses, chained from tie to tie. Followed ties come before loops, because they are more certain."""
    known = {keyframes[0]: np.eye(4)}
    ordered = sorted(ties, key=lambda tie: tie.loop)
    while len(known) < len(keyframes):
        tie = next(tie for tie in ordered if (tie.moving in known) != (tie.fixed in known))
        T_fixed_moving = tie.alignment.T_fixed_moving
        if tie.fixed in known:
            known[tie.moving] = known[tie.fixed] @ T_fixed_moving
        else:
            known[tie.fixed] = known[tie.moving] @ inverse(T_fixed_moving)
    return known
