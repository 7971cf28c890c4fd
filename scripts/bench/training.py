"""``python -m scripts.bench.training``: a model trained from a file of a million rows, and what it costs.

The file is made up, a real worker trains from it in one job, real workers train from it in children, and a process of
its own trains the same learner with all rows in memory, as it would be written without a ceiling. Ends with 1 when a
peak is above the job's ceiling, when the model is worse than the one from memory by more than 0.02 of balanced F1, or
when one job and its children made different models. ``--rows 20000`` is short; may be given several times.
"""

from __future__ import annotations

import csv
import math
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import click

from jobs.models import load_model, metadata_path
from jobs.training import TrainMLModelJob
from jobs.training_features import read_row
from jobs.training_figures import balanced_f1
from jobs.training_order import Order
from jobs.training_summary import Moments, balanced
from rqmem.connection import connect, embedded
from rqmem.testing import wait_until
from rqmem.worker import linux
from scripts.bench.worker_runs import QUEUE, Running
from seeds.training_rows import write_csv

MOST_WORSE = 0.02
CEILING_MB = TrainMLModelJob.memory_limit_mb
_SEED = 7
_LONGEST_SECONDS = 4 * 3600


@dataclass(frozen=True)
class Trained:
    """What one way of training came to. ``model``: a hash of it; empty: none was saved."""

    way: str
    seconds: float
    peak_mb: float
    balanced_f1: float
    accuracy: float = math.nan
    model: str = ""


@click.command()
@click.option("--rows", "counts", type=click.IntRange(1000), multiple=True, default=[1_000_000], show_default=True)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="That share the children.")
@click.option("--passes", type=click.IntRange(1), default=Order.passes, show_default=True, help="Over the rows.")
@click.option("--skip-memory", is_flag=True, help="Do not train in memory, which takes 2 GB for a million rows.")
def main(counts: tuple[int, ...], workers: int, passes: int, skip_memory: bool) -> None:
    """Print the table."""
    outside: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = embedded.start(folder)
        linux.become_subreaper()  # after the server, which is not to become our child
        os.environ["RQMEM_REDIS_URL"] = server.url
        try:
            for count in counts:
                outside += measure(folder, count, workers, passes, in_memory_too=not skip_memory)
        finally:
            embedded.stop(folder)
    click.echo("\nall within the budget" if not outside else "\noutside the budget:\n  " + "\n  ".join(outside))
    sys.exit(1 if outside else 0)


def measure(folder: Path, count: int, workers: int, passes: int, *, in_memory_too: bool) -> list[str]:
    """All ways with so many rows; what is outside the budget."""
    path = folder / f"rows-{count}.csv"
    with click.progressbar(length=count, label=f"{count:,} rows", hidden=not sys.stderr.isatty()) as bar:
        write_csv(path, _SEED, count, on_rows=bar.update)
    size = path.stat().st_size / 2**20
    click.echo(f"\n{count:,} rows, {size:.0f} MB; a ceiling of {CEILING_MB:.0f} MB; {passes} passes\n")
    click.echo(f"{'way':<28}{'seconds':>9}{'peak MB':>9}{'balanced F1':>13}{'accuracy':>10}")
    order = Order(str(path), str(folder / f"model-{count}.npz"), passes=passes)
    found = []
    for way in ("one job", "children"):
        found.append(trained_by_workers(way, replace(order, model=f"{order.model}.{way[:3]}"), workers))
        show(found[-1])
    if in_memory_too:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            found.append(process.submit(trained_in_memory, order).result())
        show(found[-1])
    path.unlink()
    return [f"{count:,} rows: {fault}" for fault in faults(found)]


def show(trained: Trained) -> None:
    """A line of the table."""
    figures = f"{trained.seconds:>9.1f}{trained.peak_mb:>9.0f}{trained.balanced_f1:>13.4f}{trained.accuracy:>10.4f}"
    click.echo(f"{trained.way:<28}{figures}")


def faults(found: list[Trained]) -> list[str]:
    """What is outside the budget."""
    by_jobs, in_memory = found[:2], found[2:]
    said = [
        f"{each.way}: {each.peak_mb:.0f} MB, {CEILING_MB:.0f} allowed" for each in by_jobs if each.peak_mb > CEILING_MB
    ]
    said += [
        f"{each.way}: balanced F1 {each.balanced_f1:.4f}, {other.balanced_f1:.4f} in memory"
        for each in by_jobs
        for other in in_memory
        if other.balanced_f1 - each.balanced_f1 > MOST_WORSE
    ]
    if len({each.model for each in by_jobs}) > 1:
        said.append("one job and its children made different models")
    return said


def trained_by_workers(way: str, order: Order, workers: int) -> Trained:
    """By one job, or by its children on so many workers where the job would split by itself."""
    connection = connect.connect()
    os.environ["JOB_AUTO_SPLIT_ENABLED"] = "true" if way == "children" else "false"
    arguments = {"rows": order.rows, "model": order.model, "passes": order.passes}
    job = TrainMLModelJob.enqueue(QUEUE, connection=connection, **arguments)
    command = ["rqmem", "worker", QUEUE, "--memory", f"{CEILING_MB:.0f}", "--log-level", "error"]
    began = time.perf_counter()
    running = [Running(command) for _ in range(workers if way == "children" else 1)]
    try:
        wait_until(lambda: job.get_status() in ("finished", "failed"), _LONGEST_SECONDS)
        seconds = time.perf_counter() - began
    finally:
        for worker in running:
            worker.terminate()
        ended = [worker.finish() for worker in running]
    if job.get_status() == "failed":
        raise click.ClickException(ended[0].last_line)
    progress = TrainMLModelJob.progress(job.id, connection)
    split = f"{progress.total} children, {workers} workers" if progress.total and progress.total > 1 else "one job"
    about = load_model(order.model).metadata["figures"]
    digest = metadata_path(Path(order.model)).read_text(encoding="utf-8").partition('"sha256": "')[2][:64]
    return Trained(split, seconds, progress.peak_mb, about["balanced_f1"], about["accuracy"], digest)


def trained_in_memory(order: Order) -> Trained:
    """The same learner on the same rows, all of them in memory."""
    import numpy as np
    from sklearn.linear_model import SGDClassifier

    from jobs.training_learner import ALPHA
    from jobs.training_shards import hashed_tokens, matrix

    began = time.perf_counter()
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
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    accuracy = float(np.trace(confusion) / confusion.sum())
    return Trained("all in memory", time.perf_counter() - began, peak_mb, balanced_f1(confusion.tolist()), accuracy)


if __name__ == "__main__":
    main()
