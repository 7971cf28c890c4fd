"""Variables that change with each job, as Python, libc and started programs see them."""

from __future__ import annotations

import copy
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from rqmem.worker.horse import environment

NAME = "RQMEM_TEST_OF_ENVIRONMENT"


@pytest.fixture(autouse=True)
def gone_afterwards() -> Iterator[None]:
    yield
    os.environ.pop(NAME, None)


def seen() -> tuple[str | None, str | None, str]:
    """By Python, by libc, and by a program that is started."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    by_libc = getenv(NAME.encode())
    code = f"import os; print(os.environ.get({NAME!r}))"
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return os.environ.get(NAME), None if by_libc is None else os.fsdecode(by_libc), started.stdout.rstrip("\n")


AGAIN = environment.Again(NAME)  # made before a job changes anything


def again(name: str, value: str) -> None:
    AGAIN.put(os.fsencode(value))


@pytest.mark.parametrize("put", [environment.put, again])
@pytest.mark.parametrize("values", [["a"], ["a", "bc", ""], ["x" * 400, "y" * 5000, "z", "w" * 100_000], ["é=日"]])
def test_a_value_is_seen_everywhere(put: Callable[[str, str], None], values: list[str]) -> None:
    for value in values:
        put(NAME, value)
        assert seen() == (value, value, value)


@pytest.mark.parametrize("put", [environment.put, again])
def test_what_a_job_has_done_to_it_does_not_matter(
    put: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(NAME, "first")
    os.environ[NAME] = "the job's own"
    assert seen() == ("the job's own",) * 3
    put(NAME, "second")
    assert seen() == ("second",) * 3
    del os.environ[NAME]
    assert seen() == (None, None, "None")
    put(NAME, "third")
    assert seen() == ("third",) * 3
    monkeypatch.setattr(os, "environ", copy.copy(os.environ))
    vars(os.environ)["_data"] = dict(vars(os.environ)["_data"])
    put(NAME, "fourth")
    assert seen() == ("fourth",) * 3, "in another os.environ, too"


def test_many_values_leave_nothing_behind() -> None:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("only glibc 2.33 tells what is allocated")

    class Mallinfo(ctypes.Structure):
        _fields_ = (
            [(name, ctypes.c_size_t) for name in "abcdefg"]
            + [("allocated", ctypes.c_size_t)]
            + [(name, ctypes.c_size_t) for name in "hi"]
        )

    libc.mallinfo2.restype = Mallinfo

    def allocated_by(put: object) -> int:
        before = libc.mallinfo2().allocated
        for number in range(2000):
            put(NAME, f"value-{number}-" + "v" * 600)  # type: ignore[operator]
        return int(libc.mallinfo2().allocated - before)

    environment.put(NAME, "v" * 700)
    assert allocated_by(environment.put) < 100_000
    assert allocated_by(os.environ.__setitem__) > 1_000_000  # so this test can tell
