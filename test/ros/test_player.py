"""The player publishes a bag as it was recorded: same bytes, same order, same rhythm."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="the player needs rclpy")

from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from scenes import make_room_frames
from sensor_msgs.msg import Image
from std_msgs.msg import Int32
from tf2_msgs.msg import TFMessage

from s4net_core.errors import CaptureError
from s4net_core.io.bags.messages import stamp_ns
from s4net_core.io.bags.storage import Bag
from s4net_core.io.bags.writer import COLOR
from s4net_core.io.bags.writer import write_bag as write_camera_bag
from s4net_ros.player import main
from s4net_ros.replay.bag_player import BagPlayer, Pacer, PlayerOptions, message_class, publisher_qos

INTERRUPTED = str(Path(__file__).with_name("interrupted.py"))
END_S = 80.0
"""A player ends within a second or two of its bag's end or of a signal; a test must also pass on a busy machine."""
Player: TypeAlias = "subprocess.Popen[str]"
START = 1_700_000_000_000_000_000
STEP = 50_000_000
COUNT = 20
STORE = get_typestore(Stores.ROS2_HUMBLE)


def qos(reliability: QosReliability, durability: QosDurability) -> Qos:
    forever = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST, 1, reliability, durability, forever, forever, QosLiveliness.AUTOMATIC, forever, False
    )


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Bag of `write_bag`."""
    path = tmp_path / "bag"
    write_bag(path)
    return path


def write_bag(path: Path, storage: StoragePlugin = StoragePlugin.MCAP) -> None:
    """One second: /count 0..19 at 20 Hz, two publishers of /tf_static, and a type that is installed nowhere."""
    types = STORE.types
    with Writer(path, version=8, storage_plugin=storage) as writer:
        count = writer.add_connection(
            "/count",
            "std_msgs/msg/Int32",
            typestore=STORE,
            offered_qos_profiles=[qos(QosReliability.BEST_EFFORT, QosDurability.VOLATILE)],
        )
        static = writer.add_connection("/tf_static", "tf2_msgs/msg/TFMessage", typestore=STORE)
        foreign = writer.add_connection(
            "/foreign", "no_such_msgs/msg/Thing", msgdef="int32 data\n", rihs01="RIHS01_" + "0" * 64
        )
        for child in ("camera_link", "imu_link"):
            writer.write(static, START, STORE.serialize_cdr(static_transform(types, child), "tf2_msgs/msg/TFMessage"))
        for index in range(COUNT):
            message = types["std_msgs/msg/Int32"](data=index)
            writer.write(count, START + index * STEP, STORE.serialize_cdr(message, "std_msgs/msg/Int32"))
            writer.write(foreign, START + index * STEP, b"\x00\x01\x00\x00\x07\x00\x00\x00")


def static_transform(types: Any, child: str) -> Any:
    header = types["std_msgs/msg/Header"](stamp=types["builtin_interfaces/msg/Time"](sec=0, nanosec=0), frame_id="base")
    transform = types["geometry_msgs/msg/Transform"](
        translation=types["geometry_msgs/msg/Vector3"](x=1.0, y=2.0, z=3.0),
        rotation=types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
    )
    stamped = types["geometry_msgs/msg/TransformStamped"](header=header, child_frame_id=child, transform=transform)
    return types["tf2_msgs/msg/TFMessage"](transforms=[stamped])


class Listener:
    """Records what arrives on the bag's topics, with the time at which it was sent (s)."""

    def __init__(self, ros: Any) -> None:
        self.node = ros.node("listener")
        self.counts: list[tuple[float, int]] = []
        self.raw: list[bytes] = []
        self.clock: list[int] = []
        best_effort = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.node.create_subscription(Int32, "/count", self._on_count, best_effort, raw=True)
        self.node.create_subscription(Clock, "/clock", self._on_clock, best_effort)

    def _on_count(self, data: bytes, info: dict[str, Any]) -> None:
        self.raw.append(data)
        self.counts.append((info["source_timestamp"] / 1e9, deserialize_message(data, Int32).data))

    def _on_clock(self, message: Clock) -> None:
        self.clock.append(message.clock.sec * 1_000_000_000 + message.clock.nanosec)


