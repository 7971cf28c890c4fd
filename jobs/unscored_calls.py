"""Calls without a score as a source, and their transcripts. A few short ones or a piece of a long one are in memory.

A scored call leaves the source. The others keep their places, since they are read and cut by id. So a second run, or
one that resumes after a crash, reads only what is left. Two runs at once are harmless: each may read what the other is
about to score, and `jobs.sentiment` lets only one of them count.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, cast, func, select
from sqlalchemy.orm import Session, defer, load_only, sessionmaker

from jobs.sources import shared_sessions
from jobs.tables import Call, CallSentiment
from rqmem.sources import SqlRows

LONG_CHARACTERS = 100_000
"""A longer transcript is read in pieces of this length. With a million, the holes that such texts leave in the heap
took a tenth more memory after a million calls than after ten thousand."""

AT_ONCE = 5
"""Transcripts in memory at a time."""

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


def transcripts(sessions: sessionmaker[Session], calls: Sequence[Call]) -> Iterator[tuple[Call, Iterable[str]]]:
    """Each call that is still unscored with its transcript in pieces, to be read before the next one is asked for.

    One query, whose rows come a few at a time, and one for each piece of a long transcript. It names where the calls
    begin and end and not each: so its words are the same for any number of them, and drivers that keep statements
    prepared, with the values last bound to them (`jobs.database.PREPARED`), keep one.

    SQLite takes any bytes as text; those that are no UTF-8 are read as question marks.
    """
    short = {call.id: call for call in calls if length(call) <= LONG_CHARACTERS}
    if short:
        with sessions() as session:
            as_bytes = session.get_bind().dialect.name == "sqlite"
            text: Any = cast(Call.transcript, LargeBinary) if as_bytes else Call.transcript
            wanted = select(Call.id, text).where(
                Call.id.between(min(short), max(short)), Call.transcript_length <= LONG_CHARACTERS, UNSCORED
            )
            for call_id, found in session.execute(wanted.execution_options(yield_per=AT_ONCE)):
                if call_id in short:
                    yield short[call_id], (found.decode("utf-8", "replace") if as_bytes else found,)
    for call in calls:
        if length(call) > LONG_CHARACTERS:
            yield call, _pieces(sessions, call.id)


def length(call: Call) -> int:
    return call.transcript_length or 0


def _pieces(sessions: sessionmaker[Session], call_id: int) -> Iterator[str]:
    with sessions() as session:
        in_place = hasattr(session.connection().connection.driver_connection, "blobopen")
    return (_pieces_in_place if in_place else _pieces_cut_off)(sessions, call_id)


def _pieces_in_place(sessions: sessionmaker[Session], call_id: int) -> Iterator[str]:
    """SQLite would have the whole text in memory twice, to cut a piece off; so (Python 3.11) it has pages of it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offset, more = 0, True
    while more:
        with sessions() as session:
            if session.get(Call, call_id, options=[load_only(Call.id)]) is None:
                return
            driver: Any = session.connection().connection.driver_connection
            with driver.blobopen(Call.__tablename__, Call.transcript.key, call_id, readonly=True) as blob:
                blob.seek(offset)
                part = blob.read(LONG_CHARACTERS)
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
