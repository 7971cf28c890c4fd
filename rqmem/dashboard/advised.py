"""The recommended ceilings of many job types, some more at each look at their page.

Reading a month of one type takes some milliseconds of a processor, and a page about 100 types may take a tenth of a
second. So a page asks for as many as it has time for. What is known is kept for ten minutes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from redis import Redis

from rqmem.config.settings import Config
from rqmem.observe.advice import recommended_mb
from rqmem.observe.period_read import read_advice

_KEPT_SECONDS = 600.0
_MOST = 500


class Advised:
    """Of one Redis. Threads may ask at the same time."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, float | None]] = {}  # job type -> when it was read, and MB

    def ceilings(
        self, connection: Redis, job_types: Sequence[str], now: float, until: float
    ) -> dict[str, float | None]:
        """Job type -> MB; None: too little is known of it. Types whose turn has not come yet are left out.

        ``until``: by `time.thread_time`, when no more are read.
        """
        due = [each for each in job_types if each not in self._kept or now - self._kept[each][0] > _KEPT_SECONDS]
        for each in sorted(due, key=self._kept.__contains__):  # what is not known at all first
            if time.thread_time() >= until:
                break
            advice = read_advice(connection, "", Config.warning_threshold, now, each).jobs
            self._kept[each] = (now, recommended_mb(advice[0].found if advice else None))
        for old in list(self._kept)[:-_MOST]:
            self._kept.pop(old, None)
        return {each: self._kept[each][1] for each in job_types if each in self._kept}
