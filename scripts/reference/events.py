"""Events: their fields as `rqmem.events` has them, their level and line in the log as `rqmem.words` has them."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import griffe

from rqmem import events, words
from scripts.harness import ROOT
from scripts.reference.markdown import block, cell, code, prose, table
from scripts.reference.python_api import names_of

_WHOSE: dict[str, Any] = {"job": "reports.monthly", "job_id": "4f2a9c10", "queue": "reports", "worker": "ada"}

EXAMPLES: tuple[events.Event, ...] = tuple(
    kind(**_WHOSE, **fields)
    for kind, fields in (
        (events.JobStarted, {"memory_mb": 31.0, "memory_limit_mb": 128.0}),
        (events.Checkpoint, {
            "operation": "items 1-100", "current_memory_mb": 64.0, "peak_memory_mb": 71.5, "memory_limit_mb": 128.0,
        }),
        (events.UsageWarning, {
            "operation": "items 101-200", "current_memory_mb": 105.0, "memory_limit_mb": 128.0,
            "threshold_percentage": 80.0,
        }),
        (events.Collection, {"operation": "items 101-200", "freed_mb": 12.5, "memory_mb": 92.5, "collections": 1}),
        (events.ChunkDone, {"items": 100, "items_done": 200, "memory_mb": 92.5}),
        (events.RunEnded, {
            "outcome": "ok", "initial_memory_mb": 31.0, "peak_memory_mb": 105.0, "final_memory_mb": 40.0,
            "memory_limit_mb": 128.0, "freed_mb": 12.5, "collections": 1, "chunks": 10, "duration_seconds": 4.2,
            "items": 1000, "largest_chunk": 100,
        }),
        (events.CeilingCut, {"declared_mb": 512.0, "allowed_mb": 128.0}),
        (events.Breach, {
            "used_mb": 128.4, "limit_mb": 128.0, "peak_mb": 128.4, "layer": "watch", "processes": 1,
            "operation": "items 1-160", "where": "reports.py:5 in monthly: rows.append(page)", "baseline_mb": 31.0,
            "from_mb": 31.0, "growth_seconds": 0.4, "grew": [(96.0, "reports.py:5 in monthly: rows.append(page)")],
            "kinds": [("str", 96, 96.0)], "next": "goes on from the beginning with chunk size 80",
        }),
        (events.Resumed, {
            "cause": "worker died", "cursor": "400", "chunk_size": 100, "resumes": 1, "max_resumes": 30, "spent": 1,
        }),
        (events.Escalated, {
            "from_mb": 128.0, "to_mb": 2048.0, "to_queue": "big", "cursor": "null", "escalations": 1,
        }),
        (events.GaveUp, {"cause": "breach", "reason": "its budget of 30 resumes is spent", "resumes": 30}),
        (events.Split, {"children": 6}),
        (events.LeakFound, {"mb_per_run": 2.5, "runs": 40, "grew": [("dict", 1200, 2.1)]}),
        (events.HookFailed, {
            "hook": "before_job cleanup.forget_tenant", "error": "KeyError: 'tenant'", "where": "cleanup.py:7",
        }),
        (events.HorseRecycled, {"reason": "a breach"}),
        (events.RunsAgain, {
            "used_mb": 128.2, "limit_mb": 128.0, "left_mb": 96.0, "layer": "watch", "operation": "items 1-100",
        }),
        (events.WorkerFull, {"used_mb": 530.0, "limit_mb": 512.0, "action": "restart"}),
        (events.WorkerRestarted, {"jobs": 4120}),
        (events.WorkerLost, {"lost_worker": "bob"}),
        (events.IntakePaused, {"reason": "only 20 MB of memory are left of 600"}),
        (events.IntakeResumed, {"reason": "only 20 MB of memory are left of 600", "seconds": 12.5}),
        (events.Evicted, {
            "reason": "the jobs of the pool use 620 MB of 600", "how": "stop", "used_mb": 210.0, "reserved_mb": 120.0,
        }),
        (events.AlertRaised, {"rule": "memory-usage", "text": "uses 105 MB of 128 MB", "suppressed": 3}),
        (events.AlertResolved, {"rule": "memory-usage", "text": "uses 64 MB of 128 MB"}),
    )
)  # fmt: skip
"""One event of each kind."""


def page() -> str:
    """A section for each kind, in the order of the catalogue."""
    module: Any = griffe.load(
        "rqmem.events", search_paths=[ROOT], docstring_parser="google", docstring_options={"warnings": False}
    )
    whose = table(("field", "type", "meaning"), [
        ("`job`", "`str`", "the type of the job: the dotted path of its code"),
        ("`job_id`", "`str`", "RQ's id of the job"),
        ("`queue`", "`str`", "the queue that it came from"),
        ("`worker`", "`str`", "the worker that ran it, or that tells this"),
    ])  # fmt: skip
    found = {type(each): each for each in EXAMPLES}
    sections = [_section(module[name], found[kind]) for name, kind in events.CATALOGUE.items()]
    return "\n\n".join(["## What each event has", whose, *sections])


def _section(declared: Any, event: events.Event) -> str:
    level = logging.getLevelName(words.level(event))
    varies = "" if isinstance(words.WORDS[type(event)].level, int) else " in this example; it depends on the fields"
    sections = declared.docstring.parsed
    attributes = [each for part in sections if part.kind.value == "attributes" for each in part.value]
    described = {name: each.description for each in attributes for name in names_of(each)}
    head = ("field", "type", "meaning") if described else ("field", "type")
    rows = [
        (code(each.name), code(_annotation(declared, each.name)), cell(described.get(each.name, "-")))[: len(head)]
        for each in dataclasses.fields(event)
        if each.name not in events.WHOSE
    ]
    text = "\n\n".join(prose(part.value) for part in sections if part.kind.value == "text")
    return "\n\n".join([
        f"## {type(event).__name__}", text, table(head, rows),
        f"In the log, at level {level}{varies}:", block(words.text(event), "text"),
    ])  # fmt: skip


def _annotation(declared: Any, name: str) -> str:
    return str(declared.members[name].annotation)
