"""Jobs for the tests' workers to run. They talk to the tests through Redis."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import locale
import logging
import logging.config
import mmap
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

from rq import Retry, get_current_job

from rqmem import MemoryAwareJob, current_memory, memory_aware
from rqmem.errors import ConfigError, MemoryLimitExceeded, SourceError
from rqmem.job import children
from rqmem.policy import splitting
from rqmem.sources import Range
from rqmem.worker.horse import process_state

MB = 2**20


def redis() -> Any:
    return get_current_job().connection


def add(a: int, b: int = 1) -> int:
    return a + b


def say_hello_and_sleep(seconds: float) -> None:
    redis().set("asleep", os.getpid())
    time.sleep(seconds)


def grow_lists() -> None:
    """Python objects without end; says on its way out that its finally ran."""
    rows = []
    try:
        while True:
            rows.append([0] * 1000)
    finally:
        redis().set("finally", len(rows))


def grow_and_have_the_horse_killed_after(step: str) -> None:
    """Of what it does about the breach: it has recorded it, or told it."""
    from rqmem import events
    from rqmem.store import executions

    record = executions.save_breach

    def record_and_die(*args: Any) -> None:
        record(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    def die_of_a_breach(event: events.Event) -> None:
        if isinstance(event, events.Breach):
            os.kill(os.getpid(), signal.SIGKILL)

    if step == "record":
        executions.save_breach = record_and_die
    else:
        events.subscribe(die_of_a_breach)  # called last: it has been told the worker
    grow_lists()


def grow_in_c() -> None:
    """One C call that fills 1.5 GB: no exception can get in."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    size = ctypes.c_size_t(1500 * MB)
    libc.memset(ctypes.c_void_p(libc.malloc(size)), 1, size)


def grow_and_swallow() -> None:
    """Catches everything, again and again."""
    rows = []
    while True:
        try:
            while True:
                rows.append(bytearray(MB))
        except BaseException:
            redis().incr("swallowed")


def grow_in_a_child() -> None:
    """A subprocess uses the memory; the job only waits for it."""
    code = "import time; x = [bytearray(2**20) for _ in range(600)]; time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    redis().set("child", child.pid)
    child.wait()


def grow_before_a_crowd() -> None:
    """Grows beside 20 processes of its own, and looks at them while it unwinds."""
    crowd = [subprocess.Popen(["sleep", "60"]) for _ in range(20)]
    held = []
    try:
        while True:
            held.append(bytearray(MB))
    finally:
        states: list[str] = []
        until = time.monotonic() + 1  # a stop takes effect when its process gets a processor
        while set(states) != {"T"} and time.monotonic() < until:
            states = [Path(f"/proc/{each.pid}/stat").read_text().rpartition(")")[2].split()[0] for each in crowd]
        redis().set("crowd", "".join(states))


