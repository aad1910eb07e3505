"""Topics to frames: with a stand-in for the node, so that arrival is exact, and once over real topics."""

import inspect
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="frame assembly needs rclpy")
pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not built: run `make build`")

import rclpy
import rclpy.logging
from looped_streams import LAGS, around_a_jump, looped
from rclpy.serialization import serialize_message
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from s4net_core.config import KeyframeSettings, StreamSettings
from s4net_core.errors import BadFrame
from s4net_core.frames import Frame, Intrinsics, LazyView, decoded
from s4net_core.io.images.codec import encode_compressed_color, encode_compressed_depth
from s4net_core.streams.assembler import WAITING_QUEUES
from s4net_core.streams.drops import DROP_REASONS
from s4net_core.streams.rest import Rest
from s4net_ros import frame_assembly
from s4net_ros.conversions import camera_info_message, image_message, transform_message
from s4net_ros.diagnostics import StallWatch
from s4net_ros.executor import StreamExecutor
from s4net_ros.frame_assembly import DEEPEST_QUEUE, FrameAssembly
from s4net_ros.frame_thread import FrameThread
from s4net_ros.qos import latched_qos

MS = 1_000_000
S = 1_000_000_000
STEP = 33 * MS
H, W = 6, 10
FRAME = "camera_color_optical_frame"
INTRINSICS = Intrinsics(W, H, 8.0, 8.0, 4.5, 2.5)


class Subscription:
    def __init__(self, topic: str, callback: Callable[..., None], qos: Any, raw: bool, group: Any) -> None:
        self.topic_name, self.callback, self.qos_profile, self.raw = topic, callback, qos, raw
        self.callback_group = group


class Node:
    """Hands messages to the callbacks of its subscriptions, at once and in the caller's thread; /tf_static is latched.

    A topic without a subscription loses its messages.
    """

    executor = None

    def __init__(self) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self.latched: list[Any] = []
        self.sent = Counter[str]()

    def create_subscription(
        self,
        msg_type: type,
        topic: str,
        callback: Any,
        qos_profile: Any,
        *,
        raw: bool = False,
        callback_group: Any = None,
        **_: Any,
    ) -> Subscription:
        self.subscriptions[topic] = Subscription(topic, callback, qos_profile, raw, callback_group)
        for message in self.latched if topic == "/tf_static" else ():
            callback(message)
        return self.subscriptions[topic]

    def destroy_subscription(self, subscription: Subscription) -> bool:
        """As rclpy: a second time it does nothing; tf2's listener asks again when it is collected."""
        known = self.subscriptions.get(subscription.topic_name) is subscription
        if known:
            del self.subscriptions[subscription.topic_name]
        return known

    def get_logger(self) -> Any:
        return rclpy.logging.get_logger("test")

    def deliver(self, topic: str, message: Any) -> None:
        if topic == "/tf_static":
            self.latched.append(message)
        self.sent[topic] += 1
        if subscription := self.subscriptions.get(topic):
            given = [serialize_message(message) if subscription.raw else message]
            if len(inspect.signature(subscription.callback).parameters) == 2:
                given.append({"publication_sequence_number": self.sent[topic]})
            subscription.callback(*given)


def header(stamp: int, frame: str = FRAME) -> Header:
    return Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id=frame)


def color_message(stamp: int, frame: str = FRAME) -> Image:
    return image_message(np.full((H, W, 3), 90, np.uint8), "rgb8", header(stamp, frame))


def depth_message(stamp: int, millimetres: int = 2000, frame: str = FRAME) -> Image:
    return image_message(np.full((H, W), millimetres, np.uint16), "16UC1", header(stamp, frame))


def transform(parent: str, child: str, stamp: int, x: float) -> TFMessage:
    T = np.eye(4)
    T[0, 3] = x
    return TFMessage(transforms=[transform_message(T, header(stamp, parent), child)])


