"""Kinds of objects that hold the memory: estimates that are near, and a look that stays small."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

MB = 2**20
PROGRAM = """
import gc, os, sys
from rqmem.measure import live_objects, procfs
gc.collect(); gc.freeze()
spare = {spare}
class Row:
    def __init__(self, number):
        self.number, self.name = float(number), str(number) + "x" * 20
def look(frame):
    before = procfs.read_usage(os.getpid()).usage_bytes
    kinds = live_objects.growth(live_objects.kinds(frame, spare), {{}})
    print(procfs.read_usage(os.getpid()).usage_bytes - before)
    for name, count, size in kinds[:9]:
        print(name, count, size)
{body}
"""


def kinds_in(body: str, spare: int | None = None) -> tuple[int, dict[str, tuple[int, float]]]:
    """Bytes that the look took, and by type the objects and MB it saw, in a process of its own."""
    code = PROGRAM.format(body=body, spare=spare)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    first, *lines = done.stdout.splitlines()
    found = {}
    for name, count, size in (line.rsplit(" ", 2) for line in lines):
        found[name] = (int(count), int(size) / MB)
    return int(first), found


@pytest.mark.parametrize("spare", [None, 7 * MB, 0])
def test_what_a_variable_holds_is_counted(spare: int | None) -> None:
    _, found = kinds_in(
        """
def job():
    rows = [{"id": number, "name": str(number) + "x" * 20} for number in range(200_000)]
    look(sys._getframe())
job()""",
        spare,
    )
    assert 150_000 < found["dict"][0] < 250_000
    assert 150_000 < found["str"][0] < 250_000, "keys are shared"
    assert found["dict"][1] > 20


@pytest.mark.parametrize("spare", [None, 7 * MB])
def test_a_list_that_has_no_name_yet_is_found(spare: int | None) -> None:
    _, found = kinds_in(
        """
def job(n):
    return [{"id": number, "name": str(number), "last": look(sys._getframe()) if number == n - 1 else 0}
            for number in range(n)]
job(300_000)""",
        spare,
    )
    assert 250_000 < found["dict"][0] < 350_000


def test_objects_of_a_class_and_large_blocks() -> None:
    _, found = kinds_in(
        """
def job():
    rows = {number: Row(number) for number in range(100_000)}
    blocks = [bytearray(2**20) for _ in range(30)]
    look(sys._getframe())
job()"""
    )
    assert 80_000 < found["__main__.Row"][0] < 120_000
    count, used_mb = found["bytearray"]
    assert (count, round(used_mb)) == (30, 30)


@pytest.mark.parametrize("rows", [50_000, 500_000])
def test_the_look_takes_no_more_than_it_may(rows: int) -> None:
    body = f"""
import rq, redis
gc.freeze()
def job():
    rows = [[str(number)] for number in range({rows})]
    look(sys._getframe())
if os.fork() == 0:
    job()
    sys.stdout.flush()
    os._exit(0)
os.wait()"""
    taken, found = kinds_in(body, 7 * MB)
    assert taken < 9 * MB
    assert found["list"][0] > 0.5 * rows


def test_code_of_objects_is_not_called() -> None:
    _, found = kinds_in(
        """
class Trap:
    def __sizeof__(self): raise SystemExit("called")
    def __len__(self): raise SystemExit("called")
    def __iter__(self): raise SystemExit("called")
class List(list):
    __len__ = __iter__ = __getitem__ = __sizeof__ = Trap.__len__
def job():
    traps, lists, texts = [Trap() for _ in range(1000)], [List("abc") for _ in range(1000)], ["x" * 99999] * 2000
    look(sys._getframe())
job()"""
    )
    assert found


def test_the_look_keeps_nothing_alive() -> None:
    _, found = kinds_in(
        """
import weakref
class Large: pass
def job():
    large = Large()
    refs.append(weakref.ref(large))
    look(sys._getframe())
    return sys._getframe()
refs = []
frame = job()
frame.clear()
assert refs[0]() is None, "held by the frame's copy of its variables"
"""
    )
    assert found


def test_a_tuple_that_is_being_built_is_not_read() -> None:
    """As a signal finds it: ``tuple(generator)`` has places that are empty still."""
    _, found = kinds_in(
        """
def items():
    for number in range(1000):
        yield Row(number)
        if number == 900:
            look(sys._getframe())
tuple(items())
"""
    )
    assert found["__main__.Row"][0] == pytest.approx(901, rel=0.2)


def test_objects_are_not_asked_who_they_are() -> None:
    """A proxy outside of its context raises when it is asked for its class."""
    _, found = kinds_in(
        """
class Proxy:
    @property
    def __class__(self):
        raise RuntimeError("outside of its context")
    def __getattribute__(self, name):
        raise RuntimeError("outside of its context")
proxies = [Proxy() for _ in range(1000)]
look(sys._getframe())
"""
    )
    assert found["__main__.Proxy"][0] == pytest.approx(1000, rel=0.2)


@pytest.mark.parametrize(
    ("kind", "fill", "objects", "bytes_each"),
    [
        ("str", "texts.extend(f'{number:0200}' for number in range(20_000))", 20_000, 249),
        ("bytes", "cache.update((number, bytes(1000)) for number in range(5_000)); assert not gc.is_tracked(cache)",
         5_000, 1033),
    ],
)  # fmt: skip
def test_the_largest_containers_are_never_missed(kind: str, fill: str, objects: int, bytes_each: int) -> None:
    """One list among a hundred thousand objects, and a dict that the collector does not even track."""
    _, found = kinds_in(
        f"""
texts, cache = [], {{}}
many = [[number] for number in range(100_000)]
before = live_objects.kinds(modules=[sys.modules["__main__"]])
{fill}
grown = live_objects.growth(live_objects.kinds(modules=[sys.modules["__main__"]]), before)
print(0)
for name, count, size in grown[:9]:
    print(name, count, size)
"""
    )
    assert found[kind] == (pytest.approx(objects, rel=0.5), pytest.approx(objects * bytes_each / MB, rel=0.5))
