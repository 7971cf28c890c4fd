"""Streams of made-up rows: what holds for each of them. What is special about one is tested where its rows are used."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from seeds.appointments import appointments
from seeds.assignments import assignments, event_types, staff
from seeds.blocks import BLOCK
from seeds.customers import customers
from seeds.training_rows import training_rows
from seeds.transcripts import transcripts

STREAMS: tuple[Any, ...] = (customers, appointments, staff, event_types, assignments, training_rows, transcripts)
FIRST, COUNT = BLOCK - 180, 250  # over the end of a block, and before the first very long transcript


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.__name__)
def test_a_stream_is_decided_by_its_seed_and_the_same_wherever_it_begins(stream: Any) -> None:
    whole = list(stream(7, COUNT, FIRST))
    assert len(whole) == COUNT
    for skipped, count in ((0, 0), (1, COUNT - 1), (179, 3), (180, 70), (181, 2)):
        assert list(stream(7, count, FIRST + skipped)) == whole[skipped : skipped + count]
    assert list(stream(8, COUNT, FIRST)) != whole or stream is event_types


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.__name__)
def test_nothing_is_made_before_it_is_asked_for(stream: Any) -> None:
    assert len(list(islice(stream(7, 10**8), 2))) == 2
