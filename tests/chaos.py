"""Deaths at random: ``python -m tests.chaos --runs 200 --seed 1`` (``make chaos``), and a short form in the tests.

Two workers work off one job after another. In each run a seeded plan kills a worker, a horse, tells a worker to
stop, or has Redis refuse at random for a while, when so much has happened in that run: while the parent makes its
children, in a chunk, in the gather, after it.
At the end everything must be as if nobody had died: `check` says what that is. Some jobs fail on their way, and are
retried; others have the id of one that has failed, or was cancelled in the middle of it.
"""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import click
from redis import Redis
from rq import Queue, Retry
from rq.exceptions import NoSuchJobError
from rq.group import Group
from rq.job import Job, JobStatus

from rqmem.connection import embedded
from rqmem.errors import RqmemError
from rqmem.job import tree
from rqmem.job.chunk_progress import SAVE_SECONDS
from rqmem.store import keys
from rqmem.testing import wait_until
from tests import chaos_jobs
from tests.chaos_crew import VICTIMS, Crew, crew_on

RETRIED_BY_RQ, RETRIED_BY_HAND = "retried by RQ", "retried by hand"
AFTER_A_FAILURE, AFTER_A_CANCEL = "after one that failed", "after one that was cancelled"
KINDS = (
    (chaos_jobs.InChunks, 30, ""),
    (chaos_jobs.InChildren, 40, ""),
    (chaos_jobs.InGrandchildren, 40, ""),
    (chaos_jobs.Halving, 40, ""),
    (chaos_jobs.InChildren, 40, RETRIED_BY_RQ),
    (chaos_jobs.InGrandchildren, 40, RETRIED_BY_HAND),
    (chaos_jobs.InGrandchildren, 40, AFTER_A_FAILURE),
    (chaos_jobs.InChildren, 40, AFTER_A_CANCEL),
)
END_SECONDS = 180
_CHUNK = chaos_jobs.InChunks.chunk_size
_AGAIN = _CHUNK * (1 + math.ceil(SAVE_SECONDS / chaos_jobs.CHUNK_SECONDS))
"""Items that one death may have done again: the chunk in flight, and what was finished but not saved yet."""
_CUTS = 5  # of one item among 20, after breaches that the kernel may have ended


@dataclass
class Run:
    """One job, and what was done to it; ``before`` is one that had its id."""

    name: str
    job: Job
    kind: type[chaos_jobs.InChunks]
    count: int
    heavy: int = -1
    fate: str = ""
    before: Run | None = None
    kills: list[str] = field(default_factory=list)
    told: int = 0

    def end(self, connection: Redis) -> None:
        """From here on nothing more is told of it."""
        self.told = self.told or _told(connection, self)


def play(seed: int, crew: Crew, connection: Redis) -> Run:
    """One run, to its end. Raises `AssertionError` or `TimeoutError` where something is not as it must be."""
    chance = random.Random(seed)
    kind, count, fate = KINDS[seed % len(KINDS)]
    heavy = chance.randrange(count) if kind is chaos_jobs.Halving else -1
    if fate == RETRIED_BY_RQ:
        kind = chance.choice((chaos_jobs.InChildren, chaos_jobs.InRetriedChildren, chaos_jobs.InGrandchildren))
    elif fate:
        kind = chance.choice((chaos_jobs.InChildren, chaos_jobs.InGrandchildren))
    name, retry = f"run-{seed}", Retry(20) if fate == RETRIED_BY_RQ else None
    before = _play_before(seed, fate, crew, connection, chance) if fate in (AFTER_A_FAILURE, AFTER_A_CANCEL) else None
    if fate in (RETRIED_BY_RQ, RETRIED_BY_HAND):
        _break(name, chance.sample(range(count), chance.randint(1, 3)), chance.randint(1, 2), connection)
    job = kind.enqueue(run=name, count=count, heavy=heavy, job_id=f"job-{seed}", retry=retry, connection=connection)
    run = Run(name, job, kind, count, heavy, fate, before)
    _strike(run, crew, connection, chance, ())
    wait_until(lambda: _over(connection, run), END_SECONDS)
    check(run, connection)
    return run