def leave_a_daemon() -> int:
    """Succeeds, and leaves a process behind."""
    child = subprocess.Popen(
        ["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return child.pid


def hold(megabytes: int) -> int:
    """Stays under any ceiling above ``megabytes`` for a while."""
    block = bytearray(megabytes * MB)
    time.sleep(0.3)
    return len(block)


def big_result(megabytes: int) -> bytes:
    return bytes(megabytes * MB)


def killed_by_somebody() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(job: Any, connection: Any) -> None:
    """A stopped callback."""
    sys.exit(4)


def fill(job: Any, connection: Any) -> None:
    """A stopped callback."""
    blocks = [bytearray(b"x" * MB) for _ in range(400)]
    time.sleep(len(blocks))


def remember_failure(job: Any, connection: Any, kind: type, value: BaseException, trace: Any) -> None:
    """A failure callback."""
    connection.rpush("failures", f"{kind.__name__}: {value}")


class Plain(MemoryAwareJob):
    """Declares a ceiling, checks, returns."""

    memory_limit_mb = 200
    queue = "plain"

    def handle(self, number: int, name: str = "x") -> Any:
        self.check_memory_usage("begun")
        return [number, name, self.args, self.kwargs]


class Squares(MemoryAwareJob):
    """Chunks that resume. ``heavy`` items need ``item_mb`` each while their chunk is worked on.

    Without ``hold_seconds`` that is shorter than a look of the watcher, which may miss it or not.
    """

    on_breach = "resume"
    chunk_size = 8
    adaptive = False

    def handle(self, count: int, item_mb: int = 0, heavy_from: int = 0, hold_seconds: float = 0) -> list[int]:
        def work(chunk: list[int]) -> list[int]:
            blocks = [bytearray(item_mb * MB) for number in chunk if number >= heavy_from]
            time.sleep(hold_seconds)
            redis().rpush("chunks", f"{chunk[0]}-{chunk[-1]}")
            del blocks
            return [number * number for number in chunk]

        return self.process_in_chunks(range(count), work)


class Slow(MemoryAwareJob):
    """Works through its items at a pace that lets a test kill things in the middle."""

    on_breach = "resume"
    chunk_size = 2
    adaptive = False

    def handle(self, count: int, seconds: float) -> int:
        def work(chunk: list[int]) -> list[int]:
            time.sleep(seconds)
            for number in chunk:
                redis().rpush("done", number)
            return chunk

        return len(self.process_in_chunks(range(count), work))


class Stubborn(MemoryAwareJob):
    """One item does not fit alone."""

    on_breach = "resume"
    chunk_size = 4
    adaptive = False

    def handle(self, count: int, culprit: int) -> None:
        def work(chunk: list[int]) -> None:
            block = bytearray(400 * MB) if culprit in chunk else b""
            redis().rpush("sizes", len(chunk))
            del block

        self.process_in_chunks(range(count), work)


class Crashes(MemoryAwareJob):
    """It crashes in the first chunk, each time."""

    on_breach = "resume"
    chunk_size = 8
    adaptive = False

    def handle(self, count: int) -> None:
        def work(chunk: list[int]) -> None:
            redis().rpush("sizes", len(chunk))
            os.kill(os.getpid(), signal.SIGSEGV)

        self.process_in_chunks(range(count), work)


class KilledAt(MemoryAwareJob):
    """Its horse is killed, once each, in the chunks that begin with these items."""

    on_breach = "resume"
    chunk_size = 4
    adaptive = False

    def handle(self, count: int, firsts: list[int]) -> int:
        def work(chunk: list[int]) -> None:
            redis().rpush("sizes", len(chunk))
            if chunk[0] in firsts and redis().hincrby("killed", str(chunk[0]), 1) == 1:
                killed_by_somebody()

        self.process_in_chunks(range(count), work)
        return count


class ResumesNothing(MemoryAwareJob):
    """Asks to be resumed but never works in chunks."""

    on_breach = "resume"

    def handle(self) -> None:
        grow_lists()


class Modest(MemoryAwareJob):
    """Declares less than it uses."""

    memory_limit_mb = 100

    def handle(self) -> None:
        grow_lists()


class FromGenerator(MemoryAwareJob):
    """Cannot be resumed: a generator is read once."""

    on_breach = "resume"

    def handle(self) -> None:
        self.process_in_chunks((number for number in range(3)), len)


class UnsavableResults(MemoryAwareJob):
    """Returns what no serializer takes."""

    on_breach = "resume"

    def handle(self) -> None:
        self.process_in_chunks(range(3), lambda chunk: [lambda: chunk])


class Overweight(MemoryAwareJob):
    """Above its ceiling at its first checkpoint."""

    memory_limit_mb = 5

    def handle(self) -> None:
        self.check_memory_usage("begun")


def swallow_once_and_finish() -> str:
    """Uses too much, catches what it is told, by name, frees it all and returns; at once, before it would be killed."""
    said = ""
    try:
        grow_without_redis()
    except MemoryLimitExceeded:
        said = "all is well"
    return said


def raise_another() -> None:
    """Its clean-up fails while it unwinds."""
    try:
        grow_lists()
    finally:
        raise RuntimeError("the clean-up failed")


def ignore_the_time_limit() -> None:
    """Catches the time limit's exception and goes on."""
    while True:
        try:
            time.sleep(60)
        except Exception:
            redis().incr("ignored")


def start_a_child_and_wait() -> None:
    child = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=-3, stderr=-3)
    redis().set("child", child.pid)
    child.wait()


class Nested(MemoryAwareJob):
    """Chunks within chunks, killed once in the middle."""

    on_breach = "resume"

    def handle(self, tables: int, rows: int) -> list[str]:
        def table(names: list[int]) -> list[str]:
            [name] = names
            return self.process_in_chunks(range(rows), lambda chunk: [f"{name}.{row}" for row in chunk], 2)

        def killed_once(names: list[int]) -> list[str]:
            if names == [1] and redis().incr("killed") == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return table(names)

        return self.process_in_chunks(range(tables), killed_once, 1)


class Twice(MemoryAwareJob):
    """Two calls of process_in_chunks, one after the other; killed once in the second."""

    on_breach = "resume"

    def handle(self) -> list[list[int]]:
        first = self.process_in_chunks(range(4), lambda chunk: redis().rpush("first", *chunk) and chunk, 2)

        def second(chunk: list[int]) -> list[int]:
            if chunk[0] == 12 and redis().incr("killed") == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            redis().rpush("second", *chunk)
            return chunk

        return [first, self.process_in_chunks(range(10, 16), second, 2)]


def own_variables() -> tuple[dict[str, str], dict[str, str], list[int]]:
    """What names the job in its environment, as Python and as a program it starts see it, and where libc keeps that."""
    names = ["RQ_JOB_ID", "RQMEM_EXECUTION", "RQ_WORKER_ID"]
    lines = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout.splitlines()
    started = dict(line.split("=", 1) for line in lines if line.split("=", 1)[0] in names)
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    return {name: os.environ[name] for name in names}, started, [getenv(name.encode()) for name in names]


def own_pid() -> int:
    return os.getpid()


def keep_in_a_global(megabytes: int) -> int:
    """A leak."""
    _kept.append(bytearray(megabytes * MB))
    return os.getpid()


_kept: list[Any] = []


def keep_in_a_cycle(megabytes: int) -> int:
    """Garbage that only the collector finds."""
    cycle: list[Any] = [bytearray(megabytes * MB)]
    cycle.append(cycle)
    return os.getpid()


def leave_a_thread() -> int:
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return os.getpid()


def exit_quietly() -> None:
    os._exit(0)


def change_signal_handlers() -> int:
    """As a library might: nothing of it may reach the next job."""
    for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
        signal.signal(number, signal.SIG_IGN)
    return os.getpid()


def _libc_call(name: str, *arguments: int) -> None:
    assert getattr(ctypes.CDLL(None), name)(*arguments) == 0


def leave_changed(what: str) -> None:
    """Something that a process has once, and that the next job would inherit."""
    match what:
        case "working directory":
            os.chdir("/")
        case "standard files":
            os.close(0)  # the next file that is opened would be read as the input of whatever a job starts
        case "namespaces":
            _libc_call("unshare", 0x40000000)  # the network, in which is Redis
            redis().connection_pool.disconnect()
        case "groups and rights":
            os.setgroups([12345])
        case "process flags":
            _libc_call("prctl", 1, 0, 0, 0, 0)  # it would outlive its worker
        case "process group":
            os.setpgid(0, os.getpgid(os.getppid()))
        case "choice of the OOM killer":
            Path("/proc/self/oom_score_adj").write_text("700")
        case "priority":
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        case "processors":
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        case "umask":
            os.umask(0o777)
        case "signal handlers":
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # exit codes of subprocesses are lost
        case "blocked signals":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # time limits too
        case "timers":
            signal.setitimer(signal.ITIMER_PROF, 60)
        case "resource limits":
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        case "number of open files":
            leave_files_open()
        case "garbage collection":
            gc.disable()
        case "logging.disable":
            logging.disable()


def leave_files_open(*, without_redis: bool = False) -> None:
    """As many as this process may have open."""
    if without_redis:
        redis().connection_pool.disconnect()
    with contextlib.suppress(OSError):
        while True:
            os.dup(1)


def leave_settings(what: str) -> None:
    """A setting of Python or the C library."""
    match what:
        case "environment":
            os.environ["TENANT"] = "the first one's"
            del os.environ["PATH"]
        case "time zone":
            os.environ["TZ"] = "Asia/Tokyo"
            time.tzset()
        case "sys.path":
            sys.path.insert(0, "/of/the/first/one")
        case "warning filters":
            warnings.simplefilter("error")
        case "locale":
            locale.setlocale(locale.LC_ALL, "C")
        case "socket timeout":
            socket.setdefaulttimeout(0.001)  # for the worker's own connections to Redis too
        case "recursion limit":
            sys.setrecursionlimit(300)
        case "switch interval":
            sys.setswitchinterval(1)
        case "trace function":
            sys.settrace(lambda *_: None)
        case "profile function":
            sys.setprofile(lambda *_: None)
        case "sys.stdout":
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115


def own_settings() -> tuple[int, dict[str, str]]:
    """The process, and what it is like as far as `leave_settings` changes it."""
    return os.getpid(), {
        "environment": repr(sorted((k, v) for k, v in os.environ.items() if not k.startswith(("RQ_JOB", "RQMEM_EX")))),
        "time zone": repr((time.tzname, time.localtime(0))),
        "sys.path": repr(sys.path),
        "warning filters": repr(warnings.filters),
        "locale": locale.setlocale(locale.LC_ALL),
        "others": repr((socket.getdefaulttimeout(), sys.getrecursionlimit(), sys.getswitchinterval())),
        "functions": repr((sys.gettrace(), sys.getprofile(), sys.stdout)),
    }


def import_late() -> str:
    """As a library does that is imported where it is used."""
    import tests.sets_a_variable  # noqa: F401

    return os.environ["SET_AT_IMPORT"]


def configure_logging() -> None:
    """As many applications: all loggers that it does not name are switched off."""
    logging.config.dictConfig({"version": 1})


def own_traces() -> dict[str, str]:
    """What this process is like, as far as `leave_changed` changes it."""
    found = {name: re.sub(" at 0x[0-9a-f]+", "", str(value)) for name, value in process_state.look().items()}
    of_time_limit = re.escape(re.sub(" at 0x[0-9a-f]+", "", str(signal.getsignal(signal.SIGALRM))))
    found["signal handlers"] = re.sub(of_time_limit, "", found["signal handlers"], count=1)
    return found


def fork_and_return() -> str:
    """A child that returns from the job function, as after a forgotten os._exit."""
    if os.fork() == 0:
        return "child"
    os.wait()
    return "parent"


def fork_a_daemon_and_die() -> None:
    """The child holds everything open that the horse had open."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(3)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def raise_undecodable() -> None:
    """A file's name in no encoding: Redis takes no such text."""
    raise ValueError(os.fsdecode(b"caf\xe9.csv"))


def fail_with(text: str) -> None:
    raise ValueError(text)


def raise_error() -> None:
    raise ValueError("an ordinary failure")


def raise_in_many_lines() -> None:
    """As SQLAlchemy does."""
    raise ValueError("no such table\n[SQL: SELECT 1]\n(Background on this error at: https://sqlalche.me/e/20/e3q8)")


def become_another_program() -> None:
    """exec: no handler of ours is left, and it grows, but stays under its ceiling."""
    os.execv(sys.executable, [sys.executable, "-c", "x = [bytearray(2**20) for _ in range(60)]"])


def drop_all_handlers_and_grow() -> int:
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGALRM}:
        signal.signal(number, signal.SIG_DFL)
    return len([bytearray(MB) for _ in range(70)])


