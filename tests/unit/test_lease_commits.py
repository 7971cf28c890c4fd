"""The page of a lease keeps what Redis may not have; Redis and the page's own phase are played."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from rqmem.store.lease_commands import Batch, Stepped
from rqmem.worker.finished_jobs import ROOM, FinishedJob, FinishedJobs
from rqmem.worker.horse.lease_commits import Commits


class PlayedLink:
    """A connection whose replies come when they are read."""

    def __init__(self) -> None:
        self._owed: deque[int | None] = deque()  # jobs of a step; None: a take
        self.done = 0

    @property
    def owed(self) -> int:
        return len(self._owed)

    @property
    def next_is_batch(self) -> bool:
        return self._owed[0] is None

    def send_take(self, *_: Any) -> None:
        self._owed.append(None)

    def send_step(self, finished: Sequence[bytes], seconds: float, begins: bytes = b"") -> None:
        self._owed.append(len(finished))

    def read_batch(self) -> Batch:
        assert self._owed.popleft() is None
        return Batch([], "", "")

    def read_step(self) -> Stepped:
        self.done += self._owed.popleft() or 0
        return Stepped("", {})


@given(st.lists(st.integers(0, 3 * ROOM), max_size=8), st.integers(1, 16))
def test_the_page_has_all_that_redis_may_not_have(jobs_between_takes: list[int], at_once: int) -> None:
    ring, link = FinishedJobs(), PlayedLink()
    page = SimpleNamespace(finished=ring, advance=lambda event: ())
    order = SimpleNamespace(queues=["jobs"], batch=at_once, owner=None)
    commits = Commits(cast(Any, None), cast(Any, order), cast(Any, page))
    commits._opened = cast(Any, link)
    finished, has_asked = 0, False
    for jobs in jobs_between_takes:
        if has_asked:
            commits.batch()
        commits.ask(1)
        has_asked = True
        for _ in range(jobs):
            commits.add(FinishedJob(finished, 0.0, 0.0, 500, 0, b"%d" % finished, b"", b"", None))
            finished += 1
            commits.keep_room()
            assert ring.committed == link.done > finished - ROOM
            if len(commits._pending) >= at_once:
                commits.send()
        assert [job.seq for job in ring.uncommitted()] == list(range(link.done, finished))
