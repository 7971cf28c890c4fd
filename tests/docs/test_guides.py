"""The examples of the guides do what their pages say; the lines of others in the troubleshooting are theirs."""

from __future__ import annotations

import re
import sqlite3
import sys
from pathlib import Path

import pytest
import rq
from redis import Redis
from rq import Queue

from rqmem.errors import ConfigError
from scripts.reference import log_lines
from tests import forked
from tests.conftest import ROOT, StartWorker, wait_for_key
from tests.docs.test_pages import DOCS, files
from tests.docs.typist import Typist


def write(page: str, directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).write_text(files(DOCS / page)[name])


@pytest.mark.parametrize(
    ("page", "before"),
    [
        ("escalation.md", []),
        ("restart.md", ["rqmem worker --queue mail --name ada", "rqmem worker --queue mail --name bob"]),
    ],
)
def test_what_a_page_says_to_type_does_what_it_says(
    connection: Redis, redis_url: str, tmp_path: Path, page: str, before: list[str]
) -> None:
    typist = Typist(tmp_path, {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "RQMEM_REDIS_URL": redis_url})
    try:
        for line in before:
            typist.type(line, [])
        typist.follow((DOCS / page).read_text())
        assert typist.typed > len(before)
        typist.end()
    finally:
        typist.kill_rest()


def test_what_is_booked_with_its_mark_is_booked_once_although_the_job_began_twice(
    connection: Redis, start_worker: StartWorker, tmp_path: Path
) -> None:
    write("exactly-once.md", tmp_path, "booked.py")
    (tmp_path / "killed.py").write_text(
        "import os, signal\nfrom booked import BookInvoices as Booked\nfrom redis import Redis\n\n"
        "class BookInvoices(Booked):\n"
        "    def book(self, chunk):\n"
        "        super().book(chunk)\n"
        "        with Redis.from_url(os.environ['RQMEM_REDIS_URL']) as redis:\n"
        "            if 55 in chunk and redis.incr('tests:killed') == 1:\n"
        "                os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    database = sqlite3.connect(tmp_path / "books.db")
    database.executescript(
        "CREATE TABLE booked (number PRIMARY KEY); CREATE TABLE account (balance); INSERT INTO account VALUES (0)"
    )
    Queue("books", connection=connection).enqueue(
        "killed.BookInvoices.run", path=str(tmp_path / "books.db"), invoices=100
    )
    log = start_worker("books", "--burst", "--memory", "128", directory=tmp_path).finish()
    wait_for_key(connection, "tests:killed")
    assert "goes on" in log
    assert database.execute("SELECT balance FROM account").fetchone() == (100,)
    assert database.execute("SELECT count(*) FROM booked").fetchone() == (100,)


def test_the_source_of_ones_own_is_read_and_tested(
    connection: Redis, start_worker: StartWorker, tmp_path: Path
) -> None:
    write("sources.md", tmp_path, "paged.py", "test_paged.py")
    job = Queue("orders", connection=connection).enqueue("paged.ImportOrders.run")
    log = start_worker("orders", "--burst", directory=tmp_path).finish()
    assert job.return_value() == 21, log
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = forked.run(command, env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout


def test_every_warning_and_error_is_explained_and_a_new_one_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    page, found = log_lines.PAGE.read_text(), list(log_lines.logged())
    monkeypatch.setattr(log_lines, "logged", lambda: found)
    log_lines.check(page)
    row = next(line for line in page.splitlines() if line.startswith("| `worker ...: horse failed`"))
    with pytest.raises(ConfigError, match=r"does not explain .*worker \.\.\.: horse failed"):
        log_lines.check(page.replace(row, ""))
    with pytest.raises(ConfigError, match=r"is gone: .*horse slept"):
        log_lines.check(page.replace(row, f"{row}\n{row.replace('failed', 'slept')}"))
    monkeypatch.setattr(log_lines, "logged", lambda: ["worker %s: something nobody has explained"])
    with pytest.raises(ConfigError, match="something nobody has explained"):
        log_lines.check(page)


def test_lines_of_a_logger_are_found_wherever_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(
        "_log.warning('one %s', 1)\nself.log.error('two')\nlogging.getLogger('x').exception('three')\n"
        "warnings.warn('no')\nself._log.critical(words.FOUR)\n_log.info('no')\nparser.error('no')\n"
    )
    assert list(log_lines.logged(tmp_path)) == ["one %s", "two", "three", "words.FOUR"]


def test_the_lines_of_rq_are_in_rq() -> None:
    section = (DOCS / "troubleshooting.md").read_text().partition("## Lines of RQ")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert len(lines) > 4
    [place] = rq.__path__
    source = "\n".join(path.read_text() for path in Path(place).rglob("*.py"))
    source = re.sub(r"\{(\w+)\.__name__\}", r"\1", source)
    constant = [part for line in lines for part in re.split(r" ?\.\.\. ?|; waitpid returned 9", line) if part]
    assert [part for part in constant if part not in source] == []
