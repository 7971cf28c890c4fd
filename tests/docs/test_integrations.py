"""The page on integrations: its hook runs, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

from redis import Redis
from rq import Queue

from rqmem import hooks, integrations
from tests.conftest import ROOT, StartWorker

PAGE = (ROOT / "docs" / "integrations.md").read_text()
SHOP = """
current = None

def work_for(tenant):
    global current
    current = tenant

def seen():
    return current
"""


def test_the_cleanup_of_the_page_runs(connection: Redis, start_worker: StartWorker, tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n# cleanup.py\n(.*?)```", PAGE, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    (tmp_path / "cleanup.py").write_text(code)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "tenants.py").write_text(SHOP)
    queue = Queue(connection=connection)
    for options in (("--plugin", "cleanup"), ()):
        queue.enqueue("shop.tenants.work_for", "acme")
        seen = queue.enqueue("shop.tenants.seen")
        worker = start_worker("--burst", "--isolation", "warm", *options, directory=tmp_path)
        output = worker.finish()
        assert worker.process.returncode == 0, output
        assert seen.return_value() == (None if options else "acme")


def test_the_tables_name_all_hooks_and_integrations() -> None:
    named = set(re.findall(r"@hooks\.(\w+)", PAGE))
    assert named == {"horse_started", "before_job", "after_job", "after_jobs", "horse_ending", "on"}
    assert all(callable(getattr(hooks, name)) for name in named)
    libraries = re.findall(r"^\| (\w+) \| ", PAGE.partition("| library |")[2].partition("\n\n")[0], re.MULTILINE)
    assert {name.lower() for name in libraries} == set(integrations.LIBRARIES)
