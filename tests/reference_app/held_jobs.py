"""The reference application's jobs, held where a test wants to kill them, or with less patience. For workers."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

from jobs import assignment_store as store
from jobs.assignment_rules import StagedLine
from jobs.assignment_sources import Numbered
from jobs.exports import ExportCallPlanJob
from jobs.reminders import SendAppointmentReminderJob
from jobs.staff import BulkAssignStaffToEventTypesJob

HOLD_DIRECTORY = "TEST_HOLD_DIRECTORY"
HELD_AT = 3

write = store.write


def hold(place: str, times: dict[str, int]) -> None:
    """At the third time in a run, and once only over all runs: say so, with the worker's pid, and wait to be killed."""
    times[place] = times.get(place, 0) + 1
    mark = Path(os.environ[HOLD_DIRECTORY], place)
    if times[place] == HELD_AT and not mark.exists():
        draft = mark.with_suffix(".draft")
        draft.write_text(str(os.getppid()))
        draft.replace(mark)
        time.sleep(600)


class HeldAssignments(BulkAssignStaffToEventTypesJob):
    """Held where a kill is worst: after a chunk was committed and before rqmem knows, so it is done again; and when
    all that a chunk changes is written and nothing is committed.
    """

    chunk_size = 20

    def handle(self, *args: Any, **kwargs: Any) -> Any:
        self.times: dict[str, int] = {}
        return super().handle(*args, **kwargs)

    def stage(self, numbered: list[Numbered]) -> None:
        super().stage(numbered)
        hold("staged", self.times)

    def apply(self, lines: list[StagedLine]) -> None:
        with mock.patch.object(store, "write", self.write):
            super().apply(lines)
        hold("applied", self.times)

    def write(self, *args: Any) -> None:
        write(*args)
        hold("written", self.times)


class SplitAssignments(BulkAssignStaffToEventTypesJob):
    """Splits what is not large; held in one child."""

    chunk_size = 20
    split_above_items = 300
    items_per_child = 150

    def handle(self, *args: Any, **kwargs: Any) -> Any:
        self.times: dict[str, int] = {}
        return super().handle(*args, **kwargs)

    def stage(self, numbered: list[Numbered]) -> None:
        super().stage(numbered)
        hold("staged", self.times)


class HeldExport(ExportCallPlanJob):
    """Held when all is done and rqmem does not know."""

    def handle(self, *args: Any, **kwargs: Any) -> Any:
        rows = super().handle(*args, **kwargs)
        hold("exported", {"exported": HELD_AT - 1})
        return rows


class HastyReminders(SendAppointmentReminderJob):
    """Tries again almost at once."""

    pauses = (0.01, 0.02)
