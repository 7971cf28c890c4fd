"""What every source promises, over each of rqmem's and one of one's own: any cut, any interruption, any resume yields
each item exactly once, in order."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rqmem.errors import ConfigError, SourceError
from rqmem.sources import Cuttable, csv_file, describe_slice, files, open_file, open_slice
from tests.sources.makers import MAKERS, Made

Draw = Callable[..., Any]
NUMBERS = itertools.count()


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def make(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Draw], Made]:
    """Draws a source and its items. Files are read in blocks of a few bytes, so that borders fall everywhere."""

    def made(draw: Draw) -> Made:
        monkeypatch.setattr(open_file, "BLOCK_BYTES", draw(st.sampled_from([1, 2, 5, 64])))
        monkeypatch.setattr(csv_file, "_WINDOW_BYTES", draw(st.sampled_from([1, 3, 16])))
        counted = draw(st.sampled_from([0, 2**20]))
        monkeypatch.setattr(files, "_COUNTED_BYTES", counted)
        place = tmp_path_factory.getbasetemp() / f"drawn{next(NUMBERS)}"  # mktemp looks at all others each time
        place.mkdir()
        drawn: Made = request.param(draw, place)
        return drawn

    return made


properties = settings(
    max_examples=25,
    # The fixtures stay: each example sets them anew.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def items_of(source: Cuttable[Any], cursor: Any = None) -> list[Any]:
    return [item for item, _ in source.items_after(cursor)]


def elsewhere(source: Any) -> Cuttable[Any]:
    """The slice as another process gets it."""
    return open_slice(json.loads(json.dumps(describe_slice(source))))


@properties
@given(st.data())
def test_any_interruption_and_any_resume(make: Callable[[Draw], Made], data: st.DataObject) -> None:
    source, items = make(data.draw)
    seen: list[Any] = []
    cursor = None
    while True:
        stop = data.draw(st.integers(1, len(items) + 1))
        batch = list(itertools.islice(source.items_after(cursor), stop))
        seen.extend(item for item, _ in batch)
        if len(batch) < stop:
            break
        cursor = json.loads(json.dumps(batch[-1][1]))
        if data.draw(st.booleans()):
            source = elsewhere(source)
    assert seen == items


@properties
@given(st.data())
def test_any_cut(make: Callable[[Draw], Made], data: st.DataObject) -> None:
    source, items = make(data.draw)

    def cut(piece: Any, depth: int) -> list[Any]:
        if data.draw(st.booleans()):
            piece = elsewhere(piece)
        way = data.draw(st.sampled_from(["read", "parts", "size", "rest"])) if depth else "read"
        if way == "parts":
            parts = data.draw(st.integers(1, 9))
            pieces = list(piece.slices(parts=parts))
            assert len(pieces) <= parts
            return [item for each in pieces for item in cut(each, depth - 1)]
        if way == "size":
            return [item for each in piece.slices(data.draw(st.integers(1, 9))) for item in cut(each, depth - 1)]
        if way == "rest":
            begun = list(itertools.islice(piece.items_after(None), data.draw(st.integers(0, 9))))
            cursor = json.loads(json.dumps(begun[-1][1])) if begun else None
            return [item for item, _ in begun] + cut(piece.rest(cursor), depth - 1)
        return items_of(piece)

    assert cut(source, 3) == items


@properties
@given(st.data())
def test_the_slices_have_the_size_that_was_asked_for(make: Callable[[Draw], Made], data: st.DataObject) -> None:
    source, items = make(data.draw)
    size = data.draw(st.integers(1, 9))
    pieces = [items_of(piece) for piece in source.slices(size)]
    assert [item for piece in pieces for item in piece] == items
    if type(source).__name__ in ("Sequence", "Range", "SqlRows", "Own"):
        assert all(len(piece) == size for piece in pieces[:-1])
        assert all(pieces)


@properties
@given(st.data())
def test_the_count_is_what_it_says(make: Callable[[Draw], Made], data: st.DataObject) -> None:
    source, items = make(data.draw)
    count = source.count()
    if count.how == "exact":
        assert count.items == len(items)
    else:
        assert count.how == "estimated" and count.items is not None
        assert (count.items > 0) == bool(items)


@properties
@given(st.data())
def test_halving_what_is_left_isolates_any_item(make: Callable[[Draw], Made], data: st.DataObject) -> None:
    source, items = make(data.draw)

    def isolated(piece: Any, depth: int) -> list[Any]:
        held = items_of(piece)
        if len(held) < 2:
            return held
        assert depth < 40
        halves = list(piece.slices(parts=2))
        assert len(halves) == 2, held
        return [item for half in halves for item in isolated(elsewhere(half), depth + 1)]

    assert isolated(source, 0) == items


@properties
@given(st.data())
def test_cutting_goes_on_after_a_slice_that_was_made(make: Callable[[Draw], Made], data: st.DataObject) -> None:
    source, items = make(data.draw)
    pieces = list(source.slices(data.draw(st.integers(1, 9))))
    if not pieces:
        assert items == []
        return
    made = data.draw(st.integers(1, len(pieces)))
    before = [item for piece in pieces[:made] for item in items_of(piece)]
    after = [
        item for piece in source.beyond(elsewhere(pieces[made - 1])).slices(4) for item in items_of(elsewhere(piece))
    ]
    assert before + after == items


@properties
@given(st.data())
def test_a_cursor_of_something_else_is_refused(make: Callable[[Draw], Made], data: st.DataObject) -> None:
    source, _ = make(data.draw)
    if type(source).__name__ == "Own":  # its cursors are its own affair
        return
    for cursor in ("no", [], {"a": 1}, True, 10**9, [10**9, 1, "no"], [None], [None, None], 1.5):
        with pytest.raises(SourceError):
            list(source.items_after(cursor))


@properties
@given(st.data())
def test_what_no_cut_is(make: Callable[[Draw], Made], data: st.DataObject) -> None:
    source, _ = make(data.draw)
    for arguments in (
        {}, {"items_per_slice": 3, "parts": 3}, {"items_per_slice": 0}, {"parts": -1}, {"parts": True}, {"parts": 1.5}
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="slices: "):
            list(source.slices(**arguments))
