"""The learner of `jobs.training` on the same rows, with all of them in memory, as it would be without a ceiling.

Needs numpy and scikit-learn: import it where it is used.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from sklearn.linear_model import SGDClassifier

from jobs.training_features import read_row
from jobs.training_figures import balanced_f1
from jobs.training_learner import ALPHA
from jobs.training_order import Order
from jobs.training_shards import hashed_tokens, matrix
from jobs.training_summary import Moments, balanced


def trained_in_memory(order: Order) -> float:
    """Learn all rows of the file at once. Returns the balanced F1 of the model on those held out."""
    with Path(order.rows).open(newline="", encoding=order.encoding) as file:
        rows = [read_row(record, order) for record in csv.DictReader(file)]
    held_out = np.array([row.held_out for row in rows])
    classes, labels = np.unique([row.label for row in rows], return_inverse=True)
    table = np.array([row.numbers for row in rows])
    moments = [Moments.of(column) for column in table[~held_out].T.tolist()]
    features = matrix(
        hashed_tokens([row.tokens for row in rows], order.features),
        table,
        [each.mean for each in moments],
        [each.deviation for each in moments],
    )
    learnt = labels[~held_out]
    weights, _ = balanced(np.bincount(learnt, minlength=len(classes)).tolist(), order.balance)
    classifier = SGDClassifier(
        loss="log_loss", alpha=ALPHA, average=True, max_iter=order.passes, tol=None, random_state=order.seed
    )
    classifier.fit(features[~held_out], learnt, sample_weight=np.array(weights)[learnt])
    confusion = np.zeros((len(classes),) * 2, dtype=int)
    np.add.at(confusion, (labels[held_out], classifier.predict(features[held_out])), 1)
    return balanced_f1(confusion.tolist())