@memory_aware(memory_limit_mb=100)
def aware(megabytes: int) -> float:
    block = bytearray(megabytes * MB)
    usage = current_memory().check_memory_usage("loaded")
    del block
    current_memory().force_garbage_collection()
    return usage


@memory_aware()
def name_a_place(letter: str, length: int) -> None:
    current_memory().check_memory_usage(letter * length)


def how_a_fork_takes_sigterm() -> bool:
    """Whether it is the system's to end it, from its first moment on, and not Python's between two steps."""
    child = os.fork()
    if child == 0:
        os._exit(0 if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else 1)
    return os.waitpid(child, 0)[1] == 0


def fork_children_that_end_in_three_ways() -> list[int]:
    """Exit codes of forked children that leave the job function instead of ending."""
    codes = []
    for way in ("return", "exit", "raise"):
        child = os.fork()
        if child == 0:
            if way == "return":
                return []
            if way == "exit":
                sys.exit(3)
            raise ValueError("in the child")
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    from rqmem.worker.horse import user_code

    here = user_code.current()
    assert here is not None
    assert here.page.in_user_code, "a child must not say that the horse has left user code"
    return codes


class CallsAnother(MemoryAwareJob):
    """Runs another job's class within its own chunks, and is killed once in the middle."""

    on_breach = "resume"
    memory_limit_mb = 200

    def handle(self) -> list[Any]:
        def work(chunk: list[int]) -> list[Any]:
            [number] = chunk
            squares = Squares.run(count=3 + number)
            aware(1)
            if number == 2 and redis().incr("killed") == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return [sum(squares), self.check_memory_usage("after") and horse_ceiling_mb()]

        return self.process_in_chunks(range(4), work, 1)


