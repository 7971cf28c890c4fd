"""The training step: shards are learnt block by block, in an order that their rows' hashes give, and then judged.

A linear classifier with logistic loss, learnt by stochastic gradient descent and averaged (scikit-learn's
`SGDClassifier`), one against the rest for each class. Blocks have the same rows in the same order whatever the chunks,
the slices or the executions were, so the same plan gives the same weights.

What it has learnt is saved every `SAVE_BLOCKS`, with how far that is: in one file, so the two cannot contradict each
other. An execution that was cut off goes on from there and learns at most `SAVE_BLOCKS` again, with the same result.

Needs numpy, SciPy and scikit-learn: import it where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.linear_model import SGDClassifier

from jobs.training_shards import Prepared, Rows, joined, matrix, open_shard
from jobs.training_summary import Plan
from jobs.work_files import write_whole
from rqmem.errors import ConfigError

SAVE_BLOCKS = 5
ALPHA = 1e-6  # weight of the penalty
_OPEN_SHARDS = 1000  # a few KB each, and one of the 65,530 mappings that Linux allows (vm.max_map_count)


class Learner:
    """A training that continues where an earlier execution stopped.

    Args:
        plan: what to do.
        directory: where it saves what it has learnt.

    Attributes:
        done: blocks learnt, over all passes.
    """

    def __init__(self, plan: Plan, directory: Path) -> None:
        self._plan = plan
        self._saved = directory / f"learner-{plan.key}-{sklearn.__version__}.joblib"
        self._open = lru_cache(_OPEN_SHARDS)(open_shard)
        self._number_of = {name: number for number, name in enumerate(plan.classes)}
        self.done = 0
        self._classifier = SGDClassifier(
            loss="log_loss", alpha=ALPHA, average=True, shuffle=False, random_state=plan.seed
        )
        if self._saved.exists():
            self.done, self._classifier = joblib.load(self._saved)

    def learn_to(self, done: int) -> None:
        """Learn until ``done`` blocks are learnt; does nothing if they are."""
        while self.done < done:
            number, block = divmod(self.done, self._plan.blocks)
            self._learn(number, block)
            self.done += 1
            if self.done % SAVE_BLOCKS == 0 or self.done == self._plan.steps:
                write_whole(self._saved, lambda file: joblib.dump((self.done, self._classifier), file))

    def weights(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A row of weights and an intercept for each class; of two classes for the second alone."""
        return self._classifier.coef_, self._classifier.intercept_

    def confusion(self) -> list[list[int]]:
        """The confusion matrix of the rows held out: `jobs.training_figures`."""
        found = np.zeros((len(self._plan.classes),) * 2, dtype=np.int64)
        for rows in self._held_out():
            np.add.at(found, (rows.labels, self._classifier.predict(self._matrix(rows))), 1)
        return [[int(count) for count in row] for row in found]

    def _learn(self, number: int, block: int) -> None:
        parts = [(shard, shard.training.part(block, self._plan.blocks)) for shard in self._shards()]
        self._check_size(sum(len(rows) for _, rows in parts))
        rows = joined([self._renumbered(*part) for part in parts])
        order = np.argsort(rows.places, kind="stable")
        order = order[self._taken(rows, number)[order]]
        features, labels = self._matrix(rows)[order], rows.labels[order]
        weights = np.array(self._plan.weights)[labels]
        if len(labels):  # row by row inside; each call costs as much as some thousand rows
            classes = np.arange(len(self._plan.classes))
            self._classifier.partial_fit(features, labels, classes, sample_weight=weights)

    def _check_size(self, rows: int) -> None:
        """Raise `ConfigError` for a block that is much larger than others: rows with the same id are in one."""
        plan = self._plan
        if rows > 2 * sum(plan.training) / plan.blocks + 500:
            raise ConfigError(
                f"{plan.rows}: column {plan.id!r} does not tell the rows apart, too many have the same value: name a "
                "column as id that has another one in each row"
            )

    def _taken(self, rows: Rows, number: int) -> NDArray[np.bool_]:
        """Which rows this pass takes: where a class is cut down, each pass another part of it.

        Decided by the lower half of a row's place, since the upper one says when it is learnt.
        """
        rates = np.array(self._plan.rates)[rows.labels]
        drawn = (rows.places % np.uint64(2**32)).astype(np.float64) / 2**32
        taken: NDArray[np.bool_] = (drawn - number * rates) % 1.0 < rates
        return taken

    def _held_out(self) -> Iterator[Rows]:
        for shard in self._shards():
            for piece in shard.held_out.pieces():
                yield joined([self._renumbered(shard, piece)])

    def _shards(self) -> Iterator[Prepared]:
        return map(self._open, self._plan.shards)

    def _renumbered(self, shard: Prepared, rows: Rows) -> tuple[Rows, NDArray[np.int32]]:
        return rows, np.array([self._number_of[name] for name in shard.classes], dtype=np.int32)

    def _matrix(self, rows: Rows) -> Any:
        plan = self._plan
        return matrix(rows.hashed(plan.features), rows.numbers, plan.means, plan.deviations)
