"""The parent's side of a pool's budget: who may start, who waits, who must go.

It is the only one to decide, in its one thread, and so nothing has to be locked. The decisions are
`rqmem.policy.admission` and `rqmem.policy.pressure`; here is what they need to know, and what follows from them. A
worker's part is freed when the job has ended, or when the kernel reports that the worker has.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from dataclasses import replace

from rqmem.errors import ConfigError
from rqmem.measure.host_memory import HostReader
from rqmem.policy import admission, pressure
from rqmem.policy.admission import Answer, Asking, Room, Share, WaitingJobs
from rqmem.policy.pressure import Eviction, HostReading, How, Running
from rqmem.store.history.pool_records import PoolIncident
from rqmem.units import MB, show_mb, to_mb
from rqmem.worker.pool.budget_table import PASSED_BYTES, BudgetTable, Row
from rqmem.worker.pool.telling import Telling

_IDLE_SECONDS, _BUSY_SECONDS, _LEAST_SECONDS = 1.0, 0.5, 0.02
_FASTEST_NEIGHBOUR = 1024 * MB  # bytes a second; faster ones the kernel has to deal with
_MOST_REMEMBERED = 1000
_log = logging.getLogger("rqmem.worker")


class Budget:
    """Decides for one pool.

    Args:
        rows: how many workers there may be at once.
        reserve_mb: by how much one job may be above its ceiling while it unwinds.
        tenant_mb: what the jobs of one tenant may use together; None: as all.
    """

    def __init__(
        self, name: str, rows: int, budget_mb: float, reserve_mb: float, tenant_mb: float | None = None
    ) -> None:
        self._name = name
        self.table = BudgetTable(name, rows, int(budget_mb * MB), int((tenant_mb or 0) * MB))
        self._telling = Telling(self.table)
        self._reserve_bytes = int(reserve_mb * MB)
        self._host_memory = HostReader()
        self._host: HostReading | None = None
        self._host_due = 0.0
        self._looks: deque[tuple[float, int, int]] = deque()  # when, what was free, what the jobs used
        self._waiting: WaitingJobs = ()
        self._stalled_since: float | None = None
        self._evicted: OrderedDict[str, tuple[int, int]] = OrderedDict()  # job id -> how often, and what it used
        self._told_at: dict[int, float] = {}  # row -> when its job was told to go
        self._since: dict[int, float] = {}  # row -> when its job began
        self._news_told = 0

    def close(self) -> None:
        self.table.close()

    def begins(self, number: int) -> None:
        self.table.free(number)

    def ended(self, number: int) -> None:
        """The worker of this row is dead, as the kernel says."""
        self.table.free(number)
        self._forget(number)

    def tell_workers(self, workers: int, least: int, most: int) -> None:
        """How many workers there are to be, and between which numbers that is chosen."""
        header = self.table.header
        header.workers, header.least_workers, header.most_workers = workers, least, most

    @property
    def idle_workers(self) -> int:
        return sum(bool(row.pid) and not row.runs for row in self.table.rows)

    @property
    def is_short(self) -> bool:
        return bool(self._waiting) or bool(self.table.header.closed)

    @property
    def pause_seconds(self) -> float:
        """Until the next look, if nobody asks: sooner where a neighbour might take what is left."""
        if not any(row.runs for row in self.table.rows) and not self._waiting:
            return _IDLE_SECONDS
        if self._host is None:
            return _BUSY_SECONDS
        spare = self._host.soon_free_bytes - self._host.margin_bytes
        return min(_BUSY_SECONDS, max(_LEAST_SECONDS, spare / _FASTEST_NEIGHBOUR))

    def look(self) -> None:
        now = time.monotonic()
        self.table.heard()
        if now >= self._host_due:
            self._host = self._read_host(now)
            self._host_due = now + _LEAST_SECONDS
        self._open_or_close(now)
        self._free_ended()
        self._evict(now)
        self._spread_news()
        answered = self._answer(now)
        self._publish(now)
        for number in answered:  # they look at what is published
            self.table.wake(number)

    # Steps

    def _read_host(self, now: float) -> HostReading | None:
        host = self._host_memory.read(now)
        if host is None:
            return None
        look = now, host.free_bytes, sum(row.used_bytes for row in self.table.rows)
        self._looks.append(look)
        while len(self._looks) > 2 and self._looks[1][0] <= now - pressure.FEWEST_SECONDS:
            self._looks.popleft()
        return replace(host, taken_per_second=pressure.taken_by_others(self._looks[0], look))

    def _open_or_close(self, now: float) -> None:
        header, host = self.table.header, self._host
        stalls = host is not None and host.stalled >= pressure.STALLED
        self._stalled_since = (self._stalled_since or now) if stalls else None
        reason = pressure.why_closed(host, bool(header.closed))
        if bool(reason) == bool(header.closed):
            return
        with self.table.changing():
            if not reason:
                header.was_closed_seconds = time.time() - header.closed_since
            header.closed, header.closed_since = int(bool(reason)), time.time() if reason else 0.0
            if reason:
                header.reason = reason.encode()
                header.pauses += 1
            header.news += 1
        what = "paused" if reason else "resumed"
        self._telling.happened(PoolIncident(time.time(), what, header.reason.decode("utf-8", "replace")))
        self._wake_idle()

    def _spread_news(self) -> None:
        """Have one worker tell it; another one, if that dies before it has."""
        header, rows = self.table.header, self.table.rows
        if header.news == self._news_told:
            return
        told = next((row for row in rows if row.news == header.news), None)
        if told is not None and told.told == header.news:
            self._news_told = header.news
        elif told is None and (teller := next((row for row in rows if row.pid), None)) is not None:
            teller.news = header.news

    def _free_ended(self) -> None:
        for number, row in enumerate(self.table.rows):
            if row.answered and row.released >= row.answered and row.reserved_bytes:
                row.reserved_bytes = 0
                self._forget(number)

    def _forget(self, number: int) -> None:
        self._told_at.pop(number, None)
        self._since.pop(number, None)

    def _answer(self, now: float) -> list[int]:
        """Answer who has asked, in that order. Returns their rows."""
        rows = [(row.since, number, row) for number, row in enumerate(self.table.rows) if row.asked != row.answered]
        for _, number, row in sorted(rows, key=lambda each: each[:2]):
            asked, job_id = row.asked, row.text("job_id")
            if row.released >= asked:  # it has given up
                row.answered = asked
                continue
            row.reserved_bytes = 0
            need = self._need(row, job_id)
            answer = Answer.WAIT
            if not self.table.header.closed:
                asking = Asking(job_id, need, row.text("tenant"), bool(row.is_known))
                answer, self._waiting = admission.ask(asking, self._room(number), self._waiting, now)
            if answer is Answer.START:
                row.reserved_bytes = max(1, need)
                self._since[number] = now
            else:
                self._telling.refused(job_id, row.text("job_type"))
            row.answer = answer.value
            row.answered = asked
        return [number for _, number, _ in rows]

    def _need(self, row: Row, job_id: str) -> int:
        """What it is expected to need. One that was evicted needs what it had then, at least."""
        _, used = self._evicted.get(job_id, (0, 0))
        budget = self.table.header.budget_bytes
        return min(budget, max(row.need_bytes, min(used, row.ceiling_bytes)))

    def _room(self, asker: int | None = None) -> Room:
        """What is left for the worker that asks; None: for the idle worker whose horse holds least.

        What the horses of other idle workers hold counts, since they keep it.
        """
        host, rows = self._host, self.table.rows
        free = None if host is None else host.soon_free_bytes - host.margin_bytes
        if asker is None:
            idle = [number for number, row in enumerate(rows) if row.pid and not row.runs]
            asker = min(idle, key=lambda number: rows[number].used_bytes, default=None)
        shares = [
            Share(row.reserved_bytes, row.used_bytes, row.text("tenant") if row.runs else "")
            for number, row in enumerate(rows) if number != asker
        ]  # fmt: skip
        return Room(self.table.header.budget_bytes, shares, free, self.table.header.tenant_bytes or None)

    def _evict(self, now: float) -> None:
        running = [
            Running(
                number, row.used_bytes, row.reserved_bytes, self._since.get(number, now), bool(row.resumable),
                bool(row.has_retry), self._evicted.get(row.text("job_id"), (0, 0))[0],
                How(row.evict_how) if row.evict == row.answered else None, self._told_at.get(number, now),
                row.text("tenant"),
            )
            for number, row in enumerate(self.table.rows) if row.runs
        ]  # fmt: skip
        reserve = self._reserve_bytes * len(running)
        budget = self.table.header.budget_bytes
        evictions = pressure.evict(running, budget, reserve, self._host, self._stalled_since, now)
        for each in evictions or self._evict_of_tenants(running, now):
            row = self.table.rows[each.number]
            if row.evict != row.answered:
                self._remember(row)
                self.table.header.evictions += 1
                self._told_at[each.number] = now
                row.set_text("reason", each.reason)
                self._telling.happened(
                    PoolIncident(time.time(), "evicted", each.reason, row.text("job_id"), row.text("job_type"),
                                 to_mb(row.used_bytes))
                )  # fmt: skip
            row.evict_how = each.how.value
            row.evict = row.answered
            if self._stalled_since is not None:
                self._stalled_since = now
            self.table.wake(each.number)

    def _evict_of_tenants(self, running: list[Running], now: float) -> list[Eviction]:
        """Those of tenants whose jobs use more than they may together."""
        tenant_bytes = self.table.header.tenant_bytes
        found: list[Eviction] = []
        for tenant in sorted({each.tenant for each in running if each.tenant} if tenant_bytes else ()):
            jobs = [each for each in running if each.tenant == tenant]
            reserve = self._reserve_bytes * len(jobs)
            found += pressure.evict(jobs, tenant_bytes, reserve, None, None, now, f"the jobs of {tenant}")
        return found

    def _remember(self, row: Row) -> None:
        job_id = row.text("job_id")
        count, used = self._evicted.pop(job_id, (0, 0))
        self._evicted[job_id] = count + 1, max(used, row.used_bytes)
        if len(self._evicted) > _MOST_REMEMBERED:
            self._evicted.popitem(last=False)

    def _publish(self, now: float) -> None:
        """Who waits and is not to be taken. Idle workers look again when that has changed."""
        table, room = self.table, self._room()
        idle = any(row.pid and not row.runs and row.asked == row.answered for row in table.rows)
        self._waiting = admission.tidy(room, self._waiting, now, idle=idle)
        held_back = admission.passed_over(room, self._waiting, now)
        give_way = int(admission.idle_ones_are_in_the_way(room, self._waiting, now))
        self._telling.write(self._waiting, held_back, room, now)
        passed = b""
        for job_id in held_back:
            if len(passed) + len(job_id) + 1 < PASSED_BYTES:
                passed += (b"\n" if passed else b"") + job_id.encode()
        header, waiting = table.header, len(self._waiting)
        if header.passed == passed and header.waiting == waiting and header.give_way == give_way:
            return
        since = time.time() - (now - self._waiting[0].since) if self._waiting else 0.0
        with table.changing():
            header.passed, header.waiting, header.waiting_since = passed, waiting, since
            header.give_way = give_way
        self._wake_idle()

    def _wake_idle(self) -> None:
        for number, row in enumerate(self.table.rows):
            if row.pid and not row.runs:
                self.table.wake(number)


def check_tenant_mb(tenant_mb: float | None, ceiling_mb: float) -> None:
    """Raise `ConfigError` where what a tenant's jobs may use together is less than the ceiling of one job."""
    if tenant_mb is not None and tenant_mb < ceiling_mb:
        raise ConfigError(
            f"{show_mb(tenant_mb)} MB for all jobs of a tenant are less than one ceiling of {show_mb(ceiling_mb)} MB: "
            "give --tenant-memory (or RQMEM_TENANT_MEMORY) more, or --memory less"
        )