class Camera:
    """A camera on a moving base, as topics; tests change one thing at a time."""

    def __init__(self, *, with_depth: bool = True, rest: Rest | None = None, **settings: Any) -> None:
        self.node = Node()
        stream = StreamSettings(**settings)
        self.assembly = FrameAssembly(self.node, stream, rest=rest, with_depth=with_depth)  # type: ignore[arg-type]
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
        self.frames += decoded(iter(self.assembly.poll, None))
        assembly = self.assembly
        assert assembly.delivered == len(self.frames)
        assert assembly.received == assembly.delivered + sum(assembly.skipped.values()) + assembly.waiting

    @property
    def stamps(self) -> list[int]:
        return [frame.stamp for frame in self.frames]

    @property
    def held(self) -> bool:
        """Whether images stay with the middleware; what images and camera_info have in common."""
        topics = ("color/image_raw", "depth/image_raw", "color/camera_info")
        groups = {self.node.subscriptions[topic].callback_group for topic in topics if topic in self.node.subscriptions}
        (group,) = groups
        assert self.node.subscriptions["/tf"].callback_group is not group
        return group.held

    def stand(self, seconds: int = 2) -> int:
        """Show the same view, until the camera is at rest. Returns the next stamp."""
        stamps = range(S, S + seconds * S, STEP)
        for stamp in stamps:
            self.shoot(stamp)
            self.assembly.wait(0.0)
            self.assembly.wait(0.0)
        return stamps[-1] + STEP


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


def test_a_rectified_stream_is_not_undistorted_again():
    info = camera_info_message(replace(INTRINSICS, distortion=(0.1, 0.0, 0.0, 0.0, 0.0)), header(S))
    for setting, distortion in (("never", 0.1), ("always", 0.0)):
        camera = Camera(rectified=setting)
        camera.shoot(S, info=info)
        assert sum(camera.frames[0].intrinsics.distortion) == distortion


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


