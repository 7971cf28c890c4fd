"""Which line is named as a job's: one of its own code, never one of the program that its worker was started by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from rqmem.config.settings import Config
from rqmem.worker.execution import Event
from rqmem.worker.horse.user_code import Horse, current, run_user_code
from rqmem.worker.shared_memory import SharedPage

LIBRARY = """
import sys
from rqmem.worker.horse.source_lines import line_of_user_code

def line_named(*_):
    return line_of_user_code(sys._getframe())
"""


def library() -> dict[str, Any]:
    """Functions whose file is none of a user's."""
    names: dict[str, Any] = {}
    exec(compile(LIBRARY, "<a library>", "exec"), names)
    return names


def as_a_job(call: Callable[[], Any]) -> Any:
    page = SharedPage.new(128 * 2**20)
    page.advance(Event.TAKEN)
    return run_user_code(Horse(page, Config(), cast(Any, None), None, "one", "", "e", "jobs", "w"), call)


def test_the_innermost_line_of_the_jobs_own_code_is_named() -> None:
    line_named = library()["line_named"]
    assert as_a_job(lambda: line_named()).endswith(f":<lambda>:{__file__}")


def test_a_job_that_is_interrupted_where_rqmem_works_for_it_is_named() -> None:
    line_named = library()["line_named"]
    named = as_a_job(lambda: cast(Horse, current()).ask("look", line_named))  # `ask` calls it, in `user_code`
    assert named.endswith(f":<lambda>:{__file__}")


def test_before_and_after_the_jobs_own_code_the_program_around_is_not_named() -> None:
    assert as_a_job(library()["line_named"]) == "6:line_named:<a library>"