def horse_ceiling_mb() -> float:
    from rqmem.worker.horse import user_code

    here = user_code.current()
    assert here is not None
    return here.page.ceiling_bytes / MB


class CountsDescriptors(MemoryAwareJob):
    """How many files its horse has open."""

    def handle(self) -> int:
        self.check_memory_usage("counted")
        return len(list(Path("/proc/self/fd").iterdir()))


def wait_for_file(path: str) -> str:
    """Says by a file that it has begun, and ends when another one is there. Needs no Redis."""
    Path(path + ".begun").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return "done"


def wait_for_file_and_fail(path: str) -> None:
    wait_for_file(path)
    raise ValueError("an ordinary failure")


def wait_for_file_and_grow(path: str) -> None:
    wait_for_file(path)
    grow_without_redis()


def grow_without_redis() -> None:
    rows = []
    while True:
        rows.append(bytearray(MB))


class WaitsInItsChunks(MemoryAwareJob):
    """Says where it is by files; each chunk but the first waits for one."""

    on_breach = "resume"
    chunk_size = 2
    adaptive = False

    def handle(self, path: str) -> list[int]:
        def work(chunk: list[int]) -> list[int]:
            if chunk[0] > 0:
                wait_for_file(path)
            with Path(path + ".done").open("a") as file:
                file.writelines(f"{number}\n" for number in chunk)
            return chunk

        return self.process_in_chunks(range(6), work)


class WaitsInItsChildren(MemoryAwareJob):
    """Each child waits for a file. Needs no Redis of its own."""

    queue = "jobs"
    items_per_child = 2

    def handle(self, path: str, items: Any = None) -> Any:
        if items is None:
            return self.split_into_child_jobs(range(6))
        wait_for_file(path)
        return [number for chunk in self.chunks(items) for number in chunk]


def incompressible(megabytes: int) -> bytes:
    return os.urandom(megabytes * MB)


def raise_at_length(megabytes: int) -> None:
    raise ValueError(os.urandom(megabytes * MB).hex() + " the end of a long text")


def collect_rows() -> None:
    rows = []
    for number in range(10**7):
        rows.append({"id": number, "name": f"customer {number}"})


def grow_blocks() -> None:
    blocks = []
    while True:
        blocks.append(bytearray(MB))


def keep_small_objects(count: int) -> None:
    _kept.append([str(number) for number in range(count)])


class GrowsBelowTheWatch(MemoryAwareJob):
    """Declares the ceiling it has exceeded only when it is too late for the watcher, as it reads at intervals."""

    memory_limit_mb = 400

    def handle(self) -> None:
        blocks = []
        for number in range(100):
            blocks.append(bytearray(MB))
            if number % 10 == 0:
                self.check_memory_usage(f"block {number}")
                time.sleep(0.03)
        self._monitored().ceiling.bytes = 60 * MB  # the watcher goes by the page, which still says 400
        self.check_memory_usage("the end")


def share_and_grow_in_c() -> None:
    from multiprocessing import resource_tracker, shared_memory

    segment = shared_memory.SharedMemory(create=True, size=20 * MB)
    resource_tracker.unregister("/" + segment.name, "shared_memory")  # it would remove the file
    segment.buf[:] = bytes(20 * MB)
    redis().set("segment", segment.name)
    grow_in_c()


def save_meta_and_grow() -> None:
    job = get_current_job()
    assert job is not None
    job.meta["saved"] = "by the job"
    job.save_meta()
    grow_blocks()


def save_meta_and_grow_in_c() -> None:
    job = get_current_job()
    assert job is not None
    job.meta["saved"] = "by the job"
    job.save_meta()
    grow_in_c()


