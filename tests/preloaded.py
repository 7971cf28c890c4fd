"""Remembers which process imported it."""

import os

_importer = os.getpid()


def imported_by() -> tuple[int, int]:
    return _importer, os.getpid()
