"""The Redis users of docs/redis.md: each can do what the page says, with the rights that the page gives it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError
from rq import Queue, Retry
from rq.command import send_stop_job_command
from rq.job import Job

from rqmem.dashboard import create_app
from rqmem.testing import wait_until
from tests import forked
from tests.cli.test_commands import rqmem
from tests.conftest import ROOT, StartWorker

PAGE = (ROOT / "docs" / "redis.md").read_text()
PASSWORD = "a-password-of-the-tests"
JOBS = """
import time

from rqmem import MemoryAwareJob


class Sum(MemoryAwareJob):
    split_above_items = 100
    items_per_child = 50
    chunk_size = 10
    on_breach = "resume"

    def handle(self, numbers, items=None):
        if items is None and self.should_split_job(numbers):
            return self.split_into_child_jobs(range(numbers))
        return sum(self.process_in_chunks(range(numbers) if items is None else items, list))

    def gather(self, results):
        return sum(results)


class Pages(MemoryAwareJob):
    chunk_size = 160
    adaptive = False
    on_breach = "resume"

    def handle(self):
        return len(self.process_in_chunks(range(200), self.fill))

    def fill(self, chunk):
        return [len(page) for page in [b"x" * 2**20 + bytes([number % 9]) for number in chunk]]


def fails():
    raise ValueError("not today")


def waits():
    while True:
        time.sleep(0.05)
"""


def rights(user: str) -> list[str]:
    """The rules of a user, from the page."""
    [line] = re.findall(rf"^redis-cli ACL SETUSER {user} ((?:.*\\\n)*.*)", PAGE, re.MULTILINE)
    return [rule.replace("PASSWORD", PASSWORD) for rule in shlex.split(line.replace("\\\n", " "))]


@contextmanager
def logged_in(connection: Redis, url: str, user: str, *may_be_refused: bytes) -> Iterator[str]:
    """The URL of that user; afterwards Redis has refused it nothing but these commands."""
    connection.execute_command("ACL", "SETUSER", user, *rights(user))
    connection.execute_command("ACL", "LOG", "RESET")
    scheme, _, rest = url.partition("://")
    try:
        yield f"{scheme}://{user}:{quote(PASSWORD)}@{rest.rpartition('@')[2]}"
        refused = connection.execute_command("ACL", "LOG")
        assert {(each[b"reason"], each[b"object"]) for each in refused} <= {
            (b"command", name) for name in may_be_refused
        }
    finally:
        connection.execute_command("ACL", "DELUSER", user)


def test_the_user_of_workers_can_do_all_that_workers_do(
    connection: Redis, redis_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(JOBS)
    with logged_in(connection, redis_url, "workers") as url:
        mine = Redis.from_url(url)
        queue = Queue("shop", connection=mine)
        split = queue.enqueue("shop.Sum.run", 300)
        pages = queue.enqueue("shop.Pages.run")
        failed = queue.enqueue("shop.fails", retry=Retry(max=1))
        after = queue.enqueue("shop.Sum.run", 20, depends_on=split)
        running = queue.enqueue("shop.waits")
        worker = start_worker("shop", "--memory", "128", "--with-scheduler", directory=tmp_path, RQMEM_REDIS_URL=url)
        wait_until(lambda: running.get_status() == "started", 120)
        looked = rqmem("status", "--job", split.id[:12], directory=tmp_path, RQMEM_REDIS_URL=url)
        assert looked.returncode == 0, looked.stderr
        send_stop_job_command(mine, running.id)
        wait_until(lambda: running.get_status(refresh=True) in ("failed", "stopped"))
        wait_until(lambda: failed.get_status(refresh=True) == "failed")
        wait_until(lambda: after.get_status(refresh=True) == "finished")
        assert Job.fetch(split.id, connection=mine).return_value() == sum(range(300))
        assert Job.fetch(pages.id, connection=mine).get_status() == "finished"
        for command in (
            ["retry", failed.id],
            ["pause", "shop"],
            ["resume", "shop"],
            ["recommend"],
            ["journal", "size"],
        ):
            done = rqmem(*command, directory=tmp_path, RQMEM_REDIS_URL=url)
            assert done.returncode == 0, done.stderr
        log = worker.stop()
        assert worker.process.returncode == 0, log
        assert "NOPERM" not in log, log


def test_the_user_of_the_dashboard_can_look_and_act(
    connection: Redis, redis_url: str, start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop.py").write_text(JOBS)
    failed = Queue("shop", connection=connection).enqueue("shop.fails")
    start_worker("shop", "--burst", directory=tmp_path).finish()
    monkeypatch.setenv("RQMEM_DASHBOARD_TOKEN", "a token for programs")
    with logged_in(connection, redis_url, "workers") as url:
        client = create_app(url).test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = "Bearer a token for programs"
        paths = (
            "/",
            "/jobs",
            "/workers",
            "/types",
            f"/job/{failed.id}",
            "/api/v1/overview",
            f"/api/v1/job/{failed.id}",
        )
        for path in paths:
            answer = client.get(path)
            assert answer.status_code in (200, 302, 404), (path, answer.status_code)
        for command in (["status"], ["inspect", failed.id], ["report"], ["alerts"]):
            looked = rqmem(*command, directory=tmp_path, RQMEM_REDIS_URL=url)
            assert "NOPERM" not in looked.stderr and "refuses" not in looked.stderr, looked.stderr
        done = rqmem("retry", failed.id, directory=tmp_path, RQMEM_REDIS_URL=url)
        assert done.returncode == 0, done.stderr


def test_the_user_of_an_application_can_enqueue_and_read_results(
    connection: Redis, redis_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(JOBS)
    code = (
        "import rqmem, shop\nfrom datetime import timedelta\n"
        "job = shop.Sum.enqueue('shop', 20)\nshop.Sum.enqueue_in(timedelta(days=1), 'shop', 20)\nprint(job.id)\n"
    )
    with logged_in(connection, redis_url, "application") as url:
        done = forked.run_code(code, RQMEM_REDIS_URL=url, PYTHONPATH=f"{tmp_path}:{ROOT}")
        assert done.returncode == 0, done.stderr
        start_worker("shop", "--burst", directory=tmp_path).finish()
        job = Job.fetch(done.stdout.strip(), connection=Redis.from_url(url))
        assert job.return_value() == sum(range(20))


def test_the_user_that_only_reads_can_see_all_and_change_nothing(
    connection: Redis, redis_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(JOBS)
    done = Queue("shop", connection=connection).enqueue("shop.Sum.run", 20)
    start_worker("shop", "--burst", directory=tmp_path).finish()
    with logged_in(connection, redis_url, "reader", b"set") as url:  # rqmem looks whether Redis takes writes
        for command in (["status"], ["inspect", done.id], ["report"], ["recommend"], ["alerts"], ["journal", "size"]):
            looked = rqmem(*command, directory=tmp_path, RQMEM_REDIS_URL=url)
            assert "NOPERM" not in looked.stderr and "refuses" not in looked.stderr, looked.stderr
        prometheus = pytest.importorskip("rqmem.prometheus.collecting", reason="the extra 'metrics' is not installed")
        families = {each.name for each in prometheus.JournalCollector(Redis.from_url(url)).collect()}
        assert "rqmem_job_runs" in families
        with pytest.raises(NoPermissionError):
            Redis.from_url(url).set("rqmem:paused", 1)