def use_and_tell_pid(megabytes: int) -> int:
    block = bytearray(megabytes * MB)
    del block
    return os.getpid()


class Small(MemoryAwareJob):
    """Declares less than a horse may hold by now."""

    memory_limit_mb = 60

    def handle(self) -> int:
        redis().incr("begun")
        return os.getpid()


def fill_tmpfs() -> None:
    """Up to 300 MB in /dev/shm, written and never mapped."""
    job = get_current_job()
    assert job is not None
    with Path(f"/dev/shm/rqmem-test-{job.id}").open("wb") as file:
        for _ in range(300):
            file.write(bytes(MB))


def have_a_child_killed_at_the_limit() -> str:
    """The child sleeps and is the largest; the horse grows until the kernel chooses the child."""
    code = "import time; x = bytearray(70 * 2**20); print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    redis().set("child", child.pid)
    assert child.stdout is not None
    child.stdout.readline()
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    size = ctypes.c_size_t(60 * MB)
    libc.memset(ctypes.c_void_p(libc.malloc(size)), 1, size)
    time.sleep(0.5)
    return "went on"


class DeclaresMuch(MemoryAwareJob):
    """More than the default."""

    memory_limit_mb = 400

    def handle(self, megabytes: int) -> int:
        return len(bytearray(megabytes * MB)) // MB


def leave_a_growing_daemon(megabytes: int) -> int:
    code = f"import time; time.sleep(0.5); x = bytearray({megabytes} * 2**20); time.sleep(60)"
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=quiet, stderr=quiet).pid


class ForksOnce(MemoryAwareJob):
    """Its first execution forks a child without exec, and waits to be killed."""

    on_breach = "resume"

    def handle(self) -> str:
        if redis().exists("child"):
            return "done"
        child = os.fork()
        if child == 0:
            os.setsid()
            time.sleep(60)
            os._exit(0)
        redis().set("child", child)
        time.sleep(60)
        return "never"


def crash() -> None:
    ctypes.string_at(0)


def tell_worker() -> tuple[str, int]:
    job = get_current_job()
    assert job is not None
    return str(job.worker_name), os.getppid()


class Generated(MemoryAwareJob):
    """The generator form; killed once at an item."""

    on_breach = "resume"

    def handle(self, count: int, killed_at: int) -> None:
        for chunk in self.chunks(range(count), 3):
            for number in chunk:
                if number == killed_at and redis().incr("killed") == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                redis().rpush("done", number)


class Growing(MemoryAwareJob):
    """Light items first, heavy ones later; returns the sizes of its chunks."""

    on_breach = "resume"
    chunk_size = 10

    def handle(self, count: int) -> list[int]:
        def work(chunk: list[int]) -> int:
            blocks = [bytearray(10_000 if number < count * 0.9 else MB) for number in chunk]
            time.sleep(0.002)
            return len(blocks)

        return self.process_in_chunks(range(count), work)


class Counted(MemoryAwareJob):
    """Splits, and gathers the squares of its numbers; ``failing``: numbers whose child fails, while a key says so."""

    queue = "jobs"
    items_per_child = 10

    def handle(self, count: int, failing: list[int] | None = None, pause: float = 0, items: Any = None) -> Any:
        if items is None:
            return self.split_into_child_jobs(range(count))
        numbers = []
        for chunk in self.chunks(items):
            for number in chunk:
                if number in (failing or ()) and not redis().exists("mended"):
                    raise ValueError(f"number {number} is broken")
                redis().rpush("done", number)
                time.sleep(pause)
            numbers += [number * number for number in chunk]
        return numbers

    def gather(self, results: Any) -> list[int]:
        redis().incr("gathered")
        return super().gather(results)


class Prepared(MemoryAwareJob):
    """Works in chunks before it splits, and again in gather, where it is killed once."""

    queue = "jobs"
    on_breach = "resume"
    items_per_child = 4
    chunk_size = 2
    adaptive = False

    def handle(self, count: int, items: Any = None) -> int:
        if items is not None:
            return sum(number for chunk in self.chunks(items) for number in chunk)
        return self.split_into_child_jobs(self.process_in_chunks(range(count), list))

    def gather(self, results: Any) -> list[int]:
        def keep(chunk: list[int]) -> list[int]:
            if redis().rpush("gathered", str(chunk)) == 2:
                killed_by_somebody()
            return chunk

        return self.process_in_chunks(results, keep)


class SplitsTwice(Counted):
    """Splits again when it has split, in handle or in gather."""

    def handle(self, count: int, in_gather: bool = False, items: Any = None) -> Any:
        if items is not None:
            return redis().incr("children")
        self.split_into_child_jobs(range(count))
        if not in_gather:
            self.split_into_child_jobs(range(count, 2 * count), Counted)
        return None

    def gather(self, results: Any) -> Any:
        return self.split_into_child_jobs(range(100), Counted)


class SplitsBadly(Counted):
    """Tries to split in ways that cannot be; returns what each says."""

    def handle(self, items: Any = None, when: Any = None) -> Any:
        renamed = type("Nobody", (SplitsBadly,), {"__module__": __name__})
        shadowing = type("Counted", (SplitsBadly,), {"__module__": __name__})
        attempts: list[Any] = [(cls, {}) for cls in (add, Squares(), renamed, shadowing)]
        attempts += [(SplitsBadly, {"when": value}) for value in (lambda: 1, threading.Lock(), datetime.now())]
        said = []
        for job_class, arguments in attempts:
            try:
                self.split_into_child_jobs(range(20), job_class, kwargs=arguments)
            except ConfigError as error:
                said.append(str(error))
        return said


