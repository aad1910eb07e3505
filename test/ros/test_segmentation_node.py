"""The segmentation node between a camera and its listeners."""

import hashlib
import itertools
import shutil
import signal
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("s4net_ros.msg")

import cv2
import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from own_classes import NAMES, five_classes
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo, VisionClass

from s4net_core.config import ModelSettings
from s4net_core.frames import Intrinsics
from s4net_core.labels import LabelSpace
from s4net_core.models.build import build_network
from s4net_core.models.checkpoint import file_sha256, read_info, save_checkpoint
from s4net_core.models.predict import pick_device
from s4net_core.models.scaled_logits import ScaledLogits
from s4net_core.models.segmenter import Segmentation, Segmenter
from s4net_ros import publishers
from s4net_ros.conversions import camera_info_message, color_from_topic, image_message
from s4net_ros.msg import ModelUpdate
from s4net_ros.qos import latched_qos, stream_qos
from s4net_ros.segmentation_node import SegmentationNode
from s4net_ros.weights import update_message

HEIGHT, WIDTH = 46, 70  # neither square nor the size of the network
FRAME = "camera_color_optical_frame"
QOS = stream_qos("reliable", 20)


def header(stamp_ms, frame_id=FRAME):
    result = Header(frame_id=frame_id)
    result.stamp.sec, result.stamp.nanosec = stamp_ms // 1000, stamp_ms % 1000 * 1_000_000
    return result


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)


class Camera:
    """Publishes what a camera would, and collects what the node answers."""

    def __init__(self, ros, node):
        self.ros, self.node = ros, node
        self.ros_node = ros.node("camera")
        make = self.ros_node.create_publisher
        self.color = make(Image, "color/image_raw", QOS)
        self.jpeg = make(CompressedImage, "color/image_raw/compressed", QOS)
        self.info = make(CameraInfo, "color/camera_info", QOS)
        self.depth = make(Image, "depth/image_raw", QOS)
        self.update = make(ModelUpdate, "model_update", latched_qos())

    def listen(self, message_type, topic, qos=QOS):
        received = []
        self.ros_node.create_subscription(message_type, topic, received.append, qos)
        self.heard(topic)
        return received

    def heard(self, topic):
        """Wait until the publisher and the subscription of `topic` have found each other, from both sides."""
        self.ros.wait_for(lambda: self.ros_node.count_publishers(topic), f"publisher of {topic}")
        publishers = [p for p in self.node.publishers if p.topic_name == self.ros_node.resolve_topic_name(topic)]
        self.ros.wait_for(lambda: all(p.get_subscription_count() for p in publishers), f"subscription of {topic}")

    def ready(self, publisher):
        self.ros.wait_for(publisher.get_subscription_count, f"subscription of {publisher.topic_name}")

    def show(self, stamp_ms, color=None, encoding="rgb8", frame_id=FRAME):
        self.ready(self.color)
        message = image_message(picture() if color is None else color, "rgb8", header(stamp_ms, frame_id))
        message.encoding = encoding
        self.color.publish(message)

    def calibrate(self, **changes):
        self.ready(self.info)
        values = {"width": WIDTH, "height": HEIGHT, "fx": 60.0, "fy": 62.0, "cx": 34.5, "cy": 22.5}
        message = camera_info_message(Intrinsics(**values), header(1))
        for name, value in changes.items():
            setattr(message, name, value)
        self.info.publish(message)
        self.ros.wait_for(lambda: self.node._camera_info is not None, "camera_info")


@pytest.fixture
def start(ros, make_checkpoint):
    """`start(class_id=5, **parameters)` -> (node, camera), running."""

    def make(class_id=5, **parameters):
        values = {"checkpoint": str(make_checkpoint(class_id=class_id)), "stream__color_reliability": "reliable"}
        values |= {"stream__depth_reliability": "reliable"} | parameters
        overrides = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
        node = ros.add(SegmentationNode(context=ros.context, parameter_overrides=overrides))
        camera = Camera(ros, node)
        assert node.autostart()
        return node, camera

    return make


