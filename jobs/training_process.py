"""The training step in a process of its own, which belongs to the job: its memory counts, and it ends with the job.

So all memory of the training is given back, and a crash of native code is an error of the job and does not end its
horse. The result is the same as in the job's own process.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from jobs.training_summary import Plan
from rqmem.errors import RqmemError


class Trainer(Protocol):
    """What a job needs of a learner, wherever it runs. See `jobs.training_learner.Learner`."""

    def learn_to(self, done: int) -> None: ...
    def confusion(self) -> list[list[int]]: ...
    def weights(self) -> tuple[Any, Any]: ...


class LearnerProcess:
    """A learner in its own process, from entry to exit of a ``with`` block.

    Args:
        method: ``"fork"``: begins at once, with all modules that the job has; ``"spawn"``: a new Python.

    Raises:
        RqmemError: from its methods, if the process has died. What it had saved is used by the next try.
    """

    def __init__(self, plan: Plan, directory: Path, method: str) -> None:
        context: Any = multiprocessing.get_context(method)
        self._ours, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._ours, plan, directory), name="training", daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        pid: int = self._process.pid
        return pid

    def __enter__(self) -> LearnerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # whatever it has to keep it has saved
        self._process.join()
        self._ours.close()

    def learn_to(self, done: int) -> None:
        self._ask("learn_to", done)

    def confusion(self) -> list[list[int]]:
        answer: list[list[int]] = self._ask("confusion")
        return answer

    def weights(self) -> tuple[Any, Any]:
        answer: tuple[Any, Any] = self._ask("weights")
        return answer

    def _ask(self, method: str, *args: Any) -> Any:
        try:
            self._ours.send((method, args))
            answer, error = self._ours.recv()
        except (EOFError, OSError):
            self._process.join()
            raise RqmemError(
                f"the training process ended with code {self._process.exitcode} in {method}: what it had saved is "
                "there for the next try"
            ) from None
        if error is not None:
            raise error
        return answer


def _serve(theirs: Connection, parents: Connection, plan: Plan, directory: Path) -> None:
    """The process: answers until the job is gone."""
    from jobs.training_learner import Learner

    parents.close()  # else the end of a job that died would not be noticed
    learner: Learner | None = None
    try:
        while True:
            method, args = theirs.recv()
            answer: Any = None
            problem: Exception | None = None
            try:
                learner = learner or Learner(plan, directory)
                answer = getattr(learner, method)(*args)
            except Exception as error:  # noqa: BLE001  the job decides
                problem = error
            theirs.send((answer, problem))
    except (EOFError, OSError):
        os._exit(1)
