"""What happened to job types since the monitor began, read from the journal now and then.

By how much tallies grew is added up from reading to reading, so the time they are kept for bounds nothing. Raises
redis-py's errors, and is as before then.
"""

from __future__ import annotations

from redis import Redis

from rqmem.observe.period_read import read_ceilings
from rqmem.observe.statistics import Ceilings, grown
from rqmem.store import keys
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Run, Tally

_CLOCKS_APART_SECONDS = 300.0  # the hour of a tally is that of the worker's clock


class JobTypes:
    """Readings of one Redis from ``started_at`` on (epoch seconds); the first is made at once.

    Attributes:
        read_at: of the last reading; what came later is not in it.
        added: job type -> by how much its tallies grew until then.
        runs: job type -> its last runs, of types that were seen since the first reading.
        ceilings: job type -> its ceilings, of the same types.
    """

    def __init__(self, connection: Redis, started_at: float, warning_fraction: float) -> None:
        self.read_at = started_at
        self.added: dict[str, Tally] = {}
        self.runs: dict[str, list[Run]] = {}
        self.ceilings: dict[str, Ceilings] = {}
        self._warning_fraction = warning_fraction
        self._tallies = self._hours(connection, started_at)

    def read(self, connection: Redis, now: float) -> None:
        tallies = self._hours(connection, now)
        seen = {name for name, _ in tallies}
        added = dict(self.added)
        for (name, hour), tally in tallies.items():
            more = grown(self._tallies.get((name, hour), Tally()), tally)
            if more != Tally():
                added[name] = Tally.total((added.get(name, Tally()), more))
        runs = {name: history_reader.runs(connection, name) for name in seen if name in added}
        ceilings = read_ceilings(connection, runs, self._warning_fraction, now)
        self.added, self._tallies, self.read_at = added, tallies, now
        self.runs.update(runs)
        self.ceilings.update(ceilings)

    def _hours(self, connection: Redis, now: float) -> dict[tuple[str, int], Tally]:
        """The tallies of the hours from the last reading until now, of job types that were seen in them."""
        since = self.read_at - _CLOCKS_APART_SECONDS
        begin = since // keys.HOUR_SECONDS * keys.HOUR_SECONDS
        names = [name for name, seen_at in history_reader.types(connection).items() if seen_at >= begin - 1]
        return history_reader.hourly(connection, names, since, now + _CLOCKS_APART_SECONDS)
