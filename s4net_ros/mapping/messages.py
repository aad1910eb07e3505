"""The semantic map as messages."""

import array

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Quaternion, Vector3
from nav_msgs.msg import MapMetaData, OccupancyGrid
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox3D, Detection3D, Detection3DArray, ObjectHypothesis, ObjectHypothesisWithPose

from s4net_core.mapping.grid import Grid
from s4net_core.mapping.points import MapPoints, Place
from s4net_ros.conversions import cloud_message, packed_color

_POINT = np.dtype(
    [("x", "f4"), ("y", "f4"), ("z", "f4"), ("rgb", "u4"), ("label", "u4"), ("confidence", "f4")],
)


def map_points_message(points: MapPoints, header: Header) -> PointCloud2:
    """Voxels -> PointCloud2 with fields x, y, z, rgb, label, confidence.

    Args:
        points: of the map.
        header: in whose frame the map is.
    """
    cloud = np.empty((1, len(points)), _POINT)
    for axis, name in enumerate("xyz"):
        cloud[name][0] = points.xyz[:, axis]
    cloud["rgb"], cloud["label"], cloud["confidence"] = packed_color(points.color), points.label, points.confidence
    return cloud_message(cloud, header, is_dense=True)


def grid_message(grid: Grid, resolution: float, header: Header) -> OccupancyGrid:
    """The map from above -> OccupancyGrid: 100 = blocked, 0 = free, -1 = unknown.

    Args:
        grid: of the map.
        resolution: edge of a cell, metres.
        header: in whose frame the map is.
    """
    height, width = grid.cells.shape
    x, y = grid.corner
    info = MapMetaData(resolution=resolution, width=width, height=height)
    info.map_load_time = header.stamp
    info.origin = Pose(position=Point(x=x, y=y), orientation=Quaternion(w=1.0))
    return OccupancyGrid(header=header, info=info, data=array.array("b", grid.cells.tobytes()))


def detections_message(places: list[Place], class_id: int, header: Header) -> Detection3DArray:
    """Places of one class -> Detection3DArray; ``class_id`` of a hypothesis is the id as text, as in label_info.

    Args:
        places: of the map.
        class_id: of the class.
        header: in whose frame the map is.
    """
    detections = []
    for number, place in enumerate(places):
        pose = Pose(position=Point(**dict(zip("xyz", place.center, strict=True))), orientation=Quaternion(w=1.0))
        size = Vector3(**dict(zip("xyz", place.size, strict=True)))
        hypothesis = ObjectHypothesis(class_id=str(class_id), score=place.confidence)
        result = ObjectHypothesisWithPose(hypothesis=hypothesis, pose=PoseWithCovariance(pose=pose))
        box = BoundingBox3D(center=pose, size=size)
        detections.append(Detection3D(header=header, results=[result], bbox=box, id=str(number)))
    return Detection3DArray(header=header, detections=detections)
