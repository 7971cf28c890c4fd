"""What the worker reads from the page of a horse that takes jobs by itself."""

from __future__ import annotations

from rqmem.worker.lease_watch import InHand
from rqmem.worker.shared_memory import SharedPage


def test_the_job_in_hand_is_the_one_that_the_page_names() -> None:
    page = SharedPage.new(0)
    page.begin_leased(b"a", b"yesterday", b"run 1", "low", "jobs.act", 180)
    assert InHand.on(page) == InHand(page.seq, "a", "yesterday", "run 1", "low", page.began_at)


def test_nobody_waits_for_ever_for_a_horse_that_died_while_it_wrote_down_its_next_job() -> None:
    page = SharedPage.new(0)
    page.begin_leased(b"a", b"yesterday", b"run 1", "low", "jobs.act", 180)
    page.seq += 1
    assert InHand.on(page) is None
    assert InHand.left_on(page).job_id == "a"