@pytest.fixture
def network(monkeypatch):
    """In place of the real segmenter: waits for `go_on` with every image, and writes down its first pixel."""
    control = SimpleNamespace(go_on=threading.Event(), busy=threading.Event(), seen=[], fail=None)

    class Slow:
        def __init__(self, checkpoint, device, settings):
            self.info, self.settings, self.device = read_info(checkpoint), settings, device
            self.load = lambda *_: self.info

        def segment(self, color):
            control.busy.set()
            assert control.go_on.wait(60)
            if control.fail:
                raise control.fail
            control.seen.append(int(color[0, 0, 0]))
            size = color.shape[:2]
            return Segmentation(np.full(size, 5, np.uint8), 0, ScaledLogits(torch.zeros(1, 1, 1, 1), size))

    monkeypatch.setattr("s4net_core.models.segmenter.Segmenter", Slow)
    yield control
    control.go_on.set()


# Outputs.


def test_every_output_keeps_size_stamp_and_frame_of_its_colour_image(ros, start):
    _, camera = start(class_id=5)
    outputs = {name: camera.listen(Image, f"segmentation/{name}") for name in ("mask", "confidence", "overlay")}
    infos = camera.listen(CameraInfo, "segmentation/camera_info")
    camera.calibrate()
    camera.show(123_456, frame_id="some_optical_frame")
    ros.wait_for(lambda: all(outputs.values()) and infos, "all outputs")
    for message in (*(o[0] for o in outputs.values()), infos[0]):
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (123, 456_000_000)
        assert message.header.frame_id == "some_optical_frame"
        assert (message.width, message.height) == (WIDTH, HEIGHT)
    assert {name: o[0].encoding for name, o in outputs.items()} == {
        "mask": "mono8",
        "confidence": "mono8",
        "overlay": "rgb8",
    }
    assert infos[0].k[0] == 60.0
    assert set(outputs["mask"][0].data) == {5}
    assert set(outputs["confidence"][0].data) == {round(255 * np.exp(6) / (np.exp(6) + 36))}


def test_labels_are_those_of_the_segmenter_for_the_same_picture(ros, start, checkpoint):
    node, camera = start(checkpoint=str(checkpoint))
    masks = camera.listen(Image, "segmentation/mask")
    color = cv2.resize(picture(3)[:6, :9], (WIDTH, HEIGHT))
    camera.show(10, color)
    ros.wait_for(lambda: masks)
    expected = Segmenter(checkpoint, "cpu", node.settings).segment(color).label
    np.testing.assert_array_equal(np.frombuffer(masks[0].data, np.uint8).reshape(HEIGHT, WIDTH), expected)


def test_onnx_runtime_serves_the_same_labels_and_takes_new_weights(ros, start, checkpoint, make_checkpoint):
    pytest.importorskip("onnxruntime")
    node, camera = start(checkpoint=str(checkpoint), segmentation__runtime="onnx")
    masks = camera.listen(Image, "segmentation/mask")
    color = cv2.resize(picture(3)[:6, :9], (WIDTH, HEIGHT))
    camera.show(10, color)
    ros.wait_for(lambda: masks)
    settings = node.settings.model_copy(deep=True)
    settings.segmentation.runtime = "torch"
    expected = Segmenter(checkpoint, "cpu", settings).segment(color).label
    np.testing.assert_array_equal(np.frombuffer(masks[0].data, np.uint8).reshape(HEIGHT, WIDTH), expected)
    path = make_checkpoint(class_id=9, version=4)
    camera.ready(camera.update)
    camera.update.publish(update_message(path, file_sha256(path), read_info(path), header(1).stamp))
    ros.wait_for(lambda: node.counts.snapshot().get("updates_loaded"), "new weights")
    camera.show(20, color)
    ros.wait_for(lambda: len(masks) > 1)
    assert set(masks[-1].data) == {9}