@pytest.fixture
def listener(ros: Any) -> Listener:
    """Subscribed already, so that ``--wait-for /count`` finds it."""
    return Listener(ros)


@pytest.fixture
def start_player(spawn: Callable[..., Player]) -> Callable[..., Player]:
    """`start_player(*arguments)`: the program, which is gone when the test is over."""
    return lambda *arguments: spawn("-m", "s4net_ros.player", *map(str, arguments))


def finish(process: Player) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=END_S)
    return process.returncode, out, err


@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP], ids=["sqlite3", "mcap"])
def test_messages_arrive_once_in_order_and_in_their_rhythm(
    storage: StoragePlugin, listener: Listener, ros: Any, tmp_path: Path, start_player: Callable[..., Player]
) -> None:
    bag = tmp_path / "bag"
    write_bag(bag, storage)
    code, out, err = finish(
        start_player(bag, "--rate", "2", "--wait-for", "/count", "--json", tmp_path / "summary.json")
    )
    assert code == 0, err
    ros.wait_for(lambda: len(listener.counts) == COUNT)
    assert [value for _, value in listener.counts] == list(range(COUNT))
    assert listener.raw[3] == b"\x00\x01\x00\x00\x03\x00\x00\x00"
    delays = [sent - value * STEP * 1e-9 / 2 for sent, value in listener.counts]
    assert np.quantile(delays, 0.3) - min(delays) < 0.05  # a busy machine may make some late
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["messages"] == {"/count": COUNT, "/tf_static": 2}
    assert summary["finished"]
    assert summary["rounds"] == 1
    assert "no_such_msgs" in summary["skipped_topics"]["/foreign"]
    assert "/count" in out


def test_clock_runs_at_100_hz_from_the_bags_start_and_never_behind_a_message(
    bag: Path, listener: Listener, start_player: Callable[..., Player]
) -> None:
    code, _, err = finish(start_player(bag, "--wait-for", "/count"))
    assert code == 0, err
    assert START <= listener.clock[0] <= START + 50_000_000  # nobody waits for subscribers of /clock
    assert listener.clock == sorted(listener.clock)
    assert len(listener.clock) == pytest.approx(96, abs=8)
    assert listener.clock[-1] >= START + (COUNT - 1) * STEP - 10_000_000


def test_without_clock_nothing_is_published_on_clock(
    bag: Path, listener: Listener, start_player: Callable[..., Player]
) -> None:
    code, _, err = finish(start_player(bag, "--no-clock", "--rate", "4", "--wait-for", "/count"))
    assert code == 0, err
    assert len(listener.counts) == COUNT
    assert listener.clock == []


def test_a_late_subscriber_gets_every_latched_transform(
    bag: Path, listener: Listener, ros: Any, start_player: Callable[..., Player]
) -> None:
    player = start_player(bag, "--rate", "0.2", "--wait-for", "/count")
    ros.wait_for(lambda: listener.counts)
    frames: list[str] = []

    def on_transform(message: TFMessage) -> None:
        transforms: list[TransformStamped] = message.transforms
        frames.extend(t.child_frame_id for t in transforms)

    latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    listener.node.create_subscription(TFMessage, "/tf_static", on_transform, latched)
    ros.wait_for(lambda: len(frames) == 2)
    assert sorted(frames) == ["camera_link", "imu_link"]
    player.send_signal(signal.SIGINT)
    assert finish(player)[0] == 0


def test_loop_starts_again_and_the_clock_jumps_back_until_a_signal_ends_it(
    bag: Path, listener: Listener, ros: Any, start_player: Callable[..., Player]
) -> None:
    player = start_player(bag, "--loop", "--rate", "4", "--wait-for", "/count")
    ros.wait_for(lambda: len(listener.counts) > 2 * COUNT)
    player.send_signal(signal.SIGTERM)
    code, out, err = finish(player)
    assert code == 0, err
    values = [value for _, value in listener.counts]
    assert values[: 2 * COUNT] == [*range(COUNT), *range(COUNT)]
    assert sum(after < before for before, after in zip(listener.clock, listener.clock[1:], strict=False)) >= 2
    assert "played" in out


