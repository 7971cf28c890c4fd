"""Whatever two leasing workers, a stock worker and users do at once, and whoever dies in it: no job is lost or doubled.

Hypothesis chooses what happens next. Between any two scripts anything else may happen. The numbers in the comments are
those of the invariants in the design.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from redis import Redis
from rq import Queue
from rq.job import Job

from rqmem.store import executions, keys
from tests.lease.family import Family, Single, is_parent, mend
from tests.lease.model import QUEUES, History, Leasing, Steps, Stock, take_over
from tests.lease.stand_in import StandIn

REGISTRIES = ("finished", "failed", "canceled", "deferred")
Act = Callable[["World", Random], None]
ACTS: list[Act] = []


def act(weight: int) -> Callable[[Act], Act]:
    """What may happen; the weight says how often."""

    def listed(one: Act) -> Act:
        ACTS.extend([one] * weight)
        return one

    return listed


class World:
    """Redis and all who use it.

    Attributes:
        odd: jobs that RQ itself leaves in two places, or in none.
        touched: jobs that were cancelled or deleted.
        rank: the order in which jobs were enqueued.
    """

    def __init__(self, connection: Redis) -> None:
        connection.flushall()
        self.connection = connection
        self.history = History()
        self.workers = [Leasing(connection, self.history) for _ in range(2)]
        self.dead: list[Leasing | Single] = []
        self.takers: list[Steps] = []
        self.late: list[tuple[Leasing, bytes]] = []
        self.stock = Stock(connection, self.history)
        self.family: Family = self.history.family
        self.single = Single(connection, self.history, self.family, QUEUES)
        self.made: list[str] = []
        self.rank: dict[str, int] = {}
        self.odd: set[str] = set()
        self.touched = self.history.disturbed
        self._numbers = count()
        for _ in range(3):
            self.enqueue(Random(1))

    # Users

    @act(2)
    def enqueue(self, random: Random) -> None:
        for _ in range(random.randint(1, 6)):
            job_id = f"j{next(self._numbers):03d}"
            Queue(random.choice(QUEUES), connection=self.connection).enqueue("time.time", job_id=job_id)
            self.made.append(job_id)
            self.rank[job_id] = next(self._numbers)

    @act(1)
    def enqueue_parent(self, random: Random) -> None:
        job_id = f"p{next(self._numbers):03d}"
        Queue("high", connection=self.connection).enqueue("tests.Family.run", job_id=job_id)
        self.made.append(job_id)
        self.rank[job_id] = next(self._numbers)

    @act(1)
    def end_one(self, random: Random) -> None:
        """Cancel or delete one of the last jobs."""
        job_id, delete = random.choice(self.made[-20:]), random.random() < 0.3
        status = self.connection.hget(f"rq:job:{job_id}", "status")
        if status in (b"queued", b"started") or (delete and status):
            if self.stock.held == job_id:
                self.odd.add(job_id)
            self.touched.add(job_id)
            job = Job.fetch(job_id, connection=self.connection)
            job.delete() if delete else job.cancel()

    @act(1)
    def requeue(self, random: Random) -> None:
        failed = [each.decode() for name in QUEUES for each in self.connection.zrange(f"rq:failed:{name}", 0, -1)]
        failed = [job_id for job_id in failed if job_id.startswith("j")]
        if failed:
            job_id = random.choice(failed)
            Job.fetch(job_id, connection=self.connection).requeue()
            self.rank[job_id] = next(self._numbers)

    # Workers with leases

    @act(12)
    def horse_goes_on(self, random: Random) -> None:
        worker = random.choice(self.workers)
        if worker.ending:
            return
        if worker.now is not None and is_parent(worker.now.id):
            self._begin(worker, worker.split())
        elif worker.now is not None:
            worker.finish()
        elif worker.waiting and len(worker.ring) < 8 and not worker.recalled:
            worker.begin(awaited=random.random() < 0.5, lost=random.random() < 0.1)
        elif worker.ring:
            worker.commit(lost=random.random() < 0.3)
        elif worker.recalled or random.random() < 0.2:
            self._begin(worker, worker.end())
        else:
            worker.take(random.randint(1, 6))

    @act(2)
    def horse_waits(self, random: Random) -> None:
        worker = random.choice(self.workers)
        if worker.link is None and not (worker.ending or worker.moved):
            worker.wait(random.choice(QUEUES))

    @act(2)
    def heart_shows(self, random: Random) -> None:
        worker = random.choice(self.workers)
        if worker.last is not None and worker.link is not None:
            worker.show()

    @act(2)
    def worker_recalls(self, random: Random) -> None:
        worker = random.choice(self.workers)
        if worker.link is not None and not (worker.ending or worker.recalled or worker.last is None):
            self._begin(worker, worker.recall())

    @act(1)
    def job_raises(self, random: Random) -> None:
        worker = random.choice(self.workers)
        if worker.now is not None and not worker.ending:
            self._begin(worker, worker.fail())

    @act(1)
    def horse_dies(self, random: Random) -> None:
        worker = random.choice(self.workers)
        if worker.link is not None and not worker.ending:
            self._begin(worker, worker.horse_dies())

    @act(8)
    def work_goes_on(self, random: Random) -> None:
        worker = random.choice(self.workers)
        if worker.work is not None and next(worker.work, "over") == "over":
            worker.work = None

    @act(1)
    def worker_dies(self, random: Random) -> None:
        worker = random.choice(self.workers)
        last = worker.die()
        if last and random.random() < 0.7:
            self.late.append((worker, last))
        self.dead.append(worker)
        self.workers[self.workers.index(worker)] = Leasing(self.connection, self.history)

    @act(1)
    def sent_before_the_death_arrives(self, random: Random) -> None:
        if self.late:
            worker, command = self.late.pop(random.randrange(len(self.late)))
            assert worker.link is not None
            worker.link._connection.send_packed_command([command])
            worker.link._read_reply()

    @act(1)
    def somebody_begins_to_take_over(self, random: Random) -> None:
        if self.dead:
            self.takers.append(take_over(self.connection, random.choice(self.dead[-3:]).name, self.history))

    @act(4)
    def taking_over_goes_on(self, random: Random) -> None:
        if self.takers:
            taker = random.choice(self.takers)
            if next(taker, "over") == "over":
                self.takers.remove(taker)

    # A worker that orders each job, and what is done for parents

    @act(6)
    def single_worker_goes_on(self, random: Random) -> None:
        single = self.single
        if single.work is None:
            single.work = single.run_one()
        if next(single.work, "over") == "over":
            single.work = None

    @act(1)
    def single_worker_dies(self, random: Random) -> None:
        if random.random() < 0.3:
            self._single_dies()

    def _single_dies(self) -> None:
        self.single.dies()
        self.dead.append(self.single)
        self.single = Single(self.connection, self.history, self.family, QUEUES)

    @act(1)
    def parents_are_told_of_children(self, random: Random) -> None:
        parents = [job_id for job_id in self.made if is_parent(job_id)]
        if parents:
            mend(self.connection, random.choice(parents))

    def _note_children(self) -> None:
        for job_id in self.family.made:
            if job_id not in self.rank:
                self.made.append(job_id)
                self.rank[job_id] = next(self._numbers)

    # Others

    @act(3)
    def stock_worker_goes_on(self, random: Random) -> None:
        if self.stock.work is None:
            self.stock.work = self.stock.run_one()
        if next(self.stock.work, "over") == "over":
            self.stock.work = None

    @act(1)
    def stock_worker_dies(self, random: Random) -> None:
        if random.random() < 0.3:
            self.odd.add(self.stock.held)  # RQ's maintenance comes after a minute
            self.stock = Stock(self.connection, self.history)

    @act(1)
    def what_looks_abandoned_is_put_back(self, random: Random) -> None:
        if self.stock.work is None and not self.single.held:
            for queue in (Queue(name, connection=self.connection) for name in QUEUES):
                for job_id in queue.intermediate_queue.get_job_ids():
                    if executions.put_back(queue, job_id):
                        self.odd.add(job_id)  # in front of what leases have put back

    def _begin(self, worker: Leasing, work: Steps) -> None:
        if worker.work is None:
            worker.work = work
            next(work, None)

    # What holds at all times

    def check(self) -> None:
        """Each job is in one place (1), has one outcome (2), and each queue is in order (4)."""
        self._note_children()
        places, statuses = self._places()
        for job_id in set(self.made) - self.odd:
            status, there = statuses.get(job_id), Counter(places[job_id])
            leftover = job_id in self.touched
            if leftover:
                del there["taken"], there["intermediate"], there["queue"], there["wip"]
            fine: list[dict[str, int]] = [{}] if leftover or status is None else []
            if status == "queued":
                fine += [{"queue": 1}, {"taken": 1, "intermediate": 1}]
                fine += [{"intermediate": 1}, {"intermediate": 1, "wip": 1}]  # a stock worker has it, or had it
            elif status == "started":
                fine += [{"wip": 1}, {"wip": 1, "taken": 1}]
            elif status is not None:
                fine = [{status: 1}]
            assert there in fine, (job_id, status, there)
        with self.connection.pipeline() as pipeline:
            for job_id in self.made:
                pipeline.xrange(f"rq:results:{job_id}")
            for job_id, entries in zip(self.made, pipeline.execute(), strict=True):
                successes = [fields[b"execution_id"] for _, fields in entries if fields[b"type"] == b"1"]
                assert len(successes) <= 1 or job_id in self.odd, (job_id, successes)

        for name in QUEUES:
            waiting = [each.decode() for each in self.connection.lrange(f"rq:queue:{name}", 0, -1)]
            assert len(waiting) == len(set(waiting)), waiting
            unordered = self.odd | self.history.fronted
            ranks = [self.rank[each] for each in waiting if each not in unordered and not is_parent(each)]
            assert ranks == sorted(ranks), (name, waiting)
        for job_id in self.made:
            if is_parent(job_id):
                self.family.check(self.connection, job_id)

    def end(self) -> None:
        """All die; who comes after finishes everything."""
        for worker in list(self.workers):
            worker.die()
            self.dead.append(worker)
        while self.late:
            self.sent_before_the_death_arrives(Random(0))
        self.odd.add(self.stock.held)
        self.stock = Stock(self.connection, self.history)
        self._single_dies()
        for worker in self.dead:
            self.takers += [take_over(self.connection, worker.name, self.history) for _ in range(2)]
        while self.takers:
            self.taking_over_goes_on(Random(0))
        self.what_looks_abandoned_is_put_back(Random(0))
        self.check()
        self._end_parents()
        StandIn(self.connection, QUEUES, k=3).work()
        self.check()
        places, statuses = self._places()
        for job_id in set(self.made) - self.odd:
            wanted = (None, *REGISTRIES) if job_id in self.touched else ("finished", "failed")
            assert statuses.get(job_id) in wanted, (job_id, statuses.get(job_id), places[job_id])
            assert not places[job_id]["wip"] and not places[job_id]["taken"], (job_id, places[job_id])
        assert not [*self.connection.scan_iter("rqmem:lease*"), *self.connection.scan_iter("rqmem:taken:*")]
        assert {each.decode() for each in self.connection.hkeys(keys.RUNNING)} <= self.odd

    def _end_parents(self) -> None:
        """What is in their queue runs one by one."""
        self.single.queues = self.single.queues[:1]
        while self.connection.llen("rq:queue:high") or self.connection.zcard("rq:deferred:high"):
            before = self.connection.llen("rq:queue:high"), self.connection.zcard("rq:deferred:high")
            for _ in self.single.run_one():
                pass
            self.check()
            for job_id in self.made:
                if is_parent(job_id):
                    mend(self.connection, job_id)
            assert before[0] or self.connection.llen("rq:queue:high"), f"{before[1]} parents wait for nobody"

    def close(self) -> None:
        for worker in (*self.workers, *self.dead):
            if isinstance(worker, Leasing) and worker.link is not None:
                worker.link.close()

    def _places(self) -> tuple[dict[str, Counter[str]], dict[str, str]]:
        """How often each job is in each place, and its status."""
        places = {job_id: Counter[str]() for job_id in self.made}
        names = []
        with self.connection.pipeline() as pipeline:
            for name in QUEUES:
                names += ["queue", "intermediate", "wip", *REGISTRIES]
                pipeline.lrange(f"rq:queue:{name}", 0, -1)
                pipeline.lrange(f"rq:queue:{name}:intermediate", 0, -1)
                for registry in ("wip", *REGISTRIES):
                    pipeline.zrange(f"rq:{registry}:{name}", 0, -1)
            for worker in (*self.workers, *self.dead):
                names.append("taken")
                pipeline.lrange(keys.taken(worker.name), 0, -1)
            for job_id in self.made:
                pipeline.hget(f"rq:job:{job_id}", "status")
            found = pipeline.execute()
        for name, ids in zip(names, found, strict=False):
            for each in ids:
                places[each.decode().partition(":")[0]][name] += 1
        statuses: list[Any] = found[len(names) :]
        return places, {job_id: raw.decode() for job_id, raw in zip(self.made, statuses, strict=True) if raw}


EXAMPLES = int(os.environ.get("RQMEM_TESTS_EXAMPLES", "0"))
"""How many that are drawn at random; 0: a dozen, which are the same each time."""


PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # to shrink what took seconds would take minutes


@settings(max_examples=EXAMPLES or 12, derandomize=not EXAMPLES, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, len(ACTS) - 1), st.integers(0, 2**16)), min_size=60, max_size=200))
def test_no_job_is_lost_or_doubled(connection: Redis, choices: list[tuple[int, int]]) -> None:
    world = World(connection)
    try:
        for number, seed in choices:
            ACTS[number](world, Random(seed))
            world.check()
        world.end()
    finally:
        world.close()