def test_unknown_execution_provider_keeps_the_node_from_starting(ros, checkpoint, capfd):
    pytest.importorskip("onnxruntime")
    values = {"checkpoint": str(checkpoint), "segmentation.runtime": "onnx", "segmentation.execution_provider": "Fast"}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = ros.add(SegmentationNode(context=ros.context, parameter_overrides=overrides))
    assert not node.autostart()
    assert "execution_provider is 'Fast' but this ONNX Runtime has" in "".join(capfd.readouterr())


def test_jpeg_is_labelled_as_well(ros, start):
    _, camera = start(class_id=7, stream__color_transport="compressed")
    masks = camera.listen(Image, "segmentation/mask")
    camera.ready(camera.jpeg)
    data = cv2.imencode(".jpg", picture())[1].tobytes()
    camera.jpeg.publish(CompressedImage(header=header(55), format="rgb8; jpeg compressed bgr8", data=data))
    ros.wait_for(lambda: masks)
    assert (masks[0].width, masks[0].height, masks[0].header.stamp.nanosec) == (WIDTH, HEIGHT, 55_000_000)
    assert set(masks[0].data) == {7}


def test_uncertain_pixels_are_255_from_the_moment_the_parameter_changes(ros, start):
    node, camera = start(class_id=5)
    masks = camera.listen(Image, "segmentation/mask")
    camera.show(1)
    ros.wait_for(lambda: len(masks) == 1)
    node.set_parameters([Parameter("segmentation.min_confidence", value=0.99)])
    camera.show(2)
    ros.wait_for(lambda: len(masks) == 2)
    assert [set(m.data) for m in masks] == [{5}, {255}]


def test_names_reach_who_comes_late_with_the_threshold_in_force(ros, start):
    node, camera = start(segmentation__min_confidence=0.25)
    infos = camera.listen(LabelInfo, "segmentation/label_info", latched_qos())
    ros.wait_for(lambda: infos)
    assert (infos[0].class_map[4], infos[0].threshold) == (VisionClass(class_id=5, class_name="chair"), 0.25)
    node.set_parameters([Parameter("segmentation.min_confidence", value=0.5)])
    ros.wait_for(lambda: infos[-1].threshold == 0.5, "the new threshold")
    assert len(infos) == 2


def test_classes_of_ones_own_reach_label_info_and_mask(ros, start, tmp_path):
    """The settings keep their defaults: the node takes the classes from the weights file."""
    model = ModelSettings(encoder="tu-test_resnet", encoder_weights="none", width=64, height=48)
    network = build_network(model, label_space=five_classes(tmp_path))
    with torch.no_grad():
        network.body.segmentation_head[0].weight.zero_()
        network.body.segmentation_head[0].bias.copy_(torch.tensor([0.0, 9.0, 0.0, 0.0, 0.0]))  # pallet everywhere
    save_checkpoint(tmp_path / "own.safetensors", network)
    _, camera = start(checkpoint=str(tmp_path / "own.safetensors"))
    infos = camera.listen(LabelInfo, "segmentation/label_info", latched_qos())
    masks = camera.listen(Image, "segmentation/mask")
    camera.show(1)
    ros.wait_for(lambda: infos and masks)
    ids = {entry.class_name: entry.class_id for entry in infos[0].class_map}
    assert list(ids) == list(NAMES[:4])
    assert set(masks[0].data) == {ids["pallet"]}


