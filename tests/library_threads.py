"""Jobs that use libraries which begin threads of their own, and leave them."""

from __future__ import annotations

import io
import os


def uses_tqdm() -> int:
    """Its monitor is a thread from the first bar on."""
    from tqdm import tqdm

    assert sum(tqdm(range(10), disable=False, file=io.StringIO())) == 45
    return os.getpid()


def tells_sentry(dsn: str) -> int:
    """Its transport is a thread from the first event on."""
    import sentry_sdk

    if not sentry_sdk.is_initialized():
        sentry_sdk.init(dsn, default_integrations=False)
    sentry_sdk.capture_message("from a job")
    return os.getpid()


def computes_with_openmp() -> int:
    """A pool of native threads stays, which Python does not know of."""
    import numpy as np
    from sklearn.cluster import KMeans

    KMeans(2, n_init=1).fit(np.random.default_rng(1).random((3000, 8)))
    return os.getpid()
