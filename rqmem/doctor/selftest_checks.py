"""What the self-test means: facts in, findings out. Pure."""

from __future__ import annotations

from rqmem.doctor.selftest import SECONDS, NotTested, SelfTest, Tried
from rqmem.observe.problems import Finding
from rqmem.units import show_mb

_UNWINDS_WITHIN_MB = 8.0  # DESIGN.md, budgets: above the ceiling, and above the reserve
_HORSE_WITHIN_MS = 100.0  # ten times the budget: the machine may be busy
_WHO = {"checkpoint": "its checkpoint", "watch": "the watcher", "kill": "a kill", "kernel": "the kernel"}


def check_self_test(facts: SelfTest | NotTested) -> list[Finding]:
    """How accurately a ceiling is kept here, and whether honest jobs are let be."""
    if isinstance(facts, NotTested):
        advice = "run it where it is possible; until then it is not known how accurately ceilings are kept here"
        return [Finding("skipped", "note", facts.why, advice)]
    jobs = (facts.in_objects, facts.in_one_call, *facts.honest)
    open_still = [each.status for each in jobs if each.status in ("queued", "started")]
    if open_still:
        when = f"after {SECONDS:g} s" if facts.timed_out else "when its worker ended"
        text = f"of 4 jobs {', '.join(open_still)} still {when}; it said: {facts.words}"
        advice = "try again when the machine is quiet; else see what 'rqmem worker --burst' says"
        return [Finding("worker", "problem", text, advice)]
    return [_unwinds(facts), _one_call(facts), _honest(facts), *_new_horse(facts)]


def _unwinds(facts: SelfTest) -> Finding:
    breach = facts.in_objects.breach
    if breach is None or facts.in_objects.status != "failed":
        return _untold("unwinding", facts, facts.in_objects)
    above_mb = breach.peak_mb - breach.limit_mb
    text = f"a job that unwinds was stopped {_above(above_mb)} its ceiling of {show_mb(breach.limit_mb)} MB"
    if breach.layer != "watch":
        text = f"a job that could unwind was ended by {_WHO[breach.layer]}, {_above(above_mb)} its ceiling"
        advice = "on a busy machine that can be; else give more --reserve, so that jobs can clean up"
        return Finding("unwinding", "note", text, advice)
    if above_mb > _UNWINDS_WITHIN_MB:
        advice = "more than the usual 8 MB: the machine was busy, or the watcher gets too little of it"
        return Finding("unwinding", "note", text, advice)
    return Finding("unwinding", "ok", text)


def _one_call(facts: SelfTest) -> Finding:
    breach = facts.in_one_call.breach
    if breach is None or facts.in_one_call.status != "failed":
        return _untold("C call", facts, facts.in_one_call)
    above_mb = breach.peak_mb - breach.limit_mb
    text = f"one in a C call was ended {_above(above_mb)} it by {_WHO[breach.layer]}"
    text += f" (reserve {show_mb(facts.reserve_mb)} MB)"
    if above_mb > facts.reserve_mb + _UNWINDS_WITHIN_MB:
        advice = "count on so much above the ceiling for such jobs; a cgroup (above) would end them at the reserve"
        return Finding("C call", "note", text, advice)
    return Finding("C call", "ok", text)


def _untold(name: str, facts: SelfTest, ended: Tried) -> Finding:
    """A breach that was not stopped, or not told."""
    if ended.status == "finished":
        text = f"a job went beyond its ceiling of {show_mb(facts.ceiling_mb)} MB and was not stopped"
    else:
        text = f"a job beyond its ceiling was not told so; it ended {ended.status}: {ended.error or facts.words}"
    return Finding(name, "problem", text, "do not rely on ceilings here; please report it with this output")


def _honest(facts: SelfTest) -> Finding:
    touched = [each for each in facts.honest if each.status != "finished" or each.breach is not None]
    if touched:
        text = (
            f"a job below its ceiling of {show_mb(facts.ceiling_mb)} MB ended {touched[0].status}: {touched[0].error}"
        )
        return Finding("honest job", "problem", text, "please report it with this output")
    return Finding("honest job", "ok", f"one with {facts.honest_mb:.0f} of {show_mb(facts.ceiling_mb)} MB "
                   "was left alone")  # fmt: skip


def _new_horse(facts: SelfTest) -> list[Finding]:
    if facts.new_horse_ms is None:
        return []
    text = f"the next job ran {facts.new_horse_ms:.0f} ms after a breach"
    if facts.new_horse_ms > _HORSE_WITHIN_MS:
        return [Finding("new horse", "note", text, "usual are 10 to 30; the machine was busy, most likely")]
    return [Finding("new horse", "ok", text)]


def _above(mb: float) -> str:
    return f"{max(0.0, mb):.1f} MB above"