def test_weights_of_other_classes_are_refused_with_both_named(ros, start, tmp_path):
    model = ModelSettings(encoder="tu-test_resnet", encoder_weights="none", width=64, height=48)
    sha256 = save_checkpoint(tmp_path / "own", build_network(model, label_space=five_classes(tmp_path)))
    node, camera = start()
    message = update_message(tmp_path / "own", sha256, read_info(tmp_path / "own"), Time().to_msg())
    message.label_space = "sunrgbd37"  # the announcement alone would be believed
    camera.update.publish(message)
    ros.wait_for(lambda: node.counts["updates_refused"])
    assert "'warehouse' (5 classes" in node._receiver.last_refusal
    assert "'sunrgbd37' (37 classes" in node._receiver.last_refusal


def test_nothing_is_computed_while_nobody_listens(ros, start, network):
    node, camera = start()
    camera.show(1)
    ros.wait_for(lambda: node.counts["without_listener"])
    assert not network.busy.is_set()
    network.go_on.set()
    masks = camera.listen(Image, "segmentation/mask")
    camera.show(2)
    ros.wait_for(lambda: masks)
    ros.wait_for(lambda: node.counts["labelled"])  # it is counted after it is published
    assert node.counts["labelled"] == 1


@pytest.mark.parametrize("heard", ["mask", "confidence", "overlay"])
def test_only_the_output_that_is_listened_to_is_made(ros, start, monkeypatch, heard):
    made = []
    real = publishers.image_message
    monkeypatch.setattr(publishers, "image_message", lambda *args: (made.append(args[1]), real(*args))[1])
    monkeypatch.setattr(publishers, "points_message", lambda *args, **_: made.append("points"))
    node, camera = start()
    overlay = node._outputs._space.overlay
    monkeypatch.setattr(LabelSpace, "overlay", lambda _, *args: (made.append("picture"), overlay(*args))[1])
    answers = camera.listen(Image, f"segmentation/{heard}")
    camera.calibrate()
    for count, stamp in enumerate((1, 2), 1):
        camera.show(stamp)
        ros.wait_for(lambda count=count: len(answers) == count)
    expected = {"mask": ["mono8"], "confidence": ["mono8"], "overlay": ["picture", "rgb8"]}
    assert made == 2 * expected[heard]


def test_mask_and_overlay_also_come_compressed(ros, start):
    node, camera = start(class_id=5)
    masks = camera.listen(CompressedImage, "segmentation/mask/compressed")
    overlays = camera.listen(CompressedImage, "segmentation/overlay/compressed")
    color = cv2.resize(picture()[:3, :4], (WIDTH, HEIGHT))  # smooth, as JPEG keeps it
    camera.show(1000, color)
    ros.wait_for(lambda: masks and overlays)
    assert masks[0].header == overlays[0].header == header(1000)
    mask = cv2.imdecode(np.frombuffer(bytes(masks[0].data), np.uint8), cv2.IMREAD_UNCHANGED)
    assert (mask.shape, mask.dtype, set(mask.ravel())) == ((HEIGHT, WIDTH), np.uint8, {5})
    painted = node._outputs._space.overlay(color, mask, node.settings.segmentation.overlay_alpha)
    assert np.abs(np.int16(color_from_topic(overlays[0])) - painted).mean() < 4


# Points.


def test_points_carry_position_colour_and_label_where_depth_is(ros, start):
    _, camera = start(class_id=5)
    clouds = camera.listen(PointCloud2, "segmentation/points")
    camera.calibrate()
    camera.ready(camera.depth)
    depth = np.zeros((HEIGHT, WIDTH), np.uint16)
    depth[11, 60] = 2000
    camera.depth.publish(image_message(depth, "16UC1", header(1000)))
    color = picture(2)
    camera.show(1000, color)
    ros.wait_for(lambda: clouds)
    (cloud,) = clouds
    assert [f.name for f in cloud.fields] == ["x", "y", "z", "rgb", "label"]
    assert (cloud.header.frame_id, cloud.width, cloud.height) == (FRAME, WIDTH, HEIGHT)
    points = np.frombuffer(bytes(cloud.data), np.uint8).reshape(HEIGHT, WIDTH, cloud.point_step)
    assert np.argwhere(np.isfinite(points[..., :4].copy().view(np.float32)[..., 0])).tolist() == [[11, 60]]
    point = points[11, 60].tobytes()
    np.testing.assert_allclose(
        np.frombuffer(point[:12], np.float32), [2 * (60 - 34.5) / 60, 2 * (11 - 22.5) / 62, 2], rtol=1e-6
    )
    b, g, r, _ = point[12:16]
    assert (r, g, b) == tuple(color[11, 60])
    assert np.frombuffer(point[16:20], np.uint32)[0] == 5


