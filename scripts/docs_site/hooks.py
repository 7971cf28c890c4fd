"""Links out of ``docs/`` work on the site too: what they lead to is part of it, below ``repository/``.

mkdocs calls `on_files` and `on_page_markdown`. On GitHub the same links lead to the files of the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OUTSIDE = "repository"
SHIM = Path(__file__).parent / "vendor" / "iframe-worker.js"

_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add each file outside ``docs/`` that a page links to, and the one script that the search needs offline."""
    files.append(File.generated(config, "assets/iframe-worker.js", abs_src_path=str(SHIM)))
    waiting = [DOCS / file.src_uri for file in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        for target in _targets(page):
            uri = _uri(target)
            if uri.startswith(f"{OUTSIDE}/") and target.is_file() and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(target)))
                waiting += [target] if target.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace each link from or to the outside of ``docs/`` by the one that leads there on the site."""
    here = page.file.src_uri

    def on_the_site(link: re.Match[str]) -> str:
        target = _uri((_path(here).parent / link[1]).resolve())
        moved = here.startswith(f"{OUTSIDE}/") or target.startswith(f"{OUTSIDE}/")
        return f"]({posixpath.relpath(target, posixpath.dirname(here))}" if moved else link[0]

    return _LINK.sub(on_the_site, markdown)


def _targets(page: Path) -> list[Path]:
    return [(page.parent / link).resolve() for link in _LINK.findall(page.read_text(encoding="utf-8"))]


def _path(uri: str) -> Path:
    """The file of a page of the site."""
    outside = uri.removeprefix(f"{OUTSIDE}/")
    return DOCS / uri if outside == uri else ROOT / outside


def _uri(path: Path) -> str:
    """The place of a file on the site."""
    inside = path.is_relative_to(DOCS)
    return path.relative_to(DOCS).as_posix() if inside else f"{OUTSIDE}/{path.relative_to(ROOT).as_posix()}"
