"""The stand-ins behave as message_filters, tf2_ros and cv_bridge do, and step aside where those are installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="the stand-ins need rclpy")
pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not built: run `make build`")

from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from s4net_core.io.bags.messages import transform_matrix
from s4net_ros import frame_assembly
from s4net_ros.compat import _message_filters as message_filters
from s4net_ros.compat import _tf2_ros as tf2_ros
from s4net_ros.conversions import transform_message
from s4net_ros.qos import latched_qos

MS = 1_000_000
S = 1_000_000_000


def info(stamp: int, name: str = "") -> CameraInfo:
    return CameraInfo(header=Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id=name))


def moved(parent: str, child: str, stamp: int, x: float = 0.0) -> TransformStamped:
    T = np.eye(4)
    T[0, 3] = x
    return transform_message(T, Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id=parent), child)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("message_filters", "class TimeSynchronizer: real = True"),
        ("tf2_ros", "class Buffer: real = True"),
        ("cv_bridge", ""),
    ],
)
def test_the_real_package_wins_wherever_it_imports(tmp_path: Path, name: str, module: str):
    (tmp_path / f"{name}.py").write_text(module)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from s4net_ros.compat import {name} as m; print(m)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert str(tmp_path / f"{name}.py") in out.stdout


def test_a_package_that_is_installed_and_cannot_be_imported_is_told(tmp_path: Path):
    (tmp_path / "tf2_ros.py").write_text("raise ImportError('libtf2.so: cannot open shared object file')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from s4net_ros import compat; print(compat.BROKEN)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "{'tf2_ros': 'libtf2.so: cannot open shared object file'}"


@pytest.mark.skipif(importlib.util.find_spec("tf2_ros") is not None, reason="the real packages are installed")
def test_the_stand_ins_are_used_where_nothing_else_is_installed():
    from s4net_ros import compat

    assert compat.message_filters is message_filters
    assert compat.tf2_ros is tf2_ros


def test_it_says_which_implementation_is_in_use(monkeypatch: pytest.MonkeyPatch):
    from s4net_ros import compat

    monkeypatch.setattr(compat, "message_filters", message_filters)
    monkeypatch.setattr(compat, "tf2_ros", SimpleNamespace(__name__="tf2_ros"))
    assert compat.in_use() == "message_filters (stand-in), tf2_ros"


class TestMessageFilters:
    """test_synchroniser tests which messages are matched; these tests check the interface."""

    @pytest.mark.parametrize("slop", [None, 0.017])
    def test_messages_are_matched_by_the_stamps_of_their_headers(self, slop: float | None):
        sources, out = [message_filters.SimpleFilter() for _ in range(2)], []
        if slop is None:
            synchroniser = message_filters.TimeSynchronizer(sources, 10)
        else:
            synchroniser = message_filters.ApproximateTimeSynchronizer(sources, 10, slop)
        synchroniser.registerCallback(lambda *pair: out.append([m.header.stamp.nanosec // MS for m in pair]))
        for source, stamp in [(0, 100), (1, 100), (1, 133), (0, 134), (0, 166), (1, 183)]:
            sources[source].signalMessage(info(stamp * MS))
        assert out == ([[100, 100]] if slop is None else [[100, 100], [134, 133]])  # 17 ms are too much

    def test_callbacks_get_their_extra_arguments_and_run_in_order(self):
        source, out = message_filters.SimpleFilter(), []
        assert source.registerCallback(lambda m, word: out.append((m, word)), "first") == 0
        assert source.registerCallback(lambda m: out.append(m)) == 1
        source.signalMessage(5)
        assert out == [(5, "first"), 5]

    def test_an_exception_in_a_callback_does_not_stop_the_synchroniser(self):
        sources, out = [message_filters.SimpleFilter() for _ in range(2)], []
        synchroniser = message_filters.TimeSynchronizer(sources, 10)

        def callback(a: Any, b: Any) -> None:
            out.append(a)
            raise RuntimeError("first one fails")

        synchroniser.registerCallback(callback)
        for stamp in (100, 200):
            sources[0].signalMessage(info(stamp * MS))
            with pytest.raises(RuntimeError):
                sources[1].signalMessage(info(stamp * MS))
        assert len(out) == 2


class TestBuffer:
    def buffer(self) -> Any:
        buffer = tf2_ros.Buffer(cache_time=Duration(seconds=5))
        buffer.set_transform_static(moved("base", "camera", 0, 0.5), "test")
        for i in range(3):
            buffer.set_transform(moved("odom", "base", S + i * 100 * MS, float(i)), "test")
        return buffer

    def test_transform_maps_source_to_target_at_the_stamp(self):
        found = self.buffer().lookup_transform("odom", "camera", Time(nanoseconds=S + 150 * MS))
        assert (found.header.frame_id, found.child_frame_id) == ("odom", "camera")
        assert Time.from_msg(found.header.stamp).nanoseconds == S + 150 * MS
        assert transform_matrix(found.transform)[0, 3] == pytest.approx(2.0)

    def test_newest_common_time_is_that_of_the_whole_chain(self):
        buffer = self.buffer()
        assert buffer.get_latest_common_time("odom", "camera").nanoseconds == S + 200 * MS
        assert buffer.get_latest_common_time("base", "camera").nanoseconds == 0  # static
        with pytest.raises(tf2_ros.LookupException):
            buffer.get_latest_common_time("odom", "typo")

    @pytest.mark.parametrize(
        ("target", "source", "stamp", "exception"),
        [
            ("/odom", "base", S, "InvalidArgumentException"),
            ("odom", "typo", S, "LookupException"),
            ("odom", "other", S, "ConnectivityException"),
            ("odom", "base", S - 1, "ExtrapolationException"),
            ("odom", "base", 2 * S, "ExtrapolationException"),
        ],
    )
    def test_exceptions_are_those_of_tf2(self, target, source, stamp, exception):
        buffer = self.buffer()
        buffer.set_transform_static(moved("island", "other", 0), "test")
        with pytest.raises(getattr(tf2_ros, exception)) as caught:
            buffer.lookup_transform(target, source, Time(nanoseconds=stamp))
        assert isinstance(caught.value, tf2_ros.TransformException)

    def test_what_is_no_transform_is_logged_and_left_out(self, capfd):
        buffer = self.buffer()
        buffer.set_transform(moved("base", "base", S), "test")
        broken = moved("odom", "base", S + 300 * MS)
        broken.transform.translation.x = float("nan")
        buffer.set_transform(broken, "test")
        assert buffer.get_latest_common_time("odom", "base").nanoseconds == S + 200 * MS
        assert "is ignored" in capfd.readouterr().err


@pytest.mark.parametrize(("stamp", "reason"), [(S - 1, "too_old"), (S + 1, "too_new")])
def test_with_a_single_sample_the_direction_does_not_depend_on_the_words_of_tf2(stamp, reason):
    """tf2 then says `but only time Y is in the buffer`, without saying on which side it lies."""
    buffer = tf2_ros.Buffer()
    buffer.set_transform(moved("odom", "camera", S), "test")
    picture = SimpleNamespace(frame_id="camera", stamp=stamp)
    wordless = tf2_ros.ExtrapolationException("extrapolation: only one time is in the buffer")
    assert frame_assembly._reason(wordless, buffer, "odom", picture) == reason


def test_listener_gets_what_comes_on_tf_and_tf_static(ros):
    node = ros.node()
    buffer = tf2_ros.Buffer()
    static = node.create_publisher(TFMessage, "/tf_static", latched_qos())
    dynamic = node.create_publisher(TFMessage, "/tf", 100)
    static.publish(TFMessage(transforms=[moved("base", "camera", 0, 0.5), moved("base", "lidar", 0, 0.7)]))
    listener = tf2_ros.TransformListener(buffer, ros.node("listener"))
    ros.wait_for(lambda: dynamic.get_subscription_count() == 1)
    broken = moved("odom", "wheel", S)
    broken.transform.rotation.w = 0.0
    dynamic.publish(TFMessage(transforms=[broken, moved("odom", "base", S, 1.0)]))

    def known() -> bool:
        try:
            buffer.lookup_transform("odom", "lidar", Time(nanoseconds=S))
            found = buffer.lookup_transform("odom", "camera", Time(nanoseconds=S))
        except tf2_ros.TransformException:
            return False
        return transform_matrix(found.transform)[0, 3] == pytest.approx(1.5)

    ros.wait_for(known)
    with pytest.raises(tf2_ros.LookupException):
        buffer.lookup_transform("odom", "wheel", Time(nanoseconds=S))
    listener.unregister()
    ros.wait_for(lambda: dynamic.get_subscription_count() == 0)
