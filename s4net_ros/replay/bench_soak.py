"""Whether the nodes' memory stays as it is: a bag is played again and again at four times its speed, and they learn.

``s4net bench soak`` runs this.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from s4net_core.bench.table import CASES, Row, print_rows
from s4net_core.config import load_settings
from s4net_core.io.bags.writer import write_bag
from s4net_core.io.captures.opening import open_capture
from s4net_ros.live import LOGS, PLAYER, start, wait_for_nodes
from s4net_ros.replay.bench_process import NEVER_ENDS, exit_code_of
from s4net_ros.replay.monitor import Monitor, Record
from s4net_ros.replay.plan import START_TIMEOUT, Plan, add_arguments, make_plan
from s4net_ros.replay.processes import Children

SPEED = 4
"""Seconds of the bag played in one second."""
SAMPLES = 300
"""How often memory is read: often enough that what comes and goes between two hand-overs looks like no trend."""
WARM_UP = 1 / 3
"""Share of the run in which caches fill; what memory does then does not count."""
GOAL = 2.0
"""Largest change of the memory, per cent, from the end of the warm-up to the end."""


class Memory(NamedTuple):
    """Memory of one process, bytes: what it has in RAM, pages that others use too counted in part, or whole."""

    pss: int
    rss: int


def memory_of(pid: int) -> Memory:
    """Memory of a process; Linux."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    return Memory(kilobytes["Pss"] << 10, kilobytes["Rss"] << 10)


def measure(settings_file: str, overrides: Sequence[str], minutes: float, capture: Path) -> list[Row]:
    """Play the capture as a bag for `minutes` to both nodes.

    Args:
        settings_file: YAML.
        overrides: NAME=VALUE, which win over the file. The file or these must give ``checkpoint`` and ``source.path``.
        minutes: of the run, after the nodes have loaded their networks.
        capture: posed frames with depth.

    Raises:
        S4NetError: the capture cannot be read, or a process dies.
    """
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "bag"
        write_bag(bag, open_capture(capture))
        with _playing(_plan(bag, settings_file, overrides, Path(folder) / "out")) as (monitor, children):
            times, memory = _samples(monitor, children, minutes * 60)
            return rows(times, memory, monitor.record)


def rows(times: Sequence[float], memory: dict[str, list[Memory]], record: Record) -> list[Row]:
    """The table: for each process, memory after the warm-up, and how far a line through what followed rises.

    Args:
        times: of the samples, seconds.
        memory: samples of each process.
        record: what the nodes did meanwhile.
    """
    first = int(len(times) * WARM_UP)
    counted = np.array(times[first:])
    hours = (counted[-1] - counted[0]) * SPEED / 3600
    table = []
    for name, samples in memory.items():
        for kind in Memory._fields:
            values = np.array([getattr(sample, kind) for sample in samples[first:]]) / 1e6
            slope, start = np.polyfit(counted - counted[0], values, 1)
            rise = slope * (counted[-1] - counted[0])
            table.append(Row(f"{name}: {kind.upper()} after the warm-up", start, "MB", None))
            text = f"{name}: {kind.upper()}, rise in {hours:.2f} h of the bag, goal {GOAL:g} at most, {rise:+.1f} MB"
            table.append(Row(text, 100 * rise / start, "%", None))
    status = record.status
    kept = [point.keyframes for point in record.history.points if point.seconds >= counted[0]]
    if kept:  # caches grow with them
        table.append(Row(f"keyframes at the end; {kept[0]} after the warm-up", kept[-1], "", None))
    done = [("frames", record.frames), ("masks", record.labelled), ("steps", status.step if status else 0)]
    return table + [Row(f"{name} in the whole run", count, "", None) for name, count in done]


def _samples(monitor: Monitor, children: Children, seconds: float) -> tuple[list[float], dict[str, list[Memory]]]:
    times: list[float] = []
    memory: dict[str, list[Memory]] = {child.name: [] for child in children}
    began = time.monotonic()
    for n in track(range(1, SAMPLES + 1), "soak", console=Console(stderr=True), transient=True):
        monitor.spin(began + n * seconds / SAMPLES - time.monotonic())
        children.check()
        times.append(time.monotonic() - began)
        for child in children:
            memory[child.name].append(memory_of(child.pid))
    return times, memory


@contextmanager
def _playing(plan: Plan) -> Iterator[tuple[Monitor, Children]]:
    """Both nodes and the player, which plays."""
    os.environ.update(plan.environment)
    with Children(plan.out / LOGS, plan.environment) as children:
        start(plan, children)
        monitor = Monitor(plan.specs)
        try:
            with Console(stderr=True).status("the nodes load their networks"):
                wait_for_nodes(plan, monitor, children)
            monitor.unpause(f"/{PLAYER}", timeout=START_TIMEOUT)
            yield monitor, children
        finally:
            monitor.close()


def _plan(bag: Path, settings_file: str, overrides: Sequence[str], out: Path) -> Plan:
    settings = load_settings(settings_file, overrides)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = [str(bag), "--settings", settings_file, "--out", str(out), "--rate", str(SPEED), "--loop"]
    words += ["--checkpoint", settings.checkpoint, "--source-set", settings.source.path]
    for override in (*NEVER_ENDS, *overrides):
        words += ["--set", override]
    return make_plan(parser.parse_args(words))


def main() -> int:
    """``replay.bench_soak SETTINGS MINUTES CAPTURE [NAME=VALUE ...]``."""
    file, minutes, capture, *overrides = sys.argv[1:]
    return exit_code_of(lambda: print_rows(CASES["soak"], measure(file, overrides, float(minutes), Path(capture))))


if __name__ == "__main__":
    sys.exit(main())
