"""The six jobs as the load test runs them: their data, their arguments, and the checks of their outcome. Values only.

``pace`` is what a thousand records took on two cores of a virtual machine. It serves to estimate how long a load test
takes, and decides nothing.
"""

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
from scripts.load.fixed import FixedAssignments, FixedCampaign, FixedReminders, FixedSentiment
from scripts.load.fixed_training import FixedTraining
from scripts.load.outcomes import Checked, Place
from seeds.dataset_parts import Wanted

MOST_CALLS = MOST_MESSAGES = 100_000


@dataclass(frozen=True)
class LoadedJob:
    """One of the six.

    Attributes:
        fixed_class: the same job with chunks of one size; None: its own chunks are of one size.
        wanted: number of records -> the dataset.
        arguments: of the job, and of the function that does the same naively.
        check: whether every record has its outcome once.
        needs: modules that the job imports when it runs: its idle horse has them.
        partner: the service it talks to.
        times: records that it gets for each one asked for, since rows of a file are small.
        at_most, naive_at_most: records; what is asked for beyond is not run.
        pace, naive_pace: seconds for a thousand records.
    """

    job_class: type[MemoryAwareJob]
    fixed_class: type[MemoryAwareJob] | None
    naive: Callable[..., Any]
    wanted: Callable[[int], Wanted]
    arguments: Callable[[Place], dict[str, Any]]
    naive_arguments: Callable[[Place], dict[str, Any]]
    check: Callable[[Place, int], Checked]
    naive_check: Callable[[Place, int], Checked]
    needs: tuple[str, ...]
    pace: float
    naive_pace: float
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


def _nothing(place: Place) -> dict[str, Any]:
    return {}


def _of_training(place: Place) -> dict[str, Any]:
    return {"rows": str(place.data / "training-rows.csv"), "model": str(place.model)}


def _of_assignments(place: Place) -> dict[str, Any]:
    return {"path": str(place.data / "assignments.csv")}


JOBS = (
    LoadedJob(
        ProcessRetellAICampaignJob, FixedCampaign, naive.campaign, lambda n: Wanted(customers=n),
        _of_campaign, _of_campaign,
        outcomes.of_campaign, outcomes.of_campaign, ("jobs.campaigns", "retell"), 2.0, 2.0,
        "retell", at_most=MOST_CALLS, naive_at_most=10_000,
    ),
    LoadedJob(
        ProcessRetellAICampaignBatchJob, None, naive.batches, lambda n: Wanted(customers=n), _of_campaign, _of_campaign,
        outcomes.of_campaign, outcomes.of_campaign, ("jobs.campaign_batches", "retell"), 1.0, 1.0,
        "retell", at_most=MOST_CALLS,
    ),
    LoadedJob(
        TrainMLModelJob, FixedTraining, naive.training, lambda n: Wanted(training_rows=n), _of_training, _of_training,
        outcomes.of_training, outcomes.of_naive_training, ("jobs.training_learner", "jobs.training_shards"), 0.25, 0.25,
        times=10,
    ),
    LoadedJob(
        SendAppointmentReminderJob, FixedReminders, naive.reminders, lambda n: Wanted(appointments=n),
        lambda place: {"types": ["email"]}, _nothing,
        outcomes.of_reminders, outcomes.of_reminders, ("jobs.reminders", "apprise"), 6.0, 4.0,
        "mail", at_most=MOST_MESSAGES, naive_at_most=20_000,
    ),
    LoadedJob(
        AnalyzeCallSentimentJob, FixedSentiment, naive.sentiment, lambda n: Wanted(transcripts=n), _nothing, _nothing,
        outcomes.of_sentiment, outcomes.of_sentiment, ("jobs.sentiment", "vaderSentiment.vaderSentiment", "ijson"),
        0.6, 3.0, naive_at_most=20_000,
    ),
    LoadedJob(
        BulkAssignStaffToEventTypesJob, FixedAssignments, naive.assignments, lambda n: Wanted(assignments=n),
        _of_assignments, _of_assignments,
        outcomes.of_assignments, outcomes.of_naive_assignments, ("jobs.staff",), 1.5, 0.5,
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
