"""What was said in a call, as a stream of sentences with their speakers. Pure: pieces of text in, sentences out.

Only a piece of a transcript is in memory; of a JSON transcript, a turn. It makes no difference where the pieces are
cut. A transcript that cannot be read raises `UnreadableTranscript`, perhaps after some sentences. Drop those: half a
transcript may say the opposite of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Literal

from jobs.tables import TranscriptFormat

Speaker = Literal["agent", "customer"]

LONGEST_SENTENCE = 500
"""In characters. A longer sentence (one without a full stop) is cut at a space: scoring takes quadratic time."""

SPEAKERS: dict[str, Speaker] = {"agent": "agent", "user": "customer", "customer": "customer"}

_LABEL = re.compile(rf"\ufeff?({'|'.join(SPEAKERS)}):\s*", re.IGNORECASE)
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
    # As floats: of an integer of some thousand digits ijson's C code crashes.
    events = ijson.basic_parse(ijson.from_iter(chain((first,), encoded)), use_float=True)
    try:
        for number, turn in enumerate(_turns(events), start=1):
            speaker, content = _turn(turn, number)
            for sentence, _ in sentences((content,)):
                yield speaker, sentence
    except (ijson.JSONError, UnicodeDecodeError) as error:  # the latter of half a character
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


def _turns(events: Iterable[tuple[str, Any]]) -> Iterator[dict[str, Any] | None]:
    """Role and content of each turn; None: it is no object. What else is in it is read past, however deep it lies.

    ``ijson.items`` builds all of it, with the path to each thing: for 40 KB of brackets it took 1 GB.
    """
    depth, key = 0, ""
    turn: dict[str, Any] | None = None
    for event, value in events:
        begins = event in ("start_array", "start_map")
        if event in ("end_array", "end_map"):
            depth -= 1
        elif event == "map_key":
            key = value if depth == 2 else key
        elif depth == 1:
            turn = {} if event == "start_map" else None
        elif depth == 2 and turn is not None and key in ("role", "content"):
            turn[key] = value  # None for what is no scalar
        depth += begins
        if depth == 1 and event != "start_array":
            yield turn


def _turn(turn: dict[str, Any] | None, number: int) -> tuple[Speaker | None, str]:
    role = turn.get("role") if turn is not None else None
    if turn is None or not isinstance(role, str):
        raise UnreadableTranscript(f"turn {number} of its JSON is no object with a role")
    content, speaker = turn.get("content"), SPEAKERS.get(role.lower())
    if speaker is None and content is None:
        return None, ""  # a tool was called, say
    if not isinstance(content, str):
        raise UnreadableTranscript(f"turn {number} of its JSON has no content")
    return speaker, content
