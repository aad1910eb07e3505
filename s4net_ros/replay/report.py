"""Panel, summary and files of a live run."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from s4net_core.files import nan_as_none, write_result
from s4net_core.streams.drops import counted
from s4net_ros.replay.monitor import ADAPTATION, SEGMENTATION, Record, as_json
from s4net_ros.replay.plan import PLAYER_SUMMARY

SUMMARY = "summary.json"
MEASURED = {
    "score": "score on held-out keyframes",
    "agreement": "agreement between views",
    "source_miou": "mIoU on held-out source images",
}
"""What the guard measures of weights: name in the status, and in words."""


def panel(record: Record, seconds: float, note: str) -> RenderableType:
    """State of a run, redrawn several times a second."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row("frames", _frames(record, seconds))
    for node, reasons in record.dropped.items():
        if reasons:
            grid.add_row(f"not used by {node}", _reasons(reasons))
    grid.add_row("learner", _learner(record))
    grid.add_row("weights", _weights(record))
    notes = [note] if note else []
    notes += [f"{node}: {values['message']}" for node, values in record.values.items() if values.get("message")]
    return Panel(Group(grid, *notes), title=f"s4net live, {seconds:.0f} s", title_align="left")


def line(record: Record, seconds: float, note: str) -> str:
    """State of a run in one line, for output that is not a terminal."""
    if note:
        return note
    return f"{seconds:6.0f} s  {_frames(record, seconds)}  |  {_learner(record)}  |  {_weights(record)}"


def _frames(record: Record, seconds: float) -> str:
    rate = f" ({record.labelled / seconds:.1f}/s)" if seconds > 1 else ""
    return f"{record.frames} in, {record.labelled} labelled{rate}"


def _learner(record: Record) -> str:
    status = record.status
    if status is None:
        return "no report yet"
    return f"{status.state}, {status.keyframes} keyframes, step {status.step}, loss {_number(status.loss)}"


def _weights(record: Record) -> str:
    status = record.status
    if status is None:
        return "-"
    before, after = record.before_after("agreement")
    refused = f", {status.refused} refused" if status.refused else ""
    return f"version {status.version} ({status.handovers} handed over{refused}), agreement {_change(before, after)}"


def _reasons(reasons: Mapping[str, int]) -> str:
    return counted(dict(Counter(reasons).most_common()))


def summarise(record: Record, stopped_by: str, seconds: float, out: Path) -> dict[str, Any]:
    """Everything about a run, ready for JSON; None = not measured.

    Args:
        record: what the monitor saw.
        stopped_by: why the run ended, in words.
        seconds: from the start of the first process to the end of the last one.
        out: folder of the run; the player's own summary is taken from there.
    """
    status = record.status
    first_loss, last_loss = record.loss()
    player = out / PLAYER_SUMMARY
    return {
        "stopped_by": stopped_by,
        "seconds": round(seconds, 1),
        "frames": {"in": record.frames, "labelled": record.labelled, "dropped": record.dropped},
        "keyframes": status.keyframes if status else 0,
        "steps": status.step if status else 0,
        "handovers": record.handovers,
        "refused": status.refused if status else 0,
        "last_refusal": record.last_refusal,
        "loss": {"first": nan_as_none(first_loss), "last": nan_as_none(last_loss)},
        **{
            name: dict(zip(("before", "after"), nan_as_none(record.before_after(name)), strict=True))
            for name in MEASURED
        },
        "diagnostics": record.values,
        "player": json.loads(player.read_text()) if player.is_file() else None,
    }


def write(summary: Mapping[str, Any], record: Record, out: Path) -> None:
    """Write the summary, with the history for curves, to ``summary.json``.

    Raises:
        S4NetError: the file cannot be written.
    """
    write_result(out / SUMMARY, json.dumps({**summary, **as_json(record)}, indent=2))


def rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers that matter: name and value."""
    frames = summary["frames"]
    refusal = f" (last: {summary['last_refusal']})" if summary["refused"] else ""
    unused = frames["dropped"].get(ADAPTATION)
    return [
        ("frames in", str(frames["in"])),
        ("frames labelled", str(frames["labelled"])),
        ("frames dropped", _dropped(frames)),
        *([(f"not used by {ADAPTATION}", _reasons(unused))] if unused else []),
        ("keyframes", str(summary["keyframes"])),
        ("learner steps", str(summary["steps"])),
        ("model versions handed over", str(summary["handovers"])),
        ("model versions refused", f"{summary['refused']}{refusal}"),
        ("loss, first and last", _pair(summary["loss"], "first", "last")),
        *((f"{title}, before and after", _pair(summary[name])) for name, title in MEASURED.items()),
        *([("bag is damaged", damage)] if (damage := (summary["player"] or {}).get("damage")) else []),
        ("time", f"{summary['seconds']:.0f} s, stopped by: {summary['stopped_by']}"),
    ]


def _dropped(frames: Mapping[str, Any]) -> str:
    """Frames without a mask, with reasons. The node cannot count a frame that was replaced before it arrived."""
    missing = max(frames["in"] - frames["labelled"], 0)
    reasons = dict(frames["dropped"].get(SEGMENTATION, {}))
    if (unknown := missing - sum(reasons.values())) > 0:
        reasons["overtaken or lost on the way"] = unknown
    return f"{missing}: {_reasons(reasons)}" if reasons else str(missing)


def table(summary: Mapping[str, Any]) -> Table:
    """`rows` for the terminal."""
    shown = Table(title="live run", title_justify="left", show_header=False)
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in rows(summary):
        shown.add_row(name, value)
    return shown


def _pair(values: Mapping[str, float | None], first: str = "before", last: str = "after") -> str:
    numbers = [math.nan if values[name] is None else values[name] for name in (first, last)]
    return _change(*numbers)  # type: ignore[arg-type]


def _change(before: float, after: float) -> str:
    return f"{_number(before)} -> {_number(after)}"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"
