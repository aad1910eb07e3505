"""Tables of text and numbers, and the formats that they are shown in: Markdown, CSV, a terminal."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table as RichTable

Cell = str | int | float

FEW_COLUMNS = 8
"""With more, a table in a terminal has no room for spaces around its cells."""


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers.

    Args:
        title: heading.
        columns: their headings.
        rows: one cell a column each; floats are shown with three decimals, NaN as a dash.
        groups: heading above neighbouring columns, and their number, over all columns; empty = no such headings.
        note: what a reader must know to read the numbers; shown below them, but not in CSV.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int]] = ()
    note: str = ""

    @property
    def headings(self) -> list[str]:
        """One a column, with its group: for formats whose tables have a single line of headings."""
        above = [name for name, count in self.groups for _ in range(count)] or [""] * len(self.columns)
        return [f"{group} {column}".strip() for group, column in zip(above, self.columns, strict=True)]

    @property
    def numeric(self) -> set[int]:
        """Positions of the columns that hold numbers; a text with a sign, as of a difference, is one."""
        return {
            position
            for row in self.rows
            for position, cell in enumerate(row)
            if not isinstance(cell, str) or cell.startswith(("+", "-"))
        }


def cell_text(cell: Cell) -> str:
    """A cell as people read it."""
    if isinstance(cell, float):
        return "–" if math.isnan(cell) else f"{cell:.3f}"
    return str(cell)


def to_markdown(table: Table) -> str:
    """The table in Markdown, without its title, with its note; numbers are aligned to the right."""
    right = table.numeric
    rule = "".join("---:|" if i in right else "---|" for i in range(len(table.columns)))
    lines = [_markdown_row(table.headings), f"|{rule}", *(_markdown_row(row) for row in table.rows)]
    return "\n".join([*lines, *(["", table.note] if table.note else [])]) + "\n"


def _markdown_row(cells: Sequence[Cell]) -> str:
    texts = (cell_text(cell).replace("|", "\\|") for cell in cells)
    return "|" + "".join(f" {text} |" if text else " |" for text in texts)


def to_csv(table: Table, comments: Sequence[str] = ()) -> str:
    """The table as CSV with all digits; an unknown number is an empty cell.

    Args:
        table: its title and note are left out.
        comments: lines before the table, each behind a ``#``.
    """
    text = io.StringIO()
    text.writelines(f"# {line}\n" for comment in comments for line in comment.splitlines())
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.headings)
    writer.writerows(["" if isinstance(c, float) and math.isnan(c) else c for c in row] for row in table.rows)
    return text.getvalue()


def to_rich(table: Table) -> RichTable:
    """The table for a terminal; in a narrow one, headings and texts are folded as long as the numbers fit."""
    right, rows = table.numeric, [[cell_text(cell) for cell in row] for row in table.rows]
    padding = (0, int(len(table.columns) <= FEW_COLUMNS))
    shown = RichTable(title=table.title, title_justify="left", caption=table.note or None, padding=padding)
    for i, column in enumerate(table.headings):
        widest = max((len(row[i]) for row in rows), default=0)
        justify: Literal["left", "right"] = "right" if i in right else "left"
        shown.add_column(column, justify=justify, overflow="fold", min_width=widest if i in right else None)
    for row in rows:
        shown.add_row(*row)
    return shown
