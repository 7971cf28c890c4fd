"""Training a classifier from a CSV file of any size: which outcome will a call have?

There are two passes. The first reads the file as a stream; it checks, counts and hashes the rows. Its results are
shards (arrays on disk) and exact sums, so it makes no difference whether one job reads the file or many children read a
slice each. The second pass learns the shards block by block in the order of their rows' hashes, which is a shuffle that
needs no memory. The rows held out judge the result. The same rows give the same model, to the last bit.

A run that is killed can be resumed: preparation after the last finished chunk, training after the last save of the
learner (`jobs.training_learner`), saving from its beginning. There is no RQ Retry, since a failure here needs a person;
``rqmem retry`` then continues. The model is replaced whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.csv_files import check_columns, no_retry_if_unreadable
from jobs.models import Model, library_versions, save_model, saved_by
from jobs.training_features import HELD_OUT
from jobs.training_figures import figures
from jobs.training_order import Order
from jobs.training_process import LearnerProcess
from jobs.training_summary import Plan, Shard, make_plan
from jobs.work_files import WorkDirectory
from rqmem import MemoryAwareJob
from rqmem.errors import ConfigError
from rqmem.sources import CsvFile

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from jobs.training_process import Trainer
    from rqmem.job.gather import Gathered
    from rqmem.sources import Source

Record = dict[Any, Any]
Outcome = dict[str, Any]


class PrepareTrainingRowsJob(MemoryAwareJob):
    """A slice of the file as shards: a child of `TrainMLModelJob`."""

    memory_limit_mb = 1024
    chunk_size = 1000
    on_breach = "resume"
    queue = "training"
    job_timeout = 3600

    def handle(self, order: dict[str, Any], directory: str, items: Source[Record]) -> list[Outcome]:
        return prepare(self, items, Order.of(**order), Path(directory))


class TrainMLModelJob(MemoryAwareJob):
    """Train a classifier on the rows of a CSV file, judge it on rows held out, and save it.

    Arguments: see `jobs.training_order.Order`. Raises `ConfigError` for what a person must mend.
    """

    memory_limit_mb = 1024
    chunk_size = 1000
    bytes_per_item = 10 * 1024
    items_per_child = 50_000
    on_breach = "resume"
    queue = "training"
    job_timeout = 4 * 3600

    def handle(
        self,
        rows: str,
        model: str,
        columns: Mapping[str, Any] | None = None,
        balance: str = Order.balance,
        passes: int = Order.passes,
        seed: int = Order.seed,
        features: int = Order.features,
        process: str | None = Order.process,
        encoding: str = Order.encoding,
    ) -> Outcome | int:
        order = Order.of(rows, model, columns, balance, passes, seed, features, process, encoding)
        work = WorkDirectory(Path(order.model).absolute(), self.run_id)
        if (done := saved_by(work.model, work.run)) is not None:
            return finish(work, done)
        with no_retry_if_unreadable():
            source = CsvFile(order.rows, encoding=order.encoding)
            if next(source.items_after(None), None) is None:
                raise ConfigError(f"{order.rows} has no rows: there is nothing to learn from")
            check_columns(order.rows, order.columns.names, encoding=order.encoding)
            work.make()
            if self.should_split_job(source.count().items or 0):
                kwargs = {"order": order.to_json(), "directory": str(work.path)}
                return self.split_into_child_jobs(source, PrepareTrainingRowsJob, kwargs=kwargs)
        return self.train(order, work, prepare(self, source, order, work.path))

    def gather(self, results: Gathered) -> Outcome:
        order = Order.of(*self.args, **self.kwargs)
        work = WorkDirectory(Path(order.model).absolute(), self.run_id)
        if (done := saved_by(work.model, work.run)) is not None:
            return finish(work, done)
        return self.train(order, work, super().gather(results))

    def train(self, order: Order, work: WorkDirectory, shards: list[Outcome]) -> Outcome:
        """The second pass: learn, judge, save."""
        plan = make_plan(order, [Shard.from_json(each) for each in shards])
        with learner(plan, work.path, order.process) as trainer:

            def learn(steps: list[int]) -> None:
                trainer.learn_to(steps[-1] + 1)
                self.check_memory_usage("training")

            self.process_in_chunks(range(plan.steps), learn, chunk_size=1, collect=False)
            trainer.learn_to(plan.steps)  # the cursor may be ahead of what a killed run had saved
            about = metadata(order, plan, trainer.confusion())
            model = Model(*trainer.weights(), about)
        save_model(work.model, model, work.run, datetime.now(timezone.utc).isoformat(), drafts=work.path)
        self.check_memory_usage("model_saving")
        return finish(work, about)


def prepare(job: MemoryAwareJob, rows: Source[Record], order: Order, directory: Path) -> list[Outcome]:
    """The first pass: rows as shards in ``directory``, and what is known of each."""
    require_scikit_learn()
    from jobs.training_shards import write_shard

    def write(records: list[Record]) -> Outcome:
        shard = write_shard(records, order, directory)
        job.check_memory_usage("data_preparation")
        return shard.to_json()

    with no_retry_if_unreadable():
        return job.process_in_chunks(rows, write)


def learner(plan: Plan, directory: Path, process: str | None) -> AbstractContextManager[Trainer]:
    """Here, or in a process of its own."""
    require_scikit_learn()
    if process is not None:
        return LearnerProcess(plan, directory, process)
    from jobs.training_learner import Learner

    return nullcontext(Learner(plan, directory))


def metadata(order: Order, plan: Plan, confusion: list[list[int]]) -> Outcome:
    """The metadata of a model, as JSON: what it needs to predict, what it was made of, how good it is."""
    return {
        "columns": asdict(order.columns),
        "classes": list(plan.classes),
        "features": plan.features,
        "means": list(plan.means),
        "deviations": list(plan.deviations),
        "rows": {
            "file": order.rows,
            "training": dict(zip(plan.classes, plan.training, strict=True)),
            "held_out": dict(zip(plan.classes, plan.held_out, strict=True)),
            "held_out_part": HELD_OUT,
        },
        "balance": order.balance,
        "passes": order.passes,
        "seed": order.seed,
        "figures": figures(confusion, plan.classes),
        "versions": library_versions(),
    }


def finish(work: WorkDirectory, about: Outcome) -> Outcome:
    """The model is saved: tidy up, and say how good it is."""
    work.remove()
    told = {name: about["figures"][name] for name in ("accuracy", "balanced_f1", "always_the_most_frequent")}
    rows = {name: sum(about["rows"][name].values()) for name in ("training", "held_out")}
    return {"model": str(work.model), "rows": rows, **told}


def require_scikit_learn() -> None:
    """Raise `ConfigError` where it is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"training needs scikit-learn ({error}): pip install 'rqmem[ml]'") from None