def _play_before(seed: int, fate: str, crew: Crew, connection: Redis, chance: random.Random) -> Run:
    """An earlier job of the same id, that fails or is cancelled."""
    kind, count, name = chance.choice((chaos_jobs.InChildren, chaos_jobs.InGrandchildren)), 50, f"before-{seed}"
    broken = chance.sample(range(count), 2) if fate == AFTER_A_FAILURE else []
    _break(name, broken, 100, connection)
    options = {"job_id": f"job-{seed}", "result_ttl": chaos_jobs.SHORT_SECONDS, "connection": connection}
    job = kind.enqueue(run=name, count=count, **options)
    run = Run(name, job, kind, count)
    _strike(run, crew, connection, chance, ("cancel",) if fate == AFTER_A_CANCEL else ())
    wait_until(lambda: _over(connection, run), END_SECONDS)
    result, status = job.latest_result(), _status(connection, run)
    told = {raw.decode() for raw in connection.lrange(f"told:{name}", 0, -1)}
    run.end(connection)
    assert not any(each.startswith("incomplete") for each in told), told
    if fate == AFTER_A_CANCEL:
        assert status != JobStatus.FAILED, (status, run.kills)
        # Cancelled too late, it has ended well. RQ leaves a new job of its id the time to live of that result.
        wait_until(lambda: _status(connection, run) != JobStatus.FINISHED, END_SECONDS)
        return run
    assert result is not None and "ChildJobsFailed" in (result.exc_string or ""), (status, result)
    assert status == JobStatus.FAILED and f"gathered {job.id}" not in told, (status, told)
    near = {number for each in broken for number in range(each - 4, each + 5)}  # perhaps in the same child
    assert told >= {f"item {number}" for number in range(count) if number not in near}, told
    return run


def _break(name: str, numbers: list[int], times: int, connection: Redis) -> None:
    """So often each of these numbers fails in that run."""
    if numbers:
        connection.rpush(f"broken:{name}", *(number for number in numbers for _ in range(times)))


def _strike(run: Run, crew: Crew, connection: Redis, chance: random.Random, others: tuple[str, ...]) -> None:
    """What befalls that run, and when: one to four deaths, and those ``others``."""
    thresholds = sorted(chance.randrange(run.count + 3) for _ in range(chance.randint(1, 4) + len(others)))
    blows = [chance.choice(VICTIMS) for _ in thresholds]
    for blow in others:
        number = chance.randrange(len(blows))
        blows[number] = blow
        if chance.random() < 0.5:  # at once after the blow before it
            thresholds[number] = thresholds[number - 1] if number else thresholds[number]
    for threshold, blow in zip(thresholds, blows, strict=True):
        wait_until(lambda: _told(connection, run) >= threshold or _over(connection, run), END_SECONDS)  # noqa: B023
        time.sleep(chance.random() * 0.03)  # anywhere between two things told
        run.kills.append(_cancelled(run, connection) if blow == "cancel" else crew.strike(blow, chance))


def _cancelled(run: Run, connection: Redis) -> str:
    try:
        done = tree.cancel(connection, run.job.id)
    except RqmemError:
        return "cancelled too late"
    run.end(connection)
    return f"cancelled ({done.taken_back} taken back, {done.stopped} stopped)"


def check(run: Run, connection: Redis) -> None:
    """Everything done, nothing done more often than promised, gathered once, nothing stuck, nothing left."""
    told = Counter(raw.decode() for raw in connection.lrange(f"told:{run.name}", 0, -1))
    items = set(range(run.count)) - {run.heavy}
    assert {name for name in told if name.startswith("item")} == {f"item {number}" for number in items}, told
    done_again = sum(told[f"item {number}"] - 1 for number in items)
    ends = len(run.kills) + (_CUTS if run.heavy >= 0 else 0)
    assert done_again <= _AGAIN * ends, f"more than the chunks in flight done again: {told}"
    result, status = run.job.latest_result(), _status(connection, run)
    assert result is not None and status == JobStatus.FINISHED, (status, result)
    assert not any(name.startswith("incomplete") for name in told), told
    assert result.return_value == sorted(items), f"not in order, each once: {result.return_value}"
    gathers = {name: times for name, times in told.items() if name.startswith("gathered")}
    assert (f"gathered {run.job.id}" in gathers) == (run.kind is not chaos_jobs.InChunks)
    deaths = sum("killed" in each for each in run.kills)
    assert sum(times - 1 for times in gathers.values()) <= deaths, "gathered again only where the one before died"
    if run.heavy >= 0:
        _forget_the_one_that_failed(connection)
    if run.before is not None:
        _forget_what_ended_before(connection)
    with suppress(AssertionError):
        wait_until(lambda: not leftovers(run, connection), END_SECONDS)
    assert leftovers(run, connection) == [], leftovers(run, connection)
    for each in (run, run.before) if run.before is not None else (run,):
        assert each is run or _told(connection, each) == each.told, "what had been cancelled went on"
        connection.delete(f"told:{each.name}", f"broken:{each.name}")


