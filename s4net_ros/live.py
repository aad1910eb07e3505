"""Runs the whole chain on this machine: player (or camera), both nodes, and one panel that shows what happens.

``python -m s4net_ros.live BAG --checkpoint W --source-set S --versions 3 --evaluate SCENE`` needs no ROS install beyond
rclpy: the processes come from the same description as the launch files (`graph`). Without a bag it runs on the topics
of a live camera, until Ctrl-C.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from s4net_core.config import Settings
from s4net_core.errors import BaseModelMissing, S4NetError
from s4net_core.models.base_model_file import base_model_file
from s4net_ros.replay import report
from s4net_ros.replay.monitor import Monitor, Record
from s4net_ros.replay.plan import PLAYER_SUMMARY, START_TIMEOUT, Plan, add_arguments, make_plan
from s4net_ros.replay.processes import ChildDied, Children

PLAYER, LOGS = "player", "logs"
PLAYED = (0, 1)  # exit codes of the player: to the end, or as far as a damaged bag goes
REFRESH = 0.25  # s between two updates of the panel
PLAIN_REFRESH = 10.0  # s between two lines where there is no terminal
SETTLE = 1.5  # s after the end, for the last labels and the last version
EPILOG = """examples:
  s4net live recording --checkpoint base.safetensors --source-set source          # plays the bag once
  s4net live recording --settings demo.yaml --versions 3 --evaluate scan2         # loops until the third version
  s4net live --settings mine.yaml                                                 # a running camera, until Ctrl-C
