"""Collections, one's own sources, descriptions: what is taken, what is refused and how."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem import sources
from rqmem.errors import SourceChanged, SourceError
from rqmem.sources import (
    Concat,
    Count,
    Cuttable,
    JsonLines,
    Positional,
    Range,
    Sequence,
    as_source,
    describe_slice,
    open_slice,
    slices_of,
    typed_json,
)
from rqmem.sources.concat import grouped, shared_out
from rqmem.sources.naming import KINDS, kind_of
from tests.conftest import ROOT
from tests.sources.makers import Bare, Own, kept_values


def test_collections_become_what_fits_them() -> None:
    assert isinstance(as_source([1]), Sequence)
    assert isinstance(as_source((1,)), Sequence)
    assert isinstance(as_source(range(3)), Range)
    assert isinstance(as_source({"a": 1}), Positional)
    own = Own(1, 3)
    assert as_source(own) is own
    assert [[item for item, _ in piece.items_after(None)] for piece in slices_of(range(5), 2)] == [[0, 1], [2, 3], [4]]


def test_what_cannot_be_read_again_in_the_same_order() -> None:
    with pytest.raises(SourceError, match=r"a set has another order in another process: pass sorted\(\.\.\.\)"):
        as_source({"a", "b"}, must_resume=True)
    assert as_source({"a"}).count() == Count.exact(1)
    with pytest.raises(SourceError, match="a generator cannot be cut: pass a list, a range or a source"):
        slices_of((n for n in "ab"), 2)
    assert as_source(n for n in "ab").count() == Count.unknown()


def test_a_slice_of_a_slice_says_where_it_begins_in_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("".join(f"{number}\n" for number in range(10, 30)))
    for whole, where in (
        (range(100, 120), "item 14"),
        (list("abcdefghijklmnopqrst"), "item 14"),
        (JsonLines(path), f"byte 39 of {path}"),
        (Concat(range(7), list(range(7, 20))), "item 7, source 2"),
    ):
        piece = as_source(whole)
        for _ in range(13):  # one item further each time, in another process
            cursor = next(iter(piece.items_after(None)))[1]
            piece = open_slice(json.loads(json.dumps(describe_slice(piece.rest(cursor)))))
        assert piece.begins_at() == where
        [first, _] = piece.slices(parts=2)
        assert first.begins_at() == where
    assert as_source(Bare()).begins_at() == ""


Row = namedtuple("Row", "id done")


@pytest.mark.parametrize("make", [
    lambda ids: ids,
    lambda ids: [{"id": number, "done": False} for number in ids],
    lambda ids: [Row(number, False) for number in ids],
    lambda ids: [SimpleNamespace(id=number) for number in ids],
    lambda ids: [[number] for number in ids],  # what has no id is only counted
    lambda ids: dict.fromkeys(ids),
    lambda ids: range(min(ids), max(ids) + 1),
    lambda ids: Concat(["a", "b"], [f"{number}" for number in ids]),
])  # fmt: skip
def test_items_that_are_others_in_the_next_execution_are_noticed(make: Callable[[list[int]], Any]) -> None:
    """As where a job removes from a list what it has done, and makes the list again."""
    ids = [*range(100, 120)]
    source = as_source(make(ids))
    item, cursor = list(source.items_after(None))[9]
    saved = json.loads(json.dumps(source.cursor_to_save(cursor, item)))
    rest = [each for each, _ in source.items_after(cursor)]
    assert [each for each, _ in as_source(make(ids)).items_after(saved)] == rest
    with pytest.raises(SourceChanged, match=r"begin again from the start|none of these|no number of items"):
        list(as_source(make(ids[9:])).items_after(saved))


def test_records_that_a_job_has_changed_and_items_that_are_appended_are_no_other_items() -> None:
    before = [{"id": number, "done": False} for number in range(20)]
    saved = Sequence(before).cursor_to_save(10, before[9])
    after = [{"id": number, "done": number < 10} for number in range(25)]
    assert [each["id"] for each, _ in Sequence(after).items_after(saved)] == [*range(10, 25)]
    assert [item for item, _ in Sequence([*"abc"]).items_after(2)] == ["c"]  # as an older rqmem saved it


def test_a_list_that_is_another_one_is_not_cut_further() -> None:
    piece = open_slice(json.loads(json.dumps(describe_slice(next(Sequence([*range(20)]).slices(5))))))
    assert [item for item, _ in Sequence([*range(25)]).beyond(piece).items_after(None)] == [*range(5, 25)]
    with pytest.raises(SourceChanged, match="item 5 is not the one that was done last"):
        Sequence([*range(5, 20)]).beyond(piece)


def test_a_source_of_ones_own_names_what_it_lacks() -> None:
    bare = as_source(Bare())
    assert list(bare.items_after(1)) == [("b", 2), ("c", 3)]
    for method, call in {
        "count": lambda: bare.count(),
        "slices": lambda: bare.slices(2),
        "rest": lambda: bare.rest(1),
        "beyond": lambda: bare.beyond(bare),
        "describe": lambda: bare.describe(),
    }.items():
        with pytest.raises(SourceError, match=rf"Bare has no {method}\(\): write Bare\.{method} as"):
            call()


class OnlyItems(Cuttable[int]):
    def items_after(self, cursor: Any) -> Any:
        return iter([(1, 1)])


class Unsendable(OnlyItems):
    def describe(self) -> Any:
        return {"opened": object()}


class WithoutBase:
    """As `Own`, but without its base: found by its methods."""

    def __init__(self, letters: str) -> None:
        self.letters = letters

    def items_after(self, cursor: Any) -> Any:
        return ((letter, place) for place, letter in enumerate(self.letters, 1) if place > (cursor or 0))

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Any:
        return (WithoutBase(letter) for letter in self.letters)

    def describe(self) -> Any:
        return {"letters": self.letters}


def test_a_source_without_the_base_class_is_cut_and_opened() -> None:
    described = [json.dumps(piece.describe()) for piece in slices_of(WithoutBase("xy"), 1)]
    assert described == [f'{{"kind": "tests.sources.test_sources:WithoutBase", "letters": "{each}"}}' for each in "xy"]
    opened = [list(open_slice(json.loads(each)).items_after(None)) for each in described]
    assert opened == [[("x", 1)], [("y", 1)]]


def test_the_base_class_names_what_is_not_written() -> None:
    with pytest.raises(SourceError, match=r"OnlyItems has no count\(\)"):
        OnlyItems().count()
    with pytest.raises(SourceError, match=r"OnlyItems has no describe\(\)"):
        describe_slice(OnlyItems())


def test_what_cannot_be_described() -> None:
    class Local(Own):
        pass

    with pytest.raises(SourceError, match=r"Local cannot be imported"):
        describe_slice(Local(1, 2))
    with pytest.raises(SourceError, match=r"Unsendable\.describe\(\) returned .* which cannot be sent"):
        describe_slice(Unsendable())
    with pytest.raises(SourceError, match=r"item 2: a builtins\.object cannot be written as JSON"):
        Sequence([1, object()]).describe()
    with pytest.raises(SourceError, match="a dict cannot be sent to a child job"):
        Positional({}).describe()


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (None, "is no description of a slice"),
        ({"begin": 1}, "is no description of a slice"),
        ({"kind": "rang"}, "no source is called 'rang': did you mean range?"),
        ({"kind": "qqq"}, "rqmem knows sequence, range"),
        ({"kind": "range", "start": 1}, "does not describe a slice of Range: KeyError: 'stop'"),
        ({"kind": "no.such:Thing"}, "no.such:Thing cannot be imported: there is no module no: "),
        ({"kind": "tests.sources.makers:Gone"}, "makers:Gone cannot be imported"),
        ({"kind": "..makers:Own"}, "cannot be imported: give a path as in module.name"),
        ({"kind": "tests.broken_module:Own"}, "cannot be imported: RuntimeError: this module cannot be imported"),
        ({"kind": "tests.quits_at_import:Own"}, "quits_at_import:Own cannot be imported"),
        ({"kind": "tests.sources.makers:Own", "frist": 1}, "does not describe a slice of Own: TypeError"),
        ({"kind": "builtins:dict"}, "builtins:dict made a dict, which has no items_after"),
        ({"kind": "csv", "path": "x", "seen": "1-2", "begin": 0, "end": 0}, "'1-2' is no fingerprint"),
    ],
)
def test_what_cannot_be_opened(description: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_slice(description)


@given(kept_values)
def test_values_come_back_from_json_as_they_were(value: Any) -> None:
    back = typed_json.decode(json.loads(json.dumps(typed_json.encode(value), allow_nan=False)))
    assert back == value and type(back) is type(value)


@pytest.mark.parametrize("value", [object(), {1: 2}, {1, 2}, [type]])
def test_values_that_would_come_back_changed_are_refused(value: Any) -> None:
    with pytest.raises(SourceError, match="cannot be written as JSON and read back the same"):
        typed_json.encode(value)
    assert typed_json.decode(typed_json.encode(float("-inf"))) == float("-inf")
    with pytest.raises(SourceError, match="is no value that rqmem wrote"):
        typed_json.decode({"$": "date", "v": "tomorrow"})


def test_counts_add_up_as_well_as_they_are_known() -> None:
    assert Count.exact(1) + Count.exact(2) == Count.exact(3)
    assert Count.exact(1) + Count.estimated(2) == Count.estimated(3)
    assert Count.exact(1) + Count.unknown() == Count.unknown()
    assert [str(each) for each in (Count.exact(1000), Count.estimated(1000), Count.unknown())] == [
        "1,000", "about 1,000", "unknown"
    ]  # fmt: skip


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8), st.data())
def test_sources_share_parts_by_weight(weights: list[int], data: st.DataObject) -> None:
    parts = data.draw(st.integers(len(weights), 30))
    shares = shared_out(parts, weights)
    assert sum(shares) == parts and min(shares) >= 1
    groups = data.draw(st.integers(1, len(weights)))
    bounds = list(grouped(weights, groups))
    assert [begin for begin, _ in bounds] == [0, *(end for _, end in bounds[:-1])]
    assert (bounds[-1][1], len(bounds)) == (len(weights), groups)
    assert all(begin < end for begin, end in bounds)


def test_parts_of_unequal_sources_are_about_equal() -> None:
    pieces = Concat(Range(900), Range(50), Range(50)).slices(parts=10)
    assert [piece.count().items for piece in pieces] == [112, 113, 112, 113, 112, 113, 112, 113, 50, 50]
    assert [piece.count().items for piece in Concat(Range(10), Range(10), Range(20)).slices(parts=2)] == [20, 20]


def test_importing_the_sources_imports_neither_sqlalchemy_nor_csv() -> None:
    code = "import rqmem.sources, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"sqlalchemy", "csv"}.isdisjoint(done.stdout.split())


def test_each_built_in_kind_is_public_under_the_name_of_its_class() -> None:
    classes = {name.partition(":")[2] for name in KINDS.values()}
    assert classes <= set(sources.__all__)
    assert all(kind_of(getattr(sources, name)) in KINDS for name in classes)
