"""Topics to frames: with a stand-in for the node, so that arrival is exact, and once over real topics."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="frame assembly needs rclpy")
pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not built: run `make build`")

import rclpy.logging
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from s4net_core.config import StreamSettings
from s4net_core.frames import Frame, Intrinsics
from s4net_core.io.images.codec import encode_compressed_color, encode_compressed_depth
from s4net_ros.conversions import camera_info_message, image_message, transform_message
from s4net_ros.diagnostics import StallWatch
from s4net_ros.frame_assembly import EVENTS_PER_IMAGE, FrameAssembly

MS = 1_000_000
S = 1_000_000_000
STEP = 33 * MS
H, W = 6, 10
FRAME = "camera_color_optical_frame"
INTRINSICS = Intrinsics(W, H, 8.0, 8.0, 4.5, 2.5)


class Subscription:
    def __init__(self, topic: str, callback: Callable[[Any], None], qos: Any) -> None:
        self.topic_name, self.callback, self.qos_profile = topic, callback, qos


class Node:
    """Hands messages to the callbacks of its subscriptions, at once and in the caller's thread."""

    def __init__(self) -> None:
        self.subscriptions: dict[str, Subscription] = {}

    def create_subscription(
        self, msg_type: type, topic: str, callback: Any, qos_profile: Any, **_: Any
    ) -> Subscription:
        self.subscriptions[topic] = Subscription(topic, callback, qos_profile)
        return self.subscriptions[topic]

    def destroy_subscription(self, subscription: Subscription) -> None:
        del self.subscriptions[subscription.topic_name]

    def get_logger(self) -> Any:
        return rclpy.logging.get_logger("test")

    def deliver(self, topic: str, message: Any) -> None:
        self.subscriptions[topic].callback(message)


def header(stamp: int, frame: str = FRAME) -> Header:
    return Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id=frame)


def color_message(stamp: int, frame: str = FRAME) -> Image:
    return image_message(np.full((H, W, 3), 90, np.uint8), "rgb8", header(stamp, frame))


def depth_message(stamp: int, millimetres: int = 2000, frame: str = FRAME, shape: tuple[int, int] = (H, W)) -> Image:
    return image_message(np.full(shape, millimetres, np.uint16), "16UC1", header(stamp, frame))


def transform(parent: str, child: str, stamp: int, x: float) -> TFMessage:
    T = np.eye(4)
    T[0, 3] = x
    return TFMessage(transforms=[transform_message(T, header(stamp, parent), child)])


class Camera:
    """A camera on a moving base, as topics; tests change one thing at a time."""

    def __init__(self, *, with_depth: bool = True, **settings: Any) -> None:
        self.node = Node()
        stream = StreamSettings(**settings)
        self.assembly = FrameAssembly(self.node, stream, with_depth=with_depth)  # type: ignore[arg-type]
        self.node.deliver("/tf_static", transform("base", FRAME, 0, 0.5))
        self.frames: list[Frame] = []

    def shoot(
        self, stamp: int, *, color: Any = None, depth: Any = None, info: Any = None, x: float | None = 0.0
    ) -> None:
        if x is not None:
            self.node.deliver("/tf", transform("odom", "base", stamp, x))
        self.node.deliver("color/camera_info", info or camera_info_message(INTRINSICS, header(stamp)))
        self.node.deliver("color/image_raw", color or color_message(stamp))
        self.node.deliver("depth/image_raw", depth or depth_message(stamp))
        self.poll()

    def poll(self) -> None:
        self.frames += self.assembly.poll()

    @property
    def stamps(self) -> list[int]:
        return [frame.stamp for frame in self.frames]


def test_four_topics_become_a_frame():
    camera = Camera()
    camera.shoot(S, x=3.0)
    (frame,) = camera.frames
    assert (frame.stamp, frame.frame_id, frame.intrinsics) == (S, FRAME, INTRINSICS)
    assert frame.depth is not None
    assert (frame.color == 90).all()
    assert (frame.depth == 2).all()
    np.testing.assert_allclose(frame.T_world_camera[:3, 3], [3.5, 0, 0])
    assert (camera.assembly.received, camera.assembly.delivered, camera.assembly.skipped) == (1, 1, {})


