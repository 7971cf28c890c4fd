"""`rqmem.text`: counts, times and texts of a width."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem.text import counted, cut, duration, printable, timestamp, timestamp_ms, wrapped


@pytest.mark.parametrize(
    ("number", "thing", "text"),
    [(0, "job", "no jobs"), (1, "job", "1 job"), (1200.0, "job", "1,200 jobs"), (2, "breach", "2 breaches")],
)
def test_a_count_has_the_plural_of_its_thing(number: float, thing: str, text: str) -> None:
    assert counted(number, thing) == text


def test_a_timestamp_is_utc_and_has_milliseconds_for_json_only() -> None:
    assert timestamp(1754476200.9999) == "2025-08-06T10:30:00Z"
    assert timestamp_ms(1754476200.0625) == "2025-08-06T10:30:00.062Z"
    assert timestamp_ms(None) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4, "4 s"),
        (4.25, "4.2 s"),
        (725, "12 min 5 s"),
        (3600, "1 h 0 min"),
        (86400, "24 h 0 min"),
        (2948400, "34 d 3 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.text(), st.integers(-2, 30))
def test_a_cut_text_fits_and_can_be_printed(text: str, width: int) -> None:
    shown = cut(text, width)
    assert len(shown) <= max(0, width)
    assert printable(shown) == shown


@given(st.text(), st.integers(20, 60))
def test_wrapped_lines_fit_and_a_long_word_stays_whole_where_asked(text: str, width: int) -> None:
    assert all(len(line) <= width for line in wrapped(text, width))
    path = "/a/path/" + "x" * 80
    assert path in wrapped(f"see {path}", width, whole_words=True)
