"""The pages of docs/start are typed, command by command, in an empty directory with the embedded Redis."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rqmem.connection import embedded
from rqmem.testing import wait_until
from tests.conftest import ROOT
from tests.docs.typist import ALERT_URLS, Typist

PAGES = sorted((ROOT / "docs" / "start").glob("*.md"))


@pytest.fixture
def typist(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typist]:
    run = tmp_path_factory.mktemp("run")
    path = str(Path(sys.executable).parent)  # and no redis-server that may be elsewhere
    environ = {"XDG_RUNTIME_DIR": str(run), "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    typist = Typist(tmp_path, environ)
    try:
        yield typist
        typist.end()
    finally:
        typist.kill_rest()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", str(run))
            embedded.stop(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_to_type_does_what_it_says(typist: Typist, page: Path) -> None:
    typist.follow(page.read_text())
    assert typist.typed
    if (typist.directory / ALERT_URLS).exists():
        wait_until(lambda: any("used " in str(message["message"]) for message in typist.receiver.messages), 60)