def test_without_a_depth_camera_three_topics_become_a_frame():
    camera = Camera(with_depth=False)
    assert "depth/image_raw" not in camera.node.subscriptions
    for i in range(3):
        stamp = S + i * STEP
        camera.node.deliver("/tf", transform("odom", "base", stamp, 3.0))
        camera.node.deliver("color/camera_info", camera_info_message(INTRINSICS, header(stamp)))
        camera.node.deliver("color/image_raw", color_message(stamp))
        camera.poll()
    assert camera.stamps == [S, S + STEP, S + 2 * STEP]
    assert all(frame.depth is None for frame in camera.frames)
    assert (camera.assembly.received, camera.assembly.delivered, camera.assembly.skipped) == (3, 3, {})


def test_without_a_depth_camera_time_may_go_back():
    camera = Camera(with_depth=False)
    for stamp in (100 * S, S):
        camera.node.deliver("/tf", transform("odom", "base", stamp, 3.0))
        camera.node.deliver("color/camera_info", camera_info_message(INTRINSICS, header(stamp)))
        camera.node.deliver("color/image_raw", color_message(stamp))
        camera.poll()
    assert camera.stamps == [100 * S, S]


def test_a_frame_waits_for_its_pose_without_blocking_anybody():
    camera = Camera()
    for i in range(3):
        camera.shoot(S + i * STEP, x=None)
    assert camera.frames == []
    camera.node.deliver("/tf", transform("odom", "base", S, 0.0))
    camera.node.deliver("/tf", transform("odom", "base", S + 2 * STEP, 1.0))
    camera.poll()
    assert camera.stamps == [S, S + STEP, S + 2 * STEP]
    assert camera.frames[1].T_world_camera[0, 3] == pytest.approx(1.0)


def test_colour_alone_is_counted_not_lost():
    camera = Camera(sync_queue=5)
    for i in range(12):
        camera.node.deliver("color/image_raw", color_message(S + i * STEP))
    camera.poll()
    assert camera.assembly.received == 12
    assert camera.assembly.skipped == {"unmatched": 7}  # five may still find their partner


@pytest.mark.parametrize(
    ("reason", "bad"),
    [
        ("depth_frame", {"depth": depth_message(S + STEP, frame="camera_depth_optical_frame")}),
        ("depth_size", {"depth": depth_message(S + STEP, shape=(W, H))}),
        ("no_depth", {"depth": depth_message(S + STEP, millimetres=0)}),
        ("depth_format", {"depth": image_message(np.zeros((H, W), np.uint8), "mono8", header(S + STEP))}),
        ("color_format", {"color": image_message(np.zeros((H, W), np.uint16), "16UC1", header(S + STEP))}),
        ("intrinsics", {"info": CameraInfo(header=header(S + STEP), width=W, height=H)}),
        ("intrinsics_size", {"info": camera_info_message(INTRINSICS.scaled(640, 480), header(S + STEP))}),
        ("pose_jump", {"x": 40.0}),
    ],
)
def test_a_bad_frame_is_counted_and_the_next_one_is_fine(reason: str, bad: dict[str, Any]):
    camera = Camera()
    camera.shoot(S)
    camera.shoot(S + STEP, **bad)
    camera.shoot(S + 20 * STEP)
    assert camera.assembly.skipped == {reason: 1}
    assert camera.assembly.details[reason]
    assert camera.stamps == [S, S + 20 * STEP]


def test_short_data_is_counted():
    camera = Camera()
    color = color_message(S)
    color.data = color.data[:-1]
    camera.shoot(S, color=color)
    assert camera.assembly.skipped == {"color_format": 1}


def test_missing_tf_is_counted_and_names_the_frames():
    camera = Camera(pose_wait=0.1)
    for i in range(10):
        camera.shoot(S + i * STEP, x=None)
    assert camera.assembly.skipped["no_pose"] >= 5
    assert "odom" in camera.assembly.details["no_pose"]


def test_a_frame_from_before_the_tf_history_is_dropped_at_once():
    camera = Camera()
    camera.node.deliver("/tf", transform("odom", "base", 5 * S, 0.0))
    camera.node.deliver("/tf", transform("odom", "base", 6 * S, 0.0))
    camera.shoot(S, x=None)
    assert camera.assembly.skipped == {"no_pose": 1}


