"""Plays a bag as live topics: original names and bytes, paced without drift, with /clock, rate and loop.

``python -m s4net_ros.player BAG [--rate 2] [--loop] [--no-clock] [--wait-for TOPIC ...]``

Any rosbag2 (folder, ``.mcap`` or ``.db3``) whose message types are installed can be played. Messages are published as
the bytes that were recorded, so nothing is decoded on the way.
"""

if __name__ == "__main__":  # until it plays, a signal ends this program without a traceback
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rich.console import Console
from rich.progress import Progress

from s4net_core.errors import S4NetError
from s4net_core.files import write_result
from s4net_core.io.bags.storage import Bag
from s4net_ros.replay.bag_player import BagPlayer, PlayerOptions, PlayerSummary

MAX_DEPTH = 10_000
SPIN_S = 0.1
"""Seconds within which the thread that serves ``~/pause`` ends."""


def play(path: Path, options: PlayerOptions) -> PlayerSummary:
    """Play the bag at `path` until its end, or until SIGINT or SIGTERM.

    Raises:
        CaptureError: the bag is missing, or its messages cannot be published here.
    """
    with Bag(path) as bag:
        player = BagPlayer(bag, options)
        total = sum(bag.count(topic) for topic in bag.topics)
        with _stopped_by_signals(player), _spinning(player.node), _progress_bar(path.name, total) as show:
            return player.play(show)


@contextmanager
def _stopped_by_signals(player: BagPlayer) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        player.stop()

    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def _progress_bar(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Progress bar, if stderr is a terminal. Gives a function that takes the number of messages played."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(f"playing {name}", total=total or None)
        yield lambda messages: progress.update(task, completed=messages)


@contextmanager
def _spinning(node: Node) -> Iterator[None]:
    """Serve the node's services in the background; the messages go out from the calling thread."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            executor.spin_once(timeout_sec=SPIN_S)

    thread = threading.Thread(target=serve, name="services", daemon=True)
    thread.start()
    try:
        yield
    finally:
        # The thread must end first: `Executor.shutdown` destroys the guard condition that wakes it.
        done.set()
        thread.join()
        executor.shutdown()
        node.destroy_node()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the player."""
    default = PlayerOptions()
    seconds = _number(0.0, 1e9)
    parser.add_argument("bag", type=Path, help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument(
        "--rate", type=_number(0.001, 1000.0), default=default.rate, help="speed; 2 = twice as fast as recorded"
    )
    parser.add_argument("--loop", action="store_true", help="start again at the end; /clock jumps back")
    parser.add_argument("--clock", action=argparse.BooleanOptionalAction, default=True, help="publish /clock at 100 Hz")
    parser.add_argument("--start", type=seconds, default=default.start, metavar="S", help="skip the first S seconds")
    parser.add_argument(
        "--duration", type=seconds, default=default.duration, metavar="S", help="seconds to play; 0 = all"
    )
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="play only these topics")
    parser.add_argument(
        "--reliability",
        choices=("auto", "reliable", "best_effort"),
        default=default.reliability,
        help="QoS of every publisher; auto = as recorded",
    )
    parser.add_argument("--depth", type=_depth, default=default.depth, help="queue depth of a publisher")
    parser.add_argument(
        "--wait-for",
        nargs="+",
        type=_awaited,
        default=[],
        metavar="TOPIC[:N]",
        help="wait until each of these topics has N subscribers (1)",
    )
    parser.add_argument(
        "--wait-timeout",
        type=seconds,
        default=default.wait_timeout,
        metavar="S",
        help="give up waiting after S seconds",
    )
    parser.add_argument("--start-paused", action="store_true", help="wait for a call of '~/pause' with data: false")
    parser.add_argument("--json", type=_writable, metavar="FILE", help="write the summary to this file as well")


def _number(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not low <= value <= high:  # refuses NaN too
            raise argparse.ArgumentTypeError(f"{text} must be between {low:g} and {high:g}")
        return value

    return number


def _depth(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MAX_DEPTH:
        raise argparse.ArgumentTypeError(f"{text} must be between 1 and {MAX_DEPTH}")
    return value


def _writable(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: name a file")
    if path.exists() and not path.is_file():
        raise argparse.ArgumentTypeError(f"{text} is no regular file: name a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: permission denied")
    return path


def _awaited(text: str) -> str:
    if not re.fullmatch(r"[^:]+(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"'{text}' is neither TOPIC nor TOPIC:N")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: 0 = played to the end or stopped by a signal, 1 = the bag is damaged, 2 = it cannot be played."""
    given = list(sys.argv if arguments is None else ["player", *arguments])
    parser = argparse.ArgumentParser(prog="python -m s4net_ros.player", description="Play a bag as live ROS topics.")
    add_arguments(parser)
    parsed = parser.parse_args(remove_ros_args(given)[1:])
    names = set(PlayerOptions.__dataclass_fields__)
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in vars(parsed).items() if k in names}
    # Our own handlers end the loop between two messages; rclpy's would shut the context down during a publish.
    rclpy.init(args=given, signal_handler_options=SignalHandlerOptions.NO)
    try:
        summary = play(parsed.bag, PlayerOptions(**values))
    except S4NetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()
    print(summary.text())
    if parsed.json:
        try:
            write_result(parsed.json, json.dumps(vars(summary), indent=2))
        except S4NetError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return 1 if summary.damage else 0


if __name__ == "__main__":
    sys.exit(main())
