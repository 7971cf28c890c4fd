"""The old name of `rqmem.prometheus`, for one release."""

from __future__ import annotations

import warnings

from rqmem.prometheus import collector, wsgi_app

__all__ = ["collector", "wsgi_app"]

warnings.warn("rqmem.exporter is called rqmem.prometheus now", DeprecationWarning, stacklevel=2)