@pytest.mark.parametrize("sync_slop", [0.0, 0.017])
@pytest.mark.parametrize("transforms", ["first", "last"])
def test_a_looped_bag_goes_on_with_the_poses_of_the_new_round(transforms: str, sync_slop: float):
    camera = Camera(sync_slop=sync_slop, sync_queue=5)
    for lap in range(3):
        for i in range(60):
            camera.shoot(S + i * STEP, x=float(lap) if transforms == "first" else None)
            if transforms == "last":
                camera.node.deliver("/tf", transform("odom", "base", S + i * STEP, float(lap)))
                camera.poll()
        for k in range(6):  # a full queue of stamps that no earlier one can push out
            camera.node.deliver("color/image_raw", color_message(S + 59 * STEP + (k + 1) * MS))
    assert camera.stamps == [S + i * STEP for i in range(60)] * 3
    assert [frame.T_world_camera[0, 3] for frame in camera.frames] == [0.5] * 60 + [1.5] * 60 + [2.5] * 60
    camera.poll()
    assert camera.assembly.received == 3 * 66
    waiting = camera.assembly.received - camera.assembly.delivered - sum(camera.assembly.skipped.values())
    assert 0 <= waiting <= 5


def test_transforms_of_the_new_round_may_come_before_its_first_image():
    camera = Camera()
    for i in range(100):
        camera.shoot(S + i * STEP, x=0.0)
    for i in range(10):
        camera.node.deliver("/tf", transform("odom", "base", S + i * STEP, 7.0))
    for i in range(10):
        camera.shoot(S + i * STEP, x=None)
    assert [frame.T_world_camera[0, 3] for frame in camera.frames[100:]] == [7.5] * 10


TOPICS = ("/tf", "color/camera_info", "color/image_raw", "depth/image_raw")
MAKE: dict[str, Callable[[int], Any]] = {
    "/tf": lambda stamp: transform("odom", "base", stamp, 7.0),
    "color/camera_info": lambda stamp: camera_info_message(INTRINSICS, header(stamp)),
    "color/image_raw": color_message,
    "depth/image_raw": depth_message,
}


