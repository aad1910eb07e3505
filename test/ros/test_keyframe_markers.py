"""Keyframes as RViz shows them."""

import dataclasses

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("visualization_msgs.msg")

import numpy as np
from scenes import make_intrinsics, make_room_frames
from visualization_msgs.msg import Marker

from s4net_core.config import Settings
from s4net_core.keyframes import KeyframeBuffer
from s4net_ros.adaptation.keyframe_markers import (
    FRUSTUM_COLOR,
    FRUSTUM_DEPTH,
    RESEND_S,
    KeyframeMarkers,
    frustum_lines,
)

ADD, DELETE, DELETEALL = Marker.ADD, Marker.DELETE, Marker.DELETEALL


def xyz(points):
    return np.array([(p.x, p.y, p.z) for p in points])


@pytest.fixture
def frames():
    return make_room_frames(12, 64, 48, seed=5)[::3]


@pytest.fixture
def buffer():
    settings = Settings()
    settings.keyframes.min_sharpness = 0.0
    return KeyframeBuffer(settings.keyframes, settings.geometry, min_overlap=0.25)


def actions(message, namespace="keyframes/frustum"):
    return [(m.action, m.id) for m in message.markers if m.ns == namespace]


def test_a_frustum_spans_exactly_the_image():
    lens = make_intrinsics(64, 48)
    lines = xyz(frustum_lines(lens)).reshape(8, 2, 3)
    np.testing.assert_array_equal(lines[:4, 0], np.zeros((4, 3)))
    corners = lines[:4, 1]
    pixels = corners @ lens.matrix.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    np.testing.assert_allclose(pixels, [(-0.5, -0.5), (63.5, -0.5), (63.5, 47.5), (-0.5, 47.5)])
    np.testing.assert_allclose(corners[:, 2], FRUSTUM_DEPTH)
    np.testing.assert_allclose(lines[4:, 0], corners)
    np.testing.assert_allclose(lines[4:, 1], np.roll(corners, -1, axis=0))


def all_of(messages):
    return [marker for message in messages for marker in message.markers]


def test_a_frustum_stands_where_the_camera_was(buffer, frames):
    buffer.offer(frames[0])
    (marker,) = (m for m in all_of(KeyframeMarkers(buffer, "odom").messages(0.0)) if m.action == ADD)
    q, T = marker.pose.orientation, frames[0].T_world_camera
    # Rotation of the optical axis by the quaternion, written out.
    axis = [2 * (q.x * q.z + q.w * q.y), 2 * (q.y * q.z - q.w * q.x), 1 - 2 * (q.x**2 + q.y**2)]
    np.testing.assert_allclose(axis, T[:3, 2], atol=1e-9)
    np.testing.assert_allclose(xyz([marker.pose.position])[0], T[:3, 3])
    assert (marker.header.frame_id, marker.type) == ("odom", Marker.LINE_LIST)


def test_rviz_places_markers_by_the_newest_transform(buffer, frames):
    for frame in frames[:3]:
        buffer.offer(frame)
    for marker in all_of(KeyframeMarkers(buffer, "odom").messages(0.0)):
        assert marker.frame_locked
        assert (marker.header.stamp.sec, marker.header.stamp.nanosec) == (0, 0)


def test_only_what_is_new_is_sent_after_a_message_that_deletes_all(buffer, frames):
    markers = KeyframeMarkers(buffer, "odom")
    assert markers.messages(0.0) == []
    first = buffer.offer(frames[0]).id
    deletion, message = markers.messages(1.0)
    assert [m.action for m in deletion.markers] == [DELETEALL]
    assert actions(message) == [(ADD, first)]
    assert markers.messages(2.0) == []
    second = buffer.offer(frames[1]).id
    (message,) = markers.messages(3.0)
    assert actions(message) == [(ADD, second)]
    (path,) = (m for m in message.markers if m.ns == "keyframes/path")
    np.testing.assert_allclose(xyz(path.points), [f.T_world_camera[:3, 3] for f in frames[:2]])


def test_what_is_gone_is_deleted_with_its_place_in_the_path(buffer, frames):
    markers = KeyframeMarkers(buffer, "odom")
    ids = [buffer.offer(frame).id for frame in frames[:3]]
    markers.messages(0.0)
    buffer.clear()
    new = buffer.offer(dataclasses.replace(frames[3], stamp=frames[3].stamp)).id
    (message,) = markers.messages(1.0)
    assert actions(message) == [*((DELETE, id) for id in ids), (ADD, new)]
    assert actions(message, "keyframes/path") == [(DELETE, 0)]  # one place is no line


