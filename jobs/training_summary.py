"""What is known of the rows after the first pass, shard by shard and all together; and the training that follows. Pure.

Sums are exact (every float is a fraction), so they do not depend on how the rows were cut: a training that was split
is the same to the last bit as one that was not.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from hashlib import blake2b
from typing import Any

from jobs.training_order import Order
from rqmem.errors import ConfigError

MOST_CLASSES = 100  # each costs its own weights
BLOCK_ROWS = 20_000  # are in memory at a time while training
BLOCK_NONZEROS = 4_000_000  # of a block, where rows are long or have many columns: 50 MB
_UNIT_BITS = 1074  # each finite float is a whole multiple of 2**-1074 (IEEE 754 double precision)


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of numbers, exact."""

    count: int = 0
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)

    @classmethod
    def of(cls, values: Iterable[float]) -> Moments:
        """Of finite numbers; nan is none."""
        count = total = squares = 0
        for value in values:
            if not math.isnan(value):
                numerator, denominator = value.as_integer_ratio()
                units = numerator << (_UNIT_BITS + 1 - denominator.bit_length())
                count, total, squares = count + 1, total + units, squares + units * units
        return cls(count, Fraction(total, 1 << _UNIT_BITS), Fraction(squares, 1 << 2 * _UNIT_BITS))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """0 where there are no numbers."""
        return float(self.total / self.count) if self.count else 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation of the numbers; 1 where all are the same, since they are divided by it."""
        if not self.count:
            return 1.0
        return math.sqrt(self.squares / self.count - (self.total / self.count) ** 2) or 1.0

    def to_json(self) -> list[Any]:
        return [self.count, str(self.total), str(self.squares)]

    @classmethod
    def from_json(cls, values: list[Any]) -> Moments:
        return cls(int(values[0]), Fraction(values[1]), Fraction(values[2]))


@dataclass(frozen=True)
class Shard:
    """What is known of one file of prepared rows.

    Attributes:
        path: of the file.
        training, held_out: rows by class.
        nonzeros: hashed numbers of the training rows.
        moments: of the numeric columns, in the training rows.
    """

    path: str
    training: dict[str, int]
    held_out: dict[str, int]
    nonzeros: int
    moments: tuple[Moments, ...]

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "moments": [each.to_json() for each in self.moments]}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Shard:
        return cls(**{**fields, "moments": tuple(Moments.from_json(each) for each in fields["moments"])})


@dataclass(frozen=True)
class Plan:
    """A training, decided: the same plan on the same shards gives the same model.

    Attributes:
        rows, id: path of the file, and the column that tells its rows apart, for the person who has to mend it.
        shards: paths, in the order of the file.
        classes: sorted.
        training, held_out: rows by class, in their order.
        weights: of a row, by class.
        rates: which part of a class's rows a pass takes, by class.
        means, deviations: of the numeric columns.
        blocks: number of blocks that the training rows are cut into, by the hash of their ids. One is in memory at a
            time.
        passes, seed, features: as ordered.
    """

    rows: str
    id: str
    shards: tuple[str, ...]
    classes: tuple[str, ...]
    training: tuple[int, ...]
    held_out: tuple[int, ...]
    weights: tuple[float, ...]
    rates: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    blocks: int
    passes: int
    seed: int
    features: int

    @property
    def steps(self) -> int:
        """Blocks to learn, over all passes."""
        return self.passes * self.blocks

    @property
    def key(self) -> str:
        return blake2b(json.dumps(asdict(self)).encode(), digest_size=12).hexdigest()


def make_plan(order: Order, shards: Sequence[Shard]) -> Plan:
    """The training that ``order`` asks for, of these rows.

    Raises:
        ConfigError: nothing can be learnt from them, or the result could not be judged.
    """
    training: Counter[str] = Counter()
    held_out: Counter[str] = Counter()
    moments = [Moments()] * len(order.columns.numeric)
    for shard in shards:
        training.update(shard.training)
        held_out.update(shard.held_out)
        moments = [one + other for one, other in zip(moments, shard.moments, strict=True)]
    classes = tuple(sorted({*training, *held_out}))
    _check(order, classes, training, held_out)
    rows = training.total()
    nonzeros = sum(shard.nonzeros for shard in shards) + rows * len(order.columns.numeric)
    weights, rates = balanced([training[name] for name in classes], order.balance)
    return Plan(
        rows=order.rows,
        id=order.columns.id,
        shards=tuple(shard.path for shard in shards),
        classes=classes,
        training=tuple(training[name] for name in classes),
        held_out=tuple(held_out[name] for name in classes),
        weights=weights,
        rates=rates,
        means=tuple(each.mean for each in moments),
        deviations=tuple(each.deviation for each in moments),
        blocks=max(math.ceil(rows / BLOCK_ROWS), math.ceil(nonzeros / BLOCK_NONZEROS)),
        passes=order.passes,
        seed=order.seed,
        features=order.features,
    )


def balanced(counts: Sequence[int], balance: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Weight of a row and rate at which rows are taken, by class. ``counts`` are the rows of each class.

    Weights are rows / (classes * rows of the class), as scikit-learn's ``class_weight="balanced"`` has them (King and
    Zeng 2001). A class that no training row has gets 0.
    """
    there = [count for count in counts if count]
    ones = tuple(1.0 for _ in counts)
    if balance == "weights":
        return tuple(sum(there) / (len(there) * count) if count else 0.0 for count in counts), ones
    if balance == "sample":
        return ones, tuple(min(there) / count if count else 0.0 for count in counts)
    return ones, ones


def too_many_classes(order: Order) -> ConfigError:
    """The error for a column that is no label."""
    return ConfigError(
        f"{order.rows}: column {order.columns.label!r} has more than {MOST_CLASSES} different values, "
        "so it names no classes: name another column as label"
    )


def _check(order: Order, classes: Sequence[str], training: Counter[str], held_out: Counter[str]) -> None:
    if len(classes) > MOST_CLASSES:
        raise too_many_classes(order)
    where = f"{order.rows}: {training.total() + held_out.total():,} rows"
    if len(classes) == 1:
        raise ConfigError(f"{where}, all with {order.columns.label}={classes[0]!r}: two classes at least are needed")
    if len(training) < 2 or not held_out:
        raise ConfigError(
            f"{where} are too few: {training.total()} to learn from, of {len(training)} classes, "
            f"and {held_out.total()} held out to judge by"
        )
