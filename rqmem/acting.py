"""What people do by command line and dashboard: retry, cancel, delete, pause, resume; and the record of it.

Promises: each action leaves an entry in `rqmem.store.actions`, also one that is cut short: what concerns many jobs is
noted before it begins and when it is done.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from rqmem.errors import ConfigError, RqmemError
from rqmem.job import tree
from rqmem.observe.job_lists import Filter, count_matching, each_id
from rqmem.store import actions, pausing
from rqmem.text import counted
from rqmem.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis

    from rqmem.observe.model import State

MOST_AT_ONCE = 2000
"""Jobs that one request retries: some ten seconds."""

_NAMED = 3


class CountHasGrown(RqmemError):
    """More jobs match than the person has confirmed."""


@dataclass(frozen=True)
class Done:
    """``text``: what was done, in one line; ``count``: to how many jobs."""

    text: str
    count: int = 1


@dataclass(frozen=True)
class Actor:
    """Somebody who acts on a Redis. ``who``, ``surface``: as in `rqmem.store.actions.ActionRecord`."""

    connection: Redis
    who: str
    surface: actions.Surface = "dashboard"

    def retry(self, job_id: str) -> Done:
        """Run a failed job once more; of one that has split, its children that failed. Raises `RqmemError`."""
        children = tree.retry(self.connection, job_id)
        more = f", for {counted(children, 'job')} that failed" if children else ""
        return self.note("retry", Done(f"job {job_id} is queued again{more}"), job_id=job_id)

    def retry_from_start(self, job_id: str) -> Done:
        """Have it begin again, and forget what it has done. Raises `RqmemError`."""
        tree.retry_from_start(self.connection, job_id)
        return self.note("retry from start", Done(f"job {job_id} is queued again, from its start"), job_id=job_id)

    def cancel(self, job_id: str) -> Done:
        """Cancel what is left of a job and of the children it has split into. Raises `RqmemError`."""
        done = tree.cancel(self.connection, job_id)
        text = f"job {job_id}: {counted(done.taken_back, 'job')} cancelled, {done.stopped} running asked to stop"
        return self.note("cancel", Done(text, done.taken_back + done.stopped), job_id=job_id)

    def to_each(self, what: Literal["retry", "cancel"], job_ids: Sequence[str]) -> Done:
        """Retry or cancel these jobs, one by one. What cannot be done to one does not keep it from the others."""
        act, refused, done = self.retry if what == "retry" else self.cancel, [], 0
        for job_id in job_ids[:MOST_AT_ONCE]:
            try:
                act(job_id)
                done += 1
            except RqmemError as error:
                refused.append(str(error))
        word = "queued again" if what == "retry" else "cancelled"
        text = f"{done:,} of {counted(len(job_ids), 'job')} {word}"
        return Done(f"{text}; not the others: {'; '.join(refused[:_NAMED])}" if refused else text, done)

    def delete(self, job_id: str) -> Done:
        """Have RQ forget a job; one that has not ended is cancelled first. Raises `RqmemError`."""
        tree.delete(self.connection, job_id)
        return self.note("delete", Done(f"job {job_id} is deleted"), job_id=job_id)

    def delete_all(self, state: State, queue: str) -> Done:
        """The same of all jobs of a queue in one state, `MOST_AT_ONCE` at most."""
        there = count_matching(self.connection, state, Filter(queue))
        self.note("delete", Done(f"begins: {counted(there, f'{state} job')}", there), queue=queue)
        deleted = self._to_each(state, Filter(queue), tree.delete)
        return self.note(
            "delete", Done(f"{counted(deleted, f'{state} job')} of {there:,} deleted", deleted), queue=queue
        )

    def retry_matching(self, wanted: Filter, expected: int) -> Done:
        """Run the failed jobs that match once more, the newest first, `MOST_AT_ONCE` at most.

        Raises:
            CountHasGrown: more match than ``expected``, which a person has seen and confirmed.
        """
        there = count_matching(self.connection, "failed", wanted)
        if there > expected:
            raise CountHasGrown(
                f"{counted(there, 'job')} match by now, and {expected:,} were confirmed: nothing was retried"
            )
        about = {"queue": wanted.queue, "job_type": wanted.job_type, "error": wanted.error}
        self.note("retry by filter", Done(f"begins: {counted(there, 'failed job')} match", there), **about)
        retried = self._to_each("failed", wanted, tree.retry)
        left = there - MOST_AT_ONCE
        text = f"{counted(retried, 'failed job')} of {there:,} queued again"
        text += f"; {left:,} are left: retry them too" if left > 0 else ""
        return self.note("retry by filter", Done(text, retried), **about)

    def pause(self, queue: str) -> Done:
        """Let rqmem's workers take no more jobs from a queue. Raises `ConfigError`: its name is empty."""
        _check_name(queue)
        text = f"queue {queue} is paused: workers of rqmem take no job from it; a stock 'rq worker' does not know of it"
        if not pausing.pause(self.connection, queue):
            return Done(f"queue {queue} is paused already", 0)
        return self.note("pause", Done(text), queue=queue)

    def resume(self, queue: str) -> Done:
        """Let them take jobs from it again. Raises `ConfigError` likewise."""
        _check_name(queue)
        if not pausing.resume(self.connection, queue):
            return Done(f"queue {queue} is not paused", 0)
        return self.note("resume", Done(f"queue {queue} goes on"), queue=queue)

    def _to_each(self, state: State, wanted: Filter, act: Callable[[Redis, str], Any]) -> int:
        ids = list(islice(each_id(self.connection, state, wanted), MOST_AT_ONCE))
        done = 0
        for job_id in ids:
            with suppress(RqmemError):  # somebody else did it, or RQ has forgotten the job
                act(self.connection, job_id)
                done += 1
        return done

    def note(self, what: actions.What, done: Done, **about: Any) -> Done:
        """Keep what was done. ``about``: other fields of `rqmem.store.actions.ActionRecord`."""
        action = actions.ActionRecord(what, self.who, self.surface, count=done.count, text=done.text, **about)
        actions.note(self.connection, action)
        return done


def _check_name(queue: str) -> None:
    if not queue.strip():
        raise ConfigError(f"queue name {queue!r} is empty: give the name of a queue, for example campaigns")
