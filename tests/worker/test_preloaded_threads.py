"""Modules that leave threads running when they are preloaded: a pool of OpenMP hangs every horse that uses it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from redis import Redis
from rq import Queue

from rqmem.cli import main
from tests.conftest import StartWorker

COMPUTES = """
import numpy as np
from sklearn.cluster import KMeans

def compute():
    return int(KMeans(2, n_init=1).fit(np.random.default_rng(1).random((3000, 8))).n_iter_ > 0)

compute()  # a model warmed up, as people do
"""
STARTS_A_THREAD = """
import threading

threading.Thread(target=threading.Event().wait, name="pool-of-a-client", daemon=True).start()

def two():
    return 2
"""
STARTS_A_NATIVE_THREAD = """
import ctypes

libc = ctypes.CDLL(None)
thread = ctypes.c_ulong()
libc.pthread_create(ctypes.byref(thread), None, libc.pause, None)

def two():
    return 2
"""
ONLY_IMPORTS = """
import numpy
import sklearn.cluster

def two():
    return 2
"""


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    texts = {"computes": COMPUTES, "starts": STARTS_A_THREAD, "native": STARTS_A_NATIVE_THREAD, "imports": ONLY_IMPORTS}
    for name, text in texts.items():
        (tmp_path / f"preload_{name}.py").write_text(text)
    return tmp_path


def test_a_worker_refuses_a_module_that_leaves_an_openmp_pool(start_worker: StartWorker, modules: Path) -> None:
    worker = start_worker("jobs", "--burst", "--preload", "preload_computes", "-P", str(modules))
    [line] = worker.finish().splitlines()
    assert line.startswith("rqmem: --preload preload_computes has used OpenMP and left a pool of ")
    assert "--preload-openmp end" in line
    assert worker.process.returncode == 2


def test_with_its_pool_ended_jobs_use_openmp_in_their_horses(
    connection: Redis, start_worker: StartWorker, modules: Path
) -> None:
    jobs = [Queue("jobs", connection=connection).enqueue("preload_computes.compute", job_timeout=60) for _ in range(2)]
    options = ["--preload", "preload_computes", "--preload-openmp", "end", "--memory", "600", "-P", str(modules)]
    log = start_worker("jobs", "--burst", "--max-jobs-per-horse", "1", *options).finish(150)
    assert [job.return_value() for job in jobs] == [1, 1], log
    assert "--preload preload_computes: ended its OpenMP pool of " in log


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("starts", "preload_starts left 1 thread running (pool-of-a-client): horses do not have them"),
        ("native", "preload_native left 1 thread running: horses do not have them"),
        ("imports", ""),
    ],
)
def test_other_threads_are_named_and_those_that_bear_a_fork_are_not(
    connection: Redis, start_worker: StartWorker, modules: Path, name: str, said: str
) -> None:
    job = Queue("jobs", connection=connection).enqueue(f"preload_{name}.two")
    log = start_worker("jobs", "--burst", "--preload", f"preload_{name}", "-P", str(modules)).finish()
    assert job.return_value() == 2, log
    assert (said or "Listening on") in log
    assert said or " running" not in log


def test_the_doctor_says_so_before_a_worker_starts(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(modules)
    monkeypatch.setenv("RQMEM_PRELOAD", "preload_imports preload_computes preload_starts preload_missing")
    result = CliRunner().invoke(main, ["doctor", "--no-redis", "--no-self-test"])
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert "preload_imports leaves none that a fork would miss" in text
    assert "problem OpenMP preload_computes leaves an OpenMP pool of" in text
    assert "note threads preload_starts left 1 thread running (pool-of-a-client)" in text
    assert "problem import --preload preload_missing cannot be imported: there is no module preload_missing" in text
