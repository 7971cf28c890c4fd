"""The blueprint of all pages; each module of pages adds its own."""

from collections.abc import Sequence
from typing import TypeVar

from flask import Blueprint, request

Row = TypeVar("Row")

pages = Blueprint("pages", __name__)


def at_once(rows: Sequence[Row], most: int = 100) -> Sequence[Row]:
    """As many rows as a page shows at once; all where its address has ``all=1``: see ``all_of`` in parts.html."""
    return rows if request.args.get("all") == "1" else rows[:most]
