"""Where a worker cannot keep ceilings, it says so in one line and what to do."""

from __future__ import annotations

import os

import pytest

from rqmem.errors import ConfigError
from rqmem.measure import procfs, startup_checks
from rqmem.measure.startup_checks import unsupported


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (("linux", True, True, True), ""),
        (("darwin", True, False, False), "rqmem worker keeps ceilings on Linux only; on macOS run 'rq worker': "),
        (("freebsd14", True, False, True), "on freebsd14 run 'rq worker'"),
        (("win32", False, False, False), "on win32 run 'rq worker'"),
        (("linux", False, True, True), "this Python cannot fork"),
        (("linux", True, False, True), "needs pidfd_open(2), which is refused here"),
        (("linux", True, True, False), "'rqmem doctor' says why"),
    ],
    ids=["Linux", "macOS", "BSD", "Windows", "no fork", "no pidfd", "no /proc"],
)
def test_one_line_says_what_is_missing(facts: tuple[str, bool, bool, bool], words: str) -> None:
    said = unsupported(*facts)
    assert (words in said) if words else said == ""
    assert "\n" not in said


def test_where_it_is_unsupported_the_check_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup_checks.sys, "platform", "darwin")
    with pytest.raises(ConfigError, match="less exactly") as error:
        startup_checks.check_platform()
    assert error.value.exit_code == 2


def test_a_kernel_that_refuses_pidfds_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    assert startup_checks.has_pidfd()
    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert not startup_checks.has_pidfd()
    monkeypatch.delattr(os, "pidfd_open")
    assert not startup_checks.has_pidfd()


def test_a_stop_in_the_middle_of_the_measurement_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fork would wait for ever, and hold the log open."""
    measured: list[int] = []

    def stop(pid: int) -> None:
        measured.append(pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(procfs, "read_usage", stop)
    with pytest.raises(KeyboardInterrupt):
        startup_checks.usage_of_idle_fork()
    assert measured and not procfs.exists(measured[0])
