"""The end of a lease in the worker: settles what the horse has not.

A killed horse leaves finished jobs on the page, and perhaps a running one, which is settled like any other job.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timezone

from redis.exceptions import RedisError

from rqmem.rq_names import Execution, Job, NoSuchJobError, Queue, Worker
from rqmem.store import lease
from rqmem.store.held_run import HeldRecord, record_in
from rqmem.store.retrying import connection_with_short_timeout, until_redis_answers
from rqmem.worker.commit import Committer
from rqmem.worker.execution import Instruction
from rqmem.worker.finished_jobs import FinishedJob
from rqmem.worker.horse.channel import LeaseOrder
from rqmem.worker.lease_watch import InHand, LeaseWatch, commit_finished, in_hand, show
from rqmem.worker.rq_worker import queue_of
from rqmem.worker.settlement import End, Settlement
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.supervisor import Supervisor

_LEAVE_SECONDS = 1.0
_log = logging.getLogger("rqmem.worker")


@dataclass(eq=False, repr=False)
class LeaseSettlement:
    """Settles the leases of one worker."""

    _worker: Worker
    _supervisor: Supervisor
    _settlement: Settlement
    _committer: Committer

    def settle(self, order: LeaseOrder, page: SharedPage, end: End, watch: LeaseWatch) -> str:
        """Settle what the horse has left. Returns how the job that ran has ended; empty if none ran."""
        outcome = ""
        state, instructions = self._supervisor.what_follows(page.state, page.job_id, end)
        is_in_hand = Instruction.SETTLE in instructions or Instruction.ORDER_AGAIN in instructions
        if Instruction.GIVE_BACK in instructions:
            self._take_back(order, page, job_in_hand=is_in_hand)
        for done in watch.plain:
            self._finish_plain(order, done)
        concerned = is_in_hand or {Instruction.RECORD_BREACH, Instruction.REPORT_HOOK}.intersection(instructions)
        if concerned and (found := self._fetch(InHand.left_on(page))) is not None:
            outcome = self._supervisor.settle_leased(*found, end, state, instructions)
        if not is_in_hand:
            self._worker._stopped_job_id = None
        return outcome

    def _take_back(self, order: LeaseOrder, page: SharedPage, *, job_in_hand: bool) -> None:
        """For a lost horse: commit the finished jobs, and put back those that have not begun."""
        worker = self._worker
        for done in until_redis_answers(
            lambda: commit_finished(worker.connection, worker.name, order, page), "commit what has finished"
        ):
            job = in_hand(done, order)
            if (
                until_redis_answers(
                    lambda: show(worker.connection, worker, order, job, HeldRecord(done.run.decode()), hand_over=True),  # noqa: B023
                    "show a finished job",
                )
                == "shown"
            ):
                self._finish_plain(order, done)
        if job_in_hand:
            record = record_in(page.held.read())
            until_redis_answers(
                lambda: show(worker.connection, worker, order, InHand.left_on(page), record, hand_over=True),
                "show the job in hand",
            )
        until_redis_answers(lambda: lease.give_back(worker.connection, worker.name, order.token), "give jobs back")

    def _finish_plain(self, order: LeaseOrder, done: FinishedJob) -> None:
        """Commit, by RQ's methods, a finished job that others wait for. In a fork, since this may run user code."""
        job = in_hand(done, order)
        if (found := self._fetch(job)) is not None:
            found[0].ended_at = datetime.fromtimestamp(done.ended_at, timezone.utc)
            self._settlement.succeed_in_a_fork(*found, done.result, has_run=bool(done.run))

    def _fetch(self, in_hand: InHand) -> tuple[Job, Queue, Execution] | None:
        """Read the job from Redis, with its queue and execution. None: the job was deleted."""
        worker, job_id = self._worker, in_hand.job_id
        queue = queue_of(worker, in_hand.queue)
        execution = Execution(in_hand.execution_id, job_id, worker.connection, worker.name)
        execution.created_at = datetime.fromtimestamp(in_hand.began_at, timezone.utc)
        try:
            job = until_redis_answers(
                lambda: worker.job_class.fetch(job_id, connection=worker.connection, serializer=worker.serializer),
                f"read job {job_id}",
            )
        except NoSuchJobError:
            until_redis_answers(lambda: self._committer.forget(queue, execution), f"forget job {job_id}")
            return None
        execution._job = job
        job.started_at = execution.created_at
        return job, queue, execution

    def leave_at_once(self, order: LeaseOrder, page: SharedPage) -> None:
        """After a second SIGTERM: the horse is dead. Settle what takes a second at most; other workers do the rest."""
        worker = self._worker
        try:
            with connection_with_short_timeout(worker.connection, _LEAVE_SECONDS) as connection:
                commit_finished(connection, worker.name, order, page)
                if page.in_user_code:
                    show(connection, worker, order, InHand.left_on(page), record_in(page.held.read()), hand_over=True)
                lease.give_back(connection, worker.name, order.token)
        except RedisError as error:
            _log.warning("worker %s: jobs of its lease stay for others to take over: %s", worker.name, error)