def test_who_listens_anew_or_was_reset_gets_everything(buffer, frames):
    markers = KeyframeMarkers(buffer, "odom")
    everything = [(ADD, buffer.offer(frame).id) for frame in frames[:2]]
    markers.messages(0.0)
    (message,) = markers.messages(1.0, newcomer=True)
    assert actions(message) == everything
    assert markers.messages(1.0 + RESEND_S - 0.1) == []
    (message,) = markers.messages(1.0 + RESEND_S)
    assert actions(message) == everything
    assert RESEND_S < 5


def test_a_moved_keyframe_is_drawn_where_it_is(buffer, frames):
    markers = KeyframeMarkers(buffer, "odom")
    ids = [buffer.offer(frame).id for frame in frames[:2]]
    markers.messages(0.0)
    T = frames[1].T_world_camera.copy()
    T[0, 3] += 0.5
    buffer.move({frames[0].stamp: frames[0].T_world_camera, frames[1].stamp: T})
    (message,) = markers.messages(1.0)
    (marker,) = (m for m in message.markers if m.ns == "keyframes/frustum")
    assert marker.id == ids[1]
    np.testing.assert_allclose(xyz([marker.pose.position])[0], T[:3, 3])


def test_keyframes_that_moved_to_another_world_are_all_drawn_there(buffer, frames):
    markers = KeyframeMarkers(buffer, "odom")
    drawn = [(ADD, buffer.offer(frame).id) for frame in frames[:2]]
    markers.messages(0.0)
    T = frames[1].T_world_camera.copy()
    T[0, 3] += 0.5
    buffer.move({frames[0].stamp: frames[0].T_world_camera, frames[1].stamp: T}, frame="map")
    (message,) = markers.messages(1.0)
    assert actions(message) == drawn  # the first as well, which has not moved
    assert {marker.header.frame_id for marker in message.markers} == {"map"}
    buffer.clear()
    buffer.offer(frames[2])
    (message,) = markers.messages(2.0)
    assert {marker.header.frame_id for marker in message.markers} == {"odom"}


def test_the_colour_of_a_keyframe_tells_how_far_it_agrees_with_others(buffer, frames):
    measured = {}
    markers = KeyframeMarkers(buffer, "odom", lambda: measured)
    first, second = (buffer.offer(frame).id for frame in frames[:2])

    def colors(messages):
        frustums = [m for m in all_of(messages) if m.ns == "keyframes/frustum" and m.action == ADD]
        return {m.id: tuple(round(one, 3) for one in (m.color.r, m.color.g, m.color.b)) for m in frustums}

    not_measured = (FRUSTUM_COLOR.r, FRUSTUM_COLOR.g, FRUSTUM_COLOR.b)
    assert colors(markers.messages(0.0)) == {first: not_measured, second: not_measured}
    measured = {first: 0.0, 99: 0.5}  # 99 was evicted
    assert colors(markers.messages(1.0)) == {first: (1.0, 0.0, 0.0)}
    measured = {second: 1.0}  # the last measurement had other views
    assert colors(markers.messages(2.0)) == {second: (0.0, 0.8, 0.0)}
    assert markers.messages(3.0) == []
    assert colors(markers.messages(RESEND_S + 1)) == {first: (1.0, 0.0, 0.0), second: (0.0, 0.8, 0.0)}


def test_views_that_contradict_each_other_are_joined_by_a_line_of_another_colour(buffer, frames):
    for frame in frames[:2]:
        buffer.offer(frame)
    wrong = dataclasses.replace(frames[2], depth=frames[0].depth)
    buffer.offer(wrong)
    pairs = buffer.refused_pairs()
    assert pairs
    lines = [m for m in all_of(KeyframeMarkers(buffer, "odom").messages(0.0)) if m.ns == "keyframes/refused_pairs"]
    places = [buffer.get(id).T_world_camera[:3, 3] for pair in pairs for id in pair]
    np.testing.assert_allclose(xyz(lines[0].points), places)
    assert lines[0].color != FRUSTUM_COLOR