def _forget_the_one_that_failed(connection: Redis) -> None:
    """The child that is left of a number that does not fit is kept for people, as every failed job is."""
    [job_id] = Queue("chaos", connection=connection).failed_job_registry.get_job_ids()
    failed = Job.fetch(job_id, connection=connection)
    result = failed.latest_result()
    assert result is not None and "ItemTooLarge" in (result.exc_string or ""), result
    failed.delete()
    connection.delete(keys.run(job_id))


def _forget_what_ended_before(connection: Redis) -> None:
    """Jobs that failed or were cancelled are kept for people, and of what they had saved nothing for ever."""
    queue = Queue("chaos", connection=connection)
    for registry in (queue.failed_job_registry, queue.canceled_job_registry):
        for job_id in registry.get_job_ids():
            connection.zrem(registry.key, job_id)
            with suppress(NoSuchJobError):
                Job.fetch(job_id, connection=connection).delete()
            for key in keys.forgotten("run ends", job_id):
                assert connection.ttl(key) != -1, f"{key} is kept for ever"
                connection.delete(key)


def leftovers(run: Run, connection: Redis) -> list[str]:
    """What stays in Redis of that run, its children and its queue, longer than a result. The journal may remember."""
    queue = Queue("chaos", connection=connection)
    registries = (
        *(queue.started_job_registry, queue.deferred_job_registry, queue.scheduled_job_registry),
        *(queue.failed_job_registry, queue.canceled_job_registry),
    )
    left = [f"{type(each).__name__}: {each.get_job_ids(cleanup=False)}" for each in registries if each.get_job_ids()]
    left += [f"queue: {queue.job_ids}"] * bool(queue.job_ids)
    names = [raw.decode() for raw in connection.scan_iter(f"*{run.job.id}*", count=1000)]
    journal = (keys.story(""), keys.breaches(""), Group.get_key(""))  # RQ's maintenance removes groups without jobs
    # RQ's maintenance marks a job it sees between queue and worker, for a day.
    names = [name for name in names if not name.startswith(journal) and ":intermediate:first_seen:" not in name]
    left += [name for name in names if _stays(connection, name)]
    return left + [name for name in (keys.RUNNING, keys.DELAYED, keys.SPLITS) if connection.exists(name)]


def _stays(connection: Redis, name: str) -> bool:
    seconds = int(connection.ttl(name))
    return seconds == -1 or seconds > chaos_jobs.RESULT_SECONDS


def _told(connection: Redis, run: Run) -> int:
    return int(connection.llen(f"told:{run.name}"))


def _status(connection: Redis, run: Run) -> str:
    raw = connection.hget(run.job.key, "status")
    return raw.decode() if raw is not None else ""


def _over(connection: Redis, run: Run) -> bool:
    """Whether it has ended; where a person is to retry it once it has failed, that is done here."""
    status = _status(connection, run)
    if status == JobStatus.FAILED and run.fate == RETRIED_BY_HAND:
        run.kills.append(f"retried for {tree.retry(connection, run.job.id)}")
        return False
    return status in ("", JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED)


@click.command()
@click.option("--runs", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the first run.")
def main(runs: int, seed: int) -> None:
    """Kill workers and horses at random over many runs. Ends with 1 at the first run that is not right."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        url = embedded.start(path).url
        log = path / "workers.log"
        dealt: Counter[str] = Counter()
        try:
            with Redis.from_url(url) as connection, crew_on(url, log) as crew:
                for number in range(seed, seed + runs):
                    try:
                        run = play(number, crew, connection)
                    except (AssertionError, TimeoutError) as error:
                        click.echo(log.read_text())
                        raise SystemExit(f"seed {number}: {type(error).__name__}: {error}") from error
                    dealt.update(run.kills)
                    log.write_text("")
                    what = f"{run.kind.__name__} {run.fate}".rstrip()
                    click.echo(f"seed {number}: {what}: right after {', '.join(run.kills)}")
        finally:
            embedded.stop(path)
    total = ", ".join(f"{count} {what}" for what, count in dealt.most_common())
    click.echo(f"{runs} runs, all right: {total}")


if __name__ == "__main__":
    main()
