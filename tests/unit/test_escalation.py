"""Which ceiling follows a breach, and which one a job type had better begin with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem import MemoryAwareJob, memory_aware
from rqmem.errors import ConfigError
from rqmem.policy import escalation
from rqmem.policy.after_breach import Attempt, GiveUp, Resume, decide
from rqmem.policy.escalation import Needed, Step, begin_with, needed_mb, next_step, to_declare, usual_mb
from rqmem.policy.recommendation import Day, Recommendation, TypeHistory, recommend

MBS = st.integers(1, 5000).map(float)
STEPS = st.lists(MBS, min_size=1, max_size=6, unique=True).flatmap(
    lambda mbs: st.tuples(*(st.builds(Step, st.just(mb), st.sampled_from(["", "big"])) for mb in sorted(mbs)))
)
ALLOWED = st.none() | MBS
COUNTS = st.dictionaries(MBS, st.integers(1, 100).map(float), min_size=1, max_size=5)


@given(STEPS, MBS, ALLOWED)
def test_a_job_takes_each_step_at_most_once_whatever_its_workers_allow(
    steps: tuple[Step, ...], ceiling_mb: float, allowed_mb: float | None
) -> None:
    asked_mb, taken = 0.0, []
    while (step := next_step(steps, ceiling_mb, asked_mb, allowed_mb)) is not None:
        taken.append(asked_mb := step.ceiling_mb)
        assert step.queue or allowed_mb is None or step.ceiling_mb <= allowed_mb
        assert step.ceiling_mb > ceiling_mb
        # A worker that does not allow the step runs the job under its own ceiling: that one is breached next.
        ceiling_mb = max(ceiling_mb, step.ceiling_mb if allowed_mb is None else min(step.ceiling_mb, allowed_mb))
    assert taken == sorted(set(taken)) and len(taken) <= len(steps)


@given(STEPS, MBS)
def test_a_worker_that_allows_any_ceiling_keeps_the_job_in_its_queue(
    steps: tuple[Step, ...], ceiling_mb: float
) -> None:
    step = next_step(steps, ceiling_mb, 0.0, None)
    assert step is None or (step.queue == "" and step.ceiling_mb == min(
        each.ceiling_mb for each in steps if each.ceiling_mb > ceiling_mb
    ))  # fmt: skip


def test_a_step_that_is_neither_allowed_nor_has_a_queue_is_passed_over() -> None:
    steps = (Step(512), Step(2048, "big"))
    assert next_step(steps, 256, 0, allowed_mb=256) == Step(2048, "big")
    assert next_step(steps, 256, 0, allowed_mb=1024) == Step(512)
    assert next_step((Step(512),), 256, 0, allowed_mb=256) is None


@given(STEPS)
def test_steps_survive_being_written(steps: tuple[Step, ...]) -> None:
    assert escalation.read(escalation.written(steps)) == steps
    assert escalation.read("") == ()


@given(COUNTS)
def test_the_usual_ceiling_is_enough_for_half_of_the_runs_and_the_next_lower_one_is_not(
    counts: dict[float, float],
) -> None:
    usual, total = usual_mb(counts), sum(counts.values())
    if total < escalation.FEWEST_RUNS:
        assert usual is None
        return
    assert usual is not None
    assert 2 * sum(count for mb, count in counts.items() if mb <= usual) >= total
    assert 2 * sum(count for mb, count in counts.items() if mb < usual) < total


@given(st.lists(MBS, min_size=1, max_size=5, unique=True).map(sorted), COUNTS, ALLOWED)
def test_a_job_begins_with_one_of_its_ceilings_that_the_worker_allows(
    ceilings: list[float], counts: dict[float, float], allowed_mb: float | None
) -> None:
    chosen = begin_with(ceilings, counts, allowed_mb)
    assert chosen is None or (chosen in ceilings[1:] and (allowed_mb is None or chosen <= allowed_mb))


@given(st.lists(MBS, min_size=1, max_size=5), MBS)
def test_what_a_run_needed_holds_its_peak(ceilings: list[float], peak_mb: float) -> None:
    needed = needed_mb(ceilings, peak_mb)
    assert (needed is None) == (peak_mb > max(ceilings))
    assert needed is None or needed >= peak_mb


def test_what_to_declare_is_said_with_the_share_of_runs_that_needed_it() -> None:
    assert to_declare({256.0: 8, 512.0: 80, 2048.0: 12}, 256) == Needed(512.0, 0.92)
    assert to_declare({256.0: 60, 512.0: 40}, 256) is None
    assert to_declare({512.0: 9}, 256) is None, "too few"


def test_escalation_spends_no_resume_and_ends_with_the_last_ceiling() -> None:
    attempt = Attempt(
        True, began=False, chunk_size=1, progressed=False, spent=99, escalates=True, steps=(Step(512),), ceiling_mb=256
    )
    assert decide("breach", attempt, 30) == Resume(1, cost=0, step=Step(512))
    last = Attempt(
        True, began=False, chunk_size=1, progressed=False, spent=0, escalates=True, steps=(Step(512),), ceiling_mb=512
    )
    assert decide("breach", last, 30) == GiveUp("512 MB is the last ceiling of escalate_to")


def test_a_recommendation_takes_the_runs_that_escalated_for_what_they_needed_in_the_end() -> None:
    history = TypeHistory([Day(0.1, {300: 40.0})], 1.0, 160, declared_mb=96, needed={160.0: 37, 96.0: 3})
    found = recommend(history, 0.8)
    assert isinstance(found, Recommendation)
    assert "it escalates, and 92% of runs needed 160 MB or more" in found.evidence


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"escalate_to": ()}, "escalate_to is empty, and on_breach is 'escalate'"),
        ({"escalate_to": 512}, "escalate_to is 512: give the next ceilings in MB, lowest first"),
        ({"escalate_to": "512"}, "escalate_to is '512': give"),
        ({"escalate_to": (512, 256)}, "has 256 MB after 512 MB: each ceiling must be higher"),
        ({"escalate_to": (512, (512, "big"))}, "has 512 MB after 512 MB"),
        ({"escalate_to": (200, 512)}, "begins with 200 MB, and memory_limit_mb is 256"),
        ({"escalate_to": ("512",)}, "a ceiling of .* is '512': give a number of MB"),
        ({"escalate_to": (None,)}, r"has \(None,\): give"),
        ({"escalate_to": (True,)}, "is True: give a number of MB"),
        ({"escalate_to": ((512, ""),)}, "names the queue '' for 512 MB"),
        ({"escalate_to": ((512, 3),)}, "names the queue 3 for 512 MB"),
        ({"escalate_to": ((512, "big", 1),)}, "give the next ceilings"),
        ({"escalate_to": (float("nan"),)}, "give a number of MB"),
    ],
)
def test_a_list_that_cannot_be_used_is_one_clear_error(attributes: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        type("Wrong", (MemoryAwareJob,), {"memory_limit_mb": 256, "on_breach": "escalate", **attributes})
    with pytest.raises(ConfigError, match=error.removeprefix("escalate_to ")):
        memory_aware(256, on_breach="escalate", **attributes)(lambda: None)  # type: ignore[arg-type]


def test_a_function_cannot_go_on_in_chunks() -> None:
    with pytest.raises(ConfigError, match="is 'resume': give 'fail' or 'escalate'; only a class can work in chunks"):
        memory_aware(256, on_breach="resume")(lambda: None)


def test_a_subclass_may_fail_where_its_base_escalates() -> None:
    base = type("Base", (MemoryAwareJob,), {"memory_limit_mb": 256, "on_breach": "escalate", "escalate_to": (512,)})
    heavy = type("Heavy", (base,), {"memory_limit_mb": 1024, "on_breach": "fail"})
    assert heavy._steps() == () and base._steps() == (Step(512.0),)