def test_a_loop_keeps_the_rhythm_of_the_camera(ros: Any, tmp_path: Path, start_player: Callable[..., Player]) -> None:
    """Without the interval between them, the first image of a round overtakes the last one of the round before."""
    frames = make_room_frames(6, 32, 24)  # 10 Hz
    write_camera_bag(tmp_path / "bag", frames)
    sent: list[tuple[float, int]] = []

    def on_image(message: Image, info: dict[str, Any]) -> None:
        sent.append((info["source_timestamp"] / 1e9, stamp_ns(message.header)))

    ros.node("listener").create_subscription(Image, COLOR, on_image, QoSProfile(depth=100))
    player = start_player(tmp_path / "bag", "--loop", "--rate", "2", "--wait-for", COLOR)
    ros.wait_for(lambda: len(sent) > 5 * len(frames))
    player.send_signal(signal.SIGINT)
    assert finish(player)[0] == 0
    assert [stamp for _, stamp in sent[: 2 * len(frames)]] == 2 * [frame.stamp for frame in frames]
    begins = [seconds for seconds, stamp in sent if stamp == frames[0].stamp]
    ends = [seconds for seconds, stamp in sent if stamp == frames[-1].stamp]
    pauses = [begin - end for begin, end in zip(begins[1:], ends, strict=False)]
    assert 0.025 < np.median(pauses) < 0.1


def test_a_paused_player_starts_with_its_service(
    bag: Path, listener: Listener, ros: Any, start_player: Callable[..., Player]
) -> None:
    from std_srvs.srv import SetBool

    player = start_player(bag, "--start-paused", "--rate", "4", "--wait-for", "/count")
    client = listener.node.create_client(SetBool, "/player/pause")
    assert client.wait_for_service(timeout_sec=60.0)
    ros.wait_for(lambda: len(listener.clock) > 4)  # it plays nothing while its clock stands
    assert listener.counts == []
    assert set(listener.clock) == {START}
    client.call(SetBool.Request(data=False))
    ros.wait_for(lambda: len(listener.counts) == COUNT)
    assert finish(player)[0] == 0


def test_a_part_of_the_bag_still_brings_the_latched_transforms(
    bag: Path, listener: Listener, ros: Any, start_player: Callable[..., Player]
) -> None:
    code, out, err = finish(
        start_player(bag, "--start", "0.5", "--duration", "0.25", "--no-clock", "--wait-for", "/count")
    )
    assert code == 0, err
    ros.wait_for(lambda: len(listener.counts) == 5)
    assert [value for _, value in listener.counts] == [10, 11, 12, 13, 14]
    assert "2  /tf_static" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--topics", "/nothing"), ("/nothing", "/count")),
        (("--topics", "/foreign"), ("no message that can be published",)),
        (("--start", "5"), ("--start 5",)),
        (("--wait-for", "/count:2", "--wait-timeout", "0.2"), ("not enough subscribers of /count", "ROS_DOMAIN_ID")),
    ],
)
def test_what_cannot_be_played_ends_with_its_reason(
    ros: Any, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...], start_player: Callable[..., Player]
) -> None:
    write_bag(tmp_path / "bag")
    code, _, err = finish(start_player(tmp_path / "bag", *arguments))
    assert code == 2
    assert "Traceback" not in err
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rate", "nan"), ("--rate", "nan must be between 0.001 and 1000")),
        (("--rate", "inf"), ("--rate", "inf must be")),
        (("--rate", "1e-300"), ("--rate", "1e-300 must be")),
        (("--start", "nan"), ("--start", "nan must be between 0 and 1e+09")),
        (("--start", "-1"), ("--start", "-1 must be")),
        (("--duration", "nan"), ("--duration", "nan must be")),
        (("--duration", "inf"), ("--duration", "inf must be")),
        (("--wait-timeout", "nan"), ("--wait-timeout", "nan must be")),
        (("--depth", "0"), ("--depth", "0 must be between 1 and 10000")),
        (("--json", "/no/such/summary.json"), ("--json", "there is no folder /no/such")),
        (("--json", "/"), ("--json", "/ is a folder")),
        (("--json", "/dev/null"), ("--json", "/dev/null is no regular file")),
    ],
)
def test_an_option_that_cannot_work_is_refused_before_anything_is_played(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["nowhere", *arguments])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    for word in words:
        assert word in err