@pytest.mark.parametrize(
    ("reason", "bad"),
    [
        ("depth_frame", {"depth": depth_message(S + STEP, frame="camera_depth_optical_frame")}),
        ("depth_format", {"depth": image_message(np.zeros((H, W), np.uint8), "mono8", header(S + STEP))}),
        ("color_format", {"color": image_message(np.zeros((H, W), np.uint16), "16UC1", header(S + STEP))}),
        ("intrinsics", {"info": CameraInfo(header=header(S + STEP), width=W, height=H)}),
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


def test_what_tf2_cannot_answer_is_waited_for_only_if_it_may_heal():
    """With one transform in the buffer, the error of tf2 does not say whether the stamp is too old or too new."""
    camera = Camera()
    camera.node.deliver("/tf", transform("odom", "base", 5 * S, 0.0))
    camera.shoot(5 * S - 1, x=None)
    assert (camera.assembly.waiting, camera.assembly.skipped) == (0, {"no_pose": 1})
    camera.shoot(5 * S + 1, x=None)
    assert camera.assembly.waiting == 1
    camera.node.deliver("/tf", transform("odom", "base", 6 * S, 0.0))
    camera.poll()
    assert camera.stamps == [5 * S + 1]


def test_a_frame_name_that_tf2_refuses_is_not_waited_for():
    camera = Camera(fixed_frame="/odom")
    camera.shoot(S)
    assert (camera.assembly.waiting, camera.assembly.skipped) == (0, {"no_pose": 1})
    assert "/odom" in camera.assembly.details["no_pose"]


TOPICS = {"tf": "/tf", "info": "color/camera_info", "color": "color/image_raw", "depth": "depth/image_raw"}
MAKE: dict[str, Callable[[int, float], Any]] = {
    "tf": lambda stamp, x: transform("odom", "base", stamp, x),
    "info": lambda stamp, x: camera_info_message(INTRINSICS, header(stamp)),
    "color": lambda stamp, x: color_message(stamp),
    "depth": lambda stamp, x: depth_message(stamp),
}


@pytest.mark.parametrize("sync_slop", [0.0, 0.017])
@pytest.mark.parametrize("lags", LAGS[::5], ids=lambda lags: "-".join(lags))
def test_a_looped_bag_goes_on_after_each_jump(lags: dict[str, int], sync_slop: float):
    """As in test_assembler, here with the synchroniser, transform buffer and listener of ROS."""
    laps = 3
    camera = Camera(sync_slop=sync_slop)
    sent = []
    for topic, stamp, lap in looped(lags, laps):
        camera.node.deliver(TOPICS[topic], MAKE[topic](stamp, float(lap)))
        camera.poll()
        sent += [(stamp, lap)] if topic == "color" else []
    got = [(frame.stamp, frame.T_world_camera[0, 3] - 0.5) for frame in camera.frames]
    lost = [pair for pair in sent if pair not in set(got)]
    assert set(got) <= set(sent)
    assert all(around_a_jump(stamp) for stamp, _ in lost)
    assert camera.assembly.received == len(sent) == len(got) + len(lost)
    assert set(camera.node.subscriptions) == {*TOPICS.values(), "/tf_static"}


@pytest.mark.parametrize("with_depth", [True, False])
def test_nobody_listens_to_transforms_until_time_has_settled(with_depth: bool):
    camera = Camera(with_depth=with_depth)
    camera.node.deliver("color/image_raw", color_message(100 * S))
    for stamp, listens in ((10 * S, False), (10 * S + 400 * MS, False), (10 * S + 500 * MS, True)):
        camera.node.deliver("color/image_raw", color_message(stamp))
        assert ("/tf" in camera.node.subscriptions) == ("/tf_static" in camera.node.subscriptions) == listens
    camera.poll()
    assert camera.assembly.skipped == {"time_jump": 3}


def test_everything_that_arrives_while_nobody_polls_is_bounded_and_counted():
    camera = Camera(sync_queue=4)
    for i in range(300):
        stamp = S + i * STEP
        camera.node.deliver("/tf", transform("odom", "base", stamp, 0.0))
        camera.node.deliver("color/camera_info", camera_info_message(INTRINSICS, header(stamp)))
        camera.node.deliver("color/image_raw", color_message(stamp))
        if i % 3:
            camera.node.deliver("depth/image_raw", depth_message(stamp))
        assert camera.assembly.waiting <= (WAITING_QUEUES + 1) * 4
    camera.poll()
    assert len(camera.frames) == WAITING_QUEUES * 4  # the newest pairs
    assert camera.assembly.skipped == {"backlog": 200 - WAITING_QUEUES * 4, "unmatched": 100 - camera.assembly.waiting}
    assert "lower the camera's rate" in camera.assembly.details["backlog"]
    camera.shoot(S + 300 * STEP)
    assert camera.stamps[-1] == S + 300 * STEP


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


class TestRest:
    @pytest.mark.parametrize("with_depth", [True, False])
    def test_images_are_held_back_after_each_pair_until_the_wait_runs_out(self, with_depth: bool):
        camera = Camera(rest=Rest(KeyframeSettings()), with_depth=with_depth)
        stamp = camera.stand()
        for _ in range(3):
            assert not camera.held
            camera.shoot(stamp)
            assert camera.held
            assert camera.assembly.wait(0.0)  # what came ends it
            assert camera.held
            assert not camera.assembly.wait(0.0)
            stamp += STEP

    def test_the_first_view_that_has_moved_ends_it_and_no_later_one_is_held_back(self):
        camera = Camera(rest=Rest(KeyframeSettings()))
        stamp = camera.stand()
        camera.shoot(stamp)
        assert camera.held
        for i in range(1, 60):
            camera.shoot(stamp + i * STEP, x=0.02 * i)
            assert not camera.held

    def test_a_camera_that_moves_is_never_held_back(self):
        camera = Camera(rest=Rest(KeyframeSettings()))
        for i in range(60):
            camera.shoot(S + i * STEP, x=0.02 * i)
            assert not camera.held

    def test_colour_that_the_middleware_dropped_is_counted_and_told_in_no_other_word(self):
        camera = Camera(rest=Rest(KeyframeSettings()))
        stamp, before = camera.stand(), camera.assembly.received
        camera.shoot(stamp)
        camera.node.sent["color/image_raw"] += 2
        camera.shoot(stamp + 3 * STEP)
        camera.node.sent["color/image_raw"] += 1
        camera.shoot(stamp + 5 * STEP, x=1.0)
        camera.shoot(stamp + 6 * STEP, x=2.0)
        camera.node.sent["color/image_raw"] += 1  # lost on its way
        camera.shoot(stamp + 8 * STEP, x=3.0)
        assert camera.assembly.skipped == {"at_rest": 3}
        assert camera.assembly.received == before + 5 + 3

    @pytest.mark.parametrize("with_depth", [True, False])
    def test_camera_info_does_not_grow_old(self, with_depth: bool):
        """Over real topics: of those that have come, the executor takes none after the pair that holds them back."""
        rclpy.init()
        node, robot = rclpy.create_node("adaptation"), rclpy.create_node("robot")
        try:
            assembly = FrameAssembly(node, StreamSettings(), rest=Rest(KeyframeSettings()), with_depth=with_depth)
            executor = StreamExecutor()
            executor.add_node(node)
            kinds = {"color/camera_info": CameraInfo, "color/image_raw": Image, "depth/image_raw": Image}
            outputs = {topic: robot.create_publisher(kind, topic, 10) for topic, kind in kinds.items()}
            outputs |= {"/tf": robot.create_publisher(TFMessage, "/tf", 10)}
            waited_for = [output for topic, output in outputs.items() if with_depth or not topic.startswith("depth")]
            end = time.monotonic() + 60.0
            while not all(output.get_subscription_count() for output in waited_for) and time.monotonic() < end:
                time.sleep(0.01)
            stamps, views = [S + i * S // 2 for i in range(16)], list[int]()
            for stamp in stamps:
                outputs["/tf"].publish(transform("odom", FRAME, stamp, 0.0))
                outputs["depth/image_raw"].publish(depth_message(stamp))
                outputs["color/image_raw"].publish(color_message(stamp))
                outputs["color/camera_info"].publish(camera_info_message(INTRINSICS, header(stamp)))
                time.sleep(0.02)  # until all have come
                assembly.wait(0.0)
                assembly.wait(0.0)  # what was held back is wanted again
                for _ in range(5):
                    executor.spin_on()
                while (view := assembly.poll()) is not None:
                    views.append(view.stamp)
        finally:
            node.destroy_node()
            robot.destroy_node()
            rclpy.try_shutdown()
        assert "camera_info_stale" not in assembly.skipped
        assert stamps[-1] - views[-1] <= S

    @pytest.mark.parametrize("jump", [-50, 5000])
    def test_numbers_of_another_publisher_count_nothing(self, jump: int):
        camera = Camera(rest=Rest(KeyframeSettings()))
        stamp, before = camera.stand(), camera.assembly.received
        camera.node.sent["color/image_raw"] += jump
        camera.shoot(stamp)
        assert (camera.assembly.skipped, camera.assembly.received) == ({}, before + 1)

    def test_a_middleware_that_does_not_number_its_messages(self, monkeypatch: pytest.MonkeyPatch):
        """As in ROS 2 Humble, whose rclpy gives callbacks nothing but the message."""
        monkeypatch.delattr("rclpy.subscription.Subscription.CallbackType")
        camera = Camera(rest=Rest(KeyframeSettings()))
        stamp, before = camera.stand(), camera.assembly.received
        camera.node.sent["color/image_raw"] += 2
        camera.shoot(stamp)
        assert (camera.held, camera.assembly.received) == (True, before + 1)

    def test_colour_and_depth_that_were_cut_off_at_other_places_still_meet(self):
        camera = Camera(rest=Rest(KeyframeSettings()))
        stamp = camera.stand()
        camera.shoot(stamp)
        stamp += STEP
        camera.assembly.wait(0.0)
        camera.assembly.wait(0.0)
        camera.node.deliver("/tf", transform("odom", "base", stamp + 9 * STEP, 0.0))
        camera.node.deliver("color/image_raw", color_message(stamp))
        camera.node.deliver("depth/image_raw", depth_message(stamp + STEP))
        assert not camera.held
        camera.node.deliver("color/camera_info", camera_info_message(INTRINSICS, header(stamp + STEP)))
        camera.node.deliver("color/image_raw", color_message(stamp + STEP))
        camera.poll()
        assert (camera.held, camera.stamps[-1]) == (True, stamp + STEP)
        assert camera.assembly.skipped == {"at_rest": 1}

    def test_a_jump_of_time_ends_it(self):
        camera = Camera(rest=Rest(KeyframeSettings()))
        stamp = camera.stand(seconds=5)
        camera.shoot(stamp)
        camera.assembly.wait(0.0)
        camera.assembly.wait(0.0)
        camera.node.deliver("color/image_raw", color_message(S))
        camera.node.deliver("color/image_raw", color_message(2 * S))
        camera.node.deliver("depth/image_raw", depth_message(2 * S))
        assert not camera.held

    def test_a_queue_that_would_fill_with_old_images_is_never_held_back(self):
        camera = Camera(rest=Rest(KeyframeSettings()), queue_depth=DEEPEST_QUEUE + 1)
        camera.shoot(camera.stand())
        assert not camera.held


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
        frames.extend(decoded(iter(assembly.poll, None)))
        return len(frames) == 10

    ros.wait_for(all_there)
    assert [frame.stamp for frame in frames] == [S + i * STEP for i in range(10)]
    np.testing.assert_allclose([frame.T_world_camera[0, 3] for frame in frames], np.arange(10) * 0.1, atol=1e-9)
    ros.wait_for(lambda: "color/image_raw" in watch.reason())  # frames have stopped: it names the topics
    assembly.destroy()
    ros.wait_for(lambda: publishers["color/image_raw"].get_subscription_count() == 0)


def test_over_real_topics_time_may_go_back(ros):
    """Subscriptions are destroyed and made in a callback of the executor that serves them; tf_static comes again."""
    node, sender = ros.node("assembly"), ros.node("camera")
    stream = StreamSettings(color_reliability="reliable", depth_reliability="reliable", queue_depth=50, pose_wait=60.0)
    assembly = FrameAssembly(node, stream)
    topics = {"/tf": TFMessage, "color/camera_info": CameraInfo, "color/image_raw": Image, "depth/image_raw": Image}
    publishers = {topic: sender.create_publisher(kind, topic, 50) for topic, kind in topics.items()}
    static = sender.create_publisher(TFMessage, "/tf_static", latched_qos())
    static.publish(transform("base", FRAME, 0, 0.5))
    stamps: list[int] = []

    def shoot(stamp: int, x: float) -> None:
        for publisher in publishers.values():
            ros.wait_for(publisher.get_subscription_count)
        publishers["/tf"].publish(transform("odom", "base", stamp, x))
        for topic, message in (
            ("color/camera_info", camera_info_message(INTRINSICS, header(stamp))),
            ("color/image_raw", color_message(stamp)),
            ("depth/image_raw", depth_message(stamp)),
        ):
            publishers[topic].publish(message)

    def come(stamp: int, x: float) -> bool:
        assembly.wait(0.05)
        while (view := assembly.poll()) is not None:
            assert view.T_world_camera[0, 3] == x + 0.5
            stamps.append(view.stamp)
        return stamp in stamps

    for lap in range(3):
        shoot(100 * S, lap)
        if lap:
            ros.wait_for(lambda: not publishers["/tf"].get_subscription_count(), "listener gone")
            publishers["color/image_raw"].publish(color_message(101 * S))  # time has settled: it listens again
        shoot(102 * S, lap)
        ros.wait_for(lambda lap=lap: come(102 * S, lap), f"frame of lap {lap}")
        stamps.clear()
    assembly.destroy()


class Watch:
    """A watch that says that no frame could be used for 7 s."""

    seconds, frames, quiet = 7.0, 0, False

    def silent(self, *names: str) -> bool:
        return self.quiet

    def reason(self) -> str:
        return "what the topics say"

    def frame(self) -> None:
        self.frames += 1

    def arrived(self, name: str, stamp: int) -> None:
        pass


class TestFrameThread:
    def run(self, camera: Camera, take: Callable[[LazyView], object], done: Callable[[], bool]) -> list[Exception]:
        failed: list[Exception] = []
        thread = FrameThread(camera.assembly, take, failed.append)
        for i in range(3):
            stamp = S + i * STEP
            camera.node.deliver("/tf", transform("odom", "base", stamp, 0.0))
            camera.node.deliver("color/camera_info", camera_info_message(INTRINSICS, header(stamp)))
            camera.node.deliver("color/image_raw", color_message(stamp))
            camera.node.deliver("depth/image_raw", depth_message(stamp, millimetres=0 if i == 1 else 2000))
        end = time.monotonic() + 30
        while not done() and time.monotonic() < end:
            time.sleep(0.01)
        assert thread.stop()
        return failed

    def test_every_view_is_taken_in_order_and_damage_is_counted_once(self):
        camera, taken = Camera(), []

        def take(view: LazyView) -> None:
            taken.append(view.stamp)
            view.decode()

        assert self.run(camera, take, lambda: len(taken) == 3) == []
        assert taken == [S, S + STEP, S + 2 * STEP]
        assert (camera.assembly.delivered, camera.assembly.skipped) == (2, {"no_depth": 1})

    def test_a_stall_is_explained_by_what_was_dropped_since_a_view_could_be_used(self):
        camera, watch = Camera(), Watch()
        assert camera.assembly.stall() == ""
        camera.assembly._watch = watch  # type: ignore[assignment]
        seen: list[str] = []

        def take(view: LazyView) -> None:
            seen.append(camera.assembly.stall())
            view.decode()

        self.run(camera, take, lambda: len(seen) == 3)  # the second has no depth
        assert seen[:2] == ["what the topics say"] * 2
        assert seen[2].startswith("no frame for 7.0 s that can be used; no_depth (1): depth at ")
        assert seen[2].endswith(DROP_REASONS["no_depth"])
        assert (camera.assembly.stall(), watch.frames) == ("what the topics say", 2)  # the third could be used
        camera.assembly._assembler._skipped["unmatched"] = 9
        camera.assembly._assembler._skipped["at_rest"] = 30  # no reason for anything
        assert camera.assembly.stall() == f"what the topics say; unmatched (9): {DROP_REASONS['unmatched']}"
        camera.assembly._assembler._skipped["no_pose"] = 3
        camera.assembly._assembler._details["no_pose"] = "odom is not in the tree"
        assert (
            f"no_pose (3): {DROP_REASONS['no_pose']}; the last one: odom is not in the tree" in camera.assembly.stall()
        )
        watch.quiet = True
        assert camera.assembly.stall() == "what the topics say"

    def test_a_stall_is_explained_by_what_is_dropped_now_not_by_what_was_mended(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(frame_assembly, "RECENT_S", 0.0)
        camera = Camera()
        camera.assembly._watch = Watch()  # type: ignore[assignment]
        skipped, details = camera.assembly._assembler._skipped, camera.assembly._assembler._details
        skipped["no_pose"], details["no_pose"] = 158, "odom is not in the tree"
        assert "; no_pose (158): " in camera.assembly.stall()
        for count in (1, 2):
            skipped["depth_size"], details["depth_size"] = count, "depth has 5x3 pixels"
            assert f"; depth_size ({count}): " in camera.assembly.stall()

    def test_a_view_that_cannot_be_used_is_counted_once_and_what_nobody_foresaw_is_told(self):
        camera, taken = Camera(), []

        def take(view: LazyView) -> None:
            taken.append(view.stamp)
            raise BadFrame("distortion", "not undone") if len(taken) == 1 else OSError("disk full")

        failed = self.run(camera, take, lambda: len(taken) == 3)
        assert [type(error) for error in failed] == [OSError, OSError]
        assert (camera.assembly.delivered, camera.assembly.skipped) == (0, {"distortion": 1, "internal_error": 2})