@pytest.mark.parametrize(
    ("depth_size", "depth_header", "calibration", "reason"),
    [
        ((HEIGHT, WIDTH), header(500), {}, "no_depth"),
        ((HEIGHT, WIDTH), header(1000, "camera_depth_optical_frame"), {}, "depth_frame"),
        ((WIDTH, HEIGHT), header(1000), {}, "depth_size"),
        ((HEIGHT, WIDTH), header(1000), {"width": 80}, "intrinsics_size"),
        ((HEIGHT, WIDTH), header(1000), {"k": np.zeros(9)}, "intrinsics"),
        ((HEIGHT, WIDTH), header(1000), {"k": np.full(9, np.nan)}, "intrinsics"),
    ],
)
def test_labels_come_even_when_points_cannot(ros, start, depth_size, depth_header, calibration, reason):
    node, camera = start()
    clouds = camera.listen(PointCloud2, "segmentation/points")
    masks = camera.listen(Image, "segmentation/mask")
    camera.calibrate(**calibration)
    camera.ready(camera.depth)
    camera.depth.publish(image_message(np.full(depth_size, 900, np.uint16), "16UC1", depth_header))
    for count, stamp in enumerate((1000, 2000, 3000), 1):  # the first one gives up its depth when the third one comes
        camera.show(stamp)
        ros.wait_for(lambda count=count: len(masks) == count)
    ros.wait_for(lambda: node.counts[f"points_skipped.{reason}"], reason)
    assert not clouds


def test_depth_that_comes_after_the_labels_still_gives_points(ros, start):
    node, camera = start()
    clouds = camera.listen(PointCloud2, "segmentation/points")
    camera.calibrate()
    camera.ready(camera.depth)
    for count, stamp in enumerate((1000, 1033), 1):
        camera.show(stamp)
        ros.wait_for(lambda count=count: node.counts["labelled"] == count)
    for stamp in (1000, 1033):
        camera.depth.publish(image_message(np.full((HEIGHT, WIDTH), 900, np.uint16), "16UC1", header(stamp)))
    ros.wait_for(lambda: len(clouds) == 2, "points of both")
    assert [c.header.stamp.nanosec for c in clouds] == [0, 33_000_000]
    assert not [name for name in node.counts.snapshot() if name.startswith("points_skipped")]


def test_depth_is_subscribed_only_while_somebody_listens_to_the_points(ros, start, monkeypatch):
    rounds = []
    start_housekeeping = SegmentationNode.start_housekeeping

    def count(node, seconds, keep_house, undo):
        start_housekeeping(node, seconds, lambda: (keep_house(), rounds.append(None)), undo)

    monkeypatch.setattr(SegmentationNode, "start_housekeeping", count)
    node, camera = start()
    ros.wait_for(lambda: len(rounds) >= 2, "two rounds of housekeeping")
    assert camera.depth.topic_name not in [subscription.topic_name for subscription in node.subscriptions]
    subscription = camera.ros_node.create_subscription(PointCloud2, "segmentation/points", lambda _: None, QOS)
    camera.ready(camera.depth)
    ros.on_executor(lambda: camera.ros_node.destroy_subscription(subscription))
    ros.wait_for(lambda: camera.depth.get_subscription_count() == 0, "depth let go")