def test_a_signal_at_whatever_moment_ends_the_player(bag: Path, spawn: Callable[..., Player]) -> None:
    """`threading.Event.set` in the handler hung when the signal came inside of the main thread's `Event.wait`."""
    process = spawn(INTERRUPTED, "player", str(bag))
    code, out, err = finish(process)
    assert code == 0, err
    assert int(out) >= 20  # moments; a player that is not interrupted needs more lines


def test_a_missing_bag_is_named(ros: Any, tmp_path: Path, start_player: Callable[..., Player]) -> None:
    code, _, err = finish(start_player(tmp_path / "nowhere"))
    assert code == 2
    assert "nowhere" in err
    assert "Traceback" not in err


def test_a_bag_of_ros_1_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    with Rosbag1Writer(tmp_path / "old.bag") as writer:
        connection = writer.add_connection("/count", "std_msgs/msg/Int32", typestore=store)
        message = store.types["std_msgs/msg/Int32"](data=1)
        writer.write(connection, START, store.serialize_ros1(message, "std_msgs/msg/Int32"))
    with Bag(tmp_path / "old.bag") as bag, pytest.raises(CaptureError, match=r"s4net convert .*old.bag OUTPUT"):
        BagPlayer(bag, PlayerOptions())


def test_a_bag_without_its_end_is_played_as_far_as_it_goes(
    listener: Listener, ros: Any, tmp_path: Path, start_player: Callable[..., Player]
) -> None:
    write_bag(tmp_path / "bag", StoragePlugin.MCAP)
    (file,) = (tmp_path / "bag").glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-100])
    code, out, err = finish(start_player(tmp_path / "bag", "--rate", "4", "--wait-for", "/count"))
    assert code == 1, err
    assert "Traceback" not in err
    assert "the bag is damaged" in out
    ros.wait_for(lambda: len(listener.counts) >= COUNT - 1)  # best effort: the last one may be lost as the player ends
    values = [value for _, value in listener.counts]
    assert values == sorted(set(values))
    assert set(values) <= set(range(COUNT))


def test_pacing_has_no_drift() -> None:
    pacer = Pacer(rate=3.0)
    pacer.start(START, 1_000)
    third = 1_000_000_000 // 3
    assert pacer.wall(START + 1_000_000_000) == 1_000 + third
    assert pacer.wall(START + 3_000_000_000_000) == 1_000 + 1_000_000_000_000
    pacer.shift(500)
    assert pacer.wall(START) == 1_500


def test_recorded_qos_is_kept_and_can_be_overruled(tmp_path: Path) -> None:
    from rosbags.rosbag2 import Reader

    write_bag(tmp_path / "bag")
    with Reader(tmp_path / "bag") as reader:
        count, static = (next(c for c in reader.connections if c.topic == t) for t in ("/count", "/tf_static"))
        assert publisher_qos(count, PlayerOptions()).reliability == ReliabilityPolicy.BEST_EFFORT
        assert publisher_qos(count, PlayerOptions(reliability="reliable")).reliability == ReliabilityPolicy.RELIABLE
        assert publisher_qos(count, PlayerOptions()).durability == DurabilityPolicy.VOLATILE
        assert publisher_qos(static, PlayerOptions()).reliability == ReliabilityPolicy.RELIABLE
        assert publisher_qos(static, PlayerOptions()).durability == DurabilityPolicy.TRANSIENT_LOCAL
        both = [qos(kind, QosDurability.VOLATILE) for kind in (QosReliability.BEST_EFFORT, QosReliability.RELIABLE)]
        mixed = count._replace(ext=count.ext._replace(offered_qos_profiles=both))
        assert publisher_qos(mixed, PlayerOptions()).reliability == ReliabilityPolicy.RELIABLE
        assert publisher_qos(static, PlayerOptions(depth=1)).depth == 2  # all of a latched topic
        assert publisher_qos(count, PlayerOptions(depth=1)).depth == 1


def test_a_type_that_is_not_installed_names_its_package() -> None:
    with pytest.raises(CaptureError, match="install the ROS package no_such_msgs"):
        message_class("no_such_msgs/msg/Thing")
