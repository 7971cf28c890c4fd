"""Units of memory: one MB is 2**20 bytes, here and everywhere in rqmem. Values only, no I/O."""

MB = 2**20


def to_mb(size_bytes: float) -> float:
    """Bytes as MB, rounded to the 0.1 MB that log lines and messages show."""
    return round(size_bytes / MB, 1)


def to_bytes(size_mb: float) -> int:
    """MB (2**20 bytes) as whole bytes."""
    return int(size_mb * MB)


def show_leak(size_mb: float) -> str:
    """``1.2 MB``, and below 0.1 MB ``37 KB``."""
    return f"{size_mb:.1f} MB" if size_mb >= 0.1 else f"{1024 * size_mb:.0f} KB"


def show_mb(size_mb: float) -> str:
    """``256`` for 256.0 and ``271.3`` for 271.31: no trailing ``.0`` in messages."""
    return f"{size_mb:.1f}".removesuffix(".0")
