"""Types of objects that a horse holds, and which of them have grown since it looked before."""

from __future__ import annotations

import sys
from itertools import islice
from types import FrameType, ModuleType

from rqmem.config.settings import Config
from rqmem.measure import live_objects
from rqmem.units import to_bytes, to_mb

_EVIDENCE_FRACTION = 0.22  # of the reserve, 7 MB by default: the rest is for unwinding
_SHOWN_KINDS = 5
_KINDS_OF_A_SNAPSHOT = 15
_SHOWN_KIND_MB = 0.5
_SHOWN_KINDS_OF_A_LEAK = 5
_SHOWN_KIND_OF_A_LEAK_MB = 0.1  # objects of a class are small themselves, and say more than the texts that they hold
_kinds_before: live_objects.Kinds = {}
_kept: live_objects.Kinds = {}
_kept_at_first: live_objects.Kinds | None = None
_modules_at_first = 0
_preloaded: tuple[str, ...] = ()


def begin(preloaded: tuple[str, ...]) -> None:
    """A new horse: what is imported now came from its worker."""
    global _modules_at_first, _preloaded
    _modules_at_first, _preloaded = len(sys.modules), preloaded


def inherited(module: str) -> bool:
    """Whether the worker had imported it already when it forked this horse."""
    return module in islice(sys.modules, _modules_at_first)


def remember_kinds() -> None:
    """What this horse holds between jobs; later `kinds_that_grew` and `kinds_that_stay` tell what came since."""
    global _kinds_before, _kept, _kept_at_first
    _kinds_before = live_objects.kinds()
    _kept = live_objects.kinds(modules=_modules_of_jobs())
    if _kept_at_first is None:
        _kept_at_first = _kept


def _modules_of_jobs() -> list[ModuleType]:
    """Those imported in this horse, latest first, and those preloaded for it. Others' pages are shared: hands off."""
    count = max(0, len(sys.modules) - _modules_at_first)
    found = [*islice(reversed(sys.modules.values()), count), *(sys.modules.get(name) for name in _preloaded)]
    return [module for module in found if type(module) is ModuleType]


def kinds_that_stay() -> list[tuple[str, int, float]]:
    """Types of which this horse held more when it last remembered than when it first did; as `kinds_that_grew`."""
    grown = live_objects.growth(_kept, _kept_at_first or {})
    return _in_mb(grown, _SHOWN_KINDS_OF_A_LEAK, _SHOWN_KIND_OF_A_LEAK_MB)


def kinds_that_grew(frame: FrameType | None, config: Config) -> list[tuple[str, int, float]]:
    """Types of which the job holds more than there was before it: objects and MB, most MB first."""
    now = live_objects.kinds(frame, int(_EVIDENCE_FRACTION * to_bytes(config.reserve_mb)))
    return _in_mb(live_objects.growth(now, _kinds_before), _SHOWN_KINDS)


def kinds_by_now() -> list[tuple[str, int, float]]:
    """Types of which this horse holds more than when it last remembered; for one that goes on living."""
    grown = live_objects.growth(live_objects.kinds(), _kinds_before)
    return [(name, objects, round(to_mb(size), 2)) for name, objects, size in grown[:_KINDS_OF_A_SNAPSHOT]]


def _in_mb(
    grown: list[tuple[str, int, int]], count: int, least_mb: float = _SHOWN_KIND_MB
) -> list[tuple[str, int, float]]:
    shown = [(name, objects, to_mb(size)) for name, objects, size in grown[:count]]
    return [each for each in shown if each[2] >= least_mb]
