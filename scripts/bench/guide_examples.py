"""The examples of docs/guide.md: taken out of the page, and what they read, for its measurement and for its tests."""

from __future__ import annotations

import csv
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"


class Tip(NamedTuple):
    """A section of the guide, and the module of its example, in which are the jobs ``Before`` and ``After``."""

    title: str
    module: str


def tips() -> list[Tip]:
    found = re.findall(
        r"^## ([^\n]+)\n\n```python\n# (\w+)\.py\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL
    )
    return [Tip(title, module) for title, module, code in found if "class After(" in code]


def make_shop(folder: Path, orders: int) -> None:
    """Write all modules of the page, and orders for them: ``orders.csv`` and a table in ``shop.db``."""
    for name, code in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL):
        (folder / name).write_text(code)
    with (folder / "orders.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "customer", "cents"))
        writer.writerows(_order(number) for number in range(1, orders + 1))
    with closing(sqlite3.connect(folder / "shop.db")) as database, database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, cents INTEGER)")
        rows = (_order(number) for number in range(1, orders + 1))
        database.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)


def _order(number: int) -> tuple[int, str, int]:
    return number, f"customer {number * 7 % 9973}", number * 37 % 1000