class Weighty(MemoryAwareJob):
    """Says how many items its children would have: unasked, asked, and told."""

    queue = "jobs"
    bytes_per_item = 2 * MB

    def handle(self, count: int, items: Any = None) -> list[list[int | None]]:
        def sizes(items_per_child: int | None = None) -> list[int | None]:
            children = self.create_child_jobs(range(count), Weighty, items_per_child)
            return [child.items.count().items for child in children]

        unasked = sizes()
        assert self.should_split_job(count, MB)
        return [unasked, sizes(), sizes(200)]


class KilledOnce(Counted):
    """Its children save what they have done; one is killed once while it holds 100 MB."""

    on_breach = "resume"
    chunk_size = 2
    adaptive = False

    def handle(self, count: int, failing: list[int] | None = None, pause: float = 0, items: Any = None) -> Any:
        if items is None:
            return self.split_into_child_jobs(range(count))
        for chunk in self.chunks(items):
            if 15 in chunk and redis().incr("killed") == 1:
                block = bytearray(100 * MB)
                time.sleep(0.2)
                os.kill(os.getpid(), len(block) and signal.SIGKILL)
            if set(chunk) & set(failing or ()) and not redis().exists("mended"):
                raise ValueError(f"{chunk} is broken")
        return None


class Tolerant(Counted):
    """Goes on without the children that failed."""

    on_child_failure = "continue"

    def gather(self, results: Any) -> Any:
        return [len(results), len(results.failures), sum(sum(each) for each in results)]


class MendsItself(Tolerant):
    """A child that has failed does not do so again, and RQ retries it."""

    retry = Retry(1)

    def handle(self, count: int, failing: list[int] | None = None, pause: float = 0, items: Any = None) -> Any:
        try:
            return super().handle(count, failing, pause, items)
        except ValueError:
            redis().set("mended", 1)
            raise


class Elsewhere(Counted):
    """Its children wait in another queue."""

    def handle(self, count: int, failing: list[int] | None = None, pause: float = 0, items: Any = None) -> Any:
        if items is None:
            return self.create_child_jobs(range(count), Elsewhere, queue="elsewhere").enqueue()
        return super().handle(count, failing, pause, items)


class Grandparent(Counted):
    """Its children split too."""

    items_per_child = 50

    def handle(self, count: int, failing: list[int] | None = None, pause: float = 0, items: Any = None) -> Any:
        if items is None:
            return self.split_into_child_jobs(range(count))
        return self.create_child_jobs(items, Counted, 20).enqueue()


class SplitOnce(MemoryAwareJob):
    """Killed while it makes children, once."""

    queue = "jobs"

    def handle(self, count: int, items: Any = None) -> Any:
        if items is not None:
            redis().rpush("done", *[item for chunk in self.chunks(items) for item in chunk])
            return None
        children._BATCH = 20
        return self.split_into_child_jobs(Interrupted(0, count), items_per_child=1)


class Interrupted(Range):
    """Kills its process in the middle of being cut, once."""

    def slices(self, *args: Any, **kwargs: Any) -> Any:
        for number, each in enumerate(super().slices(*args, **kwargs)):
            if number == 45 and redis().incr("killed") == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield each


class Halved(MemoryAwareJob):
    """One item of many does not fit."""

    queue = "jobs"
    on_breach = "split"
    on_child_failure = "continue"
    adaptive = False
    chunk_size = 8

    def handle(self, count: int, culprit: int, items: Any = None) -> list[int]:
        def work(chunk: list[int]) -> list[int]:
            block = bytearray(400 * MB) if culprit in chunk else b""
            redis().rpush("done", *chunk)
            return [len(block) + number for number in chunk]

        return self.process_in_chunks(range(count) if items is None else items, work)


class BreachesAtTheEnd(Halved):
    """Its items fit, and what comes after them does not: so many times."""

    def handle(self, count: int, times: int) -> list[int]:  # type: ignore[override]
        done = self.process_in_chunks(range(count), lambda chunk: redis().rpush("done", *chunk) and chunk)
        if redis().incr("ends") <= times:
            grow_blocks()
        return done


class NeverFits(MemoryAwareJob):
    """Breaches in the same way whatever it is given: what it works through are not its items."""

    queue = "jobs"
    on_breach = "split"

    def handle(self, items: Any = None) -> None:
        splitting.MOST_CUTS = 4  # a thousand take a while
        self.process_in_chunks(range(4), lambda chunk: bytearray(400 * MB), 1)


class Leaky(MemoryAwareJob):
    """Leaks slowly enough to be seen, and ends below its ceiling."""

    def handle(self, seconds: float, mb_a_second: float) -> int:
        leak = []
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            while len(leak) < passed * mb_a_second:
                leak.append(bytearray(MB))
            self.check_memory_usage("leaking")
            time.sleep(0.1)
        return len(leak)


