"""Time from the start of the live node's process to its first mask, and what it is spent on.

``s4net bench start`` runs this.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from s4net_core.bench.table import CASES, Row, print_rows
from s4net_core.config import load_settings
from s4net_core.errors import S4NetError
from s4net_ros.graph import adaptation_graph
from s4net_ros.replay.bench_camera import Camera
from s4net_ros.replay.bench_process import exit_code_of
from s4net_ros.replay.bench_stream import cpu_seconds
from s4net_ros.replay.plan import START_TIMEOUT, with_overrides
from s4net_ros.replay.processes import Children

GOAL = 6.0
"""Seconds to the first mask on a CPU, when the disk's cache holds all files."""
PARTS = "s4net_ros.replay.start_parts"
POLL = 0.02
"""Seconds between two images of the camera: the first mask is found this late."""


class Start(NamedTuple):
    """One start of the node, up to its first mask: seconds of the clock, and of process time."""

    seconds: float
    process: float


def measure(settings_file: str, overrides: Sequence[str], repeats: int) -> list[Row]:
    """Start the node, and time its parts in a process without topics, in turns; medians leave out cold caches.

    Args:
        settings_file: YAML.
        overrides: NAME=VALUE, which win over the file. The file or these must give ``checkpoint``.
        repeats: number of turns.

    Raises:
        S4NetError: the node dies or does not answer, or the parts cannot be measured.
    """
    starts, parts = list[Start](), list[dict[str, float]]()
    for _ in track(range(repeats), "start", console=Console(stderr=True), transient=True):
        starts.append(_start(settings_file, overrides))
        parts.append(_parts(settings_file, overrides))
    return rows(starts, parts)


def rows(starts: Sequence[Start], parts: Sequence[Mapping[str, float]]) -> list[Row]:
    """The table: medians of the whole, and of each part of the process time."""
    whole, process = (statistics.median(values) for values in zip(*starts, strict=True))
    spread = f"{min(starts).seconds:.1f} to {max(starts).seconds:.1f}"
    medians = {name: statistics.median(part[name] for part in parts) for name in parts[0]}
    medians["ROS context, node, parameters and topics"] = process - sum(medians.values())
    return [
        Row(f"start of the process to the first mask, {spread}, goal {GOAL:g} at most", whole, "s", None),
        Row("process time of it", process, "s", None),
        *(Row(f"  {name}", seconds, "s", None) for name, seconds in medians.items()),
    ]


def _start(settings_file: str, overrides: Sequence[str]) -> Start:
    settings = load_settings(settings_file, overrides)
    graph = adaptation_graph(settings_file=settings_file, checkpoint=settings.checkpoint)
    spec = with_overrides(graph[0], overrides)
    camera = Camera(spec, posed=False)
    try:
        with tempfile.TemporaryDirectory() as logs, Children(Path(logs), {}) as children:
            started = time.monotonic()
            node = children.start(spec.name, spec.command())
            camera.publish_until(lambda: bool(camera.latencies), children, START_TIMEOUT, POLL)
            return Start(time.monotonic() - started, cpu_seconds(node.pid))
    finally:
        camera.destroy_node()


def _parts(settings_file: str, overrides: Sequence[str]) -> dict[str, float]:
    command = [sys.executable, "-m", PARTS, settings_file, *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise S4NetError(f"the parts of the start cannot be measured:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> int:
    """``replay.bench_start SETTINGS REPEATS CAPTURE [NAME=VALUE ...]``."""
    file, repeats, _, *overrides = sys.argv[1:]
    return exit_code_of(lambda: print_rows(CASES["start"], measure(file, overrides, int(repeats))))


if __name__ == "__main__":
    sys.exit(main())
