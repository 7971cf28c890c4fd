"""What is noted of a job in RQ's ``meta["rqmem"]`` when it is enqueued, for those who must know it before it runs."""

from __future__ import annotations

TENANT = "tenant"
"""Key: for whom the job works; empty: for nobody. It is there if the job's type declares a tenant."""
