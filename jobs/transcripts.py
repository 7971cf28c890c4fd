"""What was said in a call, as a stream of sentences with their speakers. Pure: pieces of text in, sentences out.

A transcript is never whole in memory: a piece of it is, and of a JSON transcript a turn. Where the pieces are cut makes
no difference. What cannot be read raises `UnreadableTranscript`, perhaps after sentences were given: half a transcript
may tell the opposite of the whole, so drop those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Literal

from jobs.tables import TranscriptFormat

Speaker = Literal["agent", "customer"]

LONGEST_SENTENCE = 500
"""In characters; what goes on for longer (nobody set a full stop) is cut at a space. A scorer's time is quadratic."""

SPEAKERS: dict[str, Speaker] = {"agent": "agent", "user": "customer", "customer": "customer"}

_LABEL = re.compile(rf"({'|'.join(SPEAKERS)}):\s*", re.IGNORECASE)
_END = re.compile(r"[.!?]+(?=\s)|\n")


class UnreadableTranscript(ValueError):
    """The transcript is not in its format; the message says why, and repeats none of it."""


def spoken(form: TranscriptFormat, pieces: Iterable[str]) -> Iterator[tuple[Speaker | None, str]]:
    """Each sentence with who said it; None: somebody else, or nobody is named.

    Args:
        form: of the transcript; see `jobs.tables.Call`.
        pieces: the transcript, cut anywhere.

    Raises:
        UnreadableTranscript: it is not in that format.
    """
    return _spoken_json(pieces) if form == "json" else _spoken_text(pieces)


def sentences(pieces: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Each sentence, and whether it begins a line."""
    text, begins_line = "", True
    for piece in chain(pieces, "\n"):  # a line's end ends every sentence, so nothing is left over
        text += piece
        begin = 0
        while (end := _end(text, begin)) is not None:
            sentence = text[begin:end].strip()
            if sentence:
                yield sentence, begins_line
            begins_line = text[end - 1] == "\n" or (begins_line and not sentence)
            begin = end
        text = text[begin:]


def _end(text: str, begin: int) -> int | None:
    """Where the sentence ends that begins there; None: more of the text is needed to tell."""
    longest = begin + LONGEST_SENTENCE
    found = _END.search(text, begin, longest)
    if found is not None:
        return found.end()
    if len(text) < longest:
        return None
    space = text.rfind(" ", begin, longest)
    return space + 1 if space > begin else longest


def _spoken_text(pieces: Iterable[str]) -> Iterator[tuple[Speaker | None, str]]:
    speaker: Speaker | None = None
    for sentence, begins_line in sentences(pieces):
        label = _LABEL.match(sentence) if begins_line else None
        if label is not None:
            speaker = SPEAKERS[label[1].lower()]
        said = sentence[label.end() :] if label is not None else sentence
        if said:
            yield speaker, said


def _spoken_json(pieces: Iterable[str]) -> Iterator[tuple[Speaker | None, str]]:
    import ijson  # type: ignore[import-untyped]

    encoded = (piece.encode("utf-8", "replace") for piece in _list_in(pieces))
    first = next(encoded, None)
    if first is None:
        return
    try:
        for number, turn in enumerate(ijson.items(ijson.from_iter(chain((first,), encoded)), "item"), start=1):
            speaker, content = _turn(turn, number)
            for sentence, _ in sentences((content,)):
                yield speaker, sentence
    except ijson.JSONError as error:
        # Further lines of the message show the place, with words of the transcript.
        raise UnreadableTranscript(f"broken JSON: {str(error).splitlines()[0]:.100}") from None


def _list_in(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces without blanks before the list; none where there are only blanks."""
    begun = False
    for piece in pieces:
        rest = piece if begun else piece.lstrip("\ufeff \t\r\n")
        if rest and not begun and not rest.startswith("["):
            raise UnreadableTranscript("its JSON is no list of turns")
        begun = begun or bool(rest)
        if rest:
            yield rest


def _turn(turn: Any, number: int) -> tuple[Speaker | None, str]:
    role = turn.get("role") if isinstance(turn, dict) else None
    if not isinstance(role, str):
        raise UnreadableTranscript(f"turn {number} of its JSON is no object with a role")
    content, speaker = turn.get("content"), SPEAKERS.get(role.lower())
    if speaker is None and content is None:
        return None, ""  # a tool was called, say
    if not isinstance(content, str):
        raise UnreadableTranscript(f"turn {number} of its JSON has no content")
    return speaker, content
