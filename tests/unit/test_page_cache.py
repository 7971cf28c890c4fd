"""What page cache is worth to a group's limit, over any charge; and that nothing hides behind it."""

from __future__ import annotations

from hypothesis import assume, example, given
from hypothesis import strategies as st

from rqmem.policy.page_cache import MUCH_CACHE_BYTES, Charge, judge

MB = 2**20
BASE, SLACK = 160 * MB, MB
sizes = st.integers(0, 2000 * MB)


def charge_of(file: int, anon: int = 0, shmem: int = 0, perhaps: int = 0, kernel: int = 0) -> Charge:
    return Charge(file + anon + shmem + perhaps + kernel, file, anon, shmem, perhaps)


charges = st.builds(charge_of, *[sizes] * 5)
too_much = st.integers(BASE + SLACK + 1, 2000 * MB)
too_large = st.one_of(
    st.builds(charge_of, sizes, too_much, sizes, sizes, sizes),
    st.builds(charge_of, sizes, sizes, too_much, sizes, sizes),
    st.builds(charge_of, sizes, sizes, sizes, sizes, too_much),
)
limits = st.integers(BASE, 4000 * MB)


@given(charges, limits)
@example(charge_of(1000 * MB, anon=BASE), BASE)
@example(charge_of(1, anon=BASE), BASE)
def test_a_job_below_its_limit_is_left_alone(charge: Charge, limit: int) -> None:
    """A little cache gets no room: the kernel drops it at once."""
    assume(charge.held_bytes <= BASE)
    judgement = judge(charge, BASE, limit, SLACK)
    assert not judgement.breach
    assert not judgement.doubt
    has_room = charge.file_bytes >= MUCH_CACHE_BYTES
    assert judgement.limit_bytes >= max(BASE, charge.total_bytes if has_room else charge.held_bytes)


@given(too_large, limits)
@example(charge_of(1000 * MB, shmem=BASE + 2 * MB), 3000 * MB)
@example(charge_of(0, kernel=BASE + 2 * MB), 3000 * MB)
@example(charge_of(0, anon=60 * MB, shmem=60 * MB, kernel=60 * MB), 3000 * MB)
def test_what_cannot_be_dropped_is_a_breach_above_it(charge: Charge, limit: int) -> None:
    assert judge(charge, BASE, limit, SLACK).breach


@given(charges, limits)
def test_only_page_cache_gives_room(charge: Charge, limit: int) -> None:
    judgement = judge(charge, BASE, limit, SLACK)
    assert judgement.limit_bytes >= BASE
    if judgement.doubt:
        assert judgement.limit_bytes == BASE or judgement.limit_bytes < charge.total_bytes
    else:
        assert judgement.limit_bytes <= BASE + 2.5 * charge.file_bytes
        assert charge.file_bytes >= MUCH_CACHE_BYTES or judgement.limit_bytes == BASE


@given(file=sizes, steps=st.lists(st.integers(MB // 4, 16 * MB), max_size=600))
def test_who_cannot_be_told_from_what_can_be_dropped_uses_up_the_room(file: int, steps: list[int]) -> None:
    """A job fills sockets beside page cache, and the kernel keeps the limit: it drops page cache, and nothing else."""
    kernel, limit = 0, BASE + 2 * file
    most = BASE + SLACK + 16 * MB
    for step in steps:
        kernel += step
        file = max(0, min(file, limit - kernel))
        if file + kernel > limit:
            break  # the kernel ends it
        before = limit
        judgement = judge(charge_of(file, perhaps=kernel), BASE, limit, SLACK)
        assert not judgement.breach
        assert judgement.doubt == (kernel > BASE + SLACK)
        limit = judgement.limit_bytes
        if judgement.doubt and limit > BASE:
            assert limit <= before - 2 * (kernel - BASE - SLACK)
    else:
        assert kernel <= max(most, limit)
