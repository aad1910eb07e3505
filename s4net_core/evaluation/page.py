"""Tables, curves and pictures in one HTML file that needs nothing beside it."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from s4net_core.evaluation.pictures import Curve, PictureRow, curve_png, encode, panels
from s4net_core.evaluation.tables import Cell, Table, cell_text
from s4net_core.files import write_result
from s4net_core.labels import SUNRGBD37, LabelSpace


@dataclass(frozen=True)
class HtmlPage:
    """Content of a page, in this order: notes, tables, figures, curves, pictures with a legend, settings.

    Args:
        title: heading of the page.
        tables: numbers.
        figures: name and PNG file content each.
        curves: values over steps.
        pictures: the same images before and after; all with ground truth, or none.
        notes: paragraphs of plain text.
        settings: names and values that led to this, for example what differs from the defaults.
        label_space: of the pictures.
    """

    title: str
    tables: Sequence[Table] = ()
    curves: Sequence[Curve] = ()
    pictures: Sequence[PictureRow] = ()
    notes: Sequence[str] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    figures: Sequence[tuple[str, bytes]] = ()
    label_space: LabelSpace = SUNRGBD37


def write_page(path: str | Path, page: HtmlPage) -> None:
    """Write a page as one HTML file with all pictures inside.

    Raises:
        S4NetError: the file cannot be written.
    """
    write_result(path, _html(page))


def _html(page: HtmlPage) -> str:
    title = html.escape(page.title)
    parts = [f"<h1>{title}</h1>", *(f"<p>{html.escape(note)}</p>" for note in page.notes)]
    parts += [_html_table(table) for table in page.tables]
    parts += [
        f'<h2>{html.escape(name)}</h2><figure class="figure">{_image(png, "image/png", name)}</figure>'
        for name, png in page.figures
    ]
    if page.curves:
        parts.append('<h2>Curves</h2><div class="curves">')
        parts += [f"<figure>{_image(curve_png(c), 'image/png', c.title)}</figure>" for c in page.curves]
        parts.append("</div>")
    if page.pictures:
        parts.append(_html_pictures(page.pictures, page.label_space))
    if page.settings:
        settings = Table("Settings", ("name", "value"), [(name, str(v)) for name, v in page.settings.items()])
        parts.append(f"<details><summary>Settings</summary>{_html_table(settings, heading=False)}</details>")
    return _FRAME.format(title=title, style=_STYLE, body="\n".join(parts))


def _html_table(table: Table, heading: bool = True) -> str:
    right = table.numeric

    def cells(values: Sequence[Cell], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=number' if i in right else ''}>{html.escape(cell_text(value))}</{tag}>"
            for i, value in enumerate(values)
        )

    rows = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in table.rows)
    title = f"<h2>{html.escape(table.title)}</h2>" if heading else ""
    above = "".join(f"<th colspan={count} class=group>{html.escape(name)}</th>" for name, count in table.groups)
    groups = f"<tr>{above}</tr>" if above else ""
    note = f"<p class=small>{html.escape(table.note)}</p>" if table.note else ""
    return (
        f'{title}<div class="scroll"><table><thead>{groups}<tr>{cells(table.columns, "th")}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _html_pictures(pictures: Sequence[PictureRow], space: LabelSpace) -> str:
    parts = ["<h2>Pictures</h2>"]
    shown: set[int] = set()
    for row in pictures:
        shown |= row.class_ids()
        parts.append(f'<h3>{html.escape(row.name)}</h3><div class="strip">{_panels(row, space)}</div>')
    with_truth = any(row.truth is not None for row in pictures)
    with_changes = any(row.before is not None for row in pictures)
    parts.append(_legend(shown, space, with_truth, with_changes))
    return "\n".join(parts)


def _panels(row: PictureRow, space: LabelSpace) -> str:
    """The panels of one image; those before and after lie on each other, with a slider that moves their border."""
    images = {heading: _image(*encode(image, photo), alt=heading) for heading, image, photo in panels(row, space)}
    slider = ""
    if row.before is not None:
        both = images.pop("before") + images.pop("after")
        slider = (
            f'<figure class="wide"><div class="slider">{both}{_RANGE}</div><figcaption>{_HINT}</figcaption></figure>'
        )
    return slider + "".join(
        f"<figure>{image}<figcaption>{heading}</figcaption></figure>" for heading, image in images.items()
    )


def _legend(ids: set[int], space: LabelSpace, with_truth: bool, with_changes: bool) -> str:
    entries = [
        f'<li><i style="background:rgb{space.colors[id - 1]}"></i>{html.escape(space.names[id - 1])}</li>'
        for id in sorted(ids)
    ]
    entries.append('<li><i style="background:#000"></i>unlabelled</li>')
    if not with_changes:
        return f'<ul class="legend">{"".join(entries)}</ul>'
    meaning = (
        "Changes: green = wrong before and right after, red = right before and wrong after, orange = changed from one "
        "wrong class to another, grey = the same."
        if with_truth
        else "Changes: pixels that got another class, in the colour of the new one."
    )
    return f'<ul class="legend">{"".join(entries)}</ul><p class="small">{meaning}</p>'


def _image(data: bytes, mime: str, alt: str) -> str:
    return f'<img alt="{html.escape(alt)}" src="data:{mime};base64,{base64.b64encode(data).decode()}">'


_RANGE = (
    '<input type="range" value="50" aria-label="border between before and after" '
    "oninput=\"this.parentNode.style.setProperty('--border', this.value + '%')\">"
)
_HINT = "before | after: drag the border, or move it with the arrow keys"

_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --soft: #60646c; --line: #d9d9e0; --back: #fcfcfd; --card: #f3f4f6; }
@media (prefers-color-scheme: dark) {
  :root { --text: #edeef0; --soft: #a5a9b1; --line: #3a3f45; --back: #131416; --card: #1d1f22; }
}
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: .95rem; font-weight: 600; color: var(--soft); margin: 1.2rem 0 .4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.number { text-align: right; padding-left: 1rem; font-variant-numeric: tabular-nums; }
.group { text-align: center; }
.figure img { max-width: 900px; background: #fff; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 1rem; }
.curves img { width: 100%; max-width: 640px; background: var(--card); border-radius: 8px; }
.strip { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(150px, 1fr); align-items: start; gap: .5rem;
  overflow-x: auto; }
.strip:has(.wide) { grid-template-rows: auto 1fr; }
.wide { grid-column: span 2; grid-row: span 2; }
.slider { position: relative; --border: 50%; border-radius: 6px; }
.slider:focus-within { outline: 2px solid #0090ff; }
.slider img + img { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--border)); }
.slider::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--border); margin-left: -1px;
  border-left: 2px solid #fff; box-shadow: 0 0 3px #000; pointer-events: none; }
.slider input { appearance: none; position: absolute; inset: 0; z-index: 1; width: 100%; height: 100%; margin: 0;
  opacity: 0; cursor: ew-resize; }
.slider input::-webkit-slider-thumb { appearance: none; width: 1px; height: 100%; }
.slider input::-moz-range-thumb { width: 1px; height: 100%; border: 0; }
figure { margin: 0; }
figure img { width: 100%; display: block; border-radius: 6px; image-rendering: auto; }
figcaption { font-size: .8rem; color: var(--soft); padding-top: .2rem; }
.legend { list-style: none; padding: 0; margin: 1.4rem 0 .4rem; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem;
  font-size: .88rem; }
.legend i { display: inline-block; width: .85em; height: .85em; border-radius: 3px; margin-right: .4em;
  vertical-align: -.06em; border: 1px solid var(--line); }
.small { font-size: .85rem; color: var(--soft); }
details { margin-top: 2.2rem; }
summary { cursor: pointer; font-weight: 600; }
"""
