from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from rqmem.tracebacks import what_was_raised, where_raised

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


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("1/0\n", " (fails_here.py:1)"),
        ("import json\n\ndef f():\n    return json.loads('x')\nf()\n", "decoder.py"),
        ("import no_such_library\n", " (fails_here.py:1)"),
        ("from rqmem import MemoryAwareJob\nclass A(MemoryAwareJob):\n    chunk_size = 0\n", " (fails_here.py:2)"),
        ("raise SystemExit(3)\n", " (fails_here.py:1)"),
        ("def f(:\n", ""),  # a SyntaxError says it itself
    ],
)
def test_an_import_that_fails_names_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, place: str
) -> None:
    (tmp_path / "fails_here.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BaseException) as raised:
        importlib.import_module("fails_here")
    assert place in where_raised(raised.value)
    assert bool(where_raised(raised.value)) == bool(place)


def test_a_module_that_is_not_there_has_no_line() -> None:
    with pytest.raises(ModuleNotFoundError) as raised:
        importlib.import_module("no_such_module_anywhere")
    assert where_raised(raised.value) == ""
