"""Recognises, by its first bytes, a file that is no text or cannot be cut, and says what to do about it. Pure."""

from __future__ import annotations

HEAD_BYTES = 1024

_DECOMPRESS = "it cannot be cut: decompress it first"
_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x1f\x8b", f"is compressed (gzip), so {_DECOMPRESS} (gunzip)"),
    (0, b"\x28\xb5\x2f\xfd", f"is compressed (zstd), so {_DECOMPRESS} (unzstd)"),
    (0, b"\xfd7zXZ", f"is compressed (xz), so {_DECOMPRESS} (unxz)"),
    (0, b"BZh", f"is compressed (bzip2), so {_DECOMPRESS} (bunzip2)"),
    (0, b"\x04\x22\x4d\x18", f"is compressed (lz4), so {_DECOMPRESS} (unlz4)"),
    (0, b"LZIP", f"is compressed (lzip), so {_DECOMPRESS} (lzip -d)"),
    (0, b"\x1f\x9d", f"is compressed (compress), so {_DECOMPRESS} (uncompress)"),
    (0, b"\xff\x06\x00\x00sNaPpY", f"is compressed (snappy), so {_DECOMPRESS}"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it first"),
    (0, b"Rar!\x1a\x07", "is a RAR archive: unpack it first"),
    (257, b"ustar", "is a tar archive: unpack it first"),
    (0, b"PAR1", "is a Parquet file: write it as CSV or JSON lines first (pyarrow, duckdb)"),
    (0, b"ORC", "is an ORC file: write it as CSV or JSON lines first (pyarrow)"),
    (0, b"ARROW1", "is an Arrow file: write it as CSV or JSON lines first (pyarrow)"),
    (0, b"FEA1", "is a Feather file: write it as CSV or JSON lines first (pyarrow)"),
    (0, b"Obj\x01", "is an Avro file: write it as CSV or JSON lines first (fastavro)"),
    (0, b"\x89HDF", "is an HDF5 file: write it as CSV or JSON lines first"),
    (0, b"SQLite format 3\x00", "is an SQLite database: read its tables with rqmem.sources.SqlRows"),
    (0, b"%PDF-", "is a PDF: get the data as CSV or JSON lines"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Office file (.xls): save it as CSV UTF-8"),
    (0, b"\x89PNG", "is a picture (PNG): is it the right path?"),
    (0, b"\xff\xd8\xff", "is a picture (JPEG): is it the right path?"),
    (0, b"GIF8", "is a picture (GIF): is it the right path?"),
    (0, b"\x7fELF", "is a program (ELF): is it the right path?"),
    (0, b"version https://git-lfs.", "is a pointer of Git LFS, not the file itself: run 'git lfs pull'"),
)
_PAGES = {
    b"<!doctype html": "is an HTML page, perhaps the error page of a download: look into it, and fetch the file again",
    b"<html": "is an HTML page, perhaps the error page of a download: look into it, and fetch the file again",
    b"<?xml": "is XML, perhaps the error message of a download: look into it, and fetch the file again",
    b"{\\rtf": "is an RTF document: save it as CSV UTF-8",
}
_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""Byte order marks; the longer ones first."""


def no_text(head: bytes) -> str | None:
    """What a file with these first `HEAD_BYTES` is, in words that follow its name; None: text, it seems."""
    wide = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None) or _wide(head)
    if wide is not None:
        return f"is {wide}, so it cannot be cut: convert it to UTF-8 first (iconv -f {wide} -t UTF-8; Excel: CSV UTF-8)"
    if head.startswith(b"PK\x03\x04"):
        return _zip(head)
    if head.startswith((b"PK\x05\x06", b"PK\x07\x08")):
        return "is a zip archive: unpack it first"
    binary = any(byte < 9 for byte in head)  # else a file of text may well begin with "ORC"
    known = next(
        (w for offset, magic, w in _KINDS if head.startswith(magic, offset) and (binary or not magic.isalnum())), None
    )
    if known is not None:
        return known
    begins = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((words for begin, words in _PAGES.items() if begins.startswith(begin)), None)


def _wide(head: bytes) -> str | None:
    """Whether it looks like wide characters without a mark: of ASCII characters all but one byte are NUL."""
    if len(head) < 4 or not 0 < head.count(0) < len(head):
        return None
    whole = head[: len(head) // 4 * 4]
    lanes = [whole[lane::4].count(0) / len(whole[lane::4]) for lane in range(4)]
    if min(lanes[:3]) > 0.9 > 0.1 > lanes[3]:
        return "UTF-32BE"
    if min(lanes[1:]) > 0.9 > 0.1 > lanes[0]:
        return "UTF-32LE"
    even, odd = (lanes[0] + lanes[2]) / 2, (lanes[1] + lanes[3]) / 2
    if even > 0.3 > 0.05 > odd:
        return "UTF-16BE"
    return "UTF-16LE" if odd > 0.3 > 0.05 > even else None


def _zip(head: bytes) -> str:
    for part, words in (
        (b"xl/", "is an Excel file (.xlsx): save it as CSV UTF-8"),
        (b"[Content_Types].xml", "is an Office file (.xlsx, .docx): save it as CSV UTF-8"),
        (b"mimetypeapplication/vnd.oasis", "is an OpenDocument file (.ods): save it as CSV"),
    ):
        if part in head:
            return words
    return "is a zip archive: unpack it first"
