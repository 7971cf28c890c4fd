"""``python -m scripts.bench.sources``: a 2 GB CSV file cut in 1,000 slices: how long, and in how much memory.

Files of four kinds, since cuts are found by the quotes near them: notes with line ends in quotes, no quotes at all,
empty quoted fields alone (which tell nothing), and everything quoted. Each is cut in a fresh process, with the file in
the page cache (it was just written). Ends with 1 when something is outside the budget of the design, and says what.
``--short``: 100 MB.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from rqmem.sources import CsvFile
from rqmem.units import MB
from scripts.bench.measuring import end, forget_peak, peak_mb, resident_mb

SLICES = 1000
MOST_SECONDS, MOST_GROWTH_MB = 1.0, 16.0
_BLOCK_RECORDS = 20_000

Record = Callable[[int], str]
KINDS: dict[str, Record] = {
    "notes with line ends": lambda n: f'{n},"Smith, Zoë","first line\nand a ""second"" one\n",{n % 97},US\r\n',
    "no quotes": lambda n: f"{n},Smith Zoë,a note of one line that goes on a little,{n % 97},US\r\n",
    "empty quotes only": lambda n: f'{n},Smith Zoë,"",{n % 97},"","",US\r\n',
    "all quoted": lambda n: f'"{n}","Smith, Zoë","a note, as they are","{n % 97}","US"\r\n',
}


@dataclass(frozen=True)
class Cut:
    """What one process measured. ``growth_mb``: its peak while it cut, above what it was before."""

    slices: int
    wrong: int
    seconds: float
    growth_mb: float


@click.command()
@click.option("--short", is_flag=True, help="Files of 100 MB instead of 2 GB.")
@click.option("--size", type=click.IntRange(1), help="Size of a file in MB.")
def main(short: bool, size: int | None) -> None:
    """Print the table."""
    size_mb = size or (100 if short else 2048)
    click.echo(f"\nA CSV file of {size_mb:,} MB cut in {SLICES:,} slices\n")
    click.echo(f"{'kind':<22}{'slices':>8}{'seconds':>9}{'growth of peak MB':>19}")
    outside = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        for name, record in KINDS.items():
            write(path, record, size_mb * MB)
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                done = process.submit(cut, str(path)).result()
            click.echo(f"{name:<22}{done.slices:>8,}{done.seconds:>9.3f}{done.growth_mb:>19.1f}")
            outside += [f"{name}: {fault}" for fault in faults(done)]
    end(outside)


def faults(done: Cut) -> list[str]:
    found = []
    if done.seconds > MOST_SECONDS:
        found.append(f"{done.seconds:.2f} s, {MOST_SECONDS:.0f} allowed")
    if done.growth_mb > MOST_GROWTH_MB:
        found.append(f"the peak grew by {done.growth_mb:.1f} MB, {MOST_GROWTH_MB:.0f} allowed")
    if done.wrong or done.slices != SLICES:
        found.append(f"{done.slices} slices, of which {done.wrong} begin within a record")
    return found


def write(path: Path, record: Record, size: int) -> None:
    """A file of about ``size`` bytes: a header, then one block of records again and again."""
    block = "".join(map(record, range(10**8, 10**8 + _BLOCK_RECORDS))).encode()
    with path.open("wb") as file:
        file.write(b"id,name,note,number,country\r\n")
        while file.tell() < size:
            file.write(block)


def cut(path: str) -> Cut:
    """Cut the file, and look at the first record of each slice."""
    forget_peak()
    before, began = resident_mb(), time.perf_counter()
    slices = list(CsvFile(path).slices(parts=SLICES))
    seconds = time.perf_counter() - began
    growth = peak_mb() - before
    firsts = [next(each.items_after(None))[0]["id"] for each in slices]
    wrong = sum(not (first.isdecimal() and int(first) >= 10**8) for first in firsts)
    return Cut(len(slices), wrong, seconds, growth)


if __name__ == "__main__":
    main()
