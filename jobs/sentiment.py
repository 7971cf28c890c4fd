"""How calls sound, and how their agents do: scores of transcripts, and running figures for each agent.

A call's score and its contribution to its agent's figures are written in one transaction. It contributes only if the
score is new. The database decides that (by a unique key), and merges the contribution into the figures as they are at
that moment. So a call counts once, whether a worker dies before, in or after the transaction, or two workers score it
at the same time. No older calls of an agent are read. The price: if a call is deleted later, the figures keep its
contribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, TypedDict, get_args

from rq import Retry
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from jobs.aggregates import Moments, all_merged, merged
from jobs.sentiment_scores import CallScore, analyzer, changes, score_call
from jobs.sources import shared_sessions
from jobs.statements import counts, insert_into
from jobs.tables import AgentSentiment, Call, CallSentiment, SentimentOutcome
from jobs.unscored_calls import transcripts, unscored_calls
from rqmem import MemoryAwareJob
from rqmem.job.gather import Gathered
from rqmem.sources import Cuttable


class Summary(TypedDict):
    """All calls that were ever processed, by outcome; mean, variance and trend (score per day) of those scored."""

    scored: int
    empty: int
    unreadable: int
    agents: int
    mean: float | None
    variance: float | None
    trend: float | None


class AnalyzeCallSentimentJob(MemoryAwareJob):
    """Score every call that has a transcript and no score yet, and bring its agent's figures up to date.

    Held at a time are a few short transcripts or a piece of a long one (`jobs.unscored_calls`), and a turn of one in
    JSON.
    """

    memory_limit_mb = 256
    chunk_size = 100
    bytes_per_item = 5 * 1024
    on_breach = "resume"
    queue = "analysis"
    job_timeout = 3600
    retry = Retry(max=3, interval=[30, 120, 600])

    def handle(self, *, items: Cuttable[Call] | None = None) -> Summary | None:
        analyzer()
        self.sessions = shared_sessions()
        unscored = unscored_calls()
        if items is None and self.should_split_job(unscored.count().items or 0):
            self.split_into_child_jobs(unscored)
            return None
        self.process_in_chunks(unscored if items is None else items, self.score_all, collect=False)
        return summary(self.sessions) if items is None else None

    def gather(self, results: Gathered) -> Summary:
        return summary(shared_sessions())

    def score_all(self, calls: list[Call]) -> None:
        scores = [score_call(call, pieces) for call, pieces in transcripts(self.sessions, calls)]
        self.check_memory_usage("sentiment_analysis")
        record(self.sessions, scores)
        self.check_memory_usage("metrics_updates")


def record(sessions: sessionmaker[Session], scores: Sequence[CallScore]) -> int:
    """Write the scores that are new and their contribution to the agents' figures. Returns how many were new.

    These are two statements for a thousand rows. In every process rows come in the order of their keys, calls before
    agents, so that two processes never wait for each other in a circle.
    """
    with sessions.begin() as session:
        new = _insert_new(session, sorted(scores, key=lambda score: score.call_id))
        _merge_in(session, changes(score for score in scores if score.call_id in new))
    return len(new)


def _insert_new(session: Session, scores: Sequence[CallScore]) -> set[int]:
    """Insert scores of calls that have none, and wait for other transactions that do so. Returns the ids inserted."""
    if not scores:
        return set()
    rows = [
        {
            "call_id": each.call_id,
            "outcome": each.outcome,
            "score": each.scores.get("all"),
            "agent_score": each.scores.get("agent"),
            "customer_score": each.scores.get("customer"),
            "sentences": each.sentences,
            "problem": each.problem,
        }
        for each in scores
    ]
    statement = insert_into(session, CallSentiment).on_conflict_do_nothing().returning(CallSentiment.call_id)
    return set(session.scalars(statement, rows))


def _merge_in(session: Session, added: dict[tuple[Any, Any], Moments]) -> None:
    """`merged`, computed by the database within the row, so that no contribution is lost."""
    if not added:
        return
    names = [each.name for each in fields(Moments)]
    insert = insert_into(session, AgentSentiment)
    there = Moments(*(getattr(AgentSentiment, name) for name in names))
    together = merged(there, Moments(*(insert.excluded[name] for name in names)))
    statement = insert.on_conflict_do_update(
        index_elements=["agent_id", "voice"],
        set_={**vars(together), "updated_at": insert.excluded.updated_at},
    )
    rows = [{"agent_id": agent, "voice": voice, **asdict(added[agent, voice])} for agent, voice in sorted(added)]
    session.execute(statement.returning(AgentSentiment.agent_id), rows)  # without RETURNING, a statement for each row


def summary(sessions: sessionmaker[Session]) -> Summary:
    """What all runs together have found, gathered from the agents' figures."""
    with sessions() as session:
        of = counts(session, CallSentiment.outcome, get_args(SentimentOutcome))
        agents = select(AgentSentiment).where(AgentSentiment.voice == "all").order_by(AgentSentiment.agent_id)
        known = [agent.moments for agent in session.scalars(agents)]
    total = all_merged(known)
    return {
        "scored": of["scored"],
        "empty": of["empty"],
        "unreadable": of["unreadable"],
        "agents": len(known),
        "mean": total.mean if total else None,
        "variance": total.variance if total else None,
        "trend": total.slope if total else None,
    }
