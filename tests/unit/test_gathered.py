"""What `gather` gets: read a batch at a time, however it is read."""

from __future__ import annotations

from redis import Redis
from rq.serializers import JSONSerializer

from rqmem import MemoryAwareJob
from rqmem.errors import ChildFailure
from rqmem.job.gather import Gathered
from rqmem.store import keys
from rqmem.worker.horse.user_code import Horse

TOTAL, FAILED = 1200, (0, 7, 1199)
BEFORE = [-2, -1]


def gathered(connection: Redis) -> Gathered:
    """Results of children, each its number, but for those that failed."""
    raw = {str(number): JSONSerializer.dumps(number) for number in range(TOTAL) if number not in FAILED}
    connection.hset(keys.gathered("parent"), mapping=raw)
    known = {"connection": connection, "job_id": "parent", "serializer": JSONSerializer, "held": None}
    horse = Horse.like(known)
    return Gathered(horse, TOTAL, [ChildFailure(number, "broken") for number in FAILED], BEFORE)


def reads(connection: Redis) -> int:
    return int(connection.info("commandstats")["cmdstat_hmget"]["calls"])  # type: ignore[index]


class InHere(MemoryAwareJob):
    """In the process of the tests, which may be large by now."""

    memory_limit_mb = 4096


def test_results_are_read_once_a_batch_also_in_chunks(connection: Redis) -> None:
    results = gathered(connection)
    connection.config_resetstat()
    chunks = list(InHere().chunks(results, 50))
    assert reads(connection) == 3
    assert [each for chunk in chunks for each in chunk] == [BEFORE, *(n for n in range(TOTAL) if n not in FAILED)]


def test_they_are_gone_on_with_after_any_of_them_and_read_by_position(connection: Redis) -> None:
    results = gathered(connection)
    everything = list(results)
    assert len(results) == len(everything) == results.count().items
    for position, (_, cursor) in enumerate(results.items_after(None)):
        if position % 100 in (0, 6, 7, 97):
            assert next((each for each, _ in results.items_after(cursor)), None) == next(
                iter(everything[position + 1 :]), None
            )
    connection.config_resetstat()
    assert [results[at] for at in (0, 1, 7, -1)] == [everything[at] for at in (0, 1, 7, -1)]
    assert reads(connection) == 3
    assert results[5:9] == everything[5:9]
