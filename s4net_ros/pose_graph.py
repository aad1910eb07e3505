"""Corrected poses by their stamps, from the messages in which pose graphs publish them."""

from typing import Any

from geometry_msgs.msg import Pose
from nav_msgs.msg import Path

from s4net_core.errors import S4NetError, SettingsError
from s4net_core.io.bags.messages import stamp_ns

MOST_NODES = 20_000
"""Nodes of a graph whose stamps are remembered, the newest; at one node a second, five and a half hours."""


def map_graph() -> type[Any]:
    """The message type rtabmap_msgs/MapGraph.

    Raises:
        SettingsError: its package is not installed.
    """
    try:
        from rtabmap_msgs.msg import MapGraph
    except ImportError as error:
        raise SettingsError(
            f"stream.corrections is map_graph, but rtabmap_msgs cannot be imported ({error}): install it (sudo apt-get "
            "install ros-$ROS_DISTRO-rtabmap-msgs) and source its setup.bash, or set stream.corrections to path"
        ) from error
    kind: type[Any] = MapGraph
    return kind


def poses_of_path(path: Path) -> dict[int, Pose]:
    """Poses by stamp, nanoseconds.

    Raises:
        S4NetError: all poses have one stamp, so that nobody can tell which views they belong to.
    """
    poses = {stamp_ns(one.header): one.pose for one in path.poses}
    if len(path.poses) > 1 and len(poses) == 1:
        raise S4NetError(
            "all of them have the same stamp, as in rtabmap's mapPath: set stream.corrections to map_graph and remap "
            "pose_corrections to rtabmap's mapGraph"
        )
    return poses


class GraphPoses:
    """Finds the stamps of the nodes of rtabmap's graph, which its MapGraph leaves out.

    rtabmap publishes the graph after an image that it has processed, with the stamp of that image. It never uses the
    id of a node twice, and ids ascend. So a largest id that was not there before belongs to the stamp of the message.
    Nodes that were there when the first graph came stay unknown; their views are moved like those around them.
    """

    def __init__(self) -> None:
        self._stamps: dict[int, int] = {}
        self._largest: int | None = None
        """Id, of the graphs before; None = there was none."""

    def __call__(self, graph: Any) -> dict[int, Pose]:
        """Poses of a rtabmap_msgs/MapGraph by stamp, nanoseconds: of those nodes whose stamps are known.

        Raises:
            S4NetError: it has not as many ids as poses.
        """
        if len(graph.poses_id) != len(graph.poses):
            raise S4NetError(f"there are {len(graph.poses_id)} ids for them")
        largest = max(graph.poses_id, default=0)
        if self._largest is not None and largest < self._largest:  # a new map, which counts anew
            self._stamps.clear()
        elif self._largest is not None and largest > self._largest:
            self._stamps[largest] = stamp_ns(graph.header)
            if len(self._stamps) > MOST_NODES:
                del self._stamps[next(iter(self._stamps))]
        self._largest = largest
        nodes = zip(graph.poses_id, graph.poses, strict=True)
        return {self._stamps[id]: pose for id, pose in nodes if id in self._stamps}
