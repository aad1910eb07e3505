"""Hook of MkDocs: adds the pages that are generated from the code, and links settings to their reference.

MkDocs calls the functions by name; `mkdocs.yml` names this file. ``make docs`` runs it.
"""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # MkDocs loads a hook by its path, so the package `tools` is not on sys.path

from tools.docs import reference  # noqa: E402
from tools.docs.text import INCLUDED, included_page, link_settings  # noqa: E402


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the pages whose files lie outside of docs/."""
    for path, make in reference.PAGES.items():
        files.append(File.generated(config, path, content=make()))
    for source, path in INCLUDED.items():
        files.append(File.generated(config, path, content=included_page(source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Link every setting that a page names to its line in the reference."""
    path = page.file.src_uri
    return markdown if path in reference.PAGES else link_settings(markdown, path, reference.SETTINGS_PAGE)
