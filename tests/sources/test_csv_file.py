"""CSV and JSON Lines files: where they are cut, how they are written, and what happens when they change."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rqmem.errors import ConfigError, SourceError
from rqmem.sources import Count, CsvFile, Cuttable, JsonLines, csv_file, files, open_file, open_slice
from rqmem.sources.csv_cuts import Quoting, Undecided, record_start
from rqmem.testing import assert_stays_under
from tests.sources.makers import as_csv_reads

quietly = settings(
    max_examples=80,
    deadline=None,
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
    for encoding in ("utf-16", "utf-32-le", "utf-7", "iso2022_jp"):
        with pytest.raises(ConfigError, match=f"a file in {encoding} cannot be cut: convert it to UTF-8"):
            CsvFile(path, encoding=encoding)
    with pytest.raises(ConfigError, match="cannot be cut"):  # whose second byte may be a backslash
        CsvFile(path, encoding="shift_jis", escapechar="\\")
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
        ({"longest_record": 0}, "CsvFile: longest_record is 0: give a number of bytes greater than 0"),
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


def replace(path: Path) -> None:
    status = path.stat()
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


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
        (lambda path: os.utime(path, ns=(1, 1)), r"was written to \(at 1970-01-01 00:00:00 UTC\)"),
        (replace, "was replaced by another file"),
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
    if path.exists() and kind == "json" and change is not replace:  # a new look, an old cursor
        with pytest.raises(SourceError, match=message):
            list(JsonLines(path).items_after(cursor))


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


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.csv does not exist"):
        CsvFile(tmp_path / "none.csv")
    with pytest.raises(SourceError, match="is no regular file"):
        CsvFile(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SourceError, match="is no regular file"):
        JsonLines(pipe)
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(SourceError, match=r"is compressed \(gzip\), so it cannot be cut"):
        CsvFile(packed)
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
