"""CSV and JSON Lines files: where they are cut, how they are written, and what happens when they change."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import os
import re
import sqlite3
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rqmem.errors import ConfigError, SourceChanged, SourceError
from rqmem.sources import Count, CsvFile, Cuttable, JsonLines, csv_file, files, fingerprint, open_file, open_slice
from rqmem.sources.csv_cuts import Quoting, Undecided, record_start
from rqmem.testing import assert_stays_under
from tests.sources.makers import as_csv_reads

quietly = settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def read(pieces: Any) -> list[Any]:
    return [item for piece in pieces for item, _ in piece.items_after(None)]


def described(source: Cuttable[Any]) -> Any:
    return json.loads(json.dumps(source.describe()))


@quietly
@given(st.text(st.sampled_from('aé",\n\r'), max_size=60), st.integers(1, 12), st.sampled_from([1, 3, 64]))
def test_files_that_break_the_rules_are_cut_right_or_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, parts: int, window: int
) -> None:
    monkeypatch.setattr(csv_file, "_WINDOW_BYTES", window)
    monkeypatch.setattr(open_file, "BLOCK_BYTES", window)
    path = tmp_path / "messy.csv"
    path.write_bytes(text.encode())
    expected = as_csv_reads(path)
    assert read(CsvFile(path, has_header=False, cut_by="parsing").slices(parts=parts)) == expected
    try:
        found = read(CsvFile(path, has_header=False).slices(parts=parts))
    except SourceError as error:
        found = str(error)
    assert found == expected or "the cut here lies within a record" in found


@quietly
@given(
    st.lists(st.lists(st.text(st.sampled_from("aé;'\n\r\\ "), max_size=6), min_size=2, max_size=2), max_size=15),
    st.integers(1, 9),
    st.booleans(),
)
def test_other_dialects(tmp_path: Path, rows: list[list[str]], parts: int, doublequote: bool) -> None:
    options: dict[str, Any] = {"delimiter": ";", "quotechar": "'", "escapechar": "\\", "doublequote": doublequote}
    path = tmp_path / "other.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, **options).writerows(rows)
    expected = as_csv_reads(path, **options)
    pieces = CsvFile(path, has_header=False, **options).slices(parts=parts)
    assert read(open_slice(described(piece)) for piece in pieces) == expected == rows


def test_quoted_line_ends_lie_on_no_border(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notes.csv"
    rows = [[str(n), 'two\nlines, "quoted",\r\n\n' * (n % 5), ""] for n in range(400)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "note", "empty"], *rows])
    monkeypatch.setattr(csv_file, "_WINDOW_BYTES", 64)
    pieces = list(CsvFile(path).slices(parts=100))
    assert len(pieces) > 90
    assert read(pieces) == [dict(zip(("id", "note", "empty"), row, strict=True)) for row in rows]


def test_records_larger_than_blocks_and_fields_longer_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    large = "line é\n" * 15_000  # 120 KB, and below the csv module's limit of characters
    rows = [[str(n), large, large, large] for n in range(6)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    pieces = list(CsvFile(path, has_header=False).slices(parts=6))
    assert [len(read([piece])) for piece in pieces] == [1] * 6
    assert read(pieces) == rows
    path.write_text('a,b\n1,"' + "x" * 140_000 + '"\n')
    with pytest.raises(SourceError, match=r"record at byte 4: field larger than field limit .*field_size_limit"):
        read([CsvFile(path)])


@pytest.mark.parametrize(
    ("name", "before", "part"),
    [
        ("lost newlines.csv", b"a,b\n1,2\n", b"12,"),
        ("quoted newlines.csv", b"a,b\n1,2\n", b'"1\n2",'),
        ("no newlines.jsonl", b"[1]\n[22]\n", b"[],"),
    ],
)
def test_a_record_that_is_too_long_is_named_before_it_is_parsed(
    tmp_path: Path, name: str, before: bytes, part: bytes
) -> None:
    """So many short fields take 25 times their bytes as objects."""
    kind, path = CsvFile if name.endswith("csv") else JsonLines, tmp_path / name
    path.write_bytes(before + part * (6 * 2**20 // len(part)) + b"\n")
    message = re.escape(f"{name}: the record at byte {len(before):,} is longer than 1,048,576 bytes: has it lost")
    with assert_stays_under(60), pytest.raises(SourceError, match=message):
        read([kind(path)])
    path.write_bytes(before)
    last = len(before.splitlines(keepends=True)[-1])
    source = kind(path, longest_record=last)
    assert read(source.slices(parts=2)) == read([kind(path)])
    assert described(open_slice(described(source)))["longest_record"] == last
    with pytest.raises(SourceError, match=f"is longer than {last - 1} bytes"):
        read([kind(path, longest_record=last - 1)])


def test_empty_quoted_fields_alone_do_not_hide_the_place(tmp_path: Path) -> None:
    """As PostgreSQL writes empty texts: no run of quotes tells, but no field is that long."""
    path = tmp_path / "empties.csv"
    path.write_text('1,"",2\n' * 200_000)
    pieces = list(CsvFile(path, has_header=False).slices(parts=50))
    assert len(pieces) == 50
    assert len(read(pieces)) == 200_000


def test_what_lies_between_cuts_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.csv"
    path.write_text("id,note\n" + '7,"some ""text"" that goes on"\n' * 300_000)
    source = CsvFile(path)
    sizes: list[int] = []
    whole = open_file.OpenFile.read

    def counted(self: open_file.OpenFile, offset: int, size: int) -> bytes:
        data = whole(self, offset, size)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(open_file.OpenFile, "read", counted)
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 2**17)  # what is hashed is read, too
    assert len(list(source.slices(parts=20))) == 20
    assert sum(sizes) < path.stat().st_size / 20


def test_an_estimate_comes_from_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "grows.csv"
    note = "two\nlines "
    path.write_text("id,note\n" + "".join(f'{n},"{note * (n // 10_000)}"\n' for n in range(60_000)))
    count = CsvFile(path).count()
    assert count.how == "estimated"
    assert 50_000 < (count.items or 0) < 70_000
    sizes = [len(read([piece])) for piece in CsvFile(path).slices(1000)]
    assert sum(sizes) == 60_000 and 40 < len(sizes) < 80


def test_headers_and_rows_that_do_not_fit_them(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfid,name\r\n\r\n1,a\r\n2\r\n3,b,c,d\r\n")
    assert read([CsvFile(path)]) == [
        {"id": "1", "name": "a"},
        {"id": "2", "name": None},
        {"id": "3", "name": "b", None: ["c", "d"]},
    ]
    for text in (b"", b"id,name", b"id,name\n\n"):
        path.write_bytes(text)
        assert CsvFile(path).count() == Count.exact(0)
        assert read(CsvFile(path).slices(parts=3)) == []


def test_encodings(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("id\né\n".encode("cp1252"))
    assert read([CsvFile(path, encoding="cp1252")]) == [{"id": "é"}]
    with pytest.raises(SourceError, match=r"latin\.csv: byte 3: not utf-8 \(.*\): name the encoding"):
        read([CsvFile(path)])
    for encoding in ("euc-jp", "iso-8859-15", "latin-1", "utf-8-sig", "UTF8", "shift_jis"):
        CsvFile(path, encoding=encoding)
    for encoding in ("utf-16", "utf-32-le", "utf-7", "iso2022_jp", "idna", "punycode"):
        with pytest.raises(ConfigError, match=f"a file in {encoding} cannot be cut: convert it to UTF-8"):
            CsvFile(path, encoding=encoding)
    with pytest.raises(ConfigError, match="cannot be cut"):  # whose second byte may be a backslash
        CsvFile(path, encoding="shift_jis", escapechar="\\")
    with pytest.raises(ConfigError, match=r"there is no encoding 'a\\x00b'"):
        CsvFile(path, encoding="a\0b")
    with pytest.raises(ConfigError, match="there is no encoding 'utf8000'"):
        CsvFile(path, encoding="utf8000")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": ",,"}, "delimiter is ',,': give one ASCII character"),
        ({"delimiter": ""}, "delimiter is ''"),
        ({"quotechar": "«"}, "quotechar is '«'"),
        ({"escapechar": "\n"}, r"escapechar is '\\n'"),
        ({"delimiter": '"'}, "is the quote or the escape as well"),
        ({"longest_record": 0}, "CsvFile: longest_record is 0: give a whole number of at least 1"),
        ({"cut_by": "luck"}, "cut_by is 'luck': give 'quotes', 'lines' or 'parsing'"),
    ],
)
def test_formats_that_cannot_be(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CsvFile("never-looked-for.csv", **options)


def test_cut_by_lines_and_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text('5",a\r\n' * 100, newline="")
    for options in ({"cut_by": "lines"}, {"quotechar": None}):
        pieces = list(CsvFile(path, has_header=False, **options).slices(parts=10))
        assert len(pieces) == 10
        assert read(pieces) == [['5"', "a"]] * 100


def make_file(path: Path, kind: str) -> Cuttable[Any]:
    if kind == "csv":
        path.write_text("id\n" + "".join(f"{n}\n" for n in range(100)))
        return CsvFile(path)
    path.write_text("".join(f'{{"id": "{n}"}}\n' for n in range(100)))
    return JsonLines(path)


def downloaded_again(path: Path) -> None:
    """Written beside and renamed, as downloads are: another inode, another moment."""
    other = path.with_suffix(".part")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def written_again(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))


def edited(path: Path) -> None:
    """One byte in the middle, by a person: the same size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] = data[len(data) // 2] ^ 1
    path.write_bytes(data)


def rewrite_in_place(path: Path) -> None:
    """The same size and the same moment: its ends tell."""
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-2] + b"?\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("kind", ["csv", "json"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "vanished: it changed since it was cut"),
        (lambda path: os.truncate(path, 60), "shrank from .* to 60 bytes: it changed since it was cut"),
        (lambda path: path.open("a").write("more\n"), "grew from "),
        (edited, "has other contents"),
        (lambda path: (edited(path), downloaded_again(path)), "has other contents"),
        (rewrite_in_place, "has other contents"),
    ],
)
def test_a_file_that_changed_since_it_was_cut(tmp_path: Path, kind: str, change: Any, message: str) -> None:
    path = tmp_path / "data"
    source = make_file(path, kind)
    pieces = list(source.slices(parts=3))
    descriptions = [described(piece) for piece in pieces]
    *_, (_, cursor) = pieces[0].items_after(None)
    change(path)
    with pytest.raises(SourceError, match=message):
        open_slice(descriptions[1])
    with pytest.raises(SourceError, match=message):
        read([pieces[1]])
    with pytest.raises(SourceError, match=message):
        list(source.slices(parts=2))
    if path.exists():  # a new look, an old cursor
        with pytest.raises(SourceChanged, match=message):
            list(type(source)(path).items_after(cursor))


