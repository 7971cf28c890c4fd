"""Exports for people who plan calls."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

from jobs.sources import customers_of
from jobs.tables import Customer
from rqmem import MemoryAwareJob

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HALF_HOURS = [f"{hour:02}:{minute:02}" for hour in range(24) for minute in (0, 30)]
UTC_OFFSETS = {"US": -6, "BR": -3, "GB": 0, "DE": 1, "FR": 1, "ES": 1, "TR": 3, "IN": 5.5}


class ExportCallPlanJob(MemoryAwareJob):
    """When to call whom: a CSV row for each customer and each half hour of the week.

    Written the way such exports are: everything at once, as a list of dicts, in chunks that nobody has measured. With a
    few thousand customers that is more memory than a worker has; rqmem stops it, halves the chunk, and it fits. Each
    time anew: with ``adaptive`` it would begin with what fitted before.
    Each chunk is a file of its own, renamed into place, so a run that was cut off leaves nothing half.
    """

    chunk_size = 2000
    adaptive = False
    on_breach = "resume"
    queue = "campaigns"
    job_timeout = 600

    def handle(self, campaign_id: int, path: str) -> int:
        parts = Path(f"{path}.parts")
        parts.mkdir(parents=True, exist_ok=True)

        def write(customers: list[Customer]) -> int:
            return write_part(parts / f"{customers[0].id:012}.csv", plan(customers))

        rows = self.process_in_chunks(customers_of(campaign_id), write)
        join(sorted(parts.glob("*.csv")), Path(path))
        shutil.rmtree(parts)
        return sum(rows)


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
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writerows(rows)
    draft.replace(path)
    return len(rows)


def join(parts: list[Path], path: Path) -> None:
    """All parts in one file, whole or not at all."""
    draft = path.with_suffix(".draft")
    with draft.open("wb") as target:
        target.write(b"customer_id,name,phone,weekday,utc,score\r\n")
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target)
    draft.replace(path)
