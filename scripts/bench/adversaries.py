"""Jobs that use more memory than they may, each in its own way."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading

MB = 2**20


def nothing() -> None: ...


def lists() -> None:
    rows = []
    while True:
        rows.append([0] * 1000)


def dicts() -> None:
    rows = []
    while True:
        rows.append({str(number): number for number in range(100)})


def blocks_of_1_mb() -> None:
    blocks = []
    while True:
        blocks.append(bytearray(MB))


def one_block() -> None:
    bytearray(1500 * MB)


def growing_text() -> None:
    text = "x" * MB
    while True:
        text += text[:MB]


def memset_in_c() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    size = ctypes.c_size_t(1500 * MB)
    libc.memset(ctypes.c_void_p(libc.malloc(size)), 1, size)


def four_threads() -> None:
    threads = [threading.Thread(target=blocks_of_1_mb, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def subprocess_in_a_new_session() -> None:
    code = "x = []\nwhile True: x.append(bytearray(2**20))"
    subprocess.run([sys.executable, "-c", code], start_new_session=True, check=False)


def bare_except_in_a_loop() -> None:
    blocks = []
    while True:
        try:
            while True:
                blocks.append(bytearray(MB))
        except:  # noqa: E722
            blocks.append(b"swallowed")


ALL = [
    lists, dicts, blocks_of_1_mb, one_block, growing_text, memset_in_c, four_threads,
    subprocess_in_a_new_session, bare_except_in_a_loop,
]  # fmt: skip
