"""The ceiling of one run: the job declares it, the worker's bounds it, and the horse is set to it."""

from __future__ import annotations

from rqmem import events
from rqmem.config.settings import Config
from rqmem.errors import ConfigError, HorseTooHeavy
from rqmem.job.run_events import Reporter
from rqmem.policy import chunk_size, recycling
from rqmem.policy.ceiling import effective_limit_mb
from rqmem.units import show_mb, to_bytes, to_mb
from rqmem.worker.horse.user_code import Horse


class Ceiling:
    """The ceiling of a run, in ``bytes``. Above ``warning_fraction`` of it, warnings begin."""

    def __init__(self, config: Config, horse: Horse | None, reporter: Reporter) -> None:
        self._config, self._horse, self._reporter = config, horse, reporter
        self._job = reporter.about["job"]
        self._before = horse.page.ceiling_bytes if horse is not None else 0
        self._most_mb = config.budget_mb
        self._set: tuple[float | None, float | None] = (None, None)
        self.bytes = 0
        self.warning_fraction = config.warning_threshold

    def room_bytes(self, used_bytes: int) -> float:
        """How much a chunk that begins now may take."""
        return chunk_size.room(used_bytes, self.bytes, self.warning_fraction)

    def set(self, declared_mb: float | None, step_mb: float | None = None) -> None:
        """The job declares this ceiling from now on. The worker's own is never exceeded.

        ``step_mb``: of `escalate_to`, in place of the declared one.
        """
        self._set = declared_mb, step_mb
        wanted_mb = step_mb or declared_mb
        limit_mb = self._effective_mb(wanted_mb)
        self.bytes = to_bytes(limit_mb)
        if self._horse is None:
            return
        self._note(declared_mb, step_mb)
        if self._horse.page.ceiling_bytes != self.bytes:
            self._horse.set_ceiling(self.bytes)
        if wanted_mb and wanted_mb > limit_mb and self._job not in self._horse.told_of_cut:
            self._reporter.report(events.CeilingCut, declared_mb=wanted_mb, allowed_mb=limit_mb)

    def bound_by_tenant(self, tenant: str) -> None:
        """The job works for this tenant. In a pool, a job may use no more than all jobs of its tenant together."""
        most_mb = self._config.budget_of(tenant)
        if most_mb != self._most_mb:
            self._most_mb = most_mb
            self.set(*self._set)

    def _note(self, declared_mb: float | None, step_mb: float | None) -> None:
        assert self._horse is not None
        self._horse.page.declared_bytes = to_bytes(declared_mb or 0)
        self._horse.page.step_bytes = to_bytes(step_mb or 0)

    def restore(self) -> None:
        if self._horse is not None:
            self._horse.set_ceiling(self._before)

    def check_fit(self, declared_mb: float | None, step_mb: float | None, used_bytes: int) -> None:
        """Check, before the job begins, that it can run in a horse that uses this much already.

        Raises `HorseTooHeavy` where earlier jobs have left too much in it, `ConfigError` where a new one will not do.
        """
        assert self._horse is not None
        page, limit_mb, used_mb = self._horse.page, self._effective_mb(step_mb or declared_mb), to_mb(used_bytes)
        self._note(declared_mb, step_mb)
        if not page.fresh and page.job == self._job:  # else a job that has begun calls this one
            need = page.need_bytes if page.need_bytes >= 0 else None
            fit = recycling.Fit(page.held_before, page.left_before, need)
            if used_mb >= limit_mb or recycling.crowded(fit, to_bytes(limit_mb)):
                raise HorseTooHeavy
        if page.fresh and used_mb >= limit_mb:
            raise ConfigError(
                f"a ceiling of {show_mb(limit_mb)} MB cannot hold for {self._job}: a new horse uses "
                f"{show_mb(used_mb)} MB before the job begins (what is imported and preloaded); declare more"
            )

    def _effective_mb(self, declared_mb: float | None) -> float:
        return effective_limit_mb(declared_mb, self._config.memory_mb, self._config.default_limit_mb, self._most_mb)
