"""What a text in the search box means, and what an id that nobody knows costs."""

from __future__ import annotations

import pytest
from redis import Redis
from rq import Queue

import rqmem.api
from rqmem.errors import UnknownName
from rqmem.observe.find import find, is_known
from rqmem.store import codec
from rqmem.store.history.history_records import Run
from tests.journal_filling import a_run, fill, remember

PARENT = "4aaef2e0-0000-4000-8000-000000000001"


def test_the_beginning_of_a_job_that_has_split_means_that_job(connection: Redis) -> None:
    queue = Queue("q", connection=connection)
    for job_id in (PARENT, *(f"{PARENT}-child-{number}" for number in range(3))):
        queue.enqueue("tests.sample_jobs.add", 1, job_id=job_id)
    assert rqmem.api.search("4aaef2e0", connection=connection).job_ids == (PARENT,)
    assert rqmem.api.search(PARENT, connection=connection).job_ids == (PARENT,)
    children = rqmem.api.search(f"{PARENT}-child", connection=connection).job_ids
    assert children == tuple(f"{PARENT}-child-{number}" for number in range(3))
    assert find(connection, "4aaef2e0") == PARENT


def test_a_part_of_a_path_finds_job_types_and_a_limit_says_that_there_are_more(connection: Redis) -> None:
    for number in range(5):
        fill(connection, f"shop.Export{number}", f"e{number}")
    found = rqmem.api.search("export", limit=3, connection=connection)
    assert (found.job_types, found.job_ids, found.more) == (("shop.Export0", "shop.Export1", "shop.Export2"), (), True)
    assert rqmem.api.search("e3", connection=connection).job_ids == ("e3",)
    assert rqmem.api.search("  ", connection=connection).to_json()["job_ids"] == []


def test_an_id_that_nobody_knows_decodes_no_run(connection: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        remember(connection, *(a_run(f"jobs.A{number}", f"j{number}-{each}", 1e9) for each in range(20)))
    decoded, read = [], codec.from_json

    def counted(kind: type, text: str | bytes) -> object:
        decoded.append(kind)
        return read(kind, text)

    monkeypatch.setattr(codec, "from_json", counted)
    assert not is_known(connection, "nobody")
    with pytest.raises(UnknownName):
        find(connection, "nobody")
    assert Run not in decoded
    assert find(connection, "j7-13") == "j7-13", "one that only the runs of its type have"
    assert decoded.count(Run) <= 2
