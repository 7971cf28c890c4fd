"""A Redis that answers and says no: nobody ends, nothing is lost, nothing is done twice, and people are told."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rq.command import send_shutdown_command
from rq.executions import Execution
from rq.job import Dependency, JobStatus

from rqmem import MemoryWorker
from rqmem.observe.problems import problems
from rqmem.observe.snapshot import read_status, read_totals
from rqmem.store import execution_reader, keys, ledger
from rqmem.store.retrying import unavailable
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import OwnRedis, StartCommand, StartWorker, WorkerProcess
from tests.refusing_redis import RefusingProxy, everything, refusing, writes
from tests.unit.test_patience import REPLIES

QUICK = {"RQMEM_HEARTBEAT": "0.3"}
ADMIN = {"username": "admin", "password": "secret"}


@pytest.fixture
def admin(own_redis: OwnRedis) -> Redis:
    """Who may do all, whatever becomes of the others."""
    own_redis.connection.execute_command("ACL", "SETUSER", "admin", "on", ">secret", "~*", "&*", "+@all")
    return Redis.from_url(own_redis.server.url, **ADMIN)


@pytest.fixture
def proxy(own_redis: OwnRedis) -> Iterator[RefusingProxy]:
    with refusing(own_redis.server.url) as proxy:
        yield proxy


@contextmanager
def settings(admin: Redis, **values: str) -> Iterator[None]:
    """Of the server, for the time of the block."""
    names = {name.replace("_", "-"): value for name, value in values.items()}
    before = {name: admin.config_get(name)[name] for name in names}
    for name, value in names.items():
        admin.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            admin.config_set(name, value)


@contextmanager
def readonly(admin: Redis) -> Iterator[None]:
    """As after a failover."""
    admin.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        admin.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def masterdown(admin: Redis) -> Iterator[None]:
    with settings(admin, replica_serve_stale_data="no"), readonly(admin):
        yield


@contextmanager
def misconf(admin: Redis) -> Iterator[None]:
    """A snapshot could not be written."""
    with settings(admin, save="900 1"), settings(admin, dir="/proc"):
        wait_until(lambda: _has_failed_to_save(admin))
        yield


def _has_failed_to_save(admin: Redis) -> bool:
    with suppress(ResponseError):  # Redis has begun one itself
        admin.bgsave()
    return admin.info("persistence")["rdb_last_bgsave_status"] == "err"


@contextmanager
def busy(admin: Redis) -> Iterator[None]:
    """A script that does not end."""
    with settings(admin, lua_time_limit="1"):
        runner = Redis(connection_pool=type(admin.connection_pool)(**{
            **admin.connection_pool.connection_kwargs, "connection_class": admin.connection_pool.connection_class,
        }))  # fmt: skip
        thread = threading.Thread(target=_run_without_end, args=(runner,))
        thread.start()
        wait_until(lambda: _says(admin, "BUSY"))
        try:
            yield
        finally:
            admin.script_kill()
            thread.join()


def _run_without_end(connection: Redis) -> None:
    with contextlib.suppress(RedisError):
        connection.eval("while true do end", 0)


def _says(connection: Redis, code: str) -> bool:
    try:
        connection.ping()
    except RedisError as error:
        return str(error).startswith(code)
    return False


@contextmanager
def noauth(admin: Redis) -> Iterator[None]:
    """The password was changed."""
    admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">other")
    admin.client_kill_filter(user="default")
    try:
        yield
    finally:
        admin.execute_command("ACL", "SETUSER", "default", "nopass")


@contextmanager
def noperm(admin: Redis) -> Iterator[None]:
    admin.execute_command("ACL", "SETUSER", "default", "-@write")
    try:
        yield
    finally:
        admin.execute_command("ACL", "SETUSER", "default", "+@all")


REFUSALS: dict[str, Callable[[Redis], contextlib.AbstractContextManager[None]]] = {
    "READONLY": readonly,
    "MASTERDOWN": masterdown,
    "OOM": lambda admin: settings(admin, maxmemory="1"),
    "MISCONF": misconf,
    "NOREPLICAS": lambda admin: settings(admin, min_replicas_to_write="1"),
    "BUSY": busy,
    "NOAUTH": noauth,
    "NOPERM": noperm,
}


class Watched:
    """A worker whose log can be read while it runs."""

    def __init__(self, start_worker: StartWorker, url: str, directory: Path, *options: str) -> None:
        self._log = directory / "worker.log"
        self.worker: WorkerProcess = start_worker(
            "jobs", "--log-file", str(self._log), *options, RQMEM_REDIS_URL=url, **QUICK
        )

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def wait_for(self, text: str, times: int = 1) -> None:
        try:
            wait_until(lambda: len(re.findall(text, self.log)) >= times)
        except TimeoutError:
            raise AssertionError(f"{text!r} is not {times} times in\n{self.log}") from None

    def finish(self, code: int = 0) -> str:
        printed = self.worker.finish()
        assert self.worker.process.returncode == code, printed + self.log
        return self.log


def begun(path: Path) -> str:
    wait_until(lambda: Path(f"{path}.begun").exists())
    return str(path)


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_worker_waits_until_redis_no_longer_refuses(
    kind: str, own_redis: OwnRedis, admin: Redis, start_worker: StartWorker, tmp_path: Path
) -> None:
    """One job ends meanwhile, another is in the middle of its chunks; then Redis refuses while the worker is idle."""
    refuses = REFUSALS[kind]
    at_its_end, in_its_chunks, queue = tmp_path / "end", tmp_path / "chunks", own_redis.queue
    worker = Watched(start_worker, own_redis.server.url, tmp_path, "--max-jobs", "3")
    plain = queue.enqueue(sample_jobs.wait_for_file, str(at_its_end))
    begun(at_its_end)
    with refuses(admin):
        at_its_end.touch()
        worker.wait_for(r"Redis refuses .*: waiting for it to keep the outcome of job")
    chunked = sample_jobs.WaitsInItsChunks.enqueue(queue, path=str(in_its_chunks))
    begun(in_its_chunks)
    with refuses(admin):
        in_its_chunks.touch()
        worker.wait_for(r"Redis refuses .*: waiting for it to (save a chunk|write to the run) of job")
    wait_until(lambda: chunked.get_status() == JobStatus.FINISHED)
    with refuses(admin):
        pass
    last = queue.enqueue(sample_jobs.add, 1)
    log = worker.finish()
    assert (plain.return_value(), chunked.return_value(), last.return_value()) == ("done", list(range(6)), 2), log
    assert [len(each.results()) for each in (plain, chunked, last)] == [1, 1, 1]
    assert Path(f"{in_its_chunks}.done").read_text().split() == [str(number) for number in range(6)]
    assert execution_reader.run(own_redis.connection, chunked.id).resumes == 0
    assert kind in log
    assert "Traceback" not in log
    assert log.count("Redis refuses") <= 12, log


@pytest.mark.parametrize("kind", ["READONLY", "OOM"])
def test_a_split_goes_on_where_redis_refused_in_the_middle_of_it(
    kind: str, own_redis: OwnRedis, admin: Redis, start_worker: StartWorker, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    job = sample_jobs.WaitsInItsChildren.enqueue(path=str(go), connection=own_redis.connection)
    worker = Watched(start_worker, own_redis.server.url, tmp_path, "--max-jobs", "5")
    begun(go)
    with REFUSALS[kind](admin):
        go.touch()
        worker.wait_for(r"Redis refuses .*: waiting for it to \w+ .* of job \S+-child-0")
    log = worker.finish()
    assert job.return_value(refresh=True) == list(range(6)), log


def test_each_reply_that_passes_is_waited_for(
    own_redis: OwnRedis, proxy: RefusingProxy, start_worker: StartWorker, tmp_path: Path
) -> None:
    lines = list(REPLIES)
    worker = Watched(start_worker, proxy.url, tmp_path, "--max-jobs", str(len(lines)))
    jobs = []
    for number, line in enumerate(lines):
        go = tmp_path / f"go{number}"
        jobs.append(own_redis.queue.enqueue(sample_jobs.wait_for_file, str(go)))
        begun(go)
        proxy.refuse = writes(line)
        go.touch()
        worker.wait_for(rf"Redis refuses .*: waiting for it to \w+ .* of job {jobs[-1].id}")
        proxy.refuse = None
        wait_until(lambda: jobs[-1].get_status() == JobStatus.FINISHED)
    log = worker.finish()
    assert [len(job.results()) for job in jobs] == [1] * len(lines), log


def test_a_failure_is_recorded_once_redis_takes_it(
    own_redis: OwnRedis, proxy: RefusingProxy, start_worker: StartWorker, tmp_path: Path
) -> None:
    """RQ logs an error of that commit, and forgets it."""
    go = tmp_path / "go"
    job = own_redis.queue.enqueue(sample_jobs.wait_for_file_and_fail, str(go))
    after = own_redis.queue.enqueue(sample_jobs.add, 1, depends_on=Dependency(job, allow_failure=True))
    worker = Watched(start_worker, proxy.url, tmp_path, "--max-jobs", "2")
    begun(go)
    proxy.refuse = lambda command: "MISCONF no disk" if command[0] == b"XADD" else None  # its result
    go.touch()
    refused = proxy.refused
    worker.wait_for("waiting for it to")
    wait_until(lambda: proxy.refused > refused + 6)
    proxy.refuse = None
    log = worker.finish()
    assert job.get_status() == JobStatus.FAILED, log
    assert "an ordinary failure" in (job.latest_result().exc_string or "")
    assert after.return_value(refresh=True) == 2
    assert log.count("Traceback") == 1, log  # the job's own


def test_a_breach_is_recorded_once_where_redis_refuses_in_the_middle_of_it(
    own_redis: OwnRedis, proxy: RefusingProxy, start_worker: StartWorker, tmp_path: Path
) -> None:
    job = own_redis.queue.enqueue(sample_jobs.grow_lists)

    def refuse(command: list[bytes]) -> str | None:
        first = proxy.refused == 0 and command[0] == b"HGET" and command[-1] == b"meta"
        return "LOADING Redis is loading" if first and execution_reader.breaches(own_redis.connection, job.id) else None

    proxy.refuse = refuse
    worker = Watched(start_worker, proxy.url, tmp_path, "--max-jobs", "1", "--memory", "128")
    log = worker.finish()
    assert proxy.refused == 1
    assert len(execution_reader.breaches(own_redis.connection, job.id)) == 1, log


def test_a_job_that_has_come_to_one_of_two_queues_is_not_lost(
    own_redis: OwnRedis, proxy: RefusingProxy, start_worker: StartWorker, tmp_path: Path
) -> None:
    """It was moved, and Redis refuses to put it back, or to give it out."""
    worker = Watched(start_worker, proxy.url, tmp_path, "others", "--max-jobs", "1")
    wait_until(lambda: any(client["cmd"] == "blmove" for client in own_redis.connection.client_list()))
    proxy.refuse = lambda command: "LOADING Redis is loading" if command[0] == b"EVALSHA" else None
    job = own_redis.queue.enqueue(sample_jobs.add, 1)
    wait_until(lambda: proxy.refused >= 2)
    proxy.refuse = None
    log = worker.finish()
    assert job.return_value() == 2, log


def test_an_idle_worker_asks_again_after_a_forced_unblock(
    own_redis: OwnRedis, start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = Watched(start_worker, own_redis.server.url, tmp_path, "--max-jobs", "1")
    connection = own_redis.connection

    def waiting() -> list[str]:
        return [client["id"] for client in connection.client_list() if client["cmd"] == "blmove"]

    wait_until(waiting)
    [client] = waiting()
    connection.execute_command("CLIENT", "UNBLOCK", client, "ERROR")
    worker.wait_for("UNBLOCKED")
    wait_until(waiting)
    job = own_redis.queue.enqueue(sample_jobs.add, 1)
    log = worker.finish()
    assert job.return_value() == 2, log


def test_a_worker_begins_although_connections_are_lost(
    own_redis: OwnRedis, proxy: RefusingProxy, start_worker: StartWorker, tmp_path: Path
) -> None:
    """From its registration on, the reply to each kind of command is lost once."""
    lost: set[bytes] = set()

    def lose(command: list[bytes]) -> bool:
        new = (lost or command[0] == b"WATCH") and command[0] not in lost
        lost.update(command[:1] if new else [])
        return bool(new)

    proxy.lose = lose
    worker = Watched(start_worker, proxy.url, tmp_path, "--max-jobs", "1")
    job = own_redis.queue.enqueue(sample_jobs.add, 1)
    log = worker.finish()
    assert job.return_value() == 2, log
    assert {b"HGETALL", b"SADD", b"SET", b"EXEC"} <= lost


@pytest.mark.parametrize("lost", [b"SETNAME", b"INFO"])
def test_a_worker_is_made_although_its_first_connection_is_lost(proxy: RefusingProxy, lost: bytes) -> None:
    """As one that a pool starts in place of another."""
    replies = iter([True])
    proxy.lose = lambda command: command[:2] == [b"CLIENT", lost] and next(replies, False)
    assert MemoryWorker(["jobs"], connection=proxy.connection).ip_address not in ("", "unknown")
    assert next(replies, None) is None


def test_commands_are_heard_after_a_refused_subscription(
    own_redis: OwnRedis, proxy: RefusingProxy, start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = Watched(start_worker, proxy.url, tmp_path)
    wait_until(lambda: _subscribed(own_redis))
    proxy.refuse = lambda command: "BUSY Redis is busy running a script" if command[0] == b"SUBSCRIBE" else None
    proxy.cut()
    worker.wait_for("no commands are heard")
    proxy.refuse = None
    wait_until(lambda: _subscribed(own_redis))
    [name] = (key.decode().rpartition(":")[2] for key in own_redis.connection.smembers("rq:workers"))
    own_redis.connection.publish(f"rq:pubsub:{name}", "no command at all")
    send_shutdown_command(own_redis.connection, name)
    worker.finish()


def _subscribed(own: OwnRedis) -> bool:
    return bool(own.connection.pubsub_channels("rq:pubsub:*"))


def test_the_scheduler_goes_on(
    own_redis: OwnRedis, proxy: RefusingProxy, start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = Watched(start_worker, proxy.url, tmp_path, "--with-scheduler", "--max-jobs", "1")
    wait_until(lambda: any(own_redis.connection.scan_iter("rq:scheduler:*")))
    proxy.refuse = everything("READONLY You can't write against a read only replica.")
    worker.wait_for("let the scheduler")
    job = own_redis.queue.enqueue_at(datetime.now(timezone.utc), sample_jobs.add, 1)
    proxy.refuse = None
    log = worker.finish()
    assert job.return_value(refresh=True) == 2, log


@pytest.mark.parametrize("kind", [sample_jobs.incompressible, sample_jobs.raise_at_length])
def test_what_redis_never_takes_is_told_and_not_waited_for_without_end(
    kind: Callable[[int], object], own_redis: OwnRedis, start_worker: StartWorker, tmp_path: Path
) -> None:
    own_redis.connection.config_set("proto-max-bulk-len", "1mb")
    jobs = [own_redis.queue.enqueue(kind, 2), own_redis.queue.enqueue(sample_jobs.add, 1)]
    worker = Watched(start_worker, own_redis.server.url, tmp_path, "--burst")
    log = worker.finish()
    error = jobs[0].latest_result().exc_string or ""
    assert jobs[0].get_status() == JobStatus.FAILED, log
    assert "proto-max-bulk-len" in error or error.endswith("the end of a long text\n"), error[-300:]
    assert jobs[1].return_value() == 2


def test_children_that_redis_never_takes_are_not_offered_again_without_a_pause(own_redis: OwnRedis) -> None:
    """The server closes the connection at them, as if it were away; redis-py would send them for ever."""
    connection, queue = own_redis.connection, own_redis.queue
    connection.config_set("proto-max-bulk-len", "1mb")
    execution = Execution("e", "parent", connection)
    connection.hset(execution.key, "id", "e")
    child = queue.prepare_data(sample_jobs.add, args=(os.urandom(2 * 2**20),), job_id="parent-child-0")
    with pytest.raises(RedisError) as raised:
        ledger.add_children(queue, "parent", execution, {0: child}, None)
    assert unavailable(raised.value) == "away"
    assert queue.count == 0


@pytest.mark.parametrize("how", ["rqmem", "rq.cli"])
def test_an_error_that_lasts_ends_the_worker_with_1_and_one_line(
    how: str, own_redis: OwnRedis, start_command: StartCommand
) -> None:
    own_redis.connection.set("rq:queue:jobs", "no list")
    ours = ["-w", "rqmem.MemoryWorker"] if how == "rq.cli" else []
    worker = start_command("worker", "jobs", "--url", own_redis.server.url, *ours, module=how)
    printed = worker.finish()
    assert worker.process.returncode == 1, printed
    last = printed.splitlines()[-1]
    assert "was ended by an error that nobody handled: ResponseError: WRONGTYPE Operation against a key" in last


def test_a_worker_that_starts_while_redis_refuses_says_so_and_ends_with_1(
    own_redis: OwnRedis, admin: Redis, start_worker: StartWorker
) -> None:
    with readonly(admin):
        worker = start_worker("jobs", RQMEM_REDIS_URL=own_redis.server.url)
        printed = worker.finish()
    assert worker.process.returncode == 1
    assert "READONLY" in printed.splitlines()[-1]
    assert "Traceback" not in printed


@pytest.mark.parametrize("kind", ["READONLY", "OOM", "NOREPLICAS"])
def test_status_and_exporter_say_that_redis_refuses_and_miss_no_worker(
    kind: str, own_redis: OwnRedis, admin: Redis
) -> None:
    own_redis.queue.enqueue(sample_jobs.add, 1)
    with REFUSALS[kind](admin):
        found = {each.name: each.text for each in problems(read_status(own_redis.connection, "", time.time()))}
        assert kind in found["redis-refuses"]
        assert "no-workers" not in found
        assert read_totals(own_redis.connection, time.time()).refuses
    assert "redis-refuses" not in {each.name for each in problems(read_status(own_redis.connection, "", time.time()))}
    assert not own_redis.connection.exists(keys.PROBE)


def test_a_job_that_was_put_back_before_it_was_claimed_runs_once(
    own_redis: OwnRedis, proxy: RefusingProxy, start_worker: StartWorker, tmp_path: Path
) -> None:
    """For others it looks abandoned: it was taken, and its worker cannot claim it."""
    is_back = threading.Event()

    def refuse(command: list[bytes]) -> str | None:
        if b"claim" not in command or is_back.is_set():
            return None
        wait_until(lambda: own_redis.queue.count == 1)  # before the worker tries again, and then takes it
        is_back.set()
        return "OOM command not allowed"

    worker = Watched(start_worker, proxy.url, tmp_path, "--lease-max", "0", "--max-jobs", "2")
    wait_until(lambda: any(client["cmd"] == "blmove" for client in own_redis.connection.client_list()))
    proxy.refuse = refuse
    job = own_redis.queue.enqueue(sample_jobs.add, 1)
    assert is_back.wait(90)
    own_redis.queue.enqueue(sample_jobs.add, 2)
    log = worker.finish()
    assert len(job.results()) == 1, log
    assert "somebody has put it back" in log


def test_dependents_are_enqueued_although_connections_are_lost(
    own_redis: OwnRedis, proxy: RefusingProxy, start_worker: StartWorker, tmp_path: Path
) -> None:
    """After each kind of end, of what is done for the dependents each kind of command is lost once, then its reply."""
    ok, bad = tmp_path / "ok", tmp_path / "bad"
    queue = own_redis.queue
    worker = Watched(start_worker, proxy.url, tmp_path, "--max-jobs", "4")
    jobs = [
        queue.enqueue(sample_jobs.wait_for_file, str(ok)),
        queue.enqueue(sample_jobs.wait_for_file_and_fail, str(bad)),
    ]
    after = [queue.enqueue(sample_jobs.add, 1, depends_on=Dependency(job, allow_failure=True)) for job in jobs]
    lost: set[tuple[bytes, bytes, bool]] = set()

    def lose(command: list[bytes], *, done: bool) -> bool:
        kind = (command[0], command[1] if command[0] in (b"SMEMBERS", b"ZSCORE") else b"", done)
        new = command[0] in (b"WATCH", b"SMEMBERS", b"ZSCORE", b"EXEC") and kind not in lost
        lost.update([kind] if new else [])
        return new

    def cut(command: list[bytes]) -> None:
        if lose(command, done=False):
            raise EOFError

    for path in (ok, bad):
        begun(path)
        proxy.hold, proxy.lose = cut, lambda command: lose(command, done=True)
        path.touch()
        lost.clear()
    log = worker.finish()
    assert [each.return_value() for each in after] == [2, 2], log
