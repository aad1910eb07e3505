"""Results as files: the paper's tables in Markdown, CSV and HTML, everything in JSON, each with where it comes from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from s4net_core.evaluation.confusion import confusion_png
from s4net_core.evaluation.page import HtmlPage, write_page
from s4net_core.evaluation.tables import Table, to_csv, to_markdown
from s4net_core.experiments.provenance import Provenance
from s4net_core.experiments.results import Result, on_last_scans
from s4net_core.experiments.rooms import curves_png, rank_table, room_table, rooms_table
from s4net_core.experiments.tables import (
    CONVENTIONS,
    Published,
    agreement_table,
    class_table,
    depth_table,
    names_of,
    runs_table,
    seed_table,
    segmentation_table,
    stacked,
    summed_counts,
)
from s4net_core.files import write_result


@dataclass(frozen=True)
class ExperimentReport:
    """What `write_experiment_report` writes.

    Args:
        title: heading.
        results: in the order of the rows.
        provenance: where they come from, by what was run.
        published: the paper's own numbers by network, for the rows of the same method.
        notes: paragraphs below the heading.
        control, oracle: names of the methods that the others are compared with, see `rooms_table`; empty = none.
    """

    title: str
    results: Sequence[Result]
    provenance: Mapping[str, Provenance]
    published: Mapping[str, Published] = field(default_factory=dict)
    notes: Sequence[str] = ()
    control: str = ""
    oracle: str = ""

    def main_tables(self) -> list[Table]:
        """Scores, depth errors and agreement: what a page of results shows."""
        tables = [segmentation_table(self.results, convention, self.published) for convention in CONVENTIONS]
        tables += [depth_table(self.results, convention, self.published) for convention in CONVENTIONS]
        tables += [seed_table(self.results, convention) for convention in CONVENTIONS]
        tables += [rooms_table(self.results, self.control, self.oracle), room_table(self.results)]
        tables.append(rank_table(self.results))
        return [table for table in [*tables, agreement_table(self.results)] if table.rows]

    def markdown(self) -> str:
        """The main tables below a heading, to be pasted into a page; where they come from stands below them."""
        parts = [f"## {self.title}", *self.notes]
        parts += [f"**{table.title}**\n\n{to_markdown(table).rstrip()}" for table in self.main_tables()]
        parts += [f"{name}: {'; '.join(origin.lines())}." for name, origin in self.provenance.items()]
        return "\n\n".join(parts) + "\n"


def write_experiment_report(folder: str | Path, report: ExperimentReport) -> None:
    """Write ``results.md``, ``.html``, ``.json`` and ``.csv``, ``depth.csv`` where there is depth, and ``runs.csv``.

    Raises:
        S4NetError: a file cannot be written.
    """
    folder = Path(folder)
    comments = [f"{name}: {line}" for name, origin in report.provenance.items() for line in origin.lines()]
    files = {"results.md": report.markdown(), "results.json": _json(report)}
    for name, make in (("results", segmentation_table), ("depth", depth_table)):
        table = stacked({c: make(report.results, c, report.published) for c in CONVENTIONS}, "scores")
        if table.rows:
            files[f"{name}.csv"] = to_csv(table, [report.title, *comments])
    files["runs.csv"] = to_csv(runs_table(report.results), [report.title, *comments])
    for file, text in files.items():
        write_result(folder / file, text)
    if any(result.learning and result.learning.curve for result in report.results):
        write_result(folder / "curves.png", curves_png(report.results))
    write_page(folder / "results.html", _page(report))


def joined(title: str, reports: Sequence[ExperimentReport]) -> ExperimentReport:
    """Several reports as one, the rows of all of them in the same tables; a single one stays as it is."""
    if len(reports) == 1:
        return reports[0]
    results = {
        (r.network, r.method, r.scene, r.scan, r.seed, r.weights): r for report in reports for r in report.results
    }
    published: dict[str, Published] = {}
    for report in reports:
        for network, methods in report.published.items():
            published[network] = {**published.get(network, {}), **methods}
    return ExperimentReport(
        title=title,
        results=list(results.values()),
        provenance={name: origin for report in reports for name, origin in report.provenance.items()},
        published=published,
        notes=list(dict.fromkeys(note for report in reports for note in report.notes)),
        control=_only({report.control for report in reports}),
        oracle=_only({report.oracle for report in reports}),
    )


def _only(names: set[str]) -> str:
    """The name that all reports share which have one; empty when they differ: two cannot be one column."""
    named = names - {""}
    return named.pop() if len(named) == 1 else ""


def _page(report: ExperimentReport) -> HtmlPage:
    origin = {f"{name}: {key}": v for name, found in report.provenance.items() for key, v in found.shown().items()}
    classes = class_table(report.results)
    return HtmlPage(
        title=report.title,
        tables=[*report.main_tables(), *([classes] if classes.rows else [])],
        notes=report.notes,
        settings=origin,
        figures=_confusions(report.results),
    )


def _confusions(results: Sequence[Result]) -> list[tuple[str, bytes]]:
    """One picture a network and method, over the last scans of all scenes: those that were never seen."""
    results = on_last_scans(results)
    scans = ", ".join(dict.fromkeys(result.scan for result in results))
    figures = []
    for network, method in dict.fromkeys((result.network, result.method) for result in results):
        counts = summed_counts(results, network, method)
        if counts is not None:
            title = f"Confusion: {network}, {method}, {scans}"
            figures.append((title, confusion_png(title, counts, names_of(results))))
    return figures


def _json(report: ExperimentReport) -> str:
    content = {
        "title": report.title,
        "notes": list(report.notes),
        "results": [result.as_dict() for result in report.results],
        "paper": report.published,
        "provenance": {name: origin.as_dict() for name, origin in report.provenance.items()},
    }
    return json.dumps(content, indent=1) + "\n"