class Looked(Counted):
    """Looks at its children before it enqueues them, and takes their sums together two by two."""

    def handle(self, count: int, enqueues: bool = True, items: Any = None) -> Any:
        if items is not None:
            return sum(number for chunk in self.chunks(items) for number in chunk)
        children = self.create_child_jobs(range(count), Looked)
        firsts = [next(iter(child.items.items_after(None)))[0] for child in children]
        redis().rpush("firsts", *firsts)
        if enqueues:
            children.enqueue()
        return "not split"

    def reduce(self, a: int, b: int) -> int:
        redis().rpush("reduced", f"{a}+{b}")
        return a + b

    def gather(self, results: Any) -> Any:
        return MemoryAwareJob.gather(self, results)


def share_all_memory_with_a_child(megabytes: int) -> int:
    """As between vfork(2) and exec, where ``subprocess`` is for a moment; here it lasts a second."""
    block = bytearray(os.urandom(2**20)) * megabytes
    os.waitpid(clone_sharing_memory(1), 0)
    return len(block) // 2**20


def clone_sharing_memory(seconds: int) -> int:
    """The pid of a child that is a process of its own, sleeps, and has no memory but ours (clone(2), CLONE_VM)."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    stack = ctypes.create_string_buffer(2**16)
    STACKS.append(stack)  # it is the child's
    top = ctypes.c_void_p((ctypes.addressof(stack) + 2**16) & ~15)
    clone_vm = 0x100
    return int(libc.clone(libc.sleep, top, clone_vm | signal.SIGCHLD, ctypes.c_void_p(seconds)))


STACKS: list[Any] = []


class Spoilt(Counted):
    """One of its later slices cannot be made, until a key says that it is mended."""

    def handle(self, count: int, failing: list[int] | None = None, pause: float = 0, items: Any = None) -> Any:
        children._BATCH = 2  # one batch is there when the next one cannot be made
        if items is None:
            return self.split_into_child_jobs(CannotBeCut(count))
        return super().handle(count, failing, pause, items)


class CannotBeCut(Range):
    """Cannot be cut to its end, until that is mended."""

    def slices(self, *args: Any, **kwargs: Any) -> Any:
        for each in super().slices(*args, **kwargs):
            if redis().incr("cut") == 4 and not redis().exists("mended"):
                raise SourceError("the file has changed since it was cut")
            yield each


def _become(user: int | None) -> None:
    """Another user; None: not dumpable, as setuid programs are."""
    if user is None:
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    else:
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def grow_in_tail(mb: int, user: int) -> int:
    """A program of the system that any user may run, which keeps so many MB until its input ends."""
    command = ["sh", "-c", f"head --bytes={mb}M /dev/zero | tail | wc --bytes"]
    return subprocess.run(command, user=user, group=user, extra_groups=[], stdout=subprocess.DEVNULL).returncode


def grow_in_a_bare_fork(mb: int, user: int | None = None) -> None:
    """A fork that nobody may examine, which grows."""
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)  # else whoever reads the worker's output waits for us
        os.dup2(null, 2)
        _become(user)
        kept = bytearray(mb * MB)
        time.sleep(60)
        os._exit(len(kept) & 1)
    redis().set("child", child)
    os.waitpid(child, 0)


def be_unexaminable_and_grow() -> None:
    _become(None)
    grow_blocks()


def start_as(user: int, mb: int, dumpable: bool, programs: int, seconds: float) -> int:
    """Holds so many MB and starts short programs by fork and exec; the sum of what they returned.

    ``seconds``: how long each fork waits before it becomes the program, as on a busy machine.
    """
    kept = bytearray(mb * MB)
    if not dumpable:
        _become(None)
    wait = (lambda: time.sleep(seconds)) if seconds else None
    results = [
        subprocess.run(["true"], user=user, group=user, extra_groups=[], preexec_fn=wait).returncode
        for _ in range(programs)
    ]
    return sum(results) + len(kept) - mb * MB


def grow_beside_another_user(user: int) -> None:
    command = ["sleep", "60"]
    null = subprocess.DEVNULL
    with subprocess.Popen(command, user=user, group=user, extra_groups=[], stdout=null, stderr=null) as child:
        redis().set("child", child.pid)
        time.sleep(0.2)
        grow_blocks()


def _use_up_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with contextlib.suppress(OSError):
        while True:
            _kept.append(os.open(os.devnull, os.O_RDONLY))


def _call_chroot() -> None:
    os.chroot(tempfile.mkdtemp())


def _close_all_and_reuse() -> None:
    """As programs do that become daemons; what they open next gets the numbers of what was there."""
    _kept.append(redis())  # else it is closed by itself, and its number free again
    os.closerange(3, 256)
    for _ in range(40):
        file = tempfile.TemporaryFile()  # noqa: SIM115
        file.write(b"the job's own")
        file.flush()
        _kept.append(file)


def _lose_proc() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    mount_namespace, private, lazily = 0x00020000, 1 << 18 | 1 << 14, 2
    assert libc.unshare(mount_namespace) == 0
    assert libc.mount(b"none", b"/", None, private, None) == 0
    assert libc.umount2(b"/proc", lazily) == 0


CUT_OFF = {"descriptors": _use_up_descriptors, "chroot": _call_chroot, "files": _close_all_and_reuse,
           "proc": _lose_proc}  # fmt: skip


def be_cut_off_and_grow(how: str) -> str:
    """What the breach's handler might want to read cannot be read any more."""
    CUT_OFF[how]()
    try:
        grow_blocks()
    except Exception as error:
        return repr(error)
    return ""