def budget_mb(total_mb: float | None, ceiling_mb: float, idle_mb: float) -> float:
    """What all jobs of a pool may use together.

    Args:
        total_mb: as it was given; None: what the machine or the container has, less a tenth and what others use.
        ceiling_mb: of one job.
        idle_mb: what a worker without a job uses.

    Raises:
        ConfigError: it was given, and no job could ever run in it.
    """
    least_mb = max(ceiling_mb, idle_mb)
    if total_mb is not None:
        if total_mb < least_mb:
            what = "ceiling" if ceiling_mb >= idle_mb else "worker without a job"
            raise ConfigError(
                f"a budget of {show_mb(total_mb)} MB for all jobs is less than one {what} of {show_mb(least_mb)} MB: "
                "give --total-memory (or RQMEM_TOTAL_MEMORY) more, or --memory less"
            )
        return total_mb
    host = HostReader().read(time.monotonic())
    if host is None:
        return max(least_mb, 1.0)
    found_mb = to_mb(host.free_bytes - host.total_bytes // 10)
    if found_mb < least_mb:
        _log.warning(
            "only %s of %s MB of memory are free here beyond a tenth: the budget is one ceiling, %s MB; give a lower "
            "--memory, or more memory",
            show_mb(max(0.0, found_mb)), show_mb(to_mb(host.total_bytes)), show_mb(least_mb),
        )  # fmt: skip
        return least_mb
    return found_mb
