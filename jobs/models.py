"""Trained classifiers as files: saved by `jobs.training`, loaded by those who use a model.

A model is one file of arrays (numpy's ``.npz``) with its metadata in it. Loading it executes nothing, it needs no
certain version of scikit-learn, and weights and metadata cannot contradict each other. Next to it is a JSON file for
people and tools: the same metadata, which run made it and when, and the model's SHA-256.

    model = load_model("outcomes.npz")
    model.predict([{"call_id": "1", "country": "DE", "attempts": "3", ...}])   # -> ["no_answer"]
"""

from __future__ import annotations

import io
import json
import platform
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from jobs.training_features import numbers, tokens
from jobs.training_order import Columns
from jobs.work_files import alone_in, publish, write_draft
from rqmem.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = 1
_LIBRARIES = ("rqmem", "scikit-learn", "numpy", "scipy")


@dataclass(frozen=True, eq=False)
class Model:
    """A linear classifier. ``weights`` and ``intercepts``: a row for each class; of two classes for the second alone.

    ``metadata``: columns, classes, features, figures and all that the training knew, as JSON.
    """

    weights: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    metadata: dict[str, Any]

    def predict(self, records: Iterable[Mapping[Any, Any]]) -> list[str]:
        """The class of each record; those have the columns of the training, but for the class. None is an empty field.

        Raises:
            ConfigError: a column is missing, or a number is none.
        """
        classes = self.metadata["classes"]
        return [classes[number] for number in self._numbers_of_classes(list(records))]

    def _numbers_of_classes(self, records: Sequence[Mapping[Any, Any]]) -> list[int]:
        import numpy as np

        from jobs.training_shards import hashed_tokens, matrix

        if not records:
            return []
        about, columns = self.metadata, Columns.of(self.metadata["columns"])
        try:
            records = [{name: _as_in_a_file(record[name]) for name in columns.learnt} for record in records]
            hashed = hashed_tokens([list(tokens(record, columns)) for record in records], about["features"])
            rows = [numbers(record, columns, "predict") for record in records]
        except KeyError as error:
            raise ConfigError(f"predict: a record has no {error}: it needs all columns of the training") from None
        table = np.array(rows, dtype=np.float64).reshape(len(records), len(columns.numeric))
        scores = matrix(hashed, table, about["means"], about["deviations"]) @ self.weights.T + self.intercepts
        found = scores.argmax(axis=1) if len(self.weights) > 1 else (scores[:, 0] > 0).astype(int)
        return [int(number) for number in found]

    def to_bytes(self) -> bytes:
        """The file. The same model gives the same bytes."""
        import numpy as np

        file = io.BytesIO()
        text = json.dumps({"format": FORMAT, **self.metadata}, ensure_ascii=False)
        np.savez_compressed(file, weights=self.weights, intercepts=self.intercepts, metadata=np.array(text))
        return file.getvalue()


def load_model(path: str | Path) -> Model:
    """Raises `ConfigError`: there is no model there, or none that this version reads."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            metadata = json.loads(str(file["metadata"]))
            model, made_as = Model(file["weights"], file["intercepts"], metadata), metadata.pop("format")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no model: jobs.training.TrainMLModelJob makes one") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is no model: {error}") from None
    if made_as != FORMAT:
        raise ConfigError(f"{path} is a model of another format than {FORMAT}: train it again")
    return model


def save_model(path: Path, model: Model, run: str, trained_at: str, drafts: Path) -> None:
    """Put the model at ``path``, and its JSON next to it, replacing what was there.

    Both are written before either gets its name, so a full disk changes nothing. A kill between the two renames leaves
    a new model with an old JSON, until the killed run continues.

    Args:
        run: which one made it.
        trained_at: ISO 8601.
        drafts: a directory of the same file system.

    Raises:
        ConfigError: it could not be written; what was there is unchanged.
    """
    data = model.to_bytes()
    about = {"model": path.name, "sha256": sha256(data).hexdigest(), "run": run, "trained_at": trained_at}
    text = json.dumps({"format": FORMAT, **about, **model.metadata}, indent=2, ensure_ascii=False) + "\n"
    targets = {path: data, metadata_path(path): text.encode()}
    for target, content in targets.items():
        write_draft(_draft(target, drafts), partial(_write, content), target)
    with alone_in(path.parent):  # else a model and the JSON of another run's could come to lie side by side
        for target in targets:
            publish(_draft(target, drafts), target)


def _as_in_a_file(value: Any) -> str:
    return "" if value is None else str(value)


def _draft(target: Path, drafts: Path) -> Path:
    return drafts / f"{target.name}.draft"


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def saved_by(path: Path, run: str) -> dict[str, Any] | None:
    """The metadata of the model at ``path``, if that run has saved it."""
    try:
        about: dict[str, Any] = json.loads(metadata_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if about.get("run") == run else None


def metadata_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def library_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}
