"""Worker classes for tests that would have to wait too long with the real settings."""

from rqmem import MemoryWorker


class ImpatientWorker(MemoryWorker):
    """Waits one second where RQ waits a minute."""

    kill_after_timeout_seconds = 1
