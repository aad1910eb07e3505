"""Methods over several rooms, the room being the unit: gains, intervals, losses, curves, and what the judge knows."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import spearmanr

from s4net_core.evaluation.tables import Cell, Table
from s4net_core.experiments.results import Point, Result, on_last_scans

DRAWS = 10_000
"""Of the bootstrap."""
ENOUGH_ROOMS = 5
"""With fewer, a bootstrap says nothing of rooms that are not among them."""
CURVE_POINTS = 100
"""Of a line in the figure."""
ENOUGH = 0.9
"""Share of the final gain whose time is shown."""


def rooms_table(results: Sequence[Result], control: str = "", oracle: str = "") -> Table:
    """Each method over all rooms, on the last scan of each: mean over the rooms of the mean over bases and seeds.

    The interval is a bootstrap over the rooms (95 %), where there are `ENOUGH_ROOMS`. A run wins when it ends above its
    base model. *Regret* is the mIoU of the best weights that were measured at a hand-over of the run, minus that of
    those that serve in the end. The note says how many runs kept the base model.

    Args:
        results: of any number of rooms, base models, methods and seeds.
        control: method whose gain is taken off in a column of its own; empty = no such column. NaN if no base model of
            its network is among the results.
        oracle: method whose gain is the ceiling; empty = no such column. NaN if it gained nothing.

    Returns:
        Empty when fewer than two rooms were adapted to.
    """
    runs = _runs(results)
    rooms = list(dict.fromkeys(run.scene for run, _ in runs))
    gains = {name: _by_room(name, runs) for name in dict.fromkeys(run.method for run, _ in runs)}
    columns = ["method", "mIoU gain", "95 % from", "to", "accuracy gain", "wins", "worst run"]
    columns += ["over control"] * bool(control) + ["share of oracle"] * bool(oracle)
    columns += ["unseen places", "CPU s", "s to 90 %", "regret", "labels right", "labelled"]
    rows: list[list[Cell]] = []
    for method, gain in gains.items() if len(rooms) > 1 else ():
        own = [(run, base) for run, base in runs if run.method == method]
        single = [_gain(run, base) for run, base in own]
        low, high = bootstrap(list(gain.values())) if len(gain) >= ENOUGH_ROOMS else (math.nan, math.nan)
        row: list[Cell] = [method, _mean(gain.values()), low, high]
        row.append(_mean(run.score("pixel_accuracy") - base.score("pixel_accuracy") for run, base in own))
        row += [f"{sum(value > 0 for value in single)} of {len(single)}", min(single)]
        if control:
            row.append(_mean(gain[room] - gains.get(control, {}).get(room, math.nan) for room in gain))
        if oracle:
            ceiling = _mean(gains.get(oracle, {}).values()) or math.nan  # 0 where it kept the base model everywhere
            row.append(_mean(gain.values()) / ceiling)
        row.append(_mean(run.unseen - base.unseen for run, base in own))
        seconds, to_most, *shares = map(_mean, zip(*(_of_learning(run, base) for run, base in own), strict=True))
        rows.append([*row, _whole(seconds), _whole(to_most), *shares])
    how = f"{len(rooms)} rooms, pooled scores of their last scans, 95 % by a bootstrap over the rooms"
    return Table(f"Over the rooms ({how})", columns, rows, note=_note(runs, gains))


def room_table(results: Sequence[Result]) -> Table:
    """Base model and gain in mIoU of each method in each room, means over bases and seeds; empty for a single room."""
    runs = _runs(results)
    rooms = list(dict.fromkeys(run.scene for run, _ in runs))
    methods = list(dict.fromkeys(run.method for run, _ in runs))
    rows: list[list[Cell]] = []
    for room in rooms if len(rooms) > 1 else ():
        bases = {base.base: base.score("miou") for run, base in runs if run.scene == room}
        rows.append([room, _mean(bases.values()), *(_by_room(m, runs).get(room, math.nan) for m in methods)])
    return Table("Each room: mIoU of the base model, gains of the methods", ("room", "base", *methods), rows)


def rank_table(results: Sequence[Result]) -> Table:
    """Spearman's rank correlation of what is known without labels with the true mIoU, over hand-overs.

    All hand-overs of all methods in one room from one base model are ranked together. Empty without curves.
    """
    groups: dict[tuple[str, str], list[Point]] = {}
    for result, _ in _runs(results):
        if result.learning:
            groups.setdefault((result.scene, result.base), []).extend(result.learning.curve)
    names = list(dict.fromkeys(name for points in groups.values() for point in points for name in point.metrics))
    rows: list[list[Cell]] = []
    for name in names:
        found = [rank_correlation(points, name) for points in groups.values()]
        known = [value for value in found if not math.isnan(value)]
        if known:
            rows.append([name, _mean(known), min(known), str(sum(map(len, groups.values())))])
    return Table("Rank correlation with the true mIoU", ("known without labels", "mean", "lowest", "hand-overs"), rows)


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean when the values are drawn again with replacement; the same draws for every call."""
    drawn = np.random.default_rng(0).choice(np.asarray(values, float), size=(DRAWS, len(values)))
    low, high = np.percentile(drawn.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def rank_correlation(points: Sequence[Point], metric: str) -> float:
    """Spearman's, between a metric and the true mIoU; NaN when fewer than three points have it, or nothing varies."""
    pairs = [(p.metrics[metric], p.miou) for p in points if not math.isnan(p.metrics.get(metric, math.nan))]
    if len(pairs) < 3 or any(len(set(column)) < 2 for column in zip(*pairs, strict=True)):
        return math.nan
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def curves_png(results: Sequence[Result]) -> bytes:
    """Mean gain in mIoU on the last scan over CPU seconds, one line a method, as PNG."""
    runs = [(run, base) for run, base in _runs(results) if run.learning and run.learning.curve]
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    ax = figure.add_subplot()
    for method in dict.fromkeys(run.method for run, _ in runs):
        own = [(run, base.score("miou")) for run, base in runs if run.method == method]
        grid = np.linspace(0, max(run.learning.seconds for run, _ in own if run.learning), CURVE_POINTS)
        lines = [_line(_curve(run), before, grid) for run, before in own]
        ax.plot(grid, np.mean(lines, axis=0), label=method)
    ax.axhline(0, color="black", linewidth=0.5)
    ax.set_xlabel("CPU seconds of learning")
    ax.set_ylabel("gain in mIoU on the scan that was never learned from")
    ax.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _note(runs: Sequence[tuple[Result, Result]], gains: Mapping[str, Mapping[str, float]]) -> str:
    """Why there is no interval, and whose runs ended with the base model itself."""
    few = any(len(gain) < ENOUGH_ROOMS for gain in gains.values())
    sentences = [f"An interval needs {ENOUGH_ROOMS} rooms."] if few else []
    kept = []
    for method in gains:
        learned = [run for run, _ in runs if run.method == method and run.learning]  # weights of others have no judge
        count = sum(not run.versions for run in learned)
        kept += [f"{method} in {count} of {len(learned)} runs"] if count else []
    sentences += [f"The base model was kept, which counts as a gain of 0: {', '.join(kept)}."] if kept else []
    return " ".join(sentences)


def _whole(seconds: float) -> Cell:
    return seconds if math.isnan(seconds) else round(seconds)


def _line(curve: Sequence[Point], before: float, grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gain at the seconds of a grid: between hand-overs on a straight line, after the last one as there."""
    seconds, gains = [0.0, *(p.seconds for p in curve)], [0.0, *(p.miou - before for p in curve)]
    return np.interp(grid, seconds, gains)


def _runs(results: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Every adaptation with its base model, both on the last scan of the scene."""
    shown = [result for result in on_last_scans(results) if result.evaluation]
    bases = {_origin(result): result for result in shown if result.seed is None}
    keys = [(result, _origin(result)) for result in shown if result.seed is not None]
    return [(result, bases[key]) for result, key in keys if key in bases]


def _origin(result: Result) -> tuple[str, str, str, bool]:
    """What a network and its base model have in common."""
    return result.scene, result.base, result.network, result.depth is not None


def _by_room(method: str, runs: Iterable[tuple[Result, Result]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for run, base in runs:
        if run.method == method:
            found.setdefault(run.scene, []).append(_gain(run, base))
    return {room: _mean(values) for room, values in found.items()}


def _gain(run: Result, base: Result) -> float:
    return run.score("miou") - base.score("miou")


def _of_learning(run: Result, base: Result) -> tuple[float, float, float, float, float]:
    """CPU seconds, those to most of the gain, regret, and accuracy and coverage of the labels; NaN = not known."""
    learning = run.learning
    if learning is None:
        return (math.nan,) * 5
    curve, before, after = _curve(run), base.score("miou"), run.score("miou")
    wanted = before + ENOUGH * (after - before)
    enough = next((point.seconds for point in curve if point.miou >= wanted), math.nan) if after > before else math.nan
    best = max((before, *(point.miou for point in curve)))
    regret = best - after if curve else math.nan
    return learning.seconds, enough, regret, learning.label_accuracy, learning.label_coverage


def _curve(run: Result) -> Sequence[Point]:
    return run.learning.curve if run.learning else ()


def _mean(values: Iterable[float]) -> float:
    """Mean of the values that are known."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
