"""``s4net doctor``: what this machine has, and what to do about what is missing."""

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from s4net_core.cli.options import add_settings_options, settings_from
from s4net_core.machine.files import examine_files
from s4net_core.machine.system import Finding, examine_system


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the findings and the remedies; 1 when something is missing, 0 otherwise."""
    findings = [*examine_system(), *examine_files(settings_from(args))]
    _show(findings, Console())
    return int(any(finding.state == "missing" for finding in findings))


def _show(findings: Sequence[Finding], console: Console) -> None:
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}
    table = Table("", "what", "found", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(marks[finding.state], finding.subject, escape(finding.found))
    console.print(table)
    remedies = [finding for finding in findings if finding.remedy]
    if remedies:
        console.print("\n[bold]What to do[/]")
        for finding in remedies:
            console.print(f"- {finding.subject}: {finding.remedy}", markup=False, highlight=False, soft_wrap=True)