def test_points_that_never_come_are_explained_while_somebody_listens(ros, start):
    _, camera = start(stream__stall_warning=1.0)
    arrays = camera.listen(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
    stamps = itertools.count(1000, 33)

    def show_until(text, depth=None):
        def said():
            stamp = next(stamps)
            if depth is not None:
                camera.depth.publish(image_message(depth, "16UC1", header(stamp)))
            camera.show(stamp)
            return arrays and text in arrays[-1].status[0].message and arrays[-1].status[0]

        return ros.wait_for(said, text)

    camera.listen(Image, "segmentation/mask")
    assert show_until("labelling")  # nobody wants points
    clouds = camera.listen(PointCloud2, "segmentation/points")
    status = show_until("no points for")
    assert status.level == DiagnosticStatus.WARN
    assert "camera_info (/color/camera_info): 1 publisher, but no message ever came" in status.message
    assert "depth (/depth/image_raw): 1 publisher, but no message ever came" in status.message
    camera.calibrate()
    show_until("last failure: no points: depth", np.full((HEIGHT // 2, WIDTH // 2), 900, np.uint16))
    show_until("labelling", np.full((HEIGHT, WIDTH), 900, np.uint16))
    assert clouds


def test_a_network_slower_than_the_queue_of_depth_still_gives_points(ros, start, network):
    """The depth of an image waits with the image, even when newer images arrive."""
    node, camera = start(stream__sync_queue=2)
    clouds = camera.listen(PointCloud2, "segmentation/points")
    camera.calibrate()
    camera.ready(camera.depth)
    for count, stamp in enumerate(range(1000, 1400, 33), 1):
        camera.show(stamp)
        ros.wait_for(lambda count=count: node.counts["received"] == count)
        camera.depth.publish(image_message(np.full((HEIGHT, WIDTH), 900, np.uint16), "16UC1", header(stamp)))
        ros.wait_for(network.busy.is_set)
    network.go_on.set()
    ros.wait_for(lambda: len(clouds) == 2, "points of the first image and the newest")
    assert [cloud.header.stamp.nanosec // 10**6 for cloud in clouds] == [0, stamp - 1000]


# Failures.


@pytest.mark.parametrize("spoil", ["encoding", "short"])
def test_a_bad_image_is_counted_and_the_next_one_labelled(ros, start, spoil):
    node, camera = start()
    masks = camera.listen(Image, "segmentation/mask")
    if spoil == "encoding":
        camera.show(1, encoding="jpeg")
    else:
        camera.ready(camera.color)
        message = image_message(picture(), "rgb8", header(1))
        message.data = message.data[:-10]
        camera.color.publish(message)
    ros.wait_for(lambda: node.counts["failed.color_format"])
    camera.show(2)
    ros.wait_for(lambda: masks)
    assert masks[0].header.stamp.nanosec == 2_000_000


def test_an_unforeseen_error_in_one_frame_does_not_end_the_labels(ros, start, network):
    node, camera = start()
    masks = camera.listen(Image, "segmentation/mask")
    network.go_on.set()
    network.fail = RuntimeError("CUDA out of memory")
    camera.show(1)
    ros.wait_for(lambda: node.counts["failed.RuntimeError"])
    network.fail = None
    camera.show(2)
    ros.wait_for(lambda: masks)


def test_a_slow_network_gets_the_newest_image_and_blocks_nobody(ros, start, network):
    node, camera = start()
    masks = camera.listen(Image, "segmentation/mask")
    for n in range(1, 6):
        color = picture()
        color[0, 0, 0] = n
        camera.show(n, color)
        ros.wait_for(lambda n=n: node.counts["received"] == n)  # callbacks and services go on while the network works
        assert network.busy.wait(60)
    assert node.set_parameters([Parameter("segmentation.overlay_alpha", value=0.2)])[0].successful
    network.go_on.set()
    ros.wait_for(lambda: len(masks) == 2)
    assert network.seen == [1, 5]
    ros.wait_for(lambda: node.counts["labelled"] == 2)  # the second is counted after it is published
    assert node.counts["received"] == node.counts["labelled"] + node.counts["superseded"] == 5


def test_after_a_jump_of_time_points_go_on(ros, start):
    node, camera = start()
    clouds = camera.listen(PointCloud2, "segmentation/points")
    camera.calibrate()
    camera.ready(camera.depth)
    for count, stamp in enumerate((100_000, 101_000), 1):  # labels of these wait for depth that never comes
        camera.show(stamp)
        ros.wait_for(lambda count=count: node.counts["labelled"] == count)
    camera.show(2_000)
    ros.wait_for(lambda: node.counts["points_skipped.time_jump"] == 2, "labels of the old time given up")
    camera.show(3_000)
    camera.depth.publish(image_message(np.full((HEIGHT, WIDTH), 900, np.uint16), "16UC1", header(3_000)))
    ros.wait_for(lambda: [cloud.header.stamp.sec for cloud in clouds] == [3], "points of the new time")


@pytest.mark.parametrize("first", ["clock", "color"])
def test_a_clock_that_goes_back_stops_nothing_and_counts_once(ros, start, first):
    node, camera = start(use_sim_time=True)
    masks = camera.listen(Image, "segmentation/mask")
    clock = camera.ros_node.create_publisher(Clock, "/clock", 10)
    camera.ready(clock)

    def tell(second):
        clock.publish(Clock(clock=Time(seconds=second).to_msg()))
        ros.wait_for(lambda: node.get_clock().now().nanoseconds == second * 10**9, f"clock at {second}")

    def show(second, count):
        camera.show(1000 * second)
        ros.wait_for(lambda: len(masks) == count, f"mask {count}")

    tell(100)
    show(100, 1)
    if first == "clock":
        tell(2)
        show(2, 2)
    else:
        show(2, 2)
        tell(2)
    show(3, 3)
    assert node.time_jumps == 1
    tell(50)
    show(50, 4)
    tell(4)
    show(4, 5)
    assert node.time_jumps == 2


def test_it_does_not_start_without_weights(ros, tmp_path, capfd):
    for value, said in (("", "checkpoint is empty"), (str(tmp_path / "none.safetensors"), "none.safetensors")):
        overrides = [Parameter("checkpoint", value=value)]
        node = ros.add(SegmentationNode(context=ros.context, parameter_overrides=overrides))
        assert not node.autostart()
        assert said in capfd.readouterr().err


def test_without_any_parameter_it_labels_with_the_model_in_the_models_folder(
    ros, tmp_path, monkeypatch, make_checkpoint
):
    """Nothing but that folder is needed: no network, no checkpoint, no settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    models = tmp_path / ".ros/s4net/models"
    models.mkdir(parents=True)
    shutil.copy(make_checkpoint(class_id=5), models / "upernet-convnext-tiny.safetensors")
    node = ros.add(SegmentationNode(context=ros.context))
    camera = Camera(ros, node)
    assert node.autostart()
    masks = camera.listen(Image, "segmentation/mask")
    ros.wait_for(lambda: camera.show(1) or masks)
    assert set(masks[0].data) == {5}


def test_deactivated_it_lets_go_of_its_topics_and_activated_it_labels_again(ros, start):
    node, camera = start()
    camera.ready(camera.color)
    ros.on_executor(node.trigger_deactivate)
    ros.wait_for(lambda: camera.color.get_subscription_count() == 0)
    ros.on_executor(node.trigger_activate)
    masks = camera.listen(Image, "segmentation/mask")
    camera.show(1)
    ros.wait_for(lambda: masks)
    ros.on_executor(node.trigger_deactivate)
    ros.on_executor(node.trigger_cleanup)
    ros.wait_for(lambda: camera.ros_node.count_publishers("segmentation/mask") == 0)
    assert node.autostart()
    camera.heard("segmentation/mask")
    ros.wait_for(lambda: camera.show(2) or len(masks) > 1)  # the listener may find the new publisher after the first


# New weights.


def announce(path):
    return update_message(path, hashlib.sha256(path.read_bytes()).hexdigest(), read_info(path), header(1).stamp)


def test_new_weights_take_over_between_two_frames_and_no_frame_waits_or_is_lost(
    ros, start, make_checkpoint, monkeypatch
):
    loading, go_on = threading.Event(), threading.Event()
    load = Segmenter.load

    def slow_load(self, path, sha256=""):
        loading.set()
        assert go_on.wait(60)
        return load(self, path, sha256)

    monkeypatch.setattr(Segmenter, "load", slow_load)
    node, camera = start(class_id=5)
    masks = camera.listen(Image, "segmentation/mask")
    camera.ready(camera.update)
    camera.update.publish(announce(make_checkpoint(class_id=9, version=1)))
    assert loading.wait(60)
    for n in range(1, 6):  # while the new weights are being loaded
        camera.show(n)
        ros.wait_for(lambda n=n: len(masks) == n, f"frame {n} during loading")
    go_on.set()
    ros.wait_for(lambda: node.counts["updates_loaded"])
    camera.show(6)
    ros.wait_for(lambda: len(masks) == 6)
    assert [set(m.data) for m in masks] == [{5}] * 5 + [{9}]
    assert node.counts["superseded"] == 0


def test_weights_announced_before_the_start_are_loaded(ros, start, make_checkpoint):
    publisher = ros.node("learner").create_publisher(ModelUpdate, "model_update", latched_qos())
    publisher.publish(announce(make_checkpoint(class_id=9, version=1)))
    node, _ = start(class_id=5)
    ros.wait_for(lambda: node.counts["updates_loaded"])


def test_refused_weights_show_in_the_diagnostics(ros, start, tmp_path, make_checkpoint):
    _, camera = start()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(make_checkpoint(class_id=9, version=1).read_bytes())
    message = announce(path)
    path.write_bytes(path.read_bytes()[:1000])
    arrays = camera.listen(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
    masks = camera.listen(Image, "segmentation/mask")
    camera.ready(camera.update)
    camera.update.publish(message)
    ros.wait_for(lambda: arrays and "refused: version 1" in arrays[-1].status[0].message, "refusal in /diagnostics")
    camera.show(1)
    ros.wait_for(lambda: masks)
    assert set(masks[0].data) == {5}


def test_diagnostics_count_frames_and_say_how_long_they_took(ros, start):
    _, camera = start()
    arrays = camera.listen(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
    masks = camera.listen(Image, "segmentation/mask")
    camera.show(1)
    ros.wait_for(lambda: masks)
    camera.show(2, encoding="jpeg")

    def values():
        return {v.key: v.value for v in arrays[-1].status[0].values} if arrays else {}

    ros.wait_for(lambda: values().get("labelled") == "1" and "failed.color_format" in values(), str(values()))
    assert values()["received"] == "2"
    assert values()["device"] == str(pick_device("auto"))  # and not the word of the setting
    assert float(values()["latency_ms_median"]) >= float(values()["inference_ms_median"]) > 0


def test_a_stall_is_explained(ros, start):
    _, camera = start(stream__stall_warning=0.2)
    arrays = camera.listen(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
    ros.wait_for(lambda: arrays and "no message ever came" in arrays[-1].status[0].message, "stall in /diagnostics")
    assert "color (/color/image_raw): 1 publisher" in arrays[-1].status[0].message


def test_as_a_process_it_ends_in_order(ros, spawn, checkpoint):
    process = spawn("-m", "s4net_ros.segmentation_node", "--ros-args", "-p", f"checkpoint:={checkpoint}")
    assert "labels come from" in process.stderr.readline()
    node = ros.node()
    ros.wait_for(lambda: node.count_subscribers("color/image_raw"), "until it is active; before, a signal kills it")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
