"""What another user has put in our way is not trusted: real users, by setpriv."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from rqmem.connection import embedded, embedded_files
from rqmem.errors import UntrustedFile
from tests.cli.test_commands import rqmem

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="takes root and setpriv, to be two users"
)
OTHER = 65534
COMMANDS = [["redis", "start"], ["redis", "status"], ["redis", "stop"], ["redis", "url"], ["status"], ["top"],
            ["worker", "--burst"], ["enqueue", "operator.add", "1", "2"]]  # fmt: skip


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory in which everybody may make files, as /tmp."""
    directory = Path(tempfile.mkdtemp(prefix="rqmem shared "))
    directory.chmod(0o1777)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def no_redis_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RQMEM_REDIS_URL", "RQ_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


def as_another(script: str, directory: Path) -> None:
    """Run a shell script as another user."""
    who = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "--"]
    subprocess.run([*who, "sh", "-ec", script], cwd=directory, check=True)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What the one line says that a command ended with."""
    assert done.returncode == 2, done.stdout + done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("rqmem: ")
    return line


# .rqmem


@pytest.mark.usefixtures("no_redis_named")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_another_users_rqmem_directory_is_not_used(shared: Path, command: list[str]) -> None:
    target = shared / "made by root"
    as_another(f"mkdir -m 755 .rqmem && ln -s '{target}' .rqmem/.gitignore", shared)
    line = refused(rqmem(*command, directory=shared))
    assert f"belongs to user nobody (uid {OTHER})" in line and "remove it" in line
    assert not target.exists() and [each.name for each in (shared / ".rqmem").iterdir()] == [".gitignore"]


@pytest.mark.usefixtures("no_redis_named")
@pytest.mark.parametrize("command", [["redis", "start"], ["redis", "status"]], ids=" ".join)
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("ln -s {root} .rqmem", "is a link or a file"),
        ("ln -s nowhere .rqmem", "is a link or a file"),
        ("touch .rqmem", "is a link or a file"),
    ],
)
def test_no_link_of_another_user_is_followed(shared: Path, command: list[str], script: str, why: str) -> None:
    root = shared / "of root"
    root.mkdir(0o700)
    as_another(script.format(root=f"'{root}'"), shared)
    assert why in refused(rqmem(*command, directory=shared))
    assert not list(root.iterdir())


@pytest.mark.usefixtures("no_redis_named")
def test_another_users_directory_of_the_server_is_not_used(shared: Path) -> None:
    (shared / ".rqmem").mkdir(0o700)
    (shared / ".rqmem" / "redis").mkdir(0o700)
    (shared / ".rqmem" / "redis" / "server.lock").write_text("/tmp/theirs.sock")
    os.chown(shared / ".rqmem" / "redis", OTHER, OTHER)
    for command in COMMANDS[:3]:
        assert "belongs to user nobody" in refused(rqmem(*command, directory=shared))


@pytest.mark.usefixtures("no_redis_named")
def test_a_lock_of_another_user_is_not_read(shared: Path) -> None:
    place = embedded_files.locate(shared)
    embedded_files.make_directories(place)
    place.server_lock.write_text("/tmp/theirs.sock")
    os.chown(place.server_lock, OTHER, OTHER)
    with pytest.raises(UntrustedFile, match=r"server\.lock belongs to user nobody"):
        embedded.status(shared)
    place.server_lock.unlink()
    place.server_lock.symlink_to(shared / "anywhere")
    with pytest.raises(Exception, match=r"the embedded Redis cannot use .*server\.lock"):
        embedded.start(shared)
    assert not (shared / "anywhere").exists()


@pytest.mark.usefixtures("no_redis_named")
def test_a_directory_that_everybody_may_write_to_is_refused(shared: Path) -> None:
    (shared / ".rqmem").mkdir()
    (shared / ".rqmem").chmod(0o777)
    assert "'chmod go-w' it" in refused(rqmem("redis", "start", directory=shared))
    (shared / ".rqmem").chmod(0o775)  # a group of one's own, as many systems have
    try:
        done = rqmem("redis", "start", directory=shared, TMPDIR=str(shared), XDG_RUNTIME_DIR="")
        assert done.returncode == 0, done.stderr
        ignore = shared / ".rqmem" / ".gitignore"
        assert ignore.read_text() == "*\n" and not ignore.is_symlink()
        assert rqmem("redis", "status", directory=shared).returncode == 0
    finally:
        embedded.stop(shared)


@pytest.mark.usefixtures("no_redis_named")
def test_a_link_of_ours_in_it_is_not_followed_either(shared: Path) -> None:
    (shared / ".rqmem").mkdir(0o700)
    (shared / ".rqmem" / ".gitignore").symlink_to(shared / "target")
    try:
        assert rqmem("redis", "start", directory=shared, TMPDIR=str(shared), XDG_RUNTIME_DIR="").returncode == 0
        assert not (shared / "target").exists()
    finally:
        embedded.stop(shared)


@pytest.mark.usefixtures("no_redis_named")
def test_a_directory_for_the_socket_that_another_user_made_is_not_used(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(shared))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    socket = embedded_files.locate(shared).socket
    assert socket.parent.parent == shared
    as_another(f"mkdir -m 700 '{socket.parent.name}'", shared)
    assert "set TMPDIR to a directory of yours" in refused(rqmem("redis", "start", directory=shared))
    assert not embedded_files.is_held(embedded_files.locate(shared).server_lock)


def test_the_socket_is_in_no_directory_where_others_can_put_theirs_in_its_place(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    as_another("mkdir -m 755 theirs", shared)
    (shared / "open").mkdir()
    (shared / "open").chmod(0o777)
    for name in ("theirs", "open"):
        monkeypatch.setenv("TMPDIR", str(shared / name))
        assert embedded_files.locate(shared).socket.parent.parent == Path("/tmp")


# Settings


def test_settings_that_another_user_left_here_run_no_code(shared: Path, redis_url: str) -> None:
    as_another(
        f"printf '[rqmem]\\npreload = evil\\n' > rqmem.ini; echo \"open('{shared}/ran', 'w')\" > evil.py", shared
    )
    for command in (["worker", "--burst"], ["config"]):
        line = refused(rqmem(*command, directory=shared, RQMEM_REDIS_URL=redis_url))
        assert "rqmem.ini belongs to user nobody" in line and "RQMEM_CONFIG=rqmem.ini" in line
    assert not (shared / "ran").exists()
    done = rqmem("config", directory=shared, RQMEM_CONFIG="rqmem.ini", RQMEM_REDIS_URL=redis_url)
    assert done.returncode == 0 and "evil" in done.stdout, "whoever names it trusts it"


@pytest.mark.parametrize("how", ["link", "open", "pipe"])
def test_settings_that_another_user_chose_for_us(shared: Path, how: str) -> None:
    ours = shared / "ours.ini"
    ours.write_text("[rqmem]\nmemory = 100\n")
    if how == "open":
        (shared / "rqmem.ini").write_text("")
        (shared / "rqmem.ini").chmod(0o666)
    else:
        as_another("ln -s ours.ini rqmem.ini" if how == "link" else "mkfifo rqmem.ini", shared)
    line = refused(rqmem("config", directory=shared))
    assert ("may be written to by everybody" if how == "open" else "belongs to user nobody") in line


def test_settings_of_ours_and_of_root_by_a_link_of_ours(shared: Path) -> None:
    (shared / "..data").write_text("[rqmem]\nmemory = 100\n")
    (shared / "rqmem.ini").symlink_to("..data")  # as Kubernetes has it
    (shared / "..data").chmod(0o664)
    done = rqmem("config", directory=shared)
    assert done.returncode == 0 and "100 MB" in done.stdout


# Files that a person names


def outputs(path: Path, redis_url: str) -> dict[str, list[str]]:
    return {
        "log": ["worker", "--burst", "--log-file", str(path), "--url", redis_url],
        "pid": ["worker", "--burst", "--pid", str(path), "--url", redis_url],
        "report": ["report", "--output", str(path), "--format", "text", "--url", redis_url],
        "monitor": ["monitor", "--duration", "1", "--interval", "1", "--output-file", str(path), "--url", redis_url],
    }


@pytest.mark.parametrize("which", ["log", "pid", "report", "monitor"])
def test_no_output_goes_over_a_link_of_another_user(
    shared: Path, redis_url: str, connection: Redis, which: str
) -> None:
    target, there = shared / "target", shared / "precious"
    there.write_text("as before")
    there.chmod(0o600)
    as_another(f"ln -s '{target}' new.txt; ln -s '{there}' old.txt; mkdir d; ln -s '{shared}' d/up", shared)
    for name in ("new.txt", "old.txt", "d/up/new2.txt"):
        line = refused(rqmem(*outputs(shared / name, redis_url)[which]))
        assert "is a link of user nobody" in line
    assert not target.exists() and there.read_text() == "as before" and not (shared / "new2.txt").exists()


@pytest.mark.parametrize("which", ["log", "pid"])
def test_no_output_goes_to_another_users_file_where_everybody_may_make_one(
    shared: Path, redis_url: str, connection: Redis, which: str
) -> None:
    as_another("touch theirs; chmod 666 theirs", shared)
    assert (
        "belongs to user nobody" in refused(rqmem(*outputs(shared / "theirs", redis_url)[which]))
        or Path("/proc/sys/fs/protected_regular").read_text() != "0\n"
    )
    assert (shared / "theirs").read_text() == ""


@pytest.mark.parametrize("which", ["log", "pid"])
def test_no_output_waits_for_the_reader_of_another_users_pipe(
    shared: Path, redis_url: str, connection: Redis, which: str
) -> None:
    as_another("mkfifo theirs", shared)
    assert "belongs to user nobody" in refused(rqmem(*outputs(shared / "theirs", redis_url)[which]))


@pytest.mark.parametrize("which", ["log", "pid", "report", "monitor"])
def test_links_of_ours_lead_where_they_should(shared: Path, redis_url: str, connection: Redis, which: str) -> None:
    (shared / "link.txt").symlink_to("real.txt")
    done = rqmem(*outputs(shared / "link.txt", redis_url)[which])
    assert done.returncode == 0, done.stderr
    assert (shared / "link.txt").is_symlink() and (shared / "real.txt").exists()


@pytest.mark.parametrize("which", ["log", "pid", "report", "monitor"])
def test_a_link_to_itself_is_told_in_one_line(shared: Path, redis_url: str, connection: Redis, which: str) -> None:
    (shared / "a.txt").symlink_to("b.txt")
    (shared / "b.txt").symlink_to("a.txt")
    assert "leads to itself" in refused(rqmem(*outputs(shared / "a.txt", redis_url)[which]))


def test_a_log_goes_to_stdout_by_its_name(redis_url: str, connection: Redis) -> None:
    done = rqmem("worker", "--burst", "--log-file", "/dev/stdout", "--url", redis_url)
    assert done.returncode == 0 and "memory ceiling" in done.stdout


def test_a_log_that_becomes_another_users_link_is_not_followed(shared: Path) -> None:
    from rqmem.log.file import LogFile

    log = LogFile(str(shared / "worker.log"))
    (shared / "worker.log").rename(shared / "worker.log.1")
    as_another("ln -s stolen worker.log", shared)
    log.reopen()
    log.writer.write("a line")
    log.close()
    assert not (shared / "stolen").exists() and "a line" in (shared / "worker.log.1").read_text()


# Profiles


def test_profiles_of_another_user_are_neither_written_nor_read(shared: Path, redis_url: str, connection: Redis) -> None:
    as_another("mkdir -m 755 .rqmem && mkdir -m 777 .rqmem/profiles theirs", shared)
    given = {"RQMEM_REDIS_URL": redis_url, "directory": shared}
    assert "belongs to user nobody" in refused(rqmem("worker", "--burst", "--profile", "memray", **given))
    options = ["--profile-dir", "theirs"]
    assert "belongs to user nobody" in refused(rqmem("worker", "--burst", "--profile", "memray", *options, **given))
    assert "belongs to user nobody" in refused(rqmem("inspect", "x", "--flamegraph", *options, **given))
    assert not list((shared / "theirs").iterdir()) and not (shared / ".rqmem" / ".gitignore").exists()


def test_files_that_we_make_are_private(shared: Path) -> None:
    place = embedded_files.locate(shared)
    embedded_files.make_directories(place)
    for directory in (place.data, place.data.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
