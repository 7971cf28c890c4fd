"""How signed data look: a head, an HMAC-SHA256, the payload. `rqmem.serializers` makes and checks signatures."""

from __future__ import annotations

HEAD = b"rqmem-signed-1\n"
SIGNATURE_BYTES = 32


def unsigned(data: bytes) -> bytes | None:
    """The payload, not verified; None: these data are not signed."""
    start = len(HEAD) + SIGNATURE_BYTES
    return data[start:] if data.startswith(HEAD) and len(data) >= start else None
