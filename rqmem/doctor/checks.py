"""What is found in machine, memory and cgroups: facts in, findings out. Pure."""

from __future__ import annotations

from rqmem.config.settings import Config
from rqmem.doctor.facts import KernelFacts, MachineFacts, MemoryFacts
from rqmem.measure.startup_checks import unsupported
from rqmem.observe.problems import Finding, Mark
from rqmem.policy.ceiling import effective_limit_mb
from rqmem.units import show_mb, to_bytes, to_mb

_WORKER_MB = 60  # what a worker itself takes, about
_UNHIDE = "have jobs start nothing as another user, or mount /proc with gid= of the worker's group"
_WITHOUT = "everything else works without it"


def check_machine(facts: MachineFacts) -> list[Finding]:
    return [_kernel(facts), _python(facts), *_proc(facts)]


def _kernel(facts: MachineFacts) -> Finding:
    if facts.platform != "linux":
        name = "macOS" if facts.platform == "darwin" else facts.platform
        return Finding("system", "problem", name, unsupported(facts.platform, True, True, True))
    text = f"Linux {facts.kernel}"
    if _version(facts.kernel) < (5, 4):
        advice = "rqmem is made for 5.4 and later; if the lines below are ok, it works here too"
        return Finding("kernel", "note", text, advice)
    return Finding("kernel", "ok", text)


def _version(release: str) -> tuple[int, int]:
    """(6, 1) of ``6.1.0-18-amd64``."""
    major, minor, *_ = [*release.split("."), "0", "0"]
    digits = "".join(each for each in minor.partition("-")[0] if each.isdigit())
    return (int(major) if major.isdigit() else 0, int(digits or 0))


def _python(facts: MachineFacts) -> Finding:
    missing = unsupported("linux", facts.has_fork, facts.has_pidfd, True)
    if missing and facts.platform == "linux":
        return Finding("Python", "problem", facts.python, missing)
    text = f"{facts.python}; fork and pidfd_open work" if not missing else facts.python
    return Finding("Python", "ok", text)


def _proc(facts: MachineFacts) -> list[Finding]:
    if facts.platform != "linux":
        return []
    if facts.proc_shortcoming:
        advice = "no ceiling can be kept; jobs under 'rq worker' are metered by psutil at their checkpoints"
        return [Finding("/proc", "problem", facts.proc_shortcoming, advice)]
    if facts.idle_bytes is None:
        advice = "mount /proc without hidepid, or let the worker's group see it (mount option gid=)"
        return [Finding("/proc", "problem", f"shows nothing of our own children{_hides(facts)}", advice)]
    text = f"usage and children of our processes can be read; an idle horse uses {to_mb(facts.idle_bytes):.0f} MB"
    findings = [Finding("/proc", "ok", text), *_foreign(facts)]
    if facts.hidepid and (facts.foreign is None or facts.foreign.measured != "not"):
        text = f"what a job starts as another user (sudo, su) is not seen and does not count{_hides(facts)}"
        findings.append(Finding("hidepid", "note", text, _UNHIDE))
    return findings


def _foreign(facts: MachineFacts) -> list[Finding]:
    """What was found of a real child that we may not examine as our own."""
    found = facts.foreign
    if found is None:
        return []
    whose = "as another user" if found.another_users else "by setuid programs and others that are not dumpable"
    text = f"what a job starts {whose} is measured exactly"
    advice = ""
    if found.measured == "not":
        text, advice = f"what a job starts {whose} does not count: /proc hides it{_hides(facts)}", _UNHIDE
    elif found.measured == "whole":
        text = f"what a job starts {whose} is counted whole: pages that it shares count, too"
        advice = "CAP_SYS_PTRACE has the worker measure it exactly (systemd: AmbientCapabilities=, Docker: --cap-add)"
    if not found.can_be_ended:
        text += "; the worker may not end it"
        advice = f"{advice}; CAP_KILL has it end such processes at a breach".removeprefix("; ")
    mark: Mark = "note" if advice else "ok"
    return [Finding("others", mark, text, advice)]


def _hides(facts: MachineFacts) -> str:
    return f" (hidepid={facts.hidepid})" if facts.hidepid else ""


def check_memory(facts: MemoryFacts, config: Config) -> list[Finding]:
    """What there is against what jobs may use, and settings of the kernel that matter to either."""
    if facts.total_bytes is None:
        return [_malloc(facts)]
    return [_there_is(facts), _ceiling(facts, config), _swap(facts), *_overcommit(facts), *_huge_pages(facts),
            _malloc(facts)]  # fmt: skip


def _there_is(facts: MemoryFacts) -> Finding:
    limit = f"{_mb(facts.container_bytes)} in this container" if facts.container_bytes else "no container limit"
    free = f", {_mb(facts.available_bytes)} available" if facts.available_bytes is not None else ""
    return Finding("there is", "ok", f"{_mb(facts.total_bytes)} in the machine, {limit}{free}")


