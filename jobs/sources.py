"""Rows of the database as sources for ``process_in_chunks``."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, sessionmaker

from jobs.database import Customer


class Customers:
    """The customers that ``conditions`` pick, by key: a page at a time, and never an OFFSET."""

    PAGE = 500

    def __init__(self, sessions: sessionmaker[Session], *conditions: ColumnElement[bool]) -> None:
        self.sessions = sessions
        self.conditions = conditions

    def items_after(self, cursor: int | None) -> Iterator[tuple[Customer, int]]:
        last = cursor or 0
        while page := self.page_after(last):
            for customer in page:
                last = customer.id
                yield customer, last

    def page_after(self, last: int) -> list[Customer]:
        query = select(Customer).where(*self.conditions, Customer.id > last)
        with self.sessions() as session:
            return list(session.scalars(query.order_by(Customer.id).limit(self.PAGE)))
