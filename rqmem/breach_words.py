"""The evidence of a breach in words, for the log and for people who look into a job. Pure."""

from __future__ import annotations

from rqmem.events import Breach
from rqmem.text import printable

_UNSEEN_FRACTION = 0.5  # of what a job used: from there on the types of objects found do not explain it


def explanation(breach: Breach) -> list[str]:
    """The evidence as lines, below the summary."""
    return [f"{label:<14} {text}" for label, text in evidence(breach)]


def evidence(breach: Breach) -> list[tuple[str, str]]:
    """Labels and texts: where and what it was that grew, and what was done, as far as known."""
    grew = [f"{grown_mb:>6.0f} MB  {line}" for grown_mb, line in breach.grew]
    lines = [("" if number else "where it grew:", text) for number, text in enumerate(grew)]
    told = {
        "where it grew:": _unseen(breach),
        "what grew:": _kinds(breach),
        "stopped at:": breach.where,
        "swallowed:": f"it was raised, and got no further than {breach.swallowed}" if breach.swallowed else "",
        "growth:": _growth(breach),
        "checkpoints:": ", ".join(f"{used:.0f} MB at '{name}'" for name, used in breach.checkpoints),
        "processes:": ", ".join(f"{used:.0f} MB {command} ({pid})" for pid, command, used in breach.tree)
        if breach.processes > 1
        else "",
        "counted whole:": f"{breach.counted_whole} of its processes, with the pages they share: the worker may not"
        " examine them (another user's, or not dumpable; CAP_SYS_PTRACE would do)"
        if breach.counted_whole
        else "",
        "not counted:": f"{breach.hidden} of its processes, which /proc hides from the worker (hidepid)"
        if breach.hidden
        else "",
        "in tmpfs:": f"{breach.shared_mb:.0f} MB of shared memory or files that none of its processes has mapped"
        if breach.shared_mb
        else "",
        "in the kernel:": f"{breach.kernel_mb:.0f} MB of sockets, pipes, page tables and the like"
        if breach.kernel_mb and breach.kernel_mb > _UNSEEN_FRACTION * breach.used_mb
        else "",
        "left behind:": ", ".join(f"{name} ({used:.0f} MB)" for name, used in breach.segments_left),
        "out of reach:": ", ".join(f"{command} ({pid})" for pid, command in breach.beyond_reach)
        + " go on: the worker may not end them (another user's; CAP_KILL would do)"
        if breach.beyond_reach
        else "",
        "next:": breach.next,
    }
    return [(label, printable(text)) for label, text in (*lines, *told.items()) if text]


def _unseen(breach: Breach) -> str:
    """Why no line can be named, where the reason is known: signals are answered between two steps of Python only."""
    seen = breach.grew or breach.where or breach.operation or breach.kinds
    if seen or breach.processes > 1 or breach.layer == "checkpoint":
        return ""
    return "in no line that is known: Python ran no code meanwhile, as in one long call of a C library"


def _kinds(breach: Breach) -> str:
    """Types of objects, and how much they leave unexplained: memory of C code, a list that is being sorted."""
    told = [f"{name} +{count:,} ({grown:.0f} MB)" for name, count, grown in breach.kinds]
    unseen_mb = breach.used_mb - (breach.baseline_mb or 0.0) - sum(grown for _, _, grown in breach.kinds)
    if told and unseen_mb > _UNSEEN_FRACTION * breach.used_mb:
        told.append(f"and {unseen_mb:.0f} MB in others, or that no object shows")
    return "   ".join(told)


def _growth(breach: Breach) -> str:
    if breach.from_mb is None or not breach.growth_seconds:
        return ""
    rate = (breach.peak_mb - breach.from_mb) / breach.growth_seconds
    text = f"{breach.from_mb:.0f} MB -> {breach.peak_mb:.0f} MB in {breach.growth_seconds:.1f} s ({rate:.0f} MB/s)"
    return text if breach.baseline_mb is None else f"{text}; {breach.baseline_mb:.0f} MB before the job"
