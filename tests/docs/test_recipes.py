"""The recipes of docs/database-rows.md and docs/files.md run, and do what is said of them."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from tests.conftest import ROOT, StartWorker

PAGE = ROOT / "docs" / "database-rows.md"
MODULES = {
    block.partition("\n")[0].removeprefix("# "): block
    for page in (PAGE, PAGE.with_name("files.md"))
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
}
ORDERS = [
    (number, f"customer {number * 7 % 40}", number * 37 % 1000, ("paid", "unpaid", "unpaid")[number % 3])
    for number in range(1, 1301)
]
Run = Callable[[str], Any]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The directory with all modules of the page, and a database of 1,300 orders."""
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, cents INTEGER, status TEXT)")
        database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", ORDERS)
    return tmp_path


@pytest.fixture
def run(shop: Path, connection: Redis, start_worker: StartWorker) -> Run:
    """Have a worker in the shop run a job of the page; returns its result."""

    def run(job_class: str) -> Any:
        job = Queue("shop", connection=connection).enqueue(f"{job_class}.run")
        log = start_worker("shop", "--burst", "--log-level", "warning", directory=shop).finish()
        assert job.get_status() == JobStatus.FINISHED, log
        return job.return_value()

    return run


def printed(shop: Path, code: str) -> str:
    """What code that is no job prints there."""
    environ = {"PYTHONPATH": f"{shop}:{ROOT}", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environ, cwd=shop, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_chunk_at_a_time(run: Run) -> None:
    paid = [(number, customer) for number, customer, _, status in ORDERS if status == "paid"]
    assert run("receipts.SendReceipts") == [f"receipt {number} for {customer}" for number, customer in paid]


def test_rows_that_are_changed_while_they_are_read_are_all_read(run: Run, shop: Path) -> None:
    run("reminders.Remind")
    with closing(sqlite3.connect(shop / "shop.db")) as database:
        by_status = dict(database.execute("SELECT status, count(*) FROM orders GROUP BY status"))
    assert by_status == {"paid": 433, "reminded": 867}


def test_the_newest_hundred_are_reminded(run: Run, shop: Path) -> None:
    run("newest.RemindNewest")
    with closing(sqlite3.connect(shop / "shop.db")) as database:
        reminded = [number for (number,) in database.execute("SELECT id FROM orders WHERE status = 'reminded'")]
    assert reminded == [number for number, _, _, status in ORDERS if status == "unpaid"][-100:]


def test_a_row_at_a_time(shop: Path) -> None:
    expected = sum(cents for _, _, cents, status in ORDERS if status == "paid")
    assert printed(shop, "from revenue import revenue; print(revenue())") == str(expected)


def test_another_key(shop: Path) -> None:
    totals: dict[str, int] = {}
    for _, customer, cents, _ in sorted(ORDERS, key=lambda order: order[1]):
        totals[customer] = totals.get(customer, 0) + cents
    assert printed(shop, "import statements; print(statements.totals_by_customer())") == str(totals)


def test_plain_sql(shop: Path) -> None:
    large = [(number, cents) for number, _, cents, _ in ORDERS if cents >= 900]
    code = "import statements; print([row for row, _ in statements.large_orders(900).items_after(None)])"
    assert printed(shop, code) == str(large)


def test_spread_over_child_jobs(run: Run, shop: Path, connection: Redis) -> None:
    with closing(sqlite3.connect(shop / "shop.db")) as database, database:
        database.execute("UPDATE orders SET cents = -1 WHERE id % 100 = 0")
    assert run("checks.CountMistakes") == 13
    assert len(list(connection.scan_iter("rq:job:*-child-*"))) == 3


def test_garbage_in_cycles_is_collected_where_asked(run: Run) -> None:
    """Some is collected by Python itself meanwhile; of 650 MB in all, much is left for the call."""
    assert run("documents.PrintDocuments") > 50


def test_a_file(shop: Path, connection: Redis, start_worker: StartWorker) -> None:
    (shop / "orders.csv").write_text("id\n" + "7\n" * 250)
    job = Queue("imports", connection=connection).enqueue("imports.ImportOrders.run", path="orders.csv")
    log = start_worker("imports", "--burst", "--log-level", "warning", directory=shop).finish()
    assert job.return_value() == 250, log


def test_no_example_is_left_out() -> None:
    text = Path(__file__).read_text()
    used = {name for name in MODULES if re.search(rf'["; ]{name.removesuffix(".py")}[.; ]', text)}
    assert used | {"shop.py"} == set(MODULES)  # which all others import
    named = re.findall(r"\]\((?!http|#)([^)#]+)", PAGE.read_text())
    assert named and all((PAGE.parent / name).exists() for name in named)
