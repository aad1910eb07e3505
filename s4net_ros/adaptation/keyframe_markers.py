"""Keyframes for RViz: one camera frustum each and the path through them, sent in small pieces."""

import itertools
from collections.abc import Iterable

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from s4net_core.errors import KeyframeError
from s4net_core.frames import Intrinsics
from s4net_core.geometry.poses import quaternion_of
from s4net_core.keyframes import Keyframe, KeyframeBuffer

FRUSTUM_DEPTH = 0.15
"""Distance of the drawn image plane from the camera, m."""
LINE_WIDTH = 0.005
"""Width of the lines, m."""
FRUSTUM_COLOR = ColorRGBA(r=0.1, g=0.6, b=1.0, a=0.9)
PATH_COLOR = ColorRGBA(r=1.0, g=0.7, b=0.1, a=0.9)


class KeyframeMarkers:
    """Remembers what was sent to the listeners, and makes the messages that bring them up to date.

    Args:
        keyframes: buffer whose keyframes are drawn.
        frame_id: world frame of the keyframes' poses.
    """

    def __init__(self, keyframes: KeyframeBuffer, frame_id: str) -> None:
        self._keyframes = keyframes
        self._frame_id = frame_id
        self._sent: dict[int, tuple[int, Point]] = {}

    def forget_listeners(self) -> None:
        """Let the next `changes` hold everything, because a new listener has come."""
        self._sent.clear()

    def changes(self, stamp: Time) -> MarkerArray:
        """New keyframes, the evicted ones as deletions, and the path if it has changed; empty when nothing has."""
        everything = not self._sent
        present = set(self._keyframes.ids())
        markers = [
            self._marker("frustum", stamp, id=id, action=Marker.DELETE) for id in self._sent if id not in present
        ]
        new = self._new_keyframes(id for id in sorted(present) if id not in self._sent)
        if not markers and not new:
            return MarkerArray()
        self._sent = {id: place for id, place in self._sent.items() if id in present}
        self._sent.update((keyframe.id, (keyframe.stamp, _place(keyframe))) for keyframe in new)
        markers += [self._frustum(keyframe, stamp) for keyframe in new]
        if everything:
            markers.insert(0, self._marker("frustum", stamp, action=Marker.DELETEALL))
        return MarkerArray(markers=[*markers, self._path(stamp)])

    def _new_keyframes(self, ids: Iterable[int]) -> list[Keyframe]:
        keyframes = []
        for id in ids:
            try:
                keyframes.append(self._keyframes.get(id))
            except KeyframeError:  # evicted by the thread that offers frames, between ids() and get()
                continue
        return keyframes

    def _frustum(self, keyframe: Keyframe, stamp: Time) -> Marker:
        marker = self._marker("frustum", stamp, id=keyframe.id, type=Marker.LINE_LIST, color=FRUSTUM_COLOR)
        x, y, z, w = (float(value) for value in quaternion_of(keyframe.T_world_camera))
        marker.pose = Pose(position=_place(keyframe), orientation=Quaternion(x=x, y=y, z=z, w=w))
        marker.points = frustum_lines(keyframe.intrinsics)
        return marker

    def _path(self, stamp: Time) -> Marker:
        """Keyframes in the order in which they were seen. RViz refuses a line of one point, so that one is deleted."""
        places = [place for _, place in sorted(self._sent.values(), key=lambda value: value[0])]
        if len(places) < 2:
            return self._marker("path", stamp, action=Marker.DELETE)
        marker = self._marker("path", stamp, type=Marker.LINE_STRIP, color=PATH_COLOR)
        marker.points = places
        return marker

    def _marker(
        self,
        namespace: str,
        stamp: Time,
        *,
        id: int = 0,
        type: int = Marker.LINE_LIST,
        action: int = Marker.ADD,
        color: ColorRGBA = FRUSTUM_COLOR,
    ) -> Marker:
        marker = Marker(ns=f"keyframes/{namespace}", id=id, type=type, action=action, color=color)
        marker.header.frame_id = self._frame_id
        marker.header.stamp = stamp
        marker.scale.x = LINE_WIDTH
        marker.pose.orientation.w = 1.0
        return marker


def frustum_lines(intrinsics: Intrinsics) -> list[Point]:
    """End points of the eight edges of the view, in camera coordinates, metres: 16 points for a LINE_LIST."""
    size = np.array([intrinsics.width, intrinsics.height], float)
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float) * size - 0.5
    center, focal = np.array([intrinsics.cx, intrinsics.cy]), np.array([intrinsics.fx, intrinsics.fy])
    plane = [_point(x, y, FRUSTUM_DEPTH) for x, y in (corners - center) / focal * FRUSTUM_DEPTH]
    rays = [(_point(0.0, 0.0, 0.0), corner) for corner in plane]
    border = list(itertools.pairwise([*plane, plane[0]]))
    return [point for edge in (*rays, *border) for point in edge]


def _place(keyframe: Keyframe) -> Point:
    x, y, z = keyframe.T_world_camera[:3, 3]
    return _point(x, y, z)


def _point(x: float, y: float, z: float) -> Point:
    return Point(x=float(x), y=float(y), z=float(z))
