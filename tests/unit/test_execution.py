"""The states of an execution: any order of events, and a horse that dies between any two of its steps.

`World` plays both processes. The horse's program is a list of steps, each one store or one commit. The worker sees
only the page, and acts on the instructions of `rqmem.worker.execution` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem.worker.execution import (
    MOST_ORDERS,
    Ended,
    Event,
    Instruction,
    Overdue,
    Phase,
    State,
    after,
    ordered_again,
)
from rqmem.worker.shared_memory import SharedPage

STATES = st.builds(
    State,
    st.sampled_from(Phase),
    in_hooks=st.booleans(),
    breached=st.booleans(),
    recorded=st.booleans(),
    orders=st.integers(1, MOST_ORDERS),
)
EVENTS = st.one_of(
    st.sampled_from(Event),
    st.builds(Overdue, st.booleans()),
    st.builds(Ended, st.booleans(), st.booleans(), st.booleans()),
)
OUTCOMES = {Instruction.ORDER_AGAIN, Instruction.SETTLE, Instruction.REPORT_HOOK, Instruction.RECORD_BREACH}


@given(STATES, EVENTS)
def test_an_exception_is_raised_in_user_code_only(state: State, event: Event | Overdue | Ended) -> None:
    _, instructions = after(state, event)
    if Instruction.RAISE in instructions or Instruction.SIGNAL in instructions:
        assert state.in_user_code


@given(STATES, EVENTS)
def test_a_horse_that_waits_for_redis_outside_user_code_is_not_killed(
    state: State, event: Event | Overdue | Ended
) -> None:
    _, instructions = after(state, event)
    if Instruction.KILL in instructions:
        assert isinstance(event, Overdue)
        assert state.in_user_code or not event.redis_away


@given(STATES, EVENTS)
def test_one_event_has_one_consequence_for_the_outcome(state: State, event: Event | Overdue | Ended) -> None:
    _, instructions = after(state, event)
    assert len(OUTCOMES.intersection(instructions)) <= 1
    assert not OUTCOMES.intersection(instructions) or isinstance(event, Ended)


@given(STATES, EVENTS)
def test_an_outcome_is_final(state: State, event: Event | Overdue | Ended) -> None:
    done, _ = after(replace(state, phase=Phase.DONE), event)
    assert done.phase is Phase.DONE


@given(st.lists(st.sampled_from(Event)))
def test_an_event_writes_one_field_of_the_page(events: list[Event]) -> None:
    """So one store is enough, and a horse that dies in it leaves the state before or after it."""
    page = SharedPage.new(0)
    for event in events:
        before = page.state
        new, _ = after(before, event)
        page.advance(event)
        assert page.state == new
        written = (before.phase, before.in_hooks) != (new.phase, new.in_hooks)
        assert not written or (before.phase is new.phase) != (before.in_hooks is new.in_hooks)


def test_a_page_that_was_emptied_says_that_nothing_has_begun() -> None:
    page = SharedPage.new(7)
    page.advance(Event.TAKEN)
    page.advance(Event.ENTERED)
    assert page.in_user_code
    page.reset(7)
    assert page.state == State()


@pytest.mark.parametrize(
    ("events", "phase"),
    [
        ([Event.TAKEN, Event.ENTERED, Event.LEFT, Event.COMMITTED], Phase.DONE),
        ([Event.TAKEN, Event.ENTERED, Event.BREACHED], Phase.BREACHED),
        ([Event.TAKEN, Event.ENTERED, Event.BREACHED, Event.SIGNALLED], Phase.UNWINDING),
        ([Event.TAKEN, Event.ENTERED, Event.LEFT, Event.FAILING], Phase.FAILING),
        ([Event.TAKEN, Event.ENTERED, Event.LEFT, Event.DECLINED, Event.COMMITTED], Phase.DECLINED),
        ([Event.TAKEN, Event.ENTERED, Event.LEFT, Event.SPOILED, Event.ENTERED, Event.LEFT], Phase.SPOILED),
        ([Event.TAKEN, Event.ENTERED, Event.LEFT, Event.COMMITTED, Event.ENTERED], Phase.DONE),
        ([Event.TAKEN, Event.ENTERED, Event.LEFT, Event.SIGNALLED], Phase.SETTLING),
    ],
)
def test_the_path_of_an_execution(events: list[Event], phase: Phase) -> None:
    page = SharedPage.new(0)
    for event in events:
        page.advance(event)
    assert page.state.phase is phase


# Two processes


@dataclass
class World:
    """One job, the page it shares, and its outcomes in Redis.

    ``fenced`` as in Redis: who records an outcome must find the execution unsettled.
    """

    page: SharedPage = field(default_factory=lambda: SharedPage.new(0))
    outcomes: list[str] = field(default_factory=list)
    raised_outside: int = 0
    in_code_of_users: bool = False

    def commit(self, outcome: str) -> None:
        if not self.outcomes:
            self.outcomes.append(outcome)

    def signal(self) -> bool:
        """The breach signal arrives. Whether the handler raises."""
        raises = Instruction.RAISE in self.page.advance(Event.SIGNALLED)
        self.raised_outside += raises and not self.in_code_of_users
        return raises


Step = Callable[[World], None]


def event(which: Event) -> Step:
    return lambda world: world.page.advance(which) and None


def inside(world: World) -> None:
    world.in_code_of_users = True


def outside(world: World) -> None:
    world.in_code_of_users = False


def code_of_users() -> list[Step]:
    # The page says so before the code begins, and still says so when it has ended: an exception may be raised a
    # moment early or late, inside `run_user_code`, which is ready for it.
    return [inside, event(Event.ENTERED), lambda world: None, event(Event.LEFT), outside]


ENDS: dict[str, list[Step]] = {
    "finished": [lambda world: world.commit("finished"), event(Event.COMMITTED)],
    "failed": [event(Event.FAILING), lambda world: world.commit("failed"), event(Event.COMMITTED)],
    "goes on": [lambda world: world.commit("goes on"), event(Event.COMMITTED)],
    "declined": [event(Event.DECLINED), event(Event.COMMITTED)],
    "spoiled": [event(Event.SPOILED), event(Event.COMMITTED)],
}


@dataclass(frozen=True)
class Life:
    """What happens on one horse: how the job ends, and at which steps somebody interferes; -1: never."""

    ends: str
    hooks: bool
    dies_at: int
    breached_at: int
    signalled_at: int
    stopped_at: int
    horses_fault: bool

    def steps(self) -> list[Step]:
        hooks = code_of_users() if self.hooks else []
        return [event(Event.TAKEN), *code_of_users(), *ENDS[self.ends], *hooks]


LAST = 20
MOMENTS = st.integers(-1, LAST)
LIVES = st.builds(
    Life,
    st.sampled_from(sorted(ENDS)),
    hooks=st.booleans(),
    dies_at=MOMENTS,
    breached_at=MOMENTS,
    signalled_at=MOMENTS,
    stopped_at=MOMENTS,
    horses_fault=st.booleans(),
)


def run(life: Life, world: World) -> tuple[bool, bool]:
    """Play one horse. Whether it ended without a report, and whether somebody asked to stop the job."""
    unwound = False
    for number, step in enumerate(life.steps()):
        if life.breached_at == number and not unwound:
            world.page.advance(Event.BREACHED)
        if life.signalled_at == number and world.page.breached and world.signal():
            unwound = True
        if life.stopped_at == number or life.dies_at == number:  # who stops a job kills its horse
            return True, life.stopped_at == number
        step(world)
    return False, False


def play(lives: Iterator[Life]) -> tuple[World, int]:
    """The worker orders the job until its execution is settled; returns how many horses that took."""
    world, state, horses = World(), State(), 0
    for life in lives:
        horses += 1
        world.page.reset(0)
        world.in_code_of_users = False
        lost, stopped = run(life, world)
        state, instructions = after(
            replace(world.page.state, orders=state.orders), Ended(lost, stopped, life.horses_fault)
        )
        if Instruction.SETTLE in instructions:
            world.commit("settled by the worker")
            state, _ = after(state, Event.SETTLED)
        if Instruction.ORDER_AGAIN not in instructions:
            break
        assert not world.outcomes, "a job whose outcome is recorded was ordered again"
        state = ordered_again(state)
    else:
        return world, -1
    assert state.phase is Phase.DONE
    return world, horses


@given(st.lists(LIVES, min_size=1, max_size=6))
def test_each_execution_has_one_outcome_wherever_its_horses_die(lives: list[Life]) -> None:
    world, horses = play(iter(lives))
    assert world.raised_outside == 0
    if horses > 0:
        assert len(world.outcomes) == 1, "lost"
    else:
        assert not world.outcomes, "each horse so far was the wrong one: the job waits for the next"


@given(LIVES)
def test_a_job_that_is_stopped_is_not_ordered_again(life: Life) -> None:
    state, instructions = after(State(), Ended(lost=True, stopped=True, horses_fault=life.horses_fault))
    assert instructions == (Instruction.SETTLE,)
    for phase in (Phase.DECLINED, Phase.SPOILED):
        state, instructions = after(State(phase), Ended(lost=False, stopped=True))
        assert instructions == (Instruction.SETTLE,), "its horse had reported before the stop came"
        assert state.phase is Phase.LOST


@pytest.mark.parametrize("phase", [Phase.DECLINED, Phase.SPOILED])
def test_a_job_that_was_on_the_wrong_horse_is_ordered_again(phase: Phase) -> None:
    for lost in (False, True):
        state, instructions = after(State(phase), Ended(lost))
        assert instructions == (Instruction.ORDER_AGAIN,)
        assert ordered_again(state) == State()


def test_a_job_is_ordered_from_a_few_horses_that_die_idle_and_then_fails() -> None:
    life = Life("finished", hooks=False, dies_at=0, breached_at=-1, signalled_at=-1, stopped_at=-1, horses_fault=False)
    world, horses = play(iter([life] * (MOST_ORDERS + 1)))
    assert horses == MOST_ORDERS
    assert world.outcomes == ["settled by the worker"]


@pytest.mark.parametrize("phase", [Phase.TAKEN, Phase.SETTLING, Phase.FAILING])
def test_a_breach_outside_user_code_raises_nothing(phase: Phase) -> None:
    state, instructions = after(State(phase), Event.BREACHED)
    assert instructions == ()
    assert state.breached
    assert after(state, Event.SIGNALLED) == (state, ())


# A lease: many jobs on one page


@dataclass
class LeaseWorld:
    """The jobs of a lease, each with the number under which it stands on the page, and what becomes of them."""

    page: SharedPage = field(default_factory=lambda: SharedPage.new(0))
    began: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)  # on the page
    in_hand: int = -1
    committed: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    back: list[int] = field(default_factory=list)

    def commit(self) -> None:
        self.committed += [number for number in self.finished if number not in self.committed]

    def steps(self, jobs: int, fails_at: int, commits_after: int) -> Iterator[Callable[[], object]]:
        """What the horse does, one store or one commit at a time."""
        page = self.page
        yield lambda: page.advance(Event.LEASED)
        for number in range(jobs):
            yield lambda number=number: page.begin_leased(b"%d" % number, b"", b"", "", "", -1)  # type: ignore[misc]
            yield lambda number=number: setattr(self, "in_hand", number)  # type: ignore[misc]
            yield lambda: page.advance(Event.ENTERED)
            yield lambda number=number: self.began.append(number)  # type: ignore[misc]
            yield lambda: page.advance(Event.LEFT)
            if number == fails_at:
                yield lambda: page.advance(Event.FAILING)
                yield lambda number=number: self.failed.append(number)  # type: ignore[misc]
                yield lambda: page.advance(Event.COMMITTED)
                return
            # In one step: an entry counts once it is there, and the page says so next.
            yield lambda number=number: (self.finished.append(number), page.advance(Event.FINISHED))  # type: ignore[misc]
            if number >= commits_after:
                yield self.commit


@given(
    jobs=st.integers(1, 4),
    fails_at=st.integers(-1, 4),
    commits_after=st.integers(0, 4),
    dies_at=st.integers(0, 40),
    stopped=st.booleans(),
)
def test_of_a_lease_each_job_ends_once_or_goes_back_wherever_its_horse_dies(
    jobs: int, fails_at: int, commits_after: int, dies_at: int, stopped: bool
) -> None:
    world = LeaseWorld()
    world.page.leased = True
    lost = False
    for number, step in enumerate(world.steps(jobs, fails_at, commits_after)):
        if number == dies_at:
            lost = True
            break
        step()
    _, instructions = after(world.page.state, Ended(lost, stopped))
    if not lost:  # the horse has committed and given back by itself
        assert Instruction.GIVE_BACK not in instructions
        world.commit()
    assert (Instruction.GIVE_BACK in instructions) == lost
    if Instruction.GIVE_BACK in instructions:
        world.commit()
    if Instruction.SETTLE in instructions and world.in_hand not in world.failed:
        world.failed.append(world.in_hand)
    world.back = [each for each in range(jobs) if each not in (*world.committed, *world.failed)]
    assert not set(world.committed) & set(world.failed), "a job has two outcomes"
    assert not set(world.back) & set(world.began), "a job whose code has run would run again"
    assert set(world.finished) == set(world.committed), "a job that has finished is lost"
    assert set(world.failed) <= {world.in_hand}, "a job is charged with another's end"


def test_a_hook_that_ends_the_horse_of_a_lease_is_reported() -> None:
    state = State(Phase.FINISHED, in_hooks=True, leased=True)
    assert after(state, Ended(lost=True))[1] == (Instruction.GIVE_BACK, Instruction.REPORT_HOOK)


def test_a_horse_with_exit_code_0_in_the_middle_of_a_job_is_lost() -> None:
    assert after(State(Phase.RUNNING), Ended(lost=False))[1] == (Instruction.SETTLE,)
