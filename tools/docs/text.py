"""Changes the text of pages: files at the root of the repository become pages, settings become links."""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from s4net_core.config import Settings, leaves

ROOT = Path(__file__).resolve().parents[2]

INCLUDED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "demo/README.md": "demo.md",
}
"""Files outside of docs/ that become pages, with their path in the documentation."""

LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>[^)#:\s]*)(?P<anchor>#[^)\s]*)?\)")
"""Markdown link or image whose target is a file; a target with a colon is an address."""
BLOCK = re.compile(
    r"^( *)(?P<mark>```+)(?P<language>\w*)[^\n]*\n(?P<code>.*?)^ *(?P=mark) *$", re.MULTILINE | re.DOTALL
)
"""Block of code."""
INLINE = re.compile(r"(?<![`\[])`(?P<code>[^`\n]+)`(?!`)")
"""Code within a line, unless it is already a link."""
SETTING = re.compile(r"(?P<name>[a-z_]+\.[a-z_]+)(?P<value>(?::=|=)\S.*)?")
"""Setting of a group, alone or with a value."""
SETTINGS = frozenset(leaf.name for leaf in leaves(Settings()))


def included_page(source: str) -> str:
    """A file of the repository as a page: links to other pages are adapted; links to other files become code.

    Args:
        source: key of `INCLUDED`.
    """
    folder = posixpath.dirname(source)

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link["path"])) if link["path"] else source
        page = INCLUDED.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
        if page:
            return f"{link['image']}[{link['text']}]({page}{link['anchor'] or ''})"
        return f"`{link['text']}`" if (ROOT / target).exists() else link[0]

    return outside_of_blocks((ROOT / source).read_text(), lambda text: LINK.sub(moved, text))


def link_settings(markdown: str, page: str, reference: str) -> str:
    """Link every setting that is written as code to its line in the reference.

    Args:
        markdown: text of a page.
        page, reference: paths of that page and of the reference in the documentation.
    """
    target = posixpath.relpath(reference, posixpath.dirname(page) or ".")

    def linked(code: re.Match[str]) -> str:
        setting = SETTING.fullmatch(code["code"])
        known = setting is not None and setting["name"] in SETTINGS
        return f"[{code[0]}]({target}#{setting['name']})" if setting and known else code[0]

    return outside_of_blocks(markdown, lambda text: INLINE.sub(linked, text))


def outside_of_blocks(markdown: str, change: Callable[[str], str]) -> str:
    """Apply `change` to everything but blocks of code."""
    parts, end = [], 0
    for block in BLOCK.finditer(markdown):
        parts += [change(markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(markdown[end:])])
