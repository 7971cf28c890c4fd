"""Files of others are the ones that were published: their digests stand beside them."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest

from tests.conftest import ROOT

NAMES = ("rqmem/dashboard/static/vendor", "tests/dashboard/vendor", "scripts/docs_site/vendor")
PLACES = [ROOT / name for name in NAMES]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.relative_to(ROOT).as_posix())
def test_files_of_others_are_as_they_were_published(place: Path) -> None:
    noted = dict(re.findall(r"^([0-9a-f]{64})  (\S+)$", (place / "README.md").read_text(), re.MULTILINE))
    found = {sha256(path.read_bytes()).hexdigest(): path.name for path in place.iterdir() if path.name != "README.md"}
    assert found == noted
