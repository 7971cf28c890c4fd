"""Calls that nobody has scored yet, as a source, and their transcripts: in memory are a few short ones, or a piece.

A call that is scored leaves the source; the others stay where they are, since they are read and cut by id. So a second
run, or one that goes on after a crash, reads only what is left, and two at once come to no harm: each may read what the
other is about to score, and `jobs.sentiment` sees to it that one of them counts.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, defer, load_only, sessionmaker

from jobs.sources import shared_sessions
from jobs.tables import Call, CallSentiment
from rqmem.sources import SqlRows

BATCH_CHARACTERS = 100_000
"""Of transcripts in memory at a time; a longer one is read in pieces of as many. With a million, the holes that such
texts leave in the heap took a tenth more memory after a million calls than after ten thousand."""

CUT_OFF_CHARACTERS = 1_000_000
"""Of a piece where the database reads the text from its beginning for each: PostgreSQL would take ten times as long."""

UNSCORED: ColumnElement[bool] = ~select(CallSentiment.call_id).where(CallSentiment.call_id == Call.id).exists()


def unscored_calls() -> SqlRows:
    """Calls with a transcript and without a score, by id; their texts are not loaded.

    Raises `ConfigError` as `jobs.sources.shared_sessions`.
    """
    return SqlRows.from_factory("jobs.unscored_calls:unscored_calls_here")


def unscored_calls_here() -> SqlRows:
    """The same, as made in each process that opens a slice of them."""
    calls = select(Call).options(defer(Call.transcript, raiseload=True))
    return SqlRows(shared_sessions(), calls.where(Call.transcript_length.is_not(None), UNSCORED))


def transcripts(sessions: sessionmaker[Session], calls: Iterable[Call]) -> Iterator[tuple[Call, Iterable[str]]]:
    """Each call that is still unscored with its transcript in pieces, to be read before the next one is asked for.

    One query for each `BATCH_CHARACTERS` of text, and for each piece of a longer one.
    """
    for batch in batches(calls, BATCH_CHARACTERS):
        if length(batch[0]) > BATCH_CHARACTERS:
            yield batch[0], _pieces(sessions, batch[0].id)
            continue
        wanted = select(Call.id, Call.transcript).where(Call.id.in_([call.id for call in batch]), UNSCORED)
        with sessions() as session:
            texts = dict(session.execute(wanted).all())
        yield from ((call, (texts.pop(call.id) or "",)) for call in batch if call.id in texts)


def batches(calls: Iterable[Call], most: int) -> Iterator[Sequence[Call]]:
    """The calls, in order, in groups with at most so many characters of transcript; a longer one stands alone."""
    batch: list[Call] = []
    characters = 0
    for call in calls:
        if batch and characters + length(call) > most:
            yield batch
            batch, characters = [], 0
        batch.append(call)
        characters += length(call)
    if batch:
        yield batch


def length(call: Call) -> int:
    """Of its transcript, in characters."""
    return call.transcript_length or 0


def _pieces(sessions: sessionmaker[Session], call_id: int) -> Iterator[str]:
    with sessions() as session:
        in_place = hasattr(session.connection().connection.driver_connection, "blobopen")
    return (_pieces_in_place if in_place else _pieces_cut_off)(sessions, call_id)


def _pieces_in_place(sessions: sessionmaker[Session], call_id: int) -> Iterator[str]:
    """SQLite would have the whole text in memory twice, to cut a piece off; so (Python 3.11) it has pages of it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, more = 0, True
    while more:
        with sessions() as session:
            if session.get(Call, call_id, options=[load_only(Call.id)]) is None:
                return
            driver: Any = session.connection().connection.driver_connection
            with driver.blobopen(Call.__tablename__, Call.transcript.key, call_id, readonly=True) as blob:
                blob.seek(offset)
                part = blob.read(BATCH_CHARACTERS)
                offset += len(part)
                more = offset < len(blob)
        yield decoder.decode(part, final=not more)


def _pieces_cut_off(sessions: sessionmaker[Session], call_id: int) -> Iterator[str]:
    begin = 1
    while True:
        part = select(func.substr(Call.transcript, begin, CUT_OFF_CHARACTERS)).where(Call.id == call_id)
        with sessions() as session:
            piece = session.scalar(part)
        if piece:
            yield piece
        if len(piece or "") < CUT_OFF_CHARACTERS:
            return
        begin += CUT_OFF_CHARACTERS
