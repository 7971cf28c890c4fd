"""Records in Redis: those of another version of rqmem stay readable, and no record changes on its way."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem import events
from rqmem.policy.chunk_size import SizeState
from rqmem.policy.kept_captures import Capture
from rqmem.profiling.snapshots import Inside
from rqmem.store import codec
from rqmem.store.alerts.alert_records import Alert, Open
from rqmem.store.execution_records import Owner, RunRecord, SplitRecord
from rqmem.store.history.history_records import Grown, Live, Run, Tally, Totals
from rqmem.worker.horse.channel import Order, Report

WRITTEN: dict[str, Any] = json.loads((Path(__file__).parent / "texts_in_redis.json").read_text())
"""What rqmem 0.1 wrote before records had one codec."""

KINDS = {
    each.__name__: each for each in (Owner, events.Breach, Live, Run, Grown, Alert, Open, SizeState, Inside, Capture)
}
IN_JSON = [*KINDS.values(), Order, Report, *events.CATALOGUE.values()]


def raw(name: str) -> dict[bytes, bytes]:
    return {field.encode(): value.encode() for field, value in WRITTEN["hashes"][name].items()}


def contains(read: Any, written: Any) -> bool:
    """Whether all that was written was read; records within records may have new fields too."""
    if isinstance(written, dict):
        return all(name in read and contains(read[name], value) for name, value in written.items())
    return bool(read == written)


@pytest.mark.parametrize("name", WRITTEN["texts"])
def test_a_text_of_before_the_codec_is_read_whole(name: str) -> None:
    text = WRITTEN["texts"][name]
    values = json.loads(text)
    kind = KINDS[name.partition(" ")[0]]
    if kind is Alert:
        values["id"] = "1-1"
    record = codec.from_values(kind, values)
    assert contains(json.loads(json.dumps(dataclasses.asdict(record))), values)
    assert codec.from_json(kind, codec.to_json(record)) == record


def test_a_story_of_before_the_codec_is_read_whole() -> None:
    told = [json.loads(line) for line in WRITTEN["story"]]
    for values in told:
        event = codec.event_from_values(values)
        assert event is not None
        again = {**json.loads(json.dumps(codec.event_to_values(event))), "at": values["at"]}
        assert again.items() >= values.items()


def test_hashes_of_before_the_codec_are_read_whole() -> None:
    assert RunRecord.from_hash(raw("run")) == RunRecord(
        job="jobs.x.Y", job_created_at="2026-01-01", run_id="e0", on_breach="split", stage=1,
        chunk_sizes={0: 100, 1: 25}, chunk_states={1: WRITTEN["texts"]["SizeState"]}, cursors={0: None, 1: {"id": 7}},
        items={0: 300, 1: 7, 1000000: 2}, items_unsaved=4, chunks=9, execution_chunks=2, resumes=1, resumes_spent=1,
        breaches=1, peak_mb=158.7, seconds=12.3, finished=True, cut_stage=1, history=("one", "two"),
        split=SplitRecord(
            sealed=True, total=3, ended=2, failed=1, items=70, peak_mb=91.5, started_at=1760000000.5, reported=False,
            ended_at=1760000005.5, ended_before=1, cut_stage=0, end=4,
        ),
    )  # fmt: skip
    sums: dict[str, Any] = {
        "jobs": 3, "jobs_split": 1, "runs": 4, "failed": 1, "resumed": 1, "splits": 1, "leaks": 1, "leak_mb": 1.5,
        "collections": 4, "freed_mb": 31, "chunks": 24, "items": 1200, "seconds": 12.3, "breaches": {"watch": 1},
    }  # fmt: skip
    assert codec.from_hash(Tally, raw("tally")) == Tally(
        **sums, alerts=2, peak_sum_mb=158.7, peaks={37: 3}, durations={12: 4}, costs={5: 1}
    )
    assert codec.from_hash(Totals, raw("totals")) == Totals(
        **sums, peak_mb=300.5, since=1759990000.5, alerts={"usage": 2},
        peaks={"192": 3, "inf": 1}, durations={"30": 4},
    )  # fmt: skip


def test_what_a_newer_rqmem_adds_is_ignored() -> None:
    owner = Owner("e", "w", "q", "h", 1, 2)
    assert codec.from_json(Owner, json.dumps({**json.loads(codec.to_json(owner)), "tomorrow": 1})) == owner
    hashed = {b"job": b"a.B", b"stage": b"1", b"chunk_size:1": b"25", b"cursor:1": b'{"id": 7}', b"tomorrow:1": b"?"}
    record = RunRecord.from_hash(hashed)
    assert (record.stage, record.chunk_size, record.cursors) == (1, 25, {1: {"id": 7}})
    assert RunRecord.from_hash({}) == RunRecord()
    assert codec.event_from_values({"event": "Tomorrow", "job": "a.B"}) is None


def test_a_run_of_which_little_is_known_is_read_as_it_was_written() -> None:
    """Texts that are empty are not written; every view of the journal failed after a run without an outcome."""
    run = Run(ended_at=1.5, seconds=0.0, initial_mb=0.0, peak_mb=0.0, limit_mb=256.0)
    assert codec.from_json(Run, codec.to_json(run)) == run


@given(st.sampled_from(IN_JSON).flatmap(st.from_type))
def test_every_record_survives_json(record: Any) -> None:
    again = codec.from_json(type(record), codec.to_json(record))
    assert _comparable(again) == _comparable(record)


def _comparable(record: Any) -> str:
    """Texts, since NaN is not equal to itself; ``-0.0`` is 0.0, a default."""
    return repr(record).replace("-0.0", "0.0")
