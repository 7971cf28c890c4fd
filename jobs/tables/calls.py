"""Calls that were made, who made them, and how they sounded."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import Computed, Double, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, composite, mapped_column

from jobs.aggregates import Moments
from jobs.tables.base import Base, utc_now

TranscriptFormat = Literal["text", "json"]
SentimentOutcome = Literal["scored", "empty", "unreadable"]
Voice = Literal["all", "agent", "customer"]


class Agent(Base):
    """Who speaks with customers, a person or a voice of the API."""

    __tablename__ = "agents"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Call(Base):
    """One call and what was said in it.

    ``transcript`` is NULL until it is there, and then final; ``""`` where nobody spoke. As ``text`` it has a line for
    each turn, ``Agent: ...`` or ``User: ...`` (``Customer:`` too); as ``json`` a list of objects with ``role`` and
    ``content``: Retell's ``transcript`` and ``transcript_object``. ``transcript_length`` is in characters; the database
    keeps it, so that nobody has to read a long text to learn that it is long. The text comes last in the row: SQLite
    walks through all that is before a column to read it.
    """

    __tablename__ = "calls"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    agent_id: Mapped[int] = mapped_column(ForeignKey("agents.id"))
    started_at: Mapped[datetime]
    transcript_format: Mapped[TranscriptFormat] = mapped_column(String(8), default="text")
    transcript_length: Mapped[int | None] = mapped_column(Computed("length(transcript)", persisted=True))
    transcript: Mapped[str | None] = mapped_column(Text)


class CallSentiment(Base):
    """How a call sounded; there is one row for each call that was looked at, whatever came of it.

    ``score`` is the mean of its sentences' scores, from -1 (negative) to 1; ``agent_score`` and ``customer_score`` are
    of what one of them said, NULL where that is nothing. All are NULL where there was nothing to score (``empty``) or
    the transcript cannot be read (``unreadable``; ``problem`` says why).
    """

    __tablename__ = "call_sentiments"

    call_id: Mapped[int] = mapped_column(ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True)
    outcome: Mapped[SentimentOutcome] = mapped_column(String(16))
    score: Mapped[float | None] = mapped_column(Double)
    agent_score: Mapped[float | None] = mapped_column(Double)
    customer_score: Mapped[float | None] = mapped_column(Double)
    sentences: Mapped[int] = mapped_column(default=0)
    problem: Mapped[str | None] = mapped_column(String(200))
    scored_at: Mapped[datetime] = mapped_column(default=utc_now)


class AgentSentiment(Base):
    """What is known of an agent's scored calls: of the whole calls (``voice`` is ``all``) and of each side's words.

    ``moments`` has them as `jobs.aggregates.Moments`: ``row.moments.variance``, ``row.moments.slope`` (score per day).
    """

    __tablename__ = "agent_sentiments"

    agent_id: Mapped[int] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True)
    voice: Mapped[Voice] = mapped_column(String(8), primary_key=True)
    count: Mapped[int]
    mean: Mapped[float] = mapped_column(Double)
    squares: Mapped[float] = mapped_column(Double)
    time_mean: Mapped[float] = mapped_column(Double)
    time_squares: Mapped[float] = mapped_column(Double)
    products: Mapped[float] = mapped_column(Double)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)

    moments: Mapped[Moments] = composite("count", "mean", "squares", "time_mean", "time_squares", "products")