"""


def run(args: argparse.Namespace, console: Console) -> int:
    """Start everything, watch it, end everything, report.

    Returns:
        0, or 1 when --seconds or Ctrl-C came before --versions or --steps were reached.

    Raises:
        S4NetError: something cannot be started, or died; in the latter case after the report.
    """
    plan = make_plan(args)
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise S4NetError(f"--out {plan.out} cannot be a folder ({error.strerror}): name another one") from error
    (plan.out / PLAYER_SUMMARY).unlink(missing_ok=True)  # an earlier run's would be reported as this one's
    os.environ.update(plan.environment)  # the monitor must use the same DDS settings as the nodes
    base: Path | None = None
    with suppress(BaseModelMissing):  # the nodes say so, and wait for the file
        base = base_model_file(plan.settings.checkpoint, plan.settings.model)  # here: a fetch may take minutes
    if args.evaluate:
        _check_scene(args.evaluate, plan.settings, base)
    started = time.monotonic()
    with Children(plan.out / LOGS, plan.environment) as children:
        start(plan, children)
        if plan.cockpit:
            spec, address = plan.cockpit
            children.start(spec.name, spec.command())
            console.print(f"cockpit: {address}", highlight=False, soft_wrap=True)
        record, stopped_by, died = _watch(plan, children, console)
    summary = report.summarise(record, stopped_by, time.monotonic() - started, plan.out)
    if died:
        console.print(died.what, style="red", markup=False)
    try:
        _report(plan, record, summary, args.evaluate, console)
    finally:
        if died:
            raise died
    if missed := plan.limits.missed(record):
        console.print(f"[yellow]{missed}[/]")
        return 1
    return 0


def _check_scene(scene: Path, settings: Settings, base: Path | None) -> None:
    """Refuse now what would otherwise be refused after the run.

    Args:
        scene: on which base and adapted weights will be compared.
        settings: of the nodes.
        base: the base model, whose classes the labels must lead to; None = it is not there yet.

    Raises:
        CaptureError: the scene is missing, is in no format that can be read, or has other classes.
        CheckpointError: the base model is missing or damaged.
    """
    from s4net_core.io.captures.opening import open_views  # both import torch
    from s4net_core.models.checkpoint import read_info

    open_views(scene, settings, labels=read_info(base).label_space if base else None)


def start(plan: Plan, children: Children) -> None:
    """Start the nodes, and the player, which waits until it is unpaused."""
    for spec in plan.specs:
        children.start(spec.name, spec.command(), plan.threads)
    if plan.player:
        children.start(PLAYER, plan.player, may_end=PLAYED)


def _report(plan: Plan, record: Record, summary: dict[str, Any], scene: Path | None, console: Console) -> None:
    """Evaluate, print, and write all files."""
    from s4net_ros.replay import evaluation  # a slow import, which must not delay the start of the processes

    compared = None
    summary["evaluation"] = None
    report.write(summary, record, plan.out)  # it is there even if somebody ends the program while it measures
    try:
        if scene:
            compared = evaluation.measure_before_after(plan.settings, record, scene, console)
            summary["evaluation"] = json.loads(compared.json())
            report.write(summary, record, plan.out)
    finally:  # what is known is shown even if measuring fails
        console.print(report.table(summary))
        if compared:
            evaluation.show(compared, console)
        files = evaluation.write_pages(plan.out, plan.settings, record, report.rows(summary), compared)
        names = ", ".join(str(path) for path in [*files, plan.out / report.SUMMARY, plan.out / LOGS])
        console.print(f"written: {names}", highlight=False, soft_wrap=True)


def _watch(plan: Plan, children: Children, console: Console) -> tuple[Record, str, ChildDied | None]:
    """Watch until a limit, the end of the bag, or a signal; returns what was seen and why it ended.

    A process that dies once all have started ends the watch, so that what was seen until then is not lost.

    Raises:
        S4NetError: one died before, or the nodes do not listen in time.
    """
    monitor = Monitor(plan.specs)
    try:
        with _signals() as caught, _panel(console) as show:
            waits = ", then a browser is waited for" if plan.wait_for_browser else ""
            show(monitor.record, 0.0, f"nodes are loading their networks{waits}")
            tell = partial(console.print, style="yellow", markup=False, highlight=False, soft_wrap=True)
            if not wait_for_nodes(plan, monitor, children, caught, tell):
                return monitor.record, "interrupted", None
            if plan.player:
                monitor.unpause(f"/{PLAYER}", timeout=START_TIMEOUT)
            while not caught:
                monitor.spin(REFRESH)
                try:
                    children.check()
                except ChildDied as died:
                    return monitor.record, died.what, died
                show(monitor.record, monitor.seconds, "")
                if reason := plan.limits.reached(monitor.record, monitor.seconds):
                    monitor.spin(SETTLE)
                    return monitor.record, reason, None
                if plan.player and children[PLAYER].code is not None:
                    monitor.spin(SETTLE)
                    return monitor.record, "end of the bag", None
            return monitor.record, "interrupted", None
    finally:
        monitor.close()


def wait_for_nodes(
    plan: Plan,
    monitor: Monitor,
    children: Children,
    caught: Sequence[int] = (),
    tell: Callable[[str], object] = lambda text: None,
) -> bool:
    """Wait until both nodes listen to the camera, and if asked a browser too; False when a signal came first.

    Args:
        plan, monitor, children: of the run.
        caught: signals that have come.
        tell: called once if a node lacks its base model, which may still be copied to where the node looks.

    Raises:
        S4NetError: a process died, or the nodes do not listen in time.
    """
    deadline = time.monotonic() + START_TIMEOUT
    count, told = monitor.node.count_subscribers, False
    while not caught:
        monitor.spin(REFRESH)
        children.check()
        if not told and (missing := monitor.record.unconfigured):
            tell(f"waiting for up to {START_TIMEOUT:.0f} s, because {missing}")
            told = True
        listeners = count(plan.color_topic)
        loaded = listeners >= len(plan.specs) and (not plan.depth_topic or count(plan.depth_topic) > 0)
        if loaded and (listeners > len(plan.specs) or not plan.wait_for_browser):  # the cockpit listens for a browser
            return True
        if time.monotonic() > deadline and not loaded:
            tails = "\n".join(f"{spec.name}: {children[spec.name].tail(5)}" for spec in plan.specs)
            raise S4NetError(
                f"the nodes do not listen to {plan.color_topic} after {START_TIMEOUT:.0f} s; logs end with:\n{tails}"
            )
    return False


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, which then do not end the program."""
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    old = {number: signal.signal(number, lambda got, frame: caught.append(got)) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def _panel(console: Console) -> Iterator[Callable[[Record, float, str], None]]:
    """A panel that is redrawn on a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield lambda record, seconds, note: live.update(report.panel(record, seconds, note))
        return
    printed = -PLAIN_REFRESH

    def show(record: Record, seconds: float, note: str) -> None:
        nonlocal printed
        if seconds - printed >= PLAIN_REFRESH or note:
            printed = seconds
            console.print(report.line(record, seconds, note), highlight=False, soft_wrap=True)

    yield show


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: exit code of `run`, 1 when a process died, 2 when the input is unusable."""
    parser = argparse.ArgumentParser(
        prog="s4net live",
        description=(__doc__ or "").splitlines()[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    console = Console()
    try:
        return run(parser.parse_args(arguments), console)
    except S4NetError as error:
        print(f"s4net live: {error}", file=sys.stderr)
        return 1 if isinstance(error, ChildDied) else 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
