"""What a worker knows of its children: which are horses, which are the job's, and which it leaves alone."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rqmem.config.settings import Config
from rqmem.measure import linux
from rqmem.units import MB
from rqmem.worker.execution import Phase
from rqmem.worker.horse.channel import Channel
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.warm_horse import WarmHorse
from rqmem.worker.worker_setup import Setup

Child = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def child() -> Iterator[Child]:
    """Begins a child of this process that sleeps; all are ended after the test."""
    children: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        children.append(subprocess.Popen(["sleep", "1000"]))
        return children[-1]

    was_subreaper = linux.become_subreaper()
    yield begin
    for each in children:
        each.kill()
        each.wait()
    linux.become_subreaper(was_subreaper)


def a_pool(**settings: Any) -> HorsePool:
    pool = HorsePool(Setup("a worker", Config(memory_mb=128, **settings)))
    pool.note_others()
    pool.note_known()
    return pool


def a_horse(pool: HorsePool, process: subprocess.Popen[bytes]) -> WarmHorse:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    pool.new_page()
    pool.warm = WarmHorse(process.pid, Channel(ours), pool.page)
    return pool.warm


def test_the_growth_rate_is_measured_unless_the_settings_name_it() -> None:
    measured, named = a_pool(), a_pool(growth_mb_per_second=100.0)
    for pool in (measured, named):
        pool.calibrate(30 * MB, lambda: 5000.0 * MB)
        assert pool.idle_bytes == 30 * MB
    assert measured.config.growth_mb_per_second == 5000.0
    assert named.config.growth_mb_per_second == 100.0


def test_what_came_while_a_job_ran_is_the_jobs(child: Child) -> None:
    pool = a_pool()
    before, horse = child(), child()
    a_horse(pool, horse)
    pool.note_known()
    began_by_job = child()
    assert pool.left_by_job() == [began_by_job.pid]
    assert before.poll() is None


def test_a_helper_that_began_while_a_job_ran_is_not_the_jobs(child: Child) -> None:
    pool = a_pool()
    pool.note_known()
    helper = child()
    pool.leave_alone(helper.pid)
    assert pool.left_by_job() == []
    pool.note_known()
    assert helper.pid in pool.known
    pool.forget_helper(helper.pid)


def test_the_jobs_tree_is_killed_and_nothing_else(child: Child) -> None:
    pool = a_pool()
    before = child()
    pool.note_known()
    of_job = child()
    pool.kill_tree(0)
    assert of_job.wait(60) == -9
    assert before.poll() is None


def test_a_killed_horse_is_waited_for_before_the_next_job(child: Child) -> None:
    pool = a_pool()
    horse = child()
    a_horse(pool, horse)
    pool.kill_warm()
    assert pool.idle_pid == 0
    pool.bury()
    assert not Path(f"/proc/{horse.pid}").exists()


def test_a_horse_for_one_job_gets_a_page_of_its_own_which_says_that_it_is_taken() -> None:
    pool = a_pool()
    before = pool.page
    pool.prepare_fork()
    assert pool.page is not before
    assert pool.page.state.phase is Phase.TAKEN
    assert pool.page.fresh
    assert pool.page.ceiling_bytes == 128 * MB
    assert pool.forking_pid == os.getpid()