def _ceiling(facts: MemoryFacts, config: Config) -> Finding:
    ceiling_mb = effective_limit_mb(None, config.memory_mb, config.default_limit_mb)
    source = "RQMEM_MEMORY" if config.memory_mb is not None else "the default; --memory sets it"
    wanted = f"{show_mb(ceiling_mb)} MB + {show_mb(config.reserve_mb)} MB reserve a job ({source})"
    where = "container" if facts.container_bytes else "machine"
    there_bytes = facts.container_bytes or facts.total_bytes or 0
    room = int(there_bytes / to_bytes(ceiling_mb + config.reserve_mb + _WORKER_MB))
    if to_bytes(ceiling_mb + config.reserve_mb) > there_bytes:
        text = f"{wanted} is more than the {_mb(there_bytes)} of this {where}"
        advice = f"the kernel would kill before the ceiling is reached: lower the ceiling, or give the {where} more"
        return Finding("ceiling", "problem", text, advice)
    if room < 1:
        text = f"{wanted} leaves too little of the {where}'s {_mb(there_bytes)} for the worker itself"
        return Finding("ceiling", "note", text, f"a worker takes some {_WORKER_MB} MB besides its job")
    workers = "1 worker" if room == 1 else f"{room} workers"
    return Finding("ceiling", "ok", f"{wanted}; room for {workers}")


def _swap(facts: MemoryFacts) -> Finding:
    text = f"{_mb(facts.swap_bytes)}; what is swapped out counts as usage" if facts.swap_bytes else "none"
    return Finding("swap", "ok", text)


def _overcommit(facts: MemoryFacts) -> list[Finding]:
    if facts.overcommit is None:
        return []
    words = {0: "0, by rule of thumb", 1: "1, always granted"}
    if facts.overcommit in words:
        return [Finding("overcommit", "ok", words[facts.overcommit])]
    text = f"{facts.overcommit}, strict: allocations, forks and threads can fail while memory is free"
    advice = "jobs may see MemoryError long before their ceiling: sysctl vm.overcommit_memory=0"
    return [Finding("overcommit", "note", text, advice)]


def _huge_pages(facts: MemoryFacts) -> list[Finding]:
    if not facts.huge_pages:
        return []
    if facts.huge_pages != "always":
        return [Finding("huge pages", "ok", facts.huge_pages)]
    text = "always: jobs grow in steps of 2 MB and may use more than they ask for"
    advice = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (Redis asks for that too)"
    return [Finding("huge pages", "note", text, advice)]


def _malloc(facts: MemoryFacts) -> Finding:
    if facts.can_trim:
        return Finding("malloc", "ok", "freed memory can be given back (malloc_trim)")
    text = "no malloc_trim (not glibc): less of what a job frees is given back"
    return Finding("malloc", "note", text, "nothing has to be done: horses are replaced when they keep much")


def check_kernel_layer(facts: KernelFacts, config: Config) -> list[Finding]:
    """Whether the kernel keeps ceilings too, whether it lets the watcher be in time, and how to get there."""
    return [_cgroup(facts, config), _watcher(facts)]


def _watcher(facts: KernelFacts) -> Finding:
    if facts.urgent == "real-time":
        return Finding("watcher", "ok", "goes before others while it watches (real-time)")
    late = "goes before most others" if facts.urgent == "nice" else "waits for its turn as all processes do"
    text = f"{late}: while the processors are all busy it may look some 15 to 50 ms too late"
    advice = "give the worker CAP_SYS_NICE (systemd: AmbientCapabilities=, Docker: --cap-add) or LimitRTPRIO=1"
    return Finding("watcher", "note", text, advice)


def _cgroup(facts: KernelFacts, config: Config) -> Finding:
    if facts.words and config.cgroup == "off":
        text = f"RQMEM_CGROUP=off; one is available: {facts.words}"
        return Finding("cgroup", "note", text, "without it, RQMEM_CGROUP=auto, each horse gets one")
    if facts.words:
        return Finding("cgroup", "ok", facts.words)
    mark: Mark = "problem" if config.cgroup == "require" else "note"
    advice = f"{_how_to_get_one(facts)}; {_WITHOUT}"
    if mark == "problem":
        advice = f"RQMEM_CGROUP=require, so no worker starts; {_how_to_get_one(facts)}"
    return Finding("cgroup", mark, f"none: {facts.reason}", advice)


def _how_to_get_one(facts: KernelFacts) -> str:
    if facts.surroundings == "kubernetes":
        return "usually not available in Kubernetes, where the container's own limit is the backstop"
    if facts.surroundings == "container":
        return "run the container with --cgroupns=private and /sys/fs/cgroup mounted writable"
    if not facts.version:
        return "mount the cgroup v2 hierarchy; on some systems it takes the boot option cgroup_enable=memory"
    if facts.version == "v1":
        return "give the worker's user a group: cgcreate -t USER -a USER -g memory:rqmem, cgexec -g memory:rqmem"
    if facts.surroundings == "systemd":
        return (
            "put Delegate=memory in the worker's systemd unit; by hand: systemd-run --user --scope -p Delegate=memory"
        )
    return "start the worker in a group of its own that its user may write to (cgroups(7), delegation)"


def _mb(size_bytes: int | None) -> str:
    return f"{to_mb(size_bytes or 0):,.0f} MB"
