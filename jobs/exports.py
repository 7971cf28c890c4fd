"""Exports for people who plan calls."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

from jobs.sources import customers_of
from jobs.tables import Customer
from jobs.work_files import WorkDirectory
from rqmem import MemoryAwareJob

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HALF_HOURS = [f"{hour:02}:{minute:02}" for hour in range(24) for minute in (0, 30)]
UTC_OFFSETS = {"US": -6, "BR": -3, "GB": 0, "DE": 1, "FR": 1, "ES": 1, "TR": 3, "IN": 5.5}


class ExportCallPlanJob(MemoryAwareJob):
    """When to call whom: a CSV row for each customer and each half hour of the week.

    It is written as such exports often are: each chunk as one list of dicts, and nobody has measured the chunk size.
    With a few thousand customers a chunk needs more memory than the worker has. rqmem stops the job and halves the
    chunk, and then it fits. With ``adaptive`` the job would begin with the size that fitted last time. Each chunk is
    written to its own file, which is renamed into place. At the end the finished files are joined.
    """

    chunk_size = 2000
    adaptive = False
    on_breach = "resume"
    queue = "campaigns"
    job_timeout = 600

    def handle(self, campaign_id: int, path: str) -> int:
        work = WorkDirectory(Path(path).absolute(), self.run_id)
        work.make()

        def write(customers: list[Customer]) -> list[tuple[str, int]]:
            part = work.path / f"{customers[0].id:012}.csv"
            return [(part.name, write_part(part, plan(customers)))]

        written = self.process_in_chunks(customers_of(campaign_id), write)
        join([work.path / name for name, _ in written], work.path / "all.draft", Path(path))
        work.remove()
        return sum(rows for _, rows in written)


def plan(customers: list[Customer]) -> list[dict[str, Any]]:
    """The rows for these customers, best half hours first."""
    rows: list[dict[str, Any]] = [
        {
            "customer_id": customer.id,
            "name": customer.name,
            "phone": customer.phone,
            "weekday": weekday,
            "utc": half_hour,
            "score": score(customer, day, index),
        }
        for customer in customers
        for day, weekday in enumerate(WEEKDAYS)
        for index, half_hour in enumerate(HALF_HOURS)
    ]
    rows.sort(key=lambda row: (row["customer_id"], -row["score"]))
    return rows


def score(customer: Customer, day: int, half_hour: int) -> float:
    """How good a time it is, 0 to 1: early evening on working days, where the customer lives."""
    local = (half_hour / 2 + UTC_OFFSETS.get(customer.country, 0)) % 24
    return round(max(0.0, 1 - abs(local - 18) / 12) * (1.0 if day < 5 else 0.6), 3)


def write_part(path: Path, rows: list[dict[str, Any]]) -> int:
    """Write rows to ``path``, whole or not at all; returns their number."""
    draft = path.with_suffix(".draft")
    with draft.open("w", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, fieldnames=list(rows[0])).writerows(rows)
    draft.replace(path)
    return len(rows)


def join(parts: list[Path], draft: Path, path: Path) -> None:
    """All parts in one file, whole or not at all. Where some are gone, a run that was killed had joined them."""
    if path.exists() and not all(part.exists() for part in parts):
        return
    with draft.open("wb") as target:
        target.write(b"customer_id,name,phone,weekday,utc,score\r\n")
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target)
    draft.replace(path)