UNCHANGED = [downloaded_again, written_again, Path.touch, lambda path: os.utime(path, ns=(1, 1))]


@pytest.mark.parametrize("kind", ["csv", "json"])
@pytest.mark.parametrize("whole", [2**20, 128])
@pytest.mark.parametrize("again", UNCHANGED)
def test_a_file_with_the_same_contents_is_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, whole: int, again: Any
) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", whole)
    monkeypatch.setattr(fingerprint, "_BLOCK_BYTES", 16)
    path = tmp_path / "data"
    source = make_file(path, kind)
    pieces = list(source.slices(parts=3))
    descriptions = [described(piece) for piece in pieces]
    begun = list(itertools.islice(source.items_after(None), 30))
    again(path)
    rest = [item for item, _ in type(source)(path).items_after(begun[-1][1])]
    assert [item["id"] for item in [*(item for item, _ in begun), *rest]] == [str(n) for n in range(100)]
    assert read([open_slice(each) for each in descriptions]) == read(pieces) == read([source])
    elsewhere = tmp_path / "downloads" / "tmp8a7f"  # a cursor knows no path
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(path.read_bytes())
    assert [item for item, _ in type(source)(elsewhere).items_after(begun[-1][1])] == rest


@pytest.mark.parametrize("again", UNCHANGED)
def test_a_file_may_be_written_again_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: Any
) -> None:
    path = tmp_path / "data"
    source = make_file(path, "json")
    monkeypatch.setattr(open_file, "BLOCK_BYTES", 50)
    items = source.items_after(None)
    first = next(items)[0]
    again(path)
    assert len([first, *items]) == 100


