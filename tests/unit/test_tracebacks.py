from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from rqmem.tracebacks import what_was_raised

HEAD = "Traceback (most recent call last):"
A_GROUP = f"""  + Exception Group {HEAD}
  |   File "mail.py", line 3, in <module>
  |     raise ExceptionGroup("both", [ValueError("a")])
  | ExceptionGroup: both (1 sub-exception)
  +-+---------------- 1 ----------------
    | ValueError: a
    +------------------------------------
"""  # Python 3.11 writes it
A_TEXT = st.lists(st.sampled_from(["", "it broke", "  File 1", HEAD, "  | x", "ValueError: no"]), max_size=5)


def text_of(error: BaseException) -> str:
    try:
        raise error
    except BaseException as caught:
        return "".join(traceback.format_exception(caught))


def chained(cause: BaseException, error: BaseException, *, during: bool = False) -> BaseException:
    try:
        try:
            raise cause
        except BaseException as caught:
            if during:
                raise error  # noqa: B904 (as jobs do)
            raise error from caught
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no such month"), "ValueError: no such month"),
        (KeyError(), "KeyError"),
        (ValueError("two\nlines"), "ValueError: two"),
        (ValueError("\n  below its name"), "ValueError: below its name"),
        (OperationalError("SELECT 1", {}, Exception("no such table")),
         "sqlalchemy.exc.OperationalError: (builtins.Exception) no such table"),
        (chained(KeyError("x"), ValueError("a\nb")), "ValueError: a"),
        (chained(KeyError("x"), ValueError("a\nb"), during=True), "ValueError: a"),
        (RuntimeError(f"ffmpeg said\n{HEAD}\n  File 1\nOSError: disk"), "RuntimeError: ffmpeg said"),
        (chained(RuntimeError(f'\n"""\n{HEAD}\n  File 1\nOSError: disk\n"""'), OSError("disk")), "OSError: disk"),
        (SyntaxError("invalid", ("mail.py", 3, 1, "a b", 3, 4)), "SyntaxError: invalid"),
    ],
)  # fmt: skip
def test_the_error_is_told_in_the_first_line_of_its_text(error: BaseException, told: str) -> None:
    assert what_was_raised(text_of(error)) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (A_GROUP, "ExceptionGroup: both (1 sub-exception)"),
        ("", ""), ("\n", ""), ("HorseLost: killed\n", "HorseLost: killed"), ("A: one\ntwo", "A: one"), (HEAD, HEAD),
    ],
)  # fmt: skip
def test_a_group_is_told_by_its_own_name_and_what_is_no_traceback_is_the_error(text: str, told: str) -> None:
    assert what_was_raised(text) == told


@given(A_TEXT, st.sampled_from([ValueError, KeyError, OSError]))
def test_whatever_an_error_says_its_name_is_told(lines: list[str], kind: Callable[[Any], Exception]) -> None:
    text = "first\n" + "\n".join(lines)
    assert what_was_raised(text_of(kind(text))).startswith(f"{kind.__name__}: ")  # type: ignore[attr-defined]
