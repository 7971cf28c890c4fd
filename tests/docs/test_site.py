"""The docs as a site: built without a warning, the same as the Markdown, searched without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rqmem.testing import wait_until
from tests.conftest import ROOT

pytest.importorskip("material", reason="mkdocs-material is not installed (the extra docs)")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
COUNTED = {"li", "pre", "h1", "h2", "h3", "table", "tr", "img"}
VOID = {"br", "hr", "img", "input", "link", "meta", "wbr"}

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from the working tree."""
    place = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return place


class Reader(HTMLParser):
    """What a page loads from elsewhere, and how many elements of each kind its text has."""

    def __init__(self, html: str, *, article_only: bool) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.counts: Counter[str] = Counter()
        self._depth = 0 if article_only else 1
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.loaded.append(values.get("src") or "")
        if tag == "link":
            self.loaded.append(values.get("href") or "")
        if self._depth or tag == "article":
            self._depth += tag not in VOID
            self.counts[tag] += tag in COUNTED

    def handle_endtag(self, tag: str) -> None:
        if self._depth and tag not in VOID:
            self._depth -= 1


def on_site(site: Path, page: Path) -> Path:
    name = page.relative_to(DOCS).with_suffix(".html")
    return site / (name.with_name("index.html") if page.name == "README.md" else name)


def test_nothing_on_the_site_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        loaded = Reader(page.read_text(), article_only=False).loaded
        assert loaded and not [each for each in loaded if re.match(r"(\w+:)?//", each)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style


def test_each_page_has_the_same_parts_on_the_site_and_in_the_repository(site: Path) -> None:
    """A list, say, that GitHub sees and mkdocs does not, for want of an empty line before it."""
    markdown_it = pytest.importorskip("markdown_it", reason="rich, which brings it, is not installed")
    github = markdown_it.MarkdownIt("gfm-like", {"linkify": False})
    for page in PAGES:
        expected = Reader(github.render(page.read_text()), article_only=False).counts
        assert expected["h1"] == 1, page
        assert Reader(on_site(site, page).read_text(), article_only=True).counts == expected, page


def test_the_search_covers_every_page(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text()
    for page in PAGES:
        assert f'"location":"{on_site(site, page).relative_to(site)}"' in index, page


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver (chromium-driver) is not there")
def test_a_reader_without_a_network_finds_a_page_by_searching(site: Path, tmp_path: Path) -> None:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from tests.dashboard.test_browser import FLAGS

    options: Any = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        driver.get((site / "index.html").as_uri())
        query = driver.find_element("css selector", "input.md-search__input")
        driver.execute_script("arguments[0].focus()", query)
        driver.execute_script(
            "arguments[0].value = 'waitpid'; arguments[0].dispatchEvent(new Event('keyup', {bubbles: true}))", query
        )
        found = "return [...document.querySelectorAll('.md-search-result__link')].map(each => each.href)"
        wait_until(lambda: any("why.html" in each for each in driver.execute_script(found)))
    finally:
        driver.quit()
