"""Preloaded: a capture is dropped at 4 MB, which a job reaches within a second, and not at 64."""

from rqmem.worker import profiling

profiling.MOST_BYTES_OF_ONE = 4 * 2**20
