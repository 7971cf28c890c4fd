"""Assigning staff to event types in bulk, from a file or from a batch of requests.

There are two steps. First, lines are *staged*: they are read and checked one by one, and the valid ones are kept in a
table; child jobs do this if there are many. Then all are *applied*, by staff and in the order of the input, so the
outcome does not depend on how the input was cut. Duplicates and conflicts are found here (`jobs.assignment_rules`). A
file that is broken in the middle changes nothing.

A line is marked as applied in the transaction that makes its change, its entry in the report
(`jobs.tables.AssignmentSkip`) and the run's figures. So each line counts once, even after a kill or if it is run twice.
A transaction has at most `ASKED_AT_ONCE` lines, however large a chunk is, since others wait for it. Operations that run
at the same time lock the staff that they change.
"""

from __future__ import annotations

import time
from typing import Any

from rq import Retry, get_current_job

from jobs import assignment_store as store
from jobs.assignment_rules import Line, Skip, StagedLine, decide, parse
from jobs.assignment_sources import Numbered, assignments_from
from jobs.assignment_store import ASKED_AT_ONCE
from jobs.csv_files import no_retry_if_unreadable
from jobs.sources import shared_sessions
from jobs.tables import utc_now
from rqmem import MemoryAwareJob
from rqmem.job.gather import Gathered
from rqmem.sources import Cuttable


class BulkAssignStaffToEventTypesJob(MemoryAwareJob):
    """Assign staff to event types as the lines of ``path`` (CSV or JSON lines) or the requests of ``batch`` say.

    Returns how many assignments it created, how many got another role or were there already, and how many lines it
    skipped for which reason.
    """

    memory_limit_mb = 256
    chunk_size = 50
    bytes_per_item = 1024
    items_per_child = 10_000
    on_breach = "resume"
    queue = "staff"
    job_timeout = 3600
    retry = Retry(max=3)

    @no_retry_if_unreadable()
    def handle(
        self,
        path: str | None = None,
        batch: str | None = None,
        run: str | None = None,
        items: Cuttable[Numbered] | None = None,
    ) -> dict[str, Any] | None:
        self.sessions = shared_sessions()
        self.run_id = run or self.run_id
        if items is not None:  # a child, with its part of the input
            self.process_in_chunks(items, self.stage, collect=False)
            return None
        source = assignments_from(path, batch)
        count = source.count().items or 0
        here = get_current_job()
        if not store.begin(self.sessions, self.run_id, here.id if here else "", path or f"batch {batch}", utc_now()):
            return store.figures(self.sessions, self.run_id)  # completed by an execution that was killed right after
        if store.splits(self.sessions, self.run_id, self.should_split_job(count)):
            self.split_into_child_jobs(source, kwargs={"run": self.run_id})
            return None
        self.process_in_chunks(source, self.stage, collect=False)
        return self.apply_all()

    def gather(self, results: Gathered) -> dict[str, Any]:
        self.sessions, self.run_id = shared_sessions(), self.kwargs.get("run") or self.run_id
        return self.apply_all()

    def stage(self, numbered: list[Numbered]) -> None:
        for begin in range(0, len(numbered), ASKED_AT_ONCE):
            self.stage_some(numbered[begin : begin + ASKED_AT_ONCE])
        self.check_memory_usage(f"assignment_processing_{numbered[-1][0]}")

    def stage_some(self, numbered: list[Numbered]) -> None:
        parsed = [parse(position, record) for position, record in numbered]
        lines = [each for each in parsed if isinstance(each, Line)]
        skips = [each for each in parsed if isinstance(each, Skip)]
        valid: list[tuple[Line, int, int]] = []
        with self.sessions.begin() as session:
            staff = store.staff_by_email(session, {line.staff for line in lines})
            event_types = store.event_types_by_slug(session, {line.event_type for line in lines})
            for line in lines:
                staff_id, active = staff.get(line.staff, (None, False))
                event_type_id = event_types.get(line.event_type)
                if staff_id is None:
                    skips.append(Skip(*line[:3], "unknown staff", f"nobody has the address {line.staff}"))
                elif event_type_id is None:
                    skips.append(Skip(*line[:3], "unknown event type", f"no event type is called {line.event_type}"))
                elif not active:
                    skips.append(Skip(*line[:3], "inactive staff", f"{line.staff} is not active"))
                else:
                    valid.append((line, staff_id, event_type_id))
            store.stage(session, self.run_id, valid)
            store.report(session, self.run_id, skips)

    def apply_all(self) -> dict[str, Any]:
        self.process_in_chunks(store.staged(self.sessions, self.run_id), self.apply, collect=False)
        store.complete(self.sessions, self.run_id, utc_now())
        return store.figures(self.sessions, self.run_id)

    def apply(self, lines: list[StagedLine]) -> None:
        for begin in range(0, len(lines), ASKED_AT_ONCE):
            if begin:
                time.sleep(store.PAUSE_SECONDS)
            self.apply_some(lines[begin : begin + ASKED_AT_ONCE])
        self.check_memory_usage(f"database_operations_{lines[-1].staff_id}")

    def apply_some(self, lines: list[StagedLine]) -> None:
        staff_ids = {line.staff_id for line in lines}
        with self.sessions.begin() as session:
            taken = store.take(session, self.run_id, [line.position for line in lines])
            active = store.lock_staff(session, staff_ids)
            held = store.held_by(session, staff_ids)
            decided = decide([line for line in lines if line.position in taken], active, held)
            store.write(session, self.run_id, decided, utc_now())
