"""The old name of `rqmem.sources.registry`: pickled arguments of jobs that are in Redis still refer to it."""

from rqmem.sources.registry import WrappedSource as Own  # noqa: F401
