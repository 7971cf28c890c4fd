"""Jobs of a project that reports to Sentry; importing this sets Sentry up, as a project's settings do."""

from __future__ import annotations

import os
import signal
from typing import Any

import sentry_sdk

from rqmem import MemoryAwareJob
from tests.misbehaving_hooks import greedy_in_c

sentry_sdk.init(dsn=os.environ["TEST_DSN"], traces_sample_rate=0.0)


def ok() -> int:
    return 1


def boom(password: str) -> None:
    raise ValueError("boom")


def greedy() -> None:
    rows: list[Any] = []
    while True:
        rows.append([str(number) for number in range(10_000)])


def greedy_in_native_code() -> None:
    greedy_in_c()


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tagged(tag: str) -> None:
    sentry_sdk.set_tag("tenant", tag)
    sentry_sdk.add_breadcrumb(message=f"crumb of {tag}")


def message() -> None:
    sentry_sdk.capture_message("a message", level="error")


class Resumed(MemoryAwareJob):
    """Its first chunk breaches once, the next execution ends well."""

    on_breach = "resume"
    chunk_size = 4

    def handle(self) -> int:
        return len(self.process_in_chunks(range(8), self.work, adaptive=False))

    def work(self, chunk: list[int]) -> list[int]:
        if len(chunk) == 4:
            greedy()
        return chunk


class Parent(MemoryAwareJob):
    def handle(self, items: Any = None) -> Any:
        if items is None:
            return self.split_into_child_jobs(range(3), items_per_child=1)
        for chunk in self.chunks(items):
            if 1 in chunk:
                raise ValueError("bad item")
        return None
