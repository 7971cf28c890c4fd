"""What a training is asked to do: from which columns, how classes are balanced, how often the rows are gone through.

Values, checked when they are made. They travel as JSON: as arguments of a job, and to its children.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rqmem.errors import ConfigError

BALANCES = {
    "weights": "each class weighs the same in all",
    "sample": "of each class about as many rows as the rarest has, others at each pass",
    "none": "as they come",
}
PROCESSES = (None, "fork", "spawn")
_LARGEST_SEED = 2**32 - 1  # numpy's
_FEATURES = range(2**8, 2**24 + 1)


@dataclass(frozen=True)
class Columns:
    """What the columns of the file are. Others that it has are not looked at.

    Attributes:
        id: tells the rows apart, and decides which are held out and in which order they are learnt. Rows with the same
            one are held out together.
        label: the class.
        numeric: numbers; an empty field is a missing one.
        categorical: each value is a feature.
        text: each word is a feature.
    """

    id: str
    label: str
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    text: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = self.names
        wrong = [name for name in names if not (isinstance(name, str) and name)]
        if wrong:
            raise ConfigError(f"columns: {wrong[0]!r} is no name of a column")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"columns: {twice[0]!r} is named twice: give each column one use")
        if len(names) == 2:
            raise ConfigError("columns: there is nothing to learn from: name numeric, categorical or text columns")

    @property
    def names(self) -> list[str]:
        return [self.id, self.label, *self.numeric, *self.categorical, *self.text]

    @property
    def learnt(self) -> list[str]:
        """The columns that `Model.predict` needs."""
        return self.names[2:]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Columns:
        """From JSON. Raises `ConfigError` for what is no use of columns."""
        known = [field.name for field in fields(cls)]
        if not isinstance(given, Mapping) or not {"id", "label"} <= set(given) <= set(known):
            raise ConfigError(f"columns is {given!r:.200}: give an object with id, label and {', '.join(known[2:])}")
        lists = {name: given.get(name, ()) for name in known[2:]}
        for name, value in lists.items():
            if not isinstance(value, list | tuple):
                raise ConfigError(f"columns: {name} is {value!r:.80}: give a list of names")
        return cls(given["id"], given["label"], **{name: tuple(value) for name, value in lists.items()})


CALL_OUTCOMES = Columns(
    id="call_id",
    label="outcome",
    numeric=("attempts", "days_since_contact", "contract_months", "monthly_fee"),
    categorical=("country", "language", "product", "weekday", "hour"),
    text=("notes",),
)
"""The company's own: which outcome does a call have?"""


@dataclass(frozen=True)
class Order:
    """One training.

    Attributes:
        rows: path of the CSV file; every worker that takes part must see it there.
        model: path of the model; its directory must be there, and seen by every worker that takes part.
        columns: what the file's columns are.
        balance: what is done about classes of different size, one of `BALANCES`.
        passes: how often the training rows are gone through.
        seed: of the order in which rows are learnt.
        features: how many numbers the words and categories of a row are hashed into.
        process: None: the training step runs in the job's own process; ``"fork"`` or ``"spawn"``: in one that the job
            starts so, and whose memory counts as the job's.
        encoding: of the file.

    Raises:
        ConfigError: one of them cannot be used.
    """

    rows: str
    model: str
    columns: Columns = CALL_OUTCOMES
    balance: str = "weights"
    passes: int = 5
    seed: int = 7
    features: int = 2**16
    process: str | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        for name, path in (("rows", self.rows), ("model", self.model)):
            if not (isinstance(path, str) and path):
                raise ConfigError(f"{name} is {path!r:.80}: give the path of a file")
        model, rows = Path(self.model).absolute(), Path(self.rows).absolute()
        if rows in (model, model.with_name(f"{model.name}.json")):
            raise ConfigError(f"model is {self.model!r}, which would be written over the rows: give another path")
        if self.balance not in BALANCES:
            choices = ", ".join(f"{name!r} ({meaning})" for name, meaning in BALANCES.items())
            raise ConfigError(f"balance is {self.balance!r}: give one of {choices}")
        if self.process not in PROCESSES:
            raise ConfigError(f"process is {self.process!r}: give None (the job's own), 'fork' or 'spawn'")
        _check_whole("passes", self.passes, range(1, 10_001))
        _check_whole("seed", self.seed, range(_LARGEST_SEED + 1))
        _check_whole("features", self.features, _FEATURES)

    @classmethod
    def of(cls, rows: str, model: str, columns: Mapping[str, Any] | None = None, *args: Any, **more: Any) -> Order:
        """From the arguments of a job, or what `to_json` gave. Raises `ConfigError`."""
        return cls(rows, model, CALL_OUTCOMES if columns is None else Columns.of(columns), *args, **more)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _check_whole(name: str, value: Any, allowed: range) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        raise ConfigError(f"{name} is {value!r}: give a whole number from {allowed[0]:,} to {allowed[-1]:,}")
