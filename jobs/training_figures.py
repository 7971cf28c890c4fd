"""How good a classifier is, from its confusion matrix. Pure.

A confusion matrix has a row for each true class, a column for each class that was said. It is all that has to be kept
of the rows that were judged, however many those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Confusion = Sequence[Sequence[int]]


def figures(confusion: Confusion, classes: Sequence[str]) -> dict[str, Any]:
    """The figures of a model, as JSON.

    ``accuracy``: the part of rows with the right class. ``balanced_f1``: the mean of the classes' F1, each of the same
    weight (scikit-learn's ``f1_score(average="macro")``). ``always_the_most_frequent``: what those would be for an
    answer that is always the same.
    """
    total, right = sum(map(sum, confusion)), sum(row[number] for number, row in enumerate(confusion))
    said = [sum(column) for column in zip(*confusion, strict=True)]
    by_class = {
        name: {
            "rows": sum(row),
            "precision": _share(row[number], said[number]),
            "recall": _share(row[number], sum(row)),
            "f1": f1(row[number], sum(row), said[number]),
        }
        for number, (name, row) in enumerate(zip(classes, confusion, strict=True))
    }
    most = max(map(sum, confusion))
    return {
        "accuracy": _share(right, total),
        "balanced_f1": balanced_f1(confusion),
        "always_the_most_frequent": {
            "accuracy": _share(most, total),
            "balanced_f1": f1(most, most, total) / len(classes),
        },
        "classes": by_class,
        "confusion": [list(row) for row in confusion],
    }


def balanced_f1(confusion: Confusion) -> float:
    said = [sum(column) for column in zip(*confusion, strict=True)]
    return sum(f1(row[n], sum(row), said[n]) for n, row in enumerate(confusion)) / len(confusion)


def f1(right: int, true: int, said: int) -> float:
    """The harmonic mean of precision and recall of a class; 0 where nothing of it is right."""
    return 2 * right / (true + said) if right else 0.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
