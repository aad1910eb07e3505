"""Keyframes for RViz: a frustum each, the path through them, and lines between those that contradict each other.

A frustum's colour tells how far the labels of its view agree with those of other views.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from s4net_core.frames import Intrinsics
from s4net_core.geometry.poses import quaternion_of
from s4net_core.keyframes import Keyframe, KeyframeBuffer

FRUSTUM_DEPTH = 0.15
"""Distance of the drawn image plane from the camera, m."""
LINE_WIDTH = 0.005
"""Width of the lines, m."""
FRUSTUM_COLOR = ColorRGBA(r=0.1, g=0.6, b=1.0, a=0.9)
"""Of a keyframe whose agreement with other views was not measured."""
PATH_COLOR = ColorRGBA(r=1.0, g=0.7, b=0.1, a=0.9)
REFUSED_COLOR = ColorRGBA(r=1.0, g=0.1, b=0.1, a=0.6)
RESEND_S = 4.0
"""Seconds after which everything is sent again."""


class KeyframeMarkers:
    """Remembers what is drawn, and makes the messages that bring listeners up to date.

    RViz forgets all markers when it is reset, or when its clock or fixed frame changes, and nobody is told. So
    everything is sent again every `RESEND_S`, and only changes in between.

    Args:
        keyframes: buffer whose keyframes are drawn.
        frame_id: world frame of the stream's poses.
        measured: gives the agreement, 0..1, by keyframe as it was measured last; older values of others stay.
    """

    def __init__(
        self, keyframes: KeyframeBuffer, frame_id: str, measured: Callable[[], Mapping[int, float]] = dict
    ) -> None:
        self._keyframes = keyframes
        self._measured = measured
        self._agreement: dict[int, float] = {}
        self._stream_frame = self._frame_id = frame_id
        self._drawn: dict[int, _Drawn] = {}
        self._refused: list[tuple[int, int]] = []
        self._complete_at = -math.inf
        self._begun = False

    def messages(self, now: float, *, newcomer: bool = False) -> list[MarkerArray]:
        """What has to be published; empty when nothing has changed.

        Args:
            now: seconds of a clock that never goes back.
            newcomer: whether a new listener has come, who needs everything.
        """
        self._frame_id = self._keyframes.frame or self._stream_frame
        views = self._keyframes.views(self._keyframes.ids())
        self._agreement = {id: share for id, share in {**self._agreement, **self._measured()}.items() if id in views}
        gone = [id for id in self._drawn if id not in views]
        new = [view for id, view in views.items() if id not in self._drawn or self._drawn[id].key != self._key(view)]
        refused = self._keyframes.refused_pairs()
        complete = newcomer or now - self._complete_at >= RESEND_S
        if not (new or gone or refused != self._refused or (complete and views)):
            return []
        for id in gone:
            del self._drawn[id]
        self._drawn.update((view.id, _Drawn(self._key(view), view.stamp, self._frustum(view))) for view in new)
        self._refused = refused
        if complete:
            self._complete_at = now
        shown = self._drawn if complete else [view.id for view in new]
        markers = [self._marker("frustum", id=id, action=Marker.DELETE) for id in gone]
        markers += [self._drawn[id].frustum for id in shown]
        messages = [MarkerArray(markers=[*markers, self._path(), self._contradictions()])]
        if not self._begun:  # what an earlier run has left; RViz warns if one message deletes all and adds
            self._begun = True
            messages.insert(0, MarkerArray(markers=[self._marker("frustum", action=Marker.DELETEALL)]))
        return messages

    def _key(self, keyframe: Keyframe) -> tuple[object, ...]:
        return (*keyframe.key, self._agreement.get(keyframe.id), self._frame_id)

    def _frustum(self, keyframe: Keyframe) -> Marker:
        color = agreement_color(self._agreement.get(keyframe.id))
        marker = self._marker("frustum", id=keyframe.id, type=Marker.LINE_LIST, color=color)
        x, y, z, w = (float(value) for value in quaternion_of(keyframe.T_world_camera))
        place = _point(*keyframe.T_world_camera[:3, 3])
        marker.pose = Pose(position=place, orientation=Quaternion(x=x, y=y, z=z, w=w))
        marker.points = frustum_lines(keyframe.intrinsics)
        return marker

    def _path(self) -> Marker:
        """Keyframes in the order in which they were seen."""
        drawn = sorted(self._drawn.values(), key=lambda view: view.stamp)
        return self._lines("path", Marker.LINE_STRIP, [view.place for view in drawn], PATH_COLOR)

    def _contradictions(self) -> Marker:
        """A line between the places of two keyframes whose depths contradict each other."""
        pairs = [pair for pair in self._refused if all(id in self._drawn for id in pair)]
        places = [self._drawn[id].place for pair in pairs for id in pair]
        return self._lines("refused_pairs", Marker.LINE_LIST, places, REFUSED_COLOR)

    def _lines(self, namespace: str, type: int, places: list[Point], color: ColorRGBA) -> Marker:
        """RViz refuses lines of fewer than two points, so that these are deleted."""
        if len(places) < 2:
            return self._marker(namespace, action=Marker.DELETE)
        marker = self._marker(namespace, type=type, color=color)
        marker.points = places
        return marker

    def _marker(
        self,
        namespace: str,
        *,
        id: int = 0,
        type: int = Marker.LINE_LIST,
        action: int = Marker.ADD,
        color: ColorRGBA = FRUSTUM_COLOR,
    ) -> Marker:
        """With stamp 0 and frame_locked: RViz places it by the newest transform, whatever its clock says."""
        marker = Marker(ns=f"keyframes/{namespace}", id=id, type=type, action=action, color=color, frame_locked=True)
        marker.header.frame_id = self._frame_id
        marker.scale.x = LINE_WIDTH
        marker.pose.orientation.w = 1.0
        return marker


@dataclass(frozen=True)
class _Drawn:
    """A keyframe as it is drawn; another key means that it or its frame has moved, or that it agrees more or less."""

    key: tuple[object, ...]
    stamp: int
    frustum: Marker

    @property
    def place(self) -> Point:
        return self.frustum.pose.position


def agreement_color(share: float | None) -> ColorRGBA:
    """Red (0) through yellow (0.5) to green (1); None = not measured."""
    if share is None:
        return FRUSTUM_COLOR
    return ColorRGBA(r=min(1.0, 2 - 2 * share), g=0.8 * min(1.0, 2 * share), b=0.0, a=FRUSTUM_COLOR.a)


def frustum_lines(intrinsics: Intrinsics) -> list[Point]:
    """End points of the eight edges of the view, in camera coordinates, metres: 16 points for a LINE_LIST."""
    size = np.array([intrinsics.width, intrinsics.height], float)
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float) * size - 0.5
    center, focal = np.array([intrinsics.cx, intrinsics.cy]), np.array([intrinsics.fx, intrinsics.fy])
    plane = [_point(x, y, FRUSTUM_DEPTH) for x, y in (corners - center) / focal * FRUSTUM_DEPTH]
    rays = [(_point(0.0, 0.0, 0.0), corner) for corner in plane]
    border = list(itertools.pairwise([*plane, plane[0]]))
    return [point for edge in (*rays, *border) for point in edge]


def _point(x: float, y: float, z: float) -> Point:
    return Point(x=float(x), y=float(y), z=float(z))
