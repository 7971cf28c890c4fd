"""Jobs that read a file, which is fetched for each execution, as from object storage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rqmem import MemoryAwareJob
from rqmem.sources import CsvFile


def fetch(store: Path, path: Path) -> Path:
    """Written beside, then renamed."""
    part = path.with_suffix(".part")
    part.write_bytes(store.read_bytes())
    part.replace(path)
    return path


def fill(directory: Path, count: int) -> None:
    lines = [f"{number},{number}\n" for number in range(count)]
    (directory / "store.csv").write_text("id,amount\n" + "".join(lines))


class ImportRows(MemoryAwareJob):
    """Writes down each id; breaches once at id 50. An amount that is no number fails it."""

    queue = "jobs"
    on_breach = "resume"
    chunk_size = 20
    adaptive = False
    items_per_child = 25

    def handle(self, directory: str, name: str = "rows.csv", split: bool = False, items: Any = None) -> int:
        self.directory = Path(directory)
        if items is None:
            items = CsvFile(fetch(self.directory / "store.csv", self.directory / name))
            if split:
                return self.split_into_child_jobs(items)
        self.process_in_chunks(items, self.write, collect=False)
        return len((self.directory / "done").read_text().split())

    def gather(self, results: Any) -> int:
        return max(results)

    def write(self, chunk: list[dict[str, str]]) -> None:
        rows = [(each["id"], int(each["amount"])) for each in chunk]
        if "50" in (number for number, _ in rows) and not (self.directory / "breached").exists():
            (self.directory / "breached").touch()
            hog = [os.urandom(2**20) for _ in range(400)]
            raise AssertionError(f"{len(hog)} MB were not enough")
        with (self.directory / "done").open("a") as done:
            done.writelines(f"{number}\n" for number, _ in rows)


class WaitForFile(MemoryAwareJob):
    """Runs until there is a file of that name."""

    queue = "jobs"
    on_breach = "resume"

    def handle(self, path: str) -> None:
        import time

        Path(f"{path}.running").touch()
        while not Path(path).exists():
            time.sleep(0.02)
