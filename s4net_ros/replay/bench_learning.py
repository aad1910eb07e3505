"""What the labels lose while the network learns beside them: both nodes behind a camera, learning in turns off and on.

``s4net bench live --learning`` runs this. Both nodes run in both turns, in one session, as ``ros2 launch`` starts them.
The learner has the keyframes of a capture from the start, so that it always has something to learn.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rclpy
from rclpy.client import Client
from rich.console import Console
from std_srvs.srv import SetBool

from s4net_core.bench.camera import RATE
from s4net_core.bench.step import offer_all
from s4net_core.bench.table import CASES, Row, print_rows
from s4net_core.config import load_settings
from s4net_core.errors import S4NetError
from s4net_core.learning.base_model import open_source
from s4net_core.learning.session import Session
from s4net_ros.replay.bench_camera import Camera
from s4net_ros.replay.bench_process import NEVER_ENDS, exit_code_of
from s4net_ros.replay.bench_stream import specs_of
from s4net_ros.replay.plan import START_TIMEOUT
from s4net_ros.replay.processes import Children

ROUNDS = 3
"""How often learning is off and on."""
SETTLE = 4
"""Seconds of each turn that are not counted: a step that has begun goes on in a pause."""
FIRST_STEP = 300.0
"""Seconds for both nodes to load their networks and make the first step, which makes the first labels."""
SMALLEST_RATE, LARGEST_P99 = 0.85, 1.5
"""Goals: rate and 99th percentile of the time to the mask with the learner on, as shares of those without."""


class Turn(NamedTuple):
    """What was measured while learning was off, or on: masks a second, seconds from colour to mask, steps a second."""

    rate: float
    latencies: list[float]
    steps: float


def measure(settings_file: str, overrides: Sequence[str], repeats: int, capture: Path) -> list[Row]:
    """Start both nodes, and stream while learning is in turns off and on.

    Args:
        settings_file: YAML.
        overrides: NAME=VALUE, which win over the file. The file or these must give ``checkpoint`` and ``source.path``.
        repeats: seconds of each turn.
        capture: gives the keyframes.

    Raises:
        S4NetError: a node dies or does not answer, or nothing is learned.
    """
    settings = load_settings(settings_file, overrides)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        with Session(settings, settings.checkpoint, open_source(settings), state) as session:
            offer_all(session, capture)
            session.save()
        return rows(*_turns(settings_file, overrides, repeats, Path(folder)))


def rows(off: Sequence[Turn], on: Sequence[Turn]) -> list[Row]:
    """The table: rates of the turns and the median ratio of neighbours; times to the mask over all turns of a kind."""
    rates = [turn.rate for turn in on]
    kept = statistics.median(b.rate / a.rate for a, b in zip(off, on, strict=True))
    name = f"masks of a camera at {RATE} Hz, learner"
    table = [
        Row(f"{name} off", statistics.median(turn.rate for turn in off), "masks/s", None),
        Row(
            f"{name} on, {min(rates):.1f} to {max(rates):.1f}, goal {SMALLEST_RATE} times at least",
            statistics.median(rates),
            "masks/s",
            kept,
        ),
    ]
    for percent, goal in ((50, ""), (99, f", goal {1 / LARGEST_P99:.2f} times at least")):
        without, learning = (_milliseconds(turns, percent) for turns in (off, on))
        name = f"colour message to mask message, {percent} % of them, learner"
        table.append(Row(f"{name} off", without, "ms", None))
        table.append(Row(f"{name} on{goal}", learning, "ms", without / learning))
    return [*table, Row("steps of the learner", statistics.median(turn.steps for turn in on), "steps/s", None)]


def _milliseconds(turns: Sequence[Turn], percent: float) -> float:
    return float(np.percentile([seconds for turn in turns for seconds in turn.latencies], percent)) * 1e3


def _turns(settings_file: str, overrides: Sequence[str], seconds: int, folder: Path) -> tuple[list[Turn], list[Turn]]:
    """What was measured without learning, and with it; `folder` has the state with its keyframes."""
    specs = specs_of(settings_file, [*overrides, *NEVER_ENDS], folder)
    _, adaptation = specs
    camera = Camera(adaptation, posed=True)
    pause = camera.create_client(SetBool, f"/{adaptation.namespace}/{adaptation.name}/pause".replace("//", "/"))
    turns: dict[bool, list[Turn]] = {False: [], True: []}
    with Children(folder, {}, own_sessions=False) as children:
        for spec in specs:
            children.start(spec.name, spec.command())
        with Console(stderr=True).status("the nodes load their networks"):
            camera.publish_until(lambda: bool(camera.latencies and camera.status.step), children, FIRST_STEP)
        for n in range(2 * ROUNDS):
            learning = n % 2 == 1
            _ask(camera, pause, SetBool.Request(data=not learning))
            turns[learning].append(_turn(camera, seconds, learning, children))
            children.check()
    camera.destroy_node()
    return turns[False], turns[True]


def _ask(camera: Camera, service: Client, request: SetBool.Request) -> None:
    future = service.call_async(request)
    rclpy.spin_until_future_complete(camera, future, timeout_sec=START_TIMEOUT)
    if not future.done():
        raise S4NetError(f"the adaptation node does not answer within {START_TIMEOUT:.0f} s")


def _turn(camera: Camera, seconds: int, learning: bool, children: Children) -> Turn:
    """Stream for `SETTLE`, and for `seconds` that count, longer until a mask and, while learning, a step came."""
    camera.stream(SETTLE * RATE)
    camera.forget()
    step, start = camera.status.step, time.monotonic()
    camera.stream(seconds * RATE)
    camera.publish_until(
        lambda: bool(camera.latencies) and (not learning or camera.status.step > step), children, FIRST_STEP
    )
    passed = time.monotonic() - start
    return Turn(len(camera.latencies) / passed, list(camera.latencies), (camera.status.step - step) / passed)


def main() -> int:
    """``replay.bench_learning SETTINGS REPEATS CAPTURE [NAME=VALUE ...]``."""
    file, repeats, capture, *overrides = sys.argv[1:]
    return exit_code_of(lambda: print_rows(CASES["live"], measure(file, overrides, int(repeats), Path(capture))))


if __name__ == "__main__":
    sys.exit(main())
