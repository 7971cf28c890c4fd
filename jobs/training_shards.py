"""Prepared rows as files of arrays, which are mapped and not read: made once from the CSV file, read at every pass.

The rows of a shard are sorted by their places (the hashes of their ids), so the n-th part of all rows by place is one
run of rows in each shard. A shard's name is the hash of its contents: the same rows written twice are one file.

Needs numpy, SciPy and scikit-learn: import it where it is used.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack, vstack
from sklearn.feature_extraction import FeatureHasher

from jobs.training_features import PLACES, Row, read_row
from jobs.training_order import Order
from jobs.training_summary import BLOCK_NONZEROS, BLOCK_ROWS, MOST_CLASSES, Moments, Shard, too_many_classes
from jobs.work_files import write_whole
from rqmem.errors import ConfigError

HASHED_AT_ONCE = 100_000  # tokens; some 20 MB as texts
FARTHEST = 5.0  # deviations from the mean; what is farther out counts as that


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows as arrays: of the first three an entry for each; their hashed tokens in compressed sparse row format.

    ``labels``: numbers of classes in `Prepared.classes`. ``numbers``: nan where one is missing.
    """

    places: NDArray[np.uint64]
    labels: NDArray[np.int32]
    numbers: NDArray[np.float64]
    starts: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.places)

    def cut(self, begin: int, end: int) -> Rows:
        """The rows from ``begin`` to before ``end``; nothing is copied but their starts."""
        starts = self.starts[begin : end + 1]
        inside = slice(int(starts[0]), int(starts[-1]))
        return Rows(
            self.places[begin:end], self.labels[begin:end], self.numbers[begin:end],
            starts - starts[0], self.indices[inside], self.values[inside],
        )  # fmt: skip

    def part(self, number: int, parts: int) -> Rows:
        """The rows in the n-th part of all places, which are cut into ``parts`` equal parts."""
        bounds = [number * PLACES // parts, (number + 1) * PLACES // parts - 1]
        begin = int(np.searchsorted(self.places, np.uint64(bounds[0]), side="left"))
        return self.cut(begin, int(np.searchsorted(self.places, np.uint64(bounds[1]), side="right")))

    def hashed(self, features: int) -> Any:
        return csr_matrix((self.values, self.indices, self.starts), shape=(len(self), features))

    def pieces(self) -> Iterator[Rows]:
        """All rows, in pieces that fit into memory."""
        begin, numbers_before = 0, self.starts + np.arange(len(self.starts)) * self.numbers.shape[1]
        while begin < len(self):
            most = numbers_before[begin] + BLOCK_NONZEROS
            fitting = int(np.searchsorted(numbers_before, most, side="right")) - 1
            end = min(max(fitting, begin + 1), begin + BLOCK_ROWS, len(self))
            yield self.cut(begin, end)
            begin = end


@dataclass(frozen=True, eq=False)
class Prepared:
    classes: tuple[str, ...]
    training: Rows
    held_out: Rows


def write_shard(records: Sequence[Mapping[Any, Any]], order: Order, directory: Path) -> Shard:
    """Prepare records of the file and write them into ``directory``.

    Raises:
        ConfigError: a record is not as it should be, or the shard cannot be written.
    """
    rows, tokens = _read(records, order)
    classes = sorted({row.label for row in rows})
    if len(classes) > MOST_CLASSES:
        raise too_many_classes(order)
    by_place = np.argsort(np.array([row.place for row in rows], dtype=np.uint64), kind="stable")
    numbers = {side: [n for n in by_place if rows[n].held_out is side] for side in (False, True)}
    training, held_out = ([rows[n] for n in numbers[side]] for side in (False, True))
    prepared = Prepared(
        tuple(classes),
        as_arrays(training, tokens[np.array(numbers[False], dtype=np.int64)], classes, order),
        as_arrays(held_out, tokens[np.array(numbers[True], dtype=np.int64)], classes, order),
    )
    path = directory / f"{_name(prepared)}.rows"
    if not path.exists():
        write_whole(path, lambda file: joblib.dump(prepared, file))
    return Shard(
        path=str(path),
        training=dict(Counter(row.label for row in training)),
        held_out=dict(Counter(row.label for row in held_out)),
        nonzeros=len(prepared.training.values),
        moments=tuple(
            Moments.of(row.numbers[column] for row in training) for column in range(len(order.columns.numeric))
        ),
    )


def _read(records: Sequence[Mapping[Any, Any]], order: Order) -> tuple[list[Row], Any]:
    """Rows without their tokens, and these hashed: as texts they take ten times as much, so only some are there."""
    rows: list[Row] = []
    hashed: list[Any] = []
    waiting: list[list[tuple[str, float]]] = []
    size = 0
    for record in records:
        row = read_row(record, order)
        rows.append(row._replace(tokens=[]))
        waiting.append(row.tokens)
        size += len(row.tokens)
        if size >= HASHED_AT_ONCE or len(rows) == len(records):
            hashed.append(hashed_tokens(waiting, order.features))
            waiting, size = [], 0
    return rows, vstack(hashed, format="csr")


def open_shard(path: str) -> Prepared:
    """A shard, mapped. Raises `ConfigError`: it is gone."""
    try:
        prepared: Prepared = joblib.load(path, mmap_mode="r")
        with Path(path).open("rb") as file:
            contents = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: these prepared rows are gone, so the training starts over: enqueue it again"
        ) from None
    return replace(
        prepared, training=_within(contents, prepared.training), held_out=_within(contents, prepared.held_out)
    )


