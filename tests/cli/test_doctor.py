"""``rqmem doctor``: findings from captured facts, and the command run for real."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from rqmem.config.settings import Config
from rqmem.connection import embedded
from rqmem.doctor import checks, facts, redis_checks, redis_facts, report, selftest, selftest_checks
from rqmem.doctor.facts import KernelFacts, MachineFacts, MemoryFacts
from rqmem.doctor.redis_facts import NoRedis
from rqmem.doctor.selftest import NotTested, SelfTest, Tried
from rqmem.events import Breach
from rqmem.measure.startup_checks import Foreign, look_at_foreign_fork
from rqmem.observe.problems import Finding, healthy
from tests import forked

MB = 2**20
GB = 2**30

MACHINE = MachineFacts("linux", "6.1.0-18-amd64", "3.12.1", True, True, "", 14 * MB, "")
MEMORY = MemoryFacts(8 * GB, None, 6 * GB, 0, 0, "madvise", True)
V2 = KernelFacts("v2", "v2, in the worker's own group: /sys/fs/cgroup/system.slice/worker.service", "", "systemd")
NO_GROUP = KernelFacts("v2", "", "/sys/fs/cgroup/user.slice is not writable: Permission denied", "systemd")


def marks(findings: list[Finding]) -> dict[str, str]:
    return {each.name: each.mark for each in findings}


def said(findings: list[Finding], name: str) -> str:
    [found] = [each for each in findings if each.name == name]
    assert (found.mark == "ok") == (found.advice == ""), "what is not ok says what to do"
    return f"{found.mark}: {found.text} -> {found.advice}"


# Machine


@pytest.mark.parametrize(
    ("foreign", "mark", "words"),
    [
        (Foreign(True, "exactly", True), "ok", "as another user is measured exactly"),
        (Foreign(True, "whole", True), "note", "as another user is counted whole"),
        (Foreign(False, "whole", True), "note", "not dumpable is counted whole"),
        (Foreign(True, "not", True), "note", "does not count: /proc hides it"),
        (Foreign(True, "whole", False), "note", "pages that it shares count, too; the worker may not end it"),
    ],
)
def test_processes_that_the_worker_may_not_examine(foreign: Foreign, mark: str, words: str) -> None:
    [found] = [
        each for each in checks.check_machine(dataclasses.replace(MACHINE, foreign=foreign)) if each.name == "others"
    ]
    assert found.mark == mark
    assert words in found.text
    assert bool(found.advice) == (mark == "note")


def test_the_doctor_looks_at_a_real_process_of_that_kind() -> None:
    found = look_at_foreign_fork()
    assert found.measured in ("exactly", "whole")
    assert found.can_be_ended


def test_a_machine_that_is_fit() -> None:
    assert marks(checks.check_machine(MACHINE)) == {"kernel": "ok", "Python": "ok", "/proc": "ok"}
    assert "an idle horse uses 14 MB" in said(checks.check_machine(MACHINE), "/proc")


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"kernel": "4.18.0-553.el8"}, "kernel", "note: Linux 4.18.0-553.el8 -> rqmem is made for 5.4"),
        ({"kernel": "5.4"}, "kernel", "ok: Linux 5.4"),
        ({"kernel": "5.10-rc1"}, "kernel", "ok: Linux 5.10-rc1"),
        ({"has_pidfd": False}, "Python", "problem: 3.12.1 -> rqmem worker needs pidfd_open(2)"),
        ({"has_fork": False}, "Python", "this Python cannot fork"),
        ({"proc_shortcoming": "/proc is not mounted"}, "/proc", "problem: /proc is not mounted -> no ceiling can be"),
        ({"idle_bytes": None}, "/proc", "problem: shows nothing of our own children -> mount /proc without hidepid"),
        ({"idle_bytes": None, "hidepid": "2"}, "/proc", "own children (hidepid=2)"),
        ({"hidepid": "invisible"}, "hidepid", "note: what a job starts as another user (sudo, su) is not seen"),
        ({"platform": "darwin", "proc_shortcoming": "none"}, "system", "on macOS run 'rq worker'"),
    ],
    ids=str,
)
def test_a_machine_that_lacks_something(change: dict[str, Any], name: str, words: str) -> None:
    assert words in said(checks.check_machine(dataclasses.replace(MACHINE, **change)), name)


def test_the_mount_of_proc_that_covers_the_others_counts() -> None:
    mountinfo = (
        "45 43 0:21 / /proc rw,relatime - proc proc rw\n"
        "46 43 0:22 / /proc/sys/fs/binfmt_misc rw,relatime - autofs systemd-1 rw,hidepid=1\n"
        "63 45 0:39 / /proc rw,nosuid,relatime - proc proc rw,gid=110,hidepid=invisible\n"
    )
    assert facts.parse_hidepid(mountinfo) == "invisible"
    assert facts.parse_hidepid(mountinfo.replace("hidepid=invisible", "hidepid=0")) == ""
    assert facts.parse_hidepid(mountinfo.replace(",hidepid=invisible", "")) == ""
    assert facts.parse_hidepid("") == ""


def test_the_chosen_one() -> None:
    assert facts.parse_chosen("always [madvise] never\n") == "madvise"
    assert facts.parse_chosen("") == ""


# Memory


def test_memory_that_is_fit() -> None:
    findings = checks.check_memory(MEMORY, Config())
    assert set(marks(findings).values()) == {"ok"}
    assert "256 MB + 32 MB reserve a job (the default; --memory sets it); room for 23 workers" in said(
        findings, "ceiling"
    )
    assert "no container limit" in said(findings, "there is")


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"container_bytes": 512 * MB}, "there is", "8,192 MB in the machine, 512 MB in this container"),
        ({"container_bytes": 512 * MB}, "ceiling", "ok: 256 MB + 32 MB reserve a job"),
        (
            {"container_bytes": 300 * MB},
            "ceiling",
            "note: 256 MB + 32 MB reserve a job (the default; --memory sets it)",
        ),
        ({"container_bytes": 280 * MB}, "ceiling", "is more than the 280 MB of this container"),
        ({"total_bytes": 200 * MB}, "ceiling", "is more than the 200 MB of this machine"),
        ({"swap_bytes": 2 * GB}, "swap", "ok: 2,048 MB; what is swapped out counts"),
        ({"overcommit": 1}, "overcommit", "ok: 1"),
        ({"overcommit": 2}, "overcommit", "sysctl vm.overcommit_memory=0"),
        ({"huge_pages": "always"}, "huge pages", "note: always: jobs grow in steps of 2 MB"),
        ({"can_trim": False}, "malloc", "note: no malloc_trim"),
    ],
    ids=str,
)
def test_memory_that_is_short_or_peculiar(change: dict[str, Any], name: str, words: str) -> None:
    assert words in said(checks.check_memory(dataclasses.replace(MEMORY, **change), Config()), name)


def test_a_ceiling_above_what_there_is_names_both_figures() -> None:
    small = dataclasses.replace(MEMORY, container_bytes=512 * MB)
    words = said(checks.check_memory(small, Config(memory_mb=500)), "ceiling")
    assert words.startswith("problem: 500 MB + 32 MB reserve a job (RQMEM_MEMORY) is more than the 512 MB")


def test_where_nothing_is_told_of_memory_nothing_is_said() -> None:
    unknown = MemoryFacts(None, None, None, 0, None, "", False)
    assert marks(checks.check_memory(unknown, Config())) == {"malloc": "note"}


# The kernel's layer


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (V2, "ok: v2, in the worker's own group: /sys/fs/cgroup/system.slice/worker.service"),
        (KernelFacts("v1", "v1, below /sys/fs/cgroup/memory/x", "", ""), "ok: v1, below /sys/fs/cgroup/memory/x"),
        (NO_GROUP, "put Delegate=memory in the worker's systemd unit"),
        (dataclasses.replace(NO_GROUP, surroundings="container"), "--cgroupns=private"),
        (dataclasses.replace(NO_GROUP, surroundings="kubernetes"), "the container's own limit is the backstop"),
        (dataclasses.replace(NO_GROUP, surroundings=""), "cgroups(7), delegation"),
        (dataclasses.replace(NO_GROUP, version="v1"), "cgcreate"),
        (KernelFacts("", "", "no memory controller is mounted", ""), "mount the cgroup v2 hierarchy"),
    ],
    ids=["v2", "v1", "systemd", "Docker", "Kubernetes", "neither", "v1 of root's", "none"],
)
def test_the_kernels_layer(layer: KernelFacts, words: str) -> None:
    found = said(checks.check_kernel_layer(layer, Config()), "cgroup")
    assert words in found
    if not layer.words:
        assert found.startswith(f"note: none: {layer.reason}")
        assert found.endswith("everything else works without it")


def test_a_layer_that_is_required_or_off() -> None:
    assert "so no worker starts" in said(checks.check_kernel_layer(NO_GROUP, Config(cgroup="require")), "cgroup")
    assert marks(checks.check_kernel_layer(NO_GROUP, Config(cgroup="require"))) == {
        "cgroup": "problem",
        "watcher": "ok",
    }
    assert "RQMEM_CGROUP=auto" in said(checks.check_kernel_layer(V2, Config(cgroup="off")), "cgroup")


@pytest.mark.parametrize(
    ("urgent", "words"),
    [
        ("real-time", "ok: goes before others while it watches (real-time)"),
        ("nice", "note: goes before most others: while the processors are all busy"),
        ("", "note: waits for its turn as all processes do"),
    ],
)
def test_whether_the_watcher_is_in_time(urgent: str, words: str) -> None:
    layer = dataclasses.replace(V2, urgent=urgent)
    assert words in said(checks.check_kernel_layer(layer, Config()), "watcher")


@pytest.mark.parametrize(
    ("environ", "cgroups", "there", "where"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "0::/\n", ["/.dockerenv"], "kubernetes"),
        ({}, "0::/kubepods/burstable/pod1\n", [], "kubernetes"),
        ({}, "0::/\n", ["/.dockerenv"], "container"),
        ({}, "4:memory:/docker/0af\n", [], "container"),
        ({}, "0::/\n", ["/run/.containerenv", "/run/systemd/system"], "container"),
        ({}, "0::/user.slice\n", ["/run/systemd/system"], "systemd"),
        ({}, "0::/\n", [], ""),
    ],
    ids=["Kubernetes", "its group", "Docker", "its group in v1", "Podman", "systemd", "neither"],
)
def test_where_we_run(environ: dict[str, str], cgroups: str, there: list[str], where: str) -> None:
    assert facts.surroundings(environ, cgroups, there) == where


# Redis

INFO = {
    "redis_version": "7.2.4",
    "used_memory": 10 * MB,
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "role": "master",
    "rdb_last_bgsave_status": "ok",
    "aof_last_write_status": "ok",
}
SETTINGS = {"save": "", "stream-node-max-bytes": "256"}


def redis_said(name: str, info: dict[str, Any] | None = None, settings: dict[str, str] | None = None) -> str:
    answers = redis_facts.from_info({**INFO, **(info or {})}, SETTINGS if settings is None else settings, "here")
    return said(redis_checks.check_redis(answers), name)


def test_a_redis_that_is_fit() -> None:
    findings = redis_checks.check_redis(redis_facts.from_info(INFO, SETTINGS, "redis://localhost (--url)"))
    assert marks(findings) == {"server": "ok", "eviction": "ok", "on disk": "ok", "results": "ok"}
    assert "Redis 7.2.4 at redis://localhost (--url)" in said(findings, "server")


@pytest.mark.parametrize(
    ("info", "settings", "name", "words"),
    [
        ({"redis_version": "4.0.14"}, None, "server", "problem: Redis 4.0.14 at here -> RQ 3 needs Redis 5"),
        ({"redis_version": "6.0.20"}, None, "server", "note: Redis 6.0.20 at here -> before 6.2 there is no BLMOVE"),
        ({"valkey_version": "8.0.1"}, None, "server", "ok: Valkey 8.0.1"),
        (
            {"maxmemory": GB, "maxmemory_policy": "allkeys-lru"},
            None,
            "eviction",
            "problem: maxmemory 1,024 MB, allkeys",
        ),
        ({"maxmemory": GB, "maxmemory_policy": "volatile-ttl"}, None, "eviction", "problem: "),
        ({"maxmemory_policy": "allkeys-lru"}, None, "eviction", "ok: no maxmemory"),
        ({"maxmemory": GB}, None, "eviction", "ok: maxmemory 1,024 MB, noeviction"),
        ({"maxmemory": 10 * MB}, None, "eviction", "100 % in use -> when it is full"),
        ({"aof_enabled": 0}, {**SETTINGS, "save": "3600 1"}, "on disk", "note: snapshots only"),
        ({"aof_enabled": 0}, None, "on disk", "note: neither append-only file nor snapshots"),
        ({"aof_enabled": 0}, {}, "on disk", "cannot be read (CONFIG is forbidden)"),
        ({"rdb_last_bgsave_status": "err"}, None, "on disk", "problem: its last write to disk failed"),
        ({}, {"save": "", "stream-node-max-bytes": "4096"}, "results", "note: stream-node-max-bytes 4096: 5.2 KB"),
        ({}, {}, "results", "note: stream-node-max-bytes cannot be read"),
        ({"role": "slave", "slave_read_only": 1}, None, "role", "problem: a read-only replica -> name the primary"),
        ({"role": "slave", "slave_read_only": 0}, None, "role", "note: a replica"),
    ],
    ids=str,
)
def test_a_redis_that_may_lose_jobs(
    info: dict[str, Any], settings: dict[str, str] | None, name: str, words: str
) -> None:
    assert words in redis_said(name, info, settings)


def test_a_redis_that_was_not_asked() -> None:
    assert marks(redis_checks.check_redis(NoRedis("it would be started", problem=False))) == {"server": "ok"}
    refused = redis_checks.check_redis(NoRedis("Redis at x refuses us: no; check the password", problem=True))
    assert said(refused, "server") == "problem: Redis at x refuses us: no -> check the password"
    assert "-> start it, or name another" in said(redis_checks.check_redis(NoRedis("gone", problem=True)), "server")


# The self-test


def breach(layer: Any, peak_mb: float) -> Breach:
    return Breach("job", "id", "queue", "worker", peak_mb, 78, peak_mb, layer, 1, "")


FINE = SelfTest(
    78, 32, Tried("failed", "", breach("watch", 78.4)), Tried("failed", "", breach("kernel", 110)),
    [Tried("finished", "", None)] * 2, 74, 12, "done, quitting", timed_out=False,
)  # fmt: skip


def test_a_self_test_that_went_well() -> None:
    findings = selftest_checks.check_self_test(FINE)
    assert marks(findings) == {"unwinding": "ok", "C call": "ok", "honest job": "ok", "new horse": "ok"}
    assert "was stopped 0.4 MB above its ceiling of 78 MB" in said(findings, "unwinding")
    assert "was ended 32.0 MB above it by the kernel (reserve 32 MB)" in said(findings, "C call")
    assert "74 of 78 MB" in said(findings, "honest job")
    assert "12 ms after a breach" in said(findings, "new horse")


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (
            {"in_objects": Tried("finished", "", None)},
            "unwinding",
            "problem: a job went beyond its ceiling of 78 MB",
        ),
        (
            {"in_objects": Tried("failed", "HorseLost: x", None)},
            "unwinding",
            "was not told so; it ended failed: Horse",
        ),
        (
            {"in_objects": Tried("failed", "", breach("kill", 112))},
            "unwinding",
            "note: a job that could unwind was",
        ),
        ({"in_objects": Tried("failed", "", breach("watch", 99))}, "unwinding", "note: "),
        ({"in_one_call": Tried("finished", "", None)}, "C call", "problem: "),
        (
            {"in_one_call": Tried("failed", "", breach("kill", 150))},
            "C call",
            "note: one in a C call was ended 72.0 MB",
        ),
        ({"honest": [Tried("failed", "Memory", breach("watch", 78))]}, "honest job", "problem: "),
        ({"new_horse_ms": 900.0}, "new horse", "note: the next job ran 900 ms"),
        ({"in_one_call": Tried("started", "", None), "timed_out": True}, "worker", "started still after 60 s"),
        (
            {"in_objects": Tried("queued", "", None), "words": "rqmem: no"},
            "worker",
            "when its worker ended; it said: ",
        ),
    ],
    ids=str,
)
def test_a_self_test_that_did_not(change: dict[str, Any], name: str, words: str) -> None:
    assert words in said(selftest_checks.check_self_test(dataclasses.replace(FINE, **change)), name)


def test_no_self_test_where_memory_is_short_or_there_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    short = selftest.run(14 * MB, 200 * MB, Config(), os.environ)
    assert isinstance(short, NotTested)
    assert said(selftest_checks.check_self_test(short), "skipped").startswith("note: it may take 466 MB, 200 are free")

    def nowhere() -> str:
        raise embedded.EmbeddedRedisError("no Redis server found: install one")

    monkeypatch.setattr(selftest.embedded_files, "find_program", nowhere)
    assert selftest.run(14 * MB, None, Config(), os.environ) == NotTested("no Redis server found: install one")


def test_what_a_worker_said_last() -> None:
    assert selftest.last_words("a\n12:00:01 ERROR it broke\nrq:pubsub\n") == "12:00:01 ERROR it broke"
    assert selftest.last_words("a\nb\n\n") == "b"
    assert selftest.last_words("") == "its log is empty"


# The report


def test_text_is_aligned_and_broken_at_the_width() -> None:
    findings = [
        Finding("server", "ok", "fine"),
        Finding("eviction", "problem", "word " * 20, "do " * 30),
    ]
    lines = report.group_lines("Redis", findings, 80, lambda text, mark: text)
    assert lines[:2] == ["Redis", "  ok       server      fine"]
    assert lines[2].startswith("  problem  eviction    word word")
    assert max(map(len, lines)) <= 80
    assert report.summary(findings) == "1 problem, no notes"
    assert not healthy(findings)


# The command


def doctor(*options: str, directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    full = forked.environ(**{"COLUMNS": "110", "XDG_RUNTIME_DIR": str(directory), **environ})
    command = [sys.executable, "-m", "rqmem", "doctor", *options]
    return forked.run(command, env=full, cwd=directory, timeout=300)


def test_the_whole_of_it(connection: Redis, redis_url: str, tmp_path: Path) -> None:
    done = doctor("--url", redis_url, directory=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line[0] != " "][:-1] == [
        "Machine", "Memory", "Kernel layer", "Redis", "Self-test",
    ]  # fmt: skip
    for words in (
        f"at {redis_url} (--url)",
        " its ceiling",  # stopped, or on a busy machine ended: which, the machine decides
        "one in a C call was ended",
        "was left alone",
        "after a breach",
        "no problems, ",
    ):
        assert words in " ".join(done.stdout.split())
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) <= 35
    assert connection.keys() == [], "the self-test has a server of its own"
    assert not list(tmp_path.glob("rqmem-*")), "which is gone"


def test_the_self_test_takes_the_workers_settings(tmp_path: Path) -> None:
    done = doctor("--no-redis", directory=tmp_path, RQMEM_ISOLATION="fork", RQMEM_CGROUP="off", RQMEM_RESERVE="40")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(reserve 40 MB)" in done.stdout
    assert "RQMEM_CGROUP=off" in done.stdout


def test_json_has_the_same(redis_url: str, tmp_path: Path) -> None:
    done = doctor("--json", "--no-self-test", directory=tmp_path, REDIS_URL=redis_url)
    shown = json.loads(done.stdout)
    assert shown["healthy"] is True
    assert {each["group"] for each in shown["findings"]} == {"Machine", "Memory", "Kernel layer", "Redis"}
    assert all(set(each) == {"group", "name", "mark", "text", "advice"} for each in shown["findings"])
    assert done.returncode == 0


def test_a_redis_that_is_down_is_one_problem_and_the_rest_is_told(tmp_path: Path) -> None:
    done = doctor("--no-self-test", "--json", "--url", "redis://:secret@127.0.0.1:1/0", directory=tmp_path)
    findings = json.loads(done.stdout)["findings"]
    [problem] = [each for each in findings if each["mark"] == "problem"]
    assert (problem["group"], problem["name"]) == ("Redis", "server")
    assert "redis://:***@127.0.0.1:1/0" in problem["text"]
    assert "secret" not in done.stdout
    assert len(findings) > 5
    assert done.returncode == 1


def test_the_embedded_server_is_not_started_for_a_look(tmp_path: Path) -> None:
    done = doctor("--no-self-test", directory=tmp_path)
    assert "the embedded one would be used" in done.stdout
    assert "Redis" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert done.returncode == 0


def test_the_embedded_server_that_runs_is_looked_at(redis_url: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    embedded.start(tmp_path)
    try:
        done = doctor("--no-self-test", directory=tmp_path)
    finally:
        embedded.stop(tmp_path)
    assert "at the embedded one of this directory" in done.stdout
    assert "stream-node-max-bytes 256" in done.stdout


@pytest.mark.parametrize(
    ("options", "environ", "words"),
    [
        (["--url", "http://localhost"], {}, "--url 'http://localhost' cannot be used"),
        ([], {"RQMEM_REDIS_URL": "localhost:6379"}, "RQMEM_REDIS_URL 'localhost:6379' cannot be used"),
        ([], {"RQMEM_MEMORY": "lots"}, "RQMEM_MEMORY='lots': give a number of MB"),
        (["--frobnicate"], {}, "No such option '--frobnicate'"),
    ],
    ids=["option", "variable", "setting", "usage"],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    options: list[str], environ: dict[str, str], words: str, tmp_path: Path
) -> None:
    done = doctor(*options, directory=tmp_path, **environ)
    [line] = done.stderr.splitlines()
    assert line.startswith("rqmem: ")
    assert words in line
    assert done.stdout == ""
    assert done.returncode == 2