class IsCutOff(MemoryAwareJob):
    """Passes checkpoints after that; returns what they read, in MB, and whether its own files are as they were."""

    def handle(self, how: str) -> tuple[list[int], bool]:
        self.check_memory_usage("before")
        CUT_OFF[how]()
        block = bytearray(40 * MB)
        read = [self.check_memory_usage("after") for _ in range(3)]
        own = [each for each in _kept if hasattr(each, "read")]
        whole = all(os.pread(file.fileno(), 100, 0) == b"the job's own" for file in own)
        return [round(each) for each in read], whole and len(block) > 0


def jump(mb: int, key: str) -> None:
    """Uses so much at once, and holds it until it is told to end."""
    held = [bytearray(b"x") * MB for _ in range(mb)]
    redis().set(key, len(held))
    redis().blpop(f"end {key}", 60)


def burst(mb: int, times: int = 1) -> int:
    """Takes so many MB and gives them back at once, which lasts no longer than the kernel needs for it."""
    return sum(len(bytearray(mb * MB)) // MB for _ in range(times))


def burst_in_a_child(mb: int) -> int:
    return subprocess.run([sys.executable, "-c", f"bytearray({mb} << 20)"], check=True).returncode


def with_hooks(hooks: dict[str, str] | None = None) -> str:
    """A job for ``tests.misbehaving_hooks``, which reads the argument."""
    return "done"


class WithHooks(MemoryAwareJob):
    """The same as a class."""

    def handle(self, hooks: dict[str, str] | None = None) -> str:
        return "done"


def enqueue_another() -> None:
    """On the Redis and with the serializer that this job has."""
    WithHooks.enqueue(hooks={})


_SYSV_CREATE = 0o1600


def _segment(mb: int, *, touch: bool = True) -> int:
    """A SysV segment, attached and filled; its id."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = libc.shmget(0, ctypes.c_size_t(mb * MB), _SYSV_CREATE)
    assert number >= 0, os.strerror(ctypes.get_errno())
    if touch:
        libc.shmat.restype = ctypes.c_void_p
        address = libc.shmat(number, None, 0)
        ctypes.memset(address, 1, mb * MB)
        libc.shmdt(ctypes.c_void_p(address))
    return number


def _in_steps(fd: int, mb: int) -> None:
    piece = b"x" * MB
    for _ in range(mb):
        os.write(fd, piece)


def fill_memfds(mb: int) -> None:
    """Many of them, ten MB each."""
    for _ in range(mb // 10):
        _kept.append(os.memfd_create("job"))
        _in_steps(_kept[-1], 10)
    time.sleep(30)


def fill_memfds_in_children(mb: int) -> None:
    """Written by processes that have ended."""
    for _ in range(mb // 10):
        _kept.append(os.memfd_create("job"))
        child = os.fork()
        if child == 0:
            _in_steps(_kept[-1], 10)
            os._exit(0)
        os.waitpid(child, 0)
    time.sleep(30)


def touch_shared_mapping_in_children(mb: int) -> None:
    """A file in /dev/shm without a name, mapped by the horse, filled by processes that have ended."""
    file = tempfile.TemporaryFile(dir="/dev/shm")  # noqa: SIM115
    file.truncate(mb * MB)
    _kept.append(mmap.mmap(file.fileno(), mb * MB))
    file.close()
    view = ctypes.addressof(ctypes.c_char.from_buffer(_kept[-1]))
    for number in range(mb // 10):
        child = os.fork()
        if child == 0:
            ctypes.memset(view + number * 10 * MB, 1, 10 * MB)
            os._exit(0)
        os.waitpid(child, 0)
    time.sleep(30)


def fill_segments(mb: int) -> None:
    """SysV segments, attached by nobody any more. Whoever enqueued this removes them."""
    for _ in range(mb // 10):
        redis().rpush("segments", _segment(10))
    time.sleep(30)


def hold_a_file_of_others(path: str, mb: int) -> int:
    """A large file in /dev/shm that was there before, opened, partly read and written; and some memory of its own."""
    with Path(path).open("r+b") as file:
        file.write(b"a little")
        file.flush()
        block = bytearray(mb * MB)
        own = os.memfd_create("job")
        _in_steps(own, 10)
        time.sleep(0.5)
        return len(file.read(MB)) + len(block)


def keep_a_memfd(mb: int) -> int:
    """Written to, and left open in the horse; how many there are by now."""
    _kept.append(os.memfd_create("job"))
    _in_steps(_kept[-1], mb)
    time.sleep(0.3)
    return len(_kept)


def leave_an_unmapped_file(mb: int, path: str) -> None:
    """Written and closed, before it grows in other ways."""
    with Path(path).open("wb") as file:
        _in_steps(file.fileno(), mb)
    grow_blocks()


class Speechless:
    def __repr__(self) -> str:
        raise ValueError("I have no words")


class Unreadable:
    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("x",)


def returns_odd(what: str) -> Any:
    """What a serializer takes, and JSON or a reader does not."""
    return {"tuple as key": {(1, 2): 3}, "no repr": Speechless(), "unreadable": Unreadable()}[what]
