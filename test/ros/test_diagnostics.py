"""What a node says about itself, above all why no frames come."""

import threading
import time

import pytest

pytest.importorskip("rclpy")

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from s4net_core.keyframes import Decision
from s4net_ros import diagnostics
from s4net_ros.diagnostics import DiagnosticsPublisher, Latency, Report, StallWatch, nearest_stamps
from s4net_ros.qos import latched_qos, mismatch, stream_qos
from s4net_ros.unusable_watch import UnusableWatch

MS = 1_000_000


class Watch:
    """A watch over one or two image topics with a clock set by hand."""

    def __init__(self, ros, reliability="best_effort", names=("color",), slop=None):
        self.now = 100.0
        self.node = ros.node("watcher")
        self.watch = StallWatch(self.node, after=5.0, slop=slop, clock=lambda: self.now)
        for name in names:
            subscription = self.node.create_subscription(
                Image,
                f"{name}/image_raw",
                lambda _: None,
                stream_qos(reliability, 1),
                event_callbacks=self.watch.events(name, f"stream.{name}_reliability"),
            )
            self.watch.follow(name, subscription)


def test_inputs_may_come_while_another_thread_looks_at_all_of_them(ros):
    it = Watch(ros)
    for change in (lambda: it.watch.events("depth"), lambda: it.watch.follow("color", None)):
        begun = threading.Event()
        thread = threading.Thread(target=lambda change=change, begun=begun: (begun.set(), change()))
        with it.watch._lock:  # as whoever looks
            thread.start()
            assert begun.wait(60)
            thread.join(0.1)
            assert thread.is_alive()
        thread.join()


def test_inputs_that_bring_nothing_are_silent(ros):
    it = Watch(ros, names=("color", "camera_info"))
    assert it.watch.silent("color")
    it.watch.arrived("camera_info", 0)
    assert it.watch.silent("color")  # it has brought nothing ever
    it.watch.arrived("color", 0)
    assert not it.watch.silent("color")
    it.now += 5.1
    it.watch.arrived("color", 0)
    assert not it.watch.silent("color", "depth")  # that of camera_info alone may be old
    assert it.watch.silent("color", "camera_info")


def test_it_is_quiet_until_the_time_is_up_and_while_frames_come(ros):
    w = Watch(ros)
    w.now += 4.9
    assert w.watch.reason() == ""
    w.watch.frame()
    w.now += 4.9
    assert w.watch.reason() == ""
    w.now += 0.2
    assert w.watch.reason().startswith("no frame for 5.1 s")


def test_no_publisher_is_named_with_the_topic(ros):
    w = Watch(ros)
    w.now += 6
    assert "color (/color/image_raw): no publisher" in w.watch.reason()


def test_a_publisher_that_never_publishes_is_counted(ros):
    w = Watch(ros)
    ros.node("camera").create_publisher(Image, "color/image_raw", stream_qos("reliable", 1))
    ros.wait_for(lambda: w.node.count_publishers("color/image_raw"))
    w.now += 6
    assert "1 publisher, but no message ever came" in w.watch.reason()


def test_a_qos_mismatch_is_named_with_its_remedy(ros, capfd):
    w = Watch(ros, reliability="reliable")
    ros.node("camera", namespace="robot").create_publisher(Image, "/color/image_raw", stream_qos("best_effort", 1))
    ros.wait_for(lambda: w.node.count_publishers("color/image_raw"))
    w.now += 6
    reason = ros.wait_for(lambda: "does not fit" in w.watch.reason() and w.watch.reason())
    assert "QoS of /robot/camera does not fit" in reason
    assert "reliab" in reason.lower()
    assert "set stream.color_reliability:=best_effort" in reason
    ros.wait_for(lambda: "does not fit" in capfd.readouterr().err, "warning when the publisher was discovered")


def test_a_stream_that_has_stopped_is_told_from_one_that_goes_on(ros):
    w = Watch(ros, names=("color", "depth"))
    camera = ros.node("camera")
    for name in ("color", "depth"):
        camera.create_publisher(Image, f"{name}/image_raw", 1)
        ros.wait_for(lambda name=name: w.node.count_publishers(f"{name}/image_raw"))
    w.watch.arrived("color", 1)
    w.watch.arrived("depth", 1)
    w.now += 7
    w.watch.arrived("color", 2)
    reason = w.watch.reason()
    assert "color (/color/image_raw): 1 publisher, 2 messages, the last one 0.0 s ago" in reason
    assert "depth (/depth/image_raw): 1 publisher, 1 messages, the last one 7.0 s ago" in reason


def test_stamps_of_a_stream_that_has_stopped_are_not_the_reason(ros):
    """While both went on they met; now there are none of depth that could."""
    w = Watch(ros, names=("color", "depth"), slop=0.017)
    for i in range(200):
        w.watch.arrived("color", i * 100 * MS)
        if i < 100:
            w.watch.arrived("depth", i * 100 * MS)
        w.now += 0.1
    assert "stamps" not in w.watch.reason()


