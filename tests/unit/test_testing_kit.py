"""What `rqmem.testing` offers to users: the assertion, and catalogues that fit what a worker can import."""

from __future__ import annotations

import inspect
import mmap
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from rq.utils import import_attribute

from rqmem.errors import ConfigError
from rqmem.testing import adversaries, assert_stays_under, honest, stays_under, wait_until
from rqmem.testing.catalogue import Entry
from rqmem.units import MB

ALL: list[Entry] = [*adversaries.ALL, *honest.ALL]


def used_mb(error: pytest.ExceptionInfo[AssertionError]) -> float:
    found = re.match(r"used ([\d.]+) MB more than at its start, ", str(error.value))
    assert found, error.value
    return float(found[1])


_taken: list[None] = []


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sample is remembered."""
    take = stays_under._Samples._sample
    monkeypatch.setattr(stays_under._Samples, "_sample", lambda self: _taken.append(take(self)))


def wait_for_a_sample() -> None:
    """One that has begun since."""
    before = len(_taken)
    wait_until(lambda: len(_taken) >= before + 2)


def test_a_block_within_its_allowance_passes() -> None:
    with assert_stays_under(60):
        assert len(bytearray(40 * MB)) == 40 * MB


def test_a_spike_between_two_samples_is_seen() -> None:
    with pytest.raises(AssertionError) as error, assert_stays_under(20):
        del [bytearray(50 * MB)][:]
    assert 49 <= used_mb(error) <= 53
    assert "20 MB are allowed" in str(error.value)


def test_the_line_that_held_most_is_named() -> None:
    with pytest.raises(AssertionError, match=r"\(most at .*test_testing_kit.py:\d+ in grow_for_a_while\)"):
        grow_for_a_while()


@assert_stays_under(20)
def grow_for_a_while() -> None:
    rows = []
    for _ in range(15_000):
        rows.append([0] * 1000)
    before = len(_taken)
    while len(_taken) < before + 2:  # samples are rare while the interpreter is busy
        time.sleep(0.01)


def test_memory_held_before_does_not_count() -> None:
    held = bytearray(50 * MB)
    with assert_stays_under(10):
        assert held.count(0) == 50 * MB


def test_freed_memory_that_is_used_again_counts() -> None:
    rows = [[0] * 1000 for _ in range(8_000)]
    del rows
    with pytest.raises(AssertionError), assert_stays_under(20):
        assert len([[0] * 1000 for _ in range(8_000)]) == 8_000


def test_child_processes_count() -> None:
    with pytest.raises(AssertionError) as error, assert_stays_under(40):
        hold_in_a_child()
    assert 60 <= used_mb(error) <= 80


def hold_in_a_child() -> None:
    code = "x = bytearray(60 * 2**20); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        wait_for_a_sample()
        child.communicate("go on")


def test_pages_that_a_fork_shares_count_once() -> None:
    code = (
        "import os, time\n"
        "from rqmem.testing import assert_stays_under\n"
        "held = bytearray(80 * 2**20)\n"
        "with assert_stays_under(30):\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(0.2); os._exit(0)\n"
        "    os.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pages_of_mapped_files_do_not_count() -> None:
    with tempfile.TemporaryFile(dir=Path.cwd()) as file:
        file.truncate(60 * MB)
        with assert_stays_under(20), mmap.mmap(file.fileno(), 60 * MB, prot=mmap.PROT_READ) as mapped:
            assert sum(mapped[::4096]) == 0
            wait_for_a_sample()  # it has to see them, to know the kernel's mark for theirs


def test_an_error_of_the_block_passes_unchanged() -> None:
    with pytest.raises(ValueError, match="its own"), assert_stays_under(1):
        grow_and_fail()


def grow_and_fail() -> None:
    held = bytearray(30 * MB)
    raise ValueError(f"its own {len(held)}")


def test_it_samples_where_the_mark_cannot_be_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, text: str) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(AssertionError) as error, assert_stays_under(20):
        grow_slowly()
    assert used_mb(error) > 20


def grow_slowly() -> None:
    block = bytearray(50 * MB)
    wait_for_a_sample()
    del block


def test_a_decorated_function_may_be_called_again_and_by_itself() -> None:
    @assert_stays_under(30)
    def count_down(number: int) -> int:
        return count_down(number - 1) if number else len(bytearray(5 * MB))

    assert [count_down(2), count_down(0)] == [5 * MB, 5 * MB]


@pytest.mark.parametrize("value", [0, -1, True, "100", None, float("nan"), float("inf")])
def test_a_bad_allowance_is_refused_at_once(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"assert_stays_under\(.*\): give a number of MB greater than 0"):
        assert_stays_under(value)


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.name)
def test_every_job_of_the_catalogues_can_be_enqueued(entry: Entry) -> None:
    function = import_attribute(entry.path)
    assert entry.path.endswith(f".{entry.name}")
    assert entry.says and "\n" not in entry.says
    for ceiling_mb in (128, 1024):
        inspect.signature(function).bind(**entry.kwargs(ceiling_mb))


def test_names_are_given_once_and_callbacks_can_be_imported() -> None:
    assert len({entry.name for entry in ALL}) == len(ALL)
    assert [callable(import_attribute(each.on_failure)) for each in adversaries.ALL if each.on_failure] == [True]


def test_the_catalogues_import_no_test_framework_and_nothing_heavy() -> None:
    code = "import rqmem.testing.adversaries, rqmem.testing.honest, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"pytest", "_pytest", "numpy", "pandas", "rq", "redis", "psutil"})
