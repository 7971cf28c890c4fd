"""The six jobs as the load test runs them: their data, their arguments, and the checks of their outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from jobs.campaign_batches import ProcessRetellAICampaignBatchJob
from jobs.campaigns import ProcessRetellAICampaignJob
from jobs.reminders import SendAppointmentReminderJob
from jobs.sentiment import AnalyzeCallSentimentJob
from jobs.staff import BulkAssignStaffToEventTypesJob
from jobs.training import TrainMLModelJob
from rqmem import MemoryAwareJob
from rqmem.errors import UnknownName
from rqmem.text import did_you_mean
from scripts.load import naive, outcomes
from scripts.load.outcomes import Checked, Place
from seeds.dataset_parts import Wanted

MOST_CALLS = MOST_MESSAGES = 100_000


@dataclass(frozen=True)
class LoadedJob:
    """One of the six.

    Attributes:
        naive: the function that does the same naively, with the same arguments.
        wanted: number of records -> the dataset.
        check: whether every record has its outcome once. ``naive_check``: the same after ``naive``, where it differs.
        needs: modules that the job imports when it runs: its idle horse has them.
        partner: the service it talks to.
        times: records that it gets for each one asked for, since rows of a file are small.
        at_most, naive_at_most: records; what is asked for beyond is not run.
    """

    job_class: type[MemoryAwareJob]
    naive: Callable[..., Any]
    wanted: Callable[[int], Wanted]
    arguments: Callable[[Place], dict[str, Any]]
    check: Callable[[Place, int], Checked]
    needs: tuple[str, ...]
    naive_check: Callable[[Place, int], Checked] | None = None
    partner: Literal["", "retell", "mail"] = ""
    times: int = 1
    at_most: int | None = None
    naive_at_most: int | None = None

    @property
    def name(self) -> str:
        return self.job_class.__name__

    @property
    def ceiling_mb(self) -> float:
        """As its class declares it."""
        assert self.job_class.memory_limit_mb is not None
        return float(self.job_class.memory_limit_mb)

    def records(self, asked: int) -> int:
        """How many records it gets if ``asked`` are asked for."""
        return min(self.times * asked, self.at_most or self.times * asked)

    def naive_records(self, records: int) -> int:
        """How many of these records the naive function gets."""
        return min(records, self.naive_at_most or records)


def _of_campaign(place: Place) -> dict[str, Any]:
    return {"campaign_id": outcomes.campaign_id(place)}


JOBS = (
    LoadedJob(
        ProcessRetellAICampaignJob, naive.campaign, lambda n: Wanted(customers=n), _of_campaign, outcomes.of_campaign,
        ("jobs.campaigns", "retell"), partner="retell", at_most=MOST_CALLS, naive_at_most=10_000,
    ),
    LoadedJob(
        ProcessRetellAICampaignBatchJob, naive.batches, lambda n: Wanted(customers=n), _of_campaign,
        outcomes.of_campaign, ("jobs.campaign_batches", "retell"), partner="retell", at_most=MOST_CALLS,
    ),
    LoadedJob(
        TrainMLModelJob, naive.training, lambda n: Wanted(training_rows=n),
        lambda place: {"rows": str(place.data / "training-rows.csv"), "model": str(place.model)},
        outcomes.of_training, ("jobs.training_learner", "jobs.training_shards"), outcomes.of_naive_training, times=10,
    ),
    LoadedJob(
        SendAppointmentReminderJob, naive.reminders, lambda n: Wanted(appointments=n),
        lambda place: {"types": ["email"]}, outcomes.of_reminders, ("jobs.reminders", "apprise"),
        partner="mail", at_most=MOST_MESSAGES, naive_at_most=20_000,
    ),
    LoadedJob(
        AnalyzeCallSentimentJob, naive.sentiment, lambda n: Wanted(transcripts=n), lambda place: {},
        outcomes.of_sentiment, ("jobs.sentiment", "vaderSentiment.vaderSentiment", "ijson"), naive_at_most=20_000,
    ),
    LoadedJob(
        BulkAssignStaffToEventTypesJob, naive.assignments, lambda n: Wanted(assignments=n),
        lambda place: {"path": str(place.data / "assignments.csv")}, outcomes.of_assignments, ("jobs.staff",),
        outcomes.of_naive_assignments,
    ),
)  # fmt: skip


def named(names: tuple[str, ...]) -> list[LoadedJob]:
    """The jobs of these names, each once; all jobs if there are no names. Raises `UnknownName`."""
    known = {each.name: each for each in JOBS}
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known, f"there are {', '.join(known)}")
            raise UnknownName(f"--jobs {name!r} is none of the six: {hint}")
    return [each for each in JOBS if not names or each.name in names]