def test_views_that_are_all_left_out_for_a_while_are_told_with_the_remedy():
    now = [0.0]
    watch = UnusableWatch(5.0, lambda: now[0])
    for reason in ("known_view", "little_depth", "no_depth"):
        watch.note(Decision(None, reason))
        now[0] += 3
    assert watch.reason() == (
        "no view could be used for 6 s (no_depth): most views have little depth between geometry.min_depth and "
        "geometry.max_depth: check the unit of depth, or lower keyframes.min_depth_coverage"
    )
    watch.note(Decision(4, "new"))
    now[0] += 60
    assert watch.reason() == ""


def test_stamps_that_never_meet_are_the_reason(ros):
    w = Watch(ros, names=("color", "depth"), slop=0.017)
    for i in range(10):
        w.watch.arrived("color", i * 100 * MS)
        w.watch.arrived("depth", i * 100 * MS + 40 * MS)
    w.now += 6
    assert "stamps of color and depth never lie nearer than 0.040 s, allowed is 0.017 s" in w.watch.reason()
    w.watch.clear_stamps()
    assert "stamps" not in w.watch.reason()
    w.watch.arrived("color", 5 * MS)
    w.watch.arrived("depth", 15 * MS)
    assert "stamps" not in w.watch.reason()


def test_the_nearest_stamps_are_found_as_by_comparing_all_of_them():
    rng = np.random.default_rng(1)
    for _ in range(50):
        a, b = (sorted(rng.integers(0, 1000, rng.integers(1, 20)).tolist()) for _ in range(2))
        assert nearest_stamps(a, b) == min(abs(x - y) for x in a for y in b)


def test_latency_is_summed_up_over_recent_frames_only():
    latency = Latency(history=4)
    assert latency.summary("latency") == {}
    for seconds in (9.0, 0.010, 0.020, 0.030, 0.040):
        latency.add(seconds)
    summary = latency.summary("latency")
    assert (summary["latency_ms_median"], summary["latency_ms_max"]) == ("25.0", "40.0")


def test_the_report_is_published_under_the_full_name_of_the_node(ros):
    node = ros.node("labels", namespace="robot")
    received = []
    ros.node().create_subscription(DiagnosticArray, "/diagnostics", received.append, QoSProfile(depth=10))
    publisher = DiagnosticsPublisher(node, lambda: Report(DiagnosticStatus.WARN, "slow", {"frames": 3}), period=0.1)
    ros.wait_for(lambda: len(received) > 1)
    (status,) = received[0].status
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "slow")
    assert status.name == "robot/labels: status"
    assert [(v.key, v.value) for v in status.values] == [("frames", "3")]
    publisher.destroy()


@pytest.mark.parametrize(
    ("offered", "requested", "fits"),
    [
        (stream_qos("reliable", 5), stream_qos("best_effort", 1), True),
        (stream_qos("best_effort", 5), stream_qos("reliable", 1), False),
        (stream_qos("reliable", 5), latched_qos(), False),
        (latched_qos(), latched_qos(), True),
    ],
)
def test_profiles_fit_or_it_is_said_why_not(offered, requested, fits):
    assert (mismatch(offered, requested) == "") is fits


def test_a_second_node_of_the_same_name_that_stays_is_a_warning_until_it_is_gone(ros, monkeypatch):
    monkeypatch.setattr(diagnostics, "NAMESAKES_S", 0.5)
    reports = []
    node = ros.node("twin", namespace="/robot")
    node.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 10)
    DiagnosticsPublisher(node, lambda: Report(DiagnosticStatus.OK, "idle"), period=0.1)
    ros.node("twin", namespace="/other")
    ros.wait_for(lambda: reports)
    assert (reports[-1].status[0].level, reports[-1].status[0].message) == (DiagnosticStatus.OK, "idle")
    begun = time.monotonic()
    second = rclpy.create_node("twin", namespace="/robot", context=ros.context)  # the graph shows it without spinning
    ros.wait_for(lambda: reports[-1].status[0].level == DiagnosticStatus.WARN)
    assert time.monotonic() - begun > 0.3  # a process that has just died is still seen
    text = "idle; 2 nodes are named /robot/twin: end one, or give each its own namespace"
    assert reports[-1].status[0].message == text
    second.destroy_node()
    ros.wait_for(lambda: reports[-1].status[0].level == DiagnosticStatus.OK)


def test_simulated_time_that_nobody_publishes_is_a_warning(ros):
    reports = []
    node = ros.node("waiter", parameter_overrides=[Parameter("use_sim_time", value=True)])
    node.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 10)
    DiagnosticsPublisher(node, lambda: Report(DiagnosticStatus.OK, "idle"), period=0.1)
    ros.wait_for(lambda: reports)
    assert reports[-1].status[0].level == DiagnosticStatus.WARN
    assert reports[-1].status[0].message.startswith("idle; use_sim_time is true but nobody publishes /clock")
    clock = ros.node("simulation").create_publisher(Clock, "/clock", 10)  # time may stand at 0
    ros.wait_for(lambda: reports[-1].status[0].level == DiagnosticStatus.OK)
    ros.wait_for(clock.get_subscription_count)
    clock.publish(Clock(clock=Time(seconds=5).to_msg()))
    ros.wait_for(lambda: reports[-1].header.stamp.sec == 5)
    assert reports[-1].status[0].message == "idle"