def test_an_identity_decides_where_one_is_given(tmp_path: Path) -> None:
    path = tmp_path / "data"
    make_file(path, "csv")
    *_, (_, cursor) = itertools.islice(CsvFile(path, identity="etag-1").items_after(None), 10)
    description = described(next(CsvFile(path, identity="etag-1").slices(parts=2)))
    edited(path)
    assert len(list(CsvFile(path, identity="etag-1").items_after(cursor))) == 90
    assert read([open_slice(description)])
    for identity in ("etag-2", None):
        with pytest.raises(SourceChanged, match=r"is another one, by the identity|has other contents"):
            list(CsvFile(path, identity=identity).items_after(cursor))
    with pytest.raises(ConfigError, match="identity is ''"):
        JsonLines(path, identity="")


def test_cursors_of_jobs_in_flight_from_before_go_on(tmp_path: Path) -> None:
    path = tmp_path / "data"
    source = make_file(path, "csv")
    *_, (_, [offset, number, text]) = itertools.islice(source.items_after(None), 10)
    old = [offset, number, "-".join(text.split("-")[:5])]
    description = {**described(source), "seen": old[2], "begin": offset}
    assert len(list(CsvFile(path).items_after(old))) == len(read([open_slice(description)])) == 90
    *_, (_, newer) = itertools.islice(CsvFile(path).items_after(old), 10)
    downloaded_again(path)
    assert len(list(CsvFile(path).items_after(newer))) == 80  # from then on its contents are known
    with pytest.raises(SourceChanged, match="was replaced by another file"):
        list(CsvFile(path).items_after(old))
    with pytest.raises(SourceError, match="is no fingerprint of a file"):
        list(CsvFile(path).items_after([offset, number, "1-2-3-4-5-6"]))


