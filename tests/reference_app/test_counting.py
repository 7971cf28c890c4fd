"""Figures of a whole run: SQLite sorts what it groups, and a million rows took 2.5 MB at the end of a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, sessionmaker

from jobs.assignment_store import begin, figures
from jobs.database import session_factory
from jobs.sentiment import summary
from jobs.tables import utc_now


def assignments(sessions: sessionmaker[Session]) -> None:
    begin(sessions, "run", "job", "staff.csv", utc_now())
    figures(sessions, "run")


@pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)  # PostgreSQL would sort in another process
@pytest.mark.parametrize("tell", [summary, assignments])
def test_figures_of_a_run_sort_nothing(database: Engine, tell: Callable[[sessionmaker[Session]], object]) -> None:
    queries: list[tuple[str, Any]] = []

    def keep(connection: Any, cursor: Any, statement: str, parameters: Any, *about: Any) -> None:
        if statement.startswith("SELECT"):
            queries.append((statement, parameters))

    event.listen(database, "before_cursor_execute", keep)
    tell(session_factory(database))
    event.remove(database, "before_cursor_execute", keep)
    with database.connect() as connection:
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {each}", values).all() for each, values in queries]
    assert any("count(*)" in statement for statement, _ in queries)
    assert not [step.detail for plan in plans for step in plan if "TEMP B-TREE" in step.detail]
