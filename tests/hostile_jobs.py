"""Jobs whose processes, files and code have names that a reader of text may take for something else."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from redis.connection import AbstractConnection

from rqmem.testing import wait_until
from rqmem.units import MB
from tests.sample_jobs import redis

_SET_NAME, _NEW_MOUNTS, _PRIVATE = 15, 0x20000, 0x44000
_NEW_NETWORK, _DROP_CAPABILITY, _NEW_FILES = 0x40000000, 24, 0x400
_libc = ctypes.CDLL(None)
_GROW = "held = [bytearray(b'x') * 2**20 for _ in range(400)]; import time; time.sleep(1)"
_CODE = """
def grow(mb):
    held = []
    for _ in range(mb):
        held.append(bytearray(b"x") * 2**20)
        time.sleep(0.003)
grow(mb)
"""


def _grow(mb: int = 400) -> None:
    held = []
    for _ in range(mb):
        held.append(bytearray(b"x") * MB)
        time.sleep(0.003)
    time.sleep(1)


def _call_yourself(name: bytes) -> None:
    _libc.prctl(_SET_NAME, ctypes.create_string_buffer(name), 0, 0, 0)


def named_like_a_size() -> None:
    """Its line in ``status`` ends as those of sizes do."""
    _call_yourself(b"x kB")
    _grow()


def named_like_another_line() -> None:
    _call_yourself(b"\x0bRssAnon: 1 kB")
    _grow()


def in_a_program_named_like_a_size() -> None:
    name = f"import ctypes; ctypes.CDLL(None).prctl({_SET_NAME}, b'y kB', 0, 0, 0)"
    subprocess.run([sys.executable, "-c", f"{name}; {_GROW}"], check=False)


def maps_a_file_named_like_a_line() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        with Path(directory, "a\x0bz 00: q 00:zz 5 x\x85\u2028").open("w+b") as file:
            file.truncate(400 * MB)
            mapped = mmap.mmap(file.fileno(), 400 * MB)
        for at in range(0, 400 * MB, MB):
            mapped[at : at + MB] = b"x" * MB
            time.sleep(0.003)
        time.sleep(1)


def in_code_of_a_file_with_a_line_end() -> None:
    exec(compile(_CODE, "/app/two\nlines.py", "exec"), {"time": time, "mb": 400})


def in_code_of_a_device() -> None:
    """Whoever reads the file that its code names reads for ever."""
    exec(compile(_CODE, "/dev/zero", "exec"), {"time": time, "mb": 400})


def in_code_of_a_pipe() -> None:
    """Whoever opens the file that its code names waits for ever."""
    with tempfile.TemporaryDirectory() as directory:
        pipe = f"{directory}/pipe"
        os.mkfifo(pipe)
        exec(compile(_CODE, pipe, "exec"), {"time": time, "mb": 400})


def _fill_a_memfd(mb: int = 400) -> None:
    """Written and not mapped."""
    memfd = os.memfd_create("hostile")
    for _ in range(mb):
        os.write(memfd, b"x" * MB)
        time.sleep(0.003)
    time.sleep(1)


def in_files_of_one_thread() -> None:
    """They are in no list of the process's files."""

    def fill() -> None:
        assert _libc.unshare(_NEW_FILES) == 0
        _fill_a_memfd()

    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()


def in_files_of_a_process_without_its_main_thread() -> None:
    child = os.fork()
    if child == 0:
        threading.Thread(target=lambda: (_fill_a_memfd(), os._exit(0))).start()
        time.sleep(0.05)
        _libc.syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)  # exit(2): of this thread only
    os.waitpid(child, 0)


def raises_in_code_of(path: str) -> None:
    """Its traceback names the line of a file that is none."""
    exec(compile("raise ValueError('on purpose')", path, "exec"))


def in_a_tmpfs_of_its_own() -> None:
    """Mounted later than the worker began, and where only this process sees it. Nothing is mapped."""
    with tempfile.TemporaryDirectory() as directory:
        assert _libc.unshare(_NEW_MOUNTS) == 0
        assert _libc.mount(b"none", b"/", None, _PRIVATE, None) == 0
        assert _libc.mount(b"none", directory.encode(), b"tmpfs", 0, None) == 0
        with Path(directory, "file").open("wb", buffering=0) as file:
            for _ in range(400):
                file.write(b"x" * MB)
                time.sleep(0.003)
            time.sleep(1)
        _libc.umount(directory.encode())


def locks_a_file_into_memory() -> None:
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        file.truncate(400 * MB)
        mapped = mmap.mmap(file.fileno(), 400 * MB)
        at = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert _libc.mlock(ctypes.c_void_p(at), ctypes.c_size_t(400 * MB)) == 0
        time.sleep(20)


def honest_with_such_names() -> str:
    """Grows far enough for a line of its code to be written down, and stays below its ceiling."""
    _call_yourself(b"\xff\xfe kB")
    exec(compile(_CODE, "/app/two\nlines.py", "exec"), {"time": time, "mb": 60})
    redis().set("named", 1)
    wait_until(lambda: redis().exists("go on"))
    return "well"


def may_open_no_files(most: int) -> str:
    """Of its own will; ``most``: what it could raise its limit to."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
    return "well"


def grows_and_may_open_no_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    _grow()


def leave_the_network_for_good(directory: str) -> None:
    """No connection that is open stays so, and none can be opened any more, by TCP or by path."""
    _libc.unshare(_NEW_NETWORK)
    os.chroot(directory)
    for each in [found for found in gc.get_objects() if isinstance(found, AbstractConnection)]:
        each.disconnect()
    for number in range(41):
        _libc.prctl(_DROP_CAPABILITY, number, 0, 0, 0)
    none = (ctypes.c_uint32 * 6)()
    assert _libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), none) == 0


def change_root(directory: str) -> str:
    os.chroot(directory)
    return "well"
