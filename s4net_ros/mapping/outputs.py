"""Outputs of the node that maps: the voxels, and the grid for navigation; latched, so that late listeners get all."""

from nav_msgs.msg import OccupancyGrid
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from s4net_core.config import MapSettings
from s4net_core.labels import LabelSpace
from s4net_core.mapping import MapPoints
from s4net_core.mapping.grid import blocking, grid_of
from s4net_ros.mapping.messages import grid_message, map_points_message
from s4net_ros.qos import latched_qos


class MapOutputs:
    """Topics ``semantic_map/points`` and ``semantic_map/grid``.

    Args:
        node: publishes only while it is active.
        space: classes of the map.
        settings: which classes block, and where.
    """

    def __init__(self, node: LifecycleNode, space: LabelSpace, settings: MapSettings) -> None:
        self._node = node
        self._settings = settings
        self._blocks, unknown = blocking(space, settings.passable)
        if unknown:
            node.get_logger().warning(f"map.passable names classes that the weights do not have: {', '.join(unknown)}")
        self._points = node.create_lifecycle_publisher(PointCloud2, "semantic_map/points", latched_qos())
        self._grid = node.create_lifecycle_publisher(OccupancyGrid, "semantic_map/grid", latched_qos())

    def publish(self, points: MapPoints, frame: str) -> None:
        """Publish both.

        Args:
            points: of the whole map.
            frame: in which it is.
        """
        header = Header(frame_id=frame, stamp=self._node.get_clock().now().to_msg())
        self._points.publish(map_points_message(points, header))
        grid = grid_of(points, self._blocks, self._settings)
        self._grid.publish(grid_message(grid, self._settings.voxel_size, header))

    def destroy(self) -> None:
        """End both topics."""
        for publisher in (self._points, self._grid):
            self._node.destroy_lifecycle_publisher(publisher)