def _within(contents: mmap.mmap, rows: Rows) -> Rows:
    """The same arrays in one mapping: joblib makes one for each, which costs more than a small shard's names do."""
    mapped = {name: array for name, array in vars(rows).items() if isinstance(array, np.memmap)}  # others are empty
    views: dict[str, Any] = {
        name: np.frombuffer(contents, array.dtype, array.size, array.offset).reshape(array.shape)
        for name, array in mapped.items()
    }
    return replace(rows, **views)


def as_arrays(rows: Sequence[Row], tokens: Any, classes: Sequence[str], order: Order) -> Rows:
    """``rows`` as they are written, with their hashed tokens."""
    number_of = {name: number for number, name in enumerate(classes)}
    return Rows(
        places=np.array([row.place for row in rows], dtype=np.uint64),
        labels=np.array([number_of[row.label] for row in rows], dtype=np.int32),
        numbers=np.array([row.numbers for row in rows], dtype=np.float64).reshape(
            len(rows), len(order.columns.numeric)
        ),
        starts=tokens.indptr.astype(np.int64),
        indices=tokens.indices.astype(np.int32),
        values=tokens.data,
    )


def hashed_tokens(rows: Sequence[Sequence[tuple[str, float]]], features: int) -> Any:
    """A sparse matrix with ``features`` columns (feature hashing: Weinberger et al. 2009)."""
    if not rows:
        return csr_matrix((0, features), dtype=np.float32)
    return FeatureHasher(n_features=features, input_type="pair", dtype=np.float32).transform(rows)


def joined(parts: Sequence[tuple[Rows, NDArray[np.int32]]]) -> Rows:
    """Runs of rows as one, in the order they come; each with the new number of each of its classes."""
    rows = [part for part, _ in parts]
    offsets = np.cumsum([0, *(len(part.values) for part in rows)])
    starts = [part.starts[1:] + offset for part, offset in zip(rows, offsets[:-1], strict=True)]
    return Rows(
        places=np.concatenate([part.places for part in rows]),
        labels=np.concatenate([numbers[part.labels] for part, numbers in parts]),
        numbers=np.concatenate([part.numbers for part in rows]),
        starts=np.concatenate([np.zeros(1, np.int64), *starts]),
        indices=np.concatenate([part.indices for part in rows]),
        values=np.concatenate([part.values for part in rows]),
    )


def matrix(hashed: Any, numbers: NDArray[np.float64], means: Sequence[float], deviations: Sequence[float]) -> Any:
    """What the learner sees: hashed tokens, then numbers in deviations from their mean, 0 where one is missing."""
    scaled = numbers - np.array(means)
    scaled /= np.array(deviations)
    scaled = np.clip(np.nan_to_num(scaled, copy=False, nan=0.0), -FARTHEST, FARTHEST, out=scaled)
    return hstack([hashed, csr_matrix(scaled)], format="csr", dtype=np.float64)


def _name(prepared: Prepared) -> str:
    digest = blake2b("\0".join(prepared.classes).encode("utf-8", "surrogatepass"), digest_size=16)
    for rows in (prepared.training, prepared.held_out):
        for array in vars(rows).values():
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