def test_of_a_large_file_blocks_all_over_it_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (0, 1, 65_536, 2**26, 2**26 + 1, 10**11):
        blocks = list(fingerprint.hashed_blocks(size))
        assert sum(length for _, length in blocks) == min(size, fingerprint.WHOLE_BYTES)
        assert all(one + length <= other for (one, length), (other, _) in itertools.pairwise(blocks))
        assert not size or (blocks[0][0] == 0 and sum(blocks[-1]) == size)


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / "data"
    source = make_file(path, kind)
    monkeypatch.setattr(open_file, "BLOCK_BYTES", 50)
    items = source.items_after(None)
    assert next(items)[0] == {"id": "0"}
    os.truncate(path, 200)
    with pytest.raises(SourceError, match="shrank from"):
        list(items)


def zipped(name: str, data: bytes) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr(name, data)
    return raw.getvalue()


def tarred(data: bytes) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        member = tarfile.TarInfo("rows.csv")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return raw.getvalue()


def a_database(data: bytes) -> bytes:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE t (a)")
        return database.serialize()


ROWS = "id,name\n" + "".join(f"{n},Zoë Smith\n" for n in range(50))
NO_TEXT = {
    "gzip": (gzip.compress, r"is compressed \(gzip\), so it cannot be cut: decompress it first \(gunzip\)"),
    "bzip2": (bz2.compress, r"is compressed \(bzip2\).*\(bunzip2\)"),
    "xz": (lzma.compress, r"is compressed \(xz\).*\(unxz\)"),
    "zstd": (lambda data: b"\x28\xb5\x2f\xfd" + data, r"is compressed \(zstd\).*\(unzstd\)"),
    "zip": (lambda data: zipped("rows.csv", data), "is a zip archive: unpack it first"),
    "xlsx": (lambda data: zipped("[Content_Types].xml", data), "is an Office file .*: save it as CSV UTF-8"),
    "xlsx of others": (lambda data: zipped("xl/workbook.xml", data), r"is an Excel file \(\.xlsx\): save it as CSV"),
    "tar": (tarred, "is a tar archive"),
    "parquet": (lambda data: b"PAR1\x15\x04\x15" + data, "is a Parquet file: write it as CSV or JSON lines first"),
    "pdf": (lambda data: b"%PDF-1.7\n" + data, "is a PDF"),
    "sqlite": (a_database, r"is an SQLite database: read its tables with rqmem\.sources\.SqlRows"),
    "html": (lambda data: b"\n<!DOCTYPE html>\n<title>403</title>", "is an HTML page, perhaps the error page"),
    "xml": (lambda data: b'<?xml version="1.0"?><Error/>', "is XML, perhaps the error message of a download"),
    "lfs": (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
    **{
        name: (lambda data, name=name: data.decode().encode(name), f"is {says}, so it cannot be cut: convert it to")
        for name, says in (
            ("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE"), ("utf-32", "UTF-32"),
            ("utf-32-le", "UTF-32LE"), ("utf-32-be", "UTF-32BE"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NO_TEXT)
@pytest.mark.parametrize("kind", [CsvFile, JsonLines])
def test_what_is_no_text_is_named_with_what_to_do(tmp_path: Path, kind: Any, name: str) -> None:
    made, says = NO_TEXT[name]
    path = tmp_path / "rows"
    path.write_bytes(made(ROWS.encode()))
    with pytest.raises(SourceError, match=says) as told:
        kind(path)
    assert str(told.value).startswith(f"{path} is ") and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "header", ["ORC,name", "PAR1,PAR2", "BZh,id", "GIF89a,b", "ORCID,a", "PKey,b", "7z,a", "\x00,b", "<id>,b"]
)
def test_a_header_that_only_looks_like_another_kind_is_read(tmp_path: Path, header: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{header}\n1,2\n")
    assert [list(each.values()) for each in read([CsvFile(path)])] == [["1", "2"]]


def test_one_byte_of_another_encoding_need_not_end_a_job(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("id,name\n1,Zoë\n".encode() + "2,Zoë\n".encode("cp1252") + "3,Zoë\n".encode())
    with pytest.raises(SourceError, match=r"rows\.csv: byte 19: not utf-8 .*encoding='cp1252'.*errors='replace'"):
        read([CsvFile(path)])
    for errors, name in (
        ("replace", "Zo\ufffd"), ("surrogateescape", "Zo\udceb"), ("backslashreplace", "Zo\\xeb"), ("ignore", "Zo")
    ):  # fmt: skip
        pieces = [open_slice(described(piece)) for piece in CsvFile(path, errors=errors).slices(parts=3)]
        assert [each["name"] for each in read(pieces)] == ["Zoë", name, "Zoë"]
    lines = tmp_path / "rows.jsonl"
    lines.write_bytes('["Zoë"]\n'.encode() + '["Zoë"]\n'.encode("cp1252"))
    with pytest.raises(SourceError, match=r"rows\.jsonl: byte 13: not utf-8"):
        read([JsonLines(lines)])
    assert read([JsonLines(lines, errors="replace")]) == [["Zoë"], ["Zo\ufffd"]]
    latin = JsonLines(lines, encoding="cp1252")
    assert read([latin]) == read([open_slice(described(latin))]) == [["ZoÃ«"], ["Zoë"]]
    for kind in (CsvFile, JsonLines):
        with pytest.raises(ConfigError, match=f"{kind.__name__}: errors is 'xmlcharrefreplace': give one of 'strict'"):
            kind(path, errors="xmlcharrefreplace")
        with pytest.raises(ConfigError, match=f"{kind.__name__}: a file in utf-16 cannot be cut"):
            kind(path, encoding="utf-16")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.csv does not exist"):
        CsvFile(tmp_path / "none.csv")
    with pytest.raises(SourceError, match="is no regular file"):
        CsvFile(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SourceError, match="is no regular file"):
        JsonLines(pipe)
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(SourceError, match=r"a\.jsonl: byte 9: no line of JSON: Expecting value"):
        read([JsonLines(lines)])
    lines.write_text("[" * 50_000 + "\n")
    with pytest.raises(SourceError, match=r"a\.jsonl: byte 0: no line of JSON: maximum recursion depth"):
        read([JsonLines(lines)])


def test_a_relative_path_is_found_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_file(tmp_path / "data", "csv")
    description = described(CsvFile("data"))
    monkeypatch.chdir("/")
    assert open_slice(description).count() == Count.exact(100)


def test_a_count_of_a_large_file_reads_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_file(tmp_path / "data", "json")
    assert source.count() == Count.exact(100)
    monkeypatch.setattr(files, "_COUNTED_BYTES", 0)
    count = source.count()
    assert count.how == "estimated" and 90 <= (count.items or 0) <= 110


Q = Quoting.of(",", '"')


@pytest.mark.parametrize(
    ("data", "at_end", "expected"),
    [
        (b'a\n"b', False, 2),  # opens: the line end before is outside
        (b'a\nb",c\nd', False, 7),  # closes: the one before is within
        (b'a\n""b\n"x",', False, None),  # escaped quotes: within, and what follows does not tell where it ends
        (b"a\nb", False, None),  # no quote yet
        (b"a\nb", True, 2),
        (b"a" * 60 + b"\nb" + b"c" * 60, False, 61),  # longer than a field may be
        (b'a,","b"\n1', False, 8),  # the second opens, so the first closes
        (b'"""', False, None),  # half a run
        (b'x,"y\r', False, None),
        (b'\r\n"x', False, 2),
    ],
)
def test_the_quotes_near_a_cut_tell(data: bytes, at_end: bool, expected: int | None) -> None:
    assert record_start(data, Q, at_end=at_end, longest_field=100) == expected


@pytest.mark.parametrize("data", [b'5" pipe\n', b'a,",",\n' + b"b" * 100])
def test_quotes_that_tell_nothing(data: bytes) -> None:
    with pytest.raises(Undecided):
        record_start(data, Q, at_end=False, longest_field=20)