@pytest.fixture(params=["stand-in", "like tf2"])
def tf_history(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """For `StreamSettings`; tf2 knows no jumps of time, and refuses what is older than its history."""
    if request.param == "stand-in":
        return 30.0
    monkeypatch.setattr("s4net_core.geometry.transforms.TIME_JUMP_NS", 1 << 62)
    return 1.0


@pytest.mark.parametrize(("sync_slop", "step"), [(0.0, STEP), (0.017, 600 * MS)])
@pytest.mark.parametrize("order", list(itertools.permutations(TOPICS)))
def test_whatever_comes_first_from_behind_a_jump_no_frame_of_the_new_time_is_lost(
    order: tuple[str, ...], sync_slop: float, step: int, tf_history: float
):
    """Topics have no common order: each may be ahead of the others by some messages when time goes back."""
    camera = Camera(sync_slop=sync_slop, pose_wait=5.0, tf_history=max(tf_history, 10.0))
    old, new = [50 * S + i * STEP for i in range(10)], [S + i * step for i in range(10)]
    for stamp in old:
        camera.node.deliver("/tf", transform("map", "robot", stamp + S, 0.0))  # dated ahead, as amcl does
        camera.node.deliver("/tf", transform("map", "other", stamp + 1000 * S, 0.0))  # on another clock
        camera.shoot(stamp)
    for part in (new[:4], new[4:]):
        for topic in order:
            for stamp in part:
                if topic == "/tf":
                    camera.node.deliver("/tf", transform("map", "robot", stamp + S, 0.0))
                    camera.node.deliver("/tf", transform("map", "other", stamp + 1005 * S, 0.0))
                camera.node.deliver(topic, MAKE[topic](stamp))
                camera.poll()
    assert camera.stamps == old + new
    assert [frame.T_world_camera[0, 3] for frame in camera.frames] == [0.5] * 10 + [7.5] * 10
    assert camera.assembly.skipped == {}


@pytest.mark.parametrize("back", [1.02, 1.5, 4.0])
@pytest.mark.parametrize(("late", "first"), list(itertools.permutations(TOPICS, 2)))
def test_what_comes_late_from_before_a_jump_costs_no_frame_of_the_new_time(
    late: str, first: str, back: float, tf_history: float
):
    """The last messages of one topic come after the first ones of another from the new time."""
    camera = Camera(tf_history=tf_history)
    start = 5 * S + 9 * STEP - round(back * S)
    old, new = [5 * S + i * STEP for i in range(10)], [start + i * STEP for i in range(10)]
    for stamp in old[:7]:
        camera.shoot(stamp)
    for topic in TOPICS:
        for stamp in old[7:] if topic != late else ():
            camera.node.deliver(topic, transform("odom", "base", stamp, 0.0) if topic == "/tf" else MAKE[topic](stamp))
    for stamp in new[:3]:
        camera.node.deliver(first, MAKE[first](stamp))
        camera.poll()
    for stamp in old[7:]:
        camera.node.deliver(late, transform("odom", "base", stamp, 0.0) if late == "/tf" else MAKE[late](stamp))
        camera.poll()
    for topic in TOPICS:
        for stamp in new[:3] if topic != first else ():
            camera.node.deliver(topic, MAKE[topic](stamp))
            camera.poll()
    for stamp in new[3:]:
        camera.shoot(stamp, x=7.0)
    assert [stamp for stamp in camera.stamps if stamp < 5 * S] == new
    assert [frame.T_world_camera[0, 3] for frame in camera.frames if frame.stamp < 5 * S] == [7.5] * 10
    assert set(camera.assembly.skipped) <= {"time_jump"}  # frames of the old time


@pytest.mark.usefixtures("tf_history")
@pytest.mark.parametrize("wrong", [0, 105 * S])
@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("info_once", [False, True])
def test_one_wrong_stamp_costs_a_few_frames_at_most(info_once: bool, topic: str, wrong: int):
    camera = Camera(camera_info_age=0.0 if info_once else 1.0)
    stamps = [100 * S + i * STEP for i in range(91)]
    for i, stamp in enumerate(stamps):
        for name in TOPICS:
            if (name == "/tf" and i % 3) or (name == "color/camera_info" and info_once and i):
                continue
            given = wrong if (name, i) == (topic, 45) else stamp
            camera.node.deliver(name, transform("odom", "base", given, 7.0) if name == "/tf" else MAKE[name](given))
            camera.poll()
    # Two of them clear the transforms, which come at 10 Hz.
    most = {("color/image_raw", 0): 3, ("/tf", 0): 6}.get((topic, wrong), 2)
    assert len(set(stamps) - set(camera.stamps)) <= most
    assert camera.stamps[-30:] == stamps[-30:]


def test_a_publisher_of_transforms_that_is_late_costs_another_none_of_its_new_ones():
    camera = Camera()
    for i in range(10):
        camera.node.deliver("/tf", transform("odom", "arm", 5 * S + i * STEP, 0.0))
        camera.shoot(5 * S + i * STEP)
    for i in range(5):
        camera.shoot(S + i * STEP, x=7.0)
        camera.node.deliver("/tf", transform("odom", "arm", 5 * S + (10 + i) * STEP, 0.0))
    camera.node.deliver("/tf", transform("odom", "arm", S, 0.0))
    for i in range(5, 10):
        camera.shoot(S + i * STEP, x=7.0)
    assert camera.stamps[10:] == [S + i * STEP for i in range(10)]
    assert camera.assembly._buffer.lookup_transform("odom", FRAME, Time(nanoseconds=S))


def test_frames_that_nobody_fetches_are_bounded_and_counted():
    camera = Camera(sync_queue=4)
    for i in range(10):
        stamp = S + i * STEP
        camera.node.deliver("/tf", transform("odom", "base", stamp, 0.0))
        camera.node.deliver("color/camera_info", camera_info_message(INTRINSICS, header(stamp)))
        camera.node.deliver("color/image_raw", color_message(stamp))
        camera.node.deliver("depth/image_raw", depth_message(stamp))
    camera.poll()
    assert camera.stamps == [S + i * STEP for i in range(4)]
    assert camera.assembly.skipped == {"backlog": 6}
    camera.shoot(S + 10 * STEP)
    assert camera.stamps[-1] == S + 10 * STEP


def test_everything_that_arrives_while_nobody_polls_is_bounded_and_counted_once():
    camera = Camera(sync_queue=4)
    for i in range(300):
        stamp = S + i * STEP
        camera.node.deliver("/tf", transform("odom", "base", stamp, 0.0))
        camera.node.deliver("color/camera_info", camera_info_message(INTRINSICS, header(stamp)))
        camera.node.deliver("color/image_raw", color_message(stamp))
        if i % 3:
            camera.node.deliver("depth/image_raw", depth_message(stamp))
        assert len(camera.assembly._events) <= EVENTS_PER_IMAGE * 4
    camera.poll()
    for i in range(300, 320):
        camera.shoot(S + i * STEP)
    assert camera.assembly.received == 320
    assert camera.assembly.delivered == len(camera.frames) == 4 + 20  # the first four pairs waited
    assert sum(camera.assembly.skipped.values()) == 320 - 24 - camera.assembly._assembler.waiting
    assert "lower the camera's rate" in camera.assembly.details["backlog"]


def test_compressed_transports():
    camera = Camera(color_transport="compressed", depth_transport="compressedDepth")
    format, data = encode_compressed_color(np.full((H, W, 3), 90, np.uint8))
    color = CompressedImage(header=header(S), format=format, data=data)
    format, data = encode_compressed_depth(np.full((H, W), 1.25, np.float32))
    camera.shoot(S, color=color, depth=CompressedImage(header=header(S), format=format, data=data))
    assert camera.frames[0].depth is not None
    assert (camera.frames[0].depth == 1.25).all()


def test_quality_of_service_is_that_of_the_settings():
    node = Node()
    FrameAssembly(node, StreamSettings(depth_reliability="reliable", queue_depth=3))  # type: ignore[arg-type]
    color, depth = node.subscriptions["color/image_raw"].qos_profile, node.subscriptions["depth/image_raw"].qos_profile
    assert (color.reliability.name, depth.reliability.name) == ("BEST_EFFORT", "RELIABLE")
    assert (color.depth, depth.depth) == (3, 3)


def test_destroy_leaves_no_subscription():
    camera = Camera()
    assert set(camera.node.subscriptions) == {
        "color/image_raw",
        "depth/image_raw",
        "color/camera_info",
        "/tf",
        "/tf_static",
    }
    camera.assembly.destroy()
    assert camera.node.subscriptions == {}
    assert camera.assembly.wait(0.0)  # wakes whoever waits


def test_over_real_topics_with_the_stall_watch(ros):
    node, sender = ros.node("assembly"), ros.node("camera")
    watch = StallWatch(node, after=0.2, slop=0.017)
    stream = StreamSettings(color_reliability="reliable", depth_reliability="reliable", queue_depth=50)
    assembly = FrameAssembly(node, stream, watch=watch)
    topics = {"/tf": TFMessage, "color/camera_info": CameraInfo, "color/image_raw": Image, "depth/image_raw": Image}
    publishers = {topic: sender.create_publisher(kind, topic, 50) for topic, kind in topics.items()}
    for publisher in publishers.values():
        ros.wait_for(lambda publisher=publisher: publisher.get_subscription_count() == 1)
    frames: list[Frame] = []
    for i in range(10):
        stamp = S + i * STEP
        publishers["/tf"].publish(transform("odom", FRAME, stamp, i * 0.1))
        publishers["color/camera_info"].publish(camera_info_message(INTRINSICS, header(stamp)))
        publishers["color/image_raw"].publish(color_message(stamp))
        publishers["depth/image_raw"].publish(depth_message(stamp))

    def all_there() -> bool:
        assembly.wait(0.05)
        frames.extend(assembly.poll())
        return len(frames) == 10

    ros.wait_for(all_there)
    assert [frame.stamp for frame in frames] == [S + i * STEP for i in range(10)]
    np.testing.assert_allclose([frame.T_world_camera[0, 3] for frame in frames], np.arange(10) * 0.1, atol=1e-9)
    ros.wait_for(lambda: "color/image_raw" in watch.reason())  # frames have stopped: it names the topics
    assembly.destroy()
    ros.wait_for(lambda: publishers["color/image_raw"].get_subscription_count() == 0)
