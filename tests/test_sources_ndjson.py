"""NDJSON: every line that is not blank is one row, good or bad, at its place."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.record import Number, Position, Row
from moe_bulk.sources import ndjson
from moe_bulk.sources.base import MAX_BATCH
from moe_bulk.sources.lines import Pieces
from moe_bulk.sources.ndjson import Ndjson

if TYPE_CHECKING:
    from collections.abc import Callable

SCRAPS = [b"{}", b'{"a":1}', b"[]", b"null", b'"', b"{", b"\n", b"\r\n", b" ", b"\t", b"\xff", "é".encode(), b"\x0c"]
LINES = st.one_of(st.binary(), st.lists(st.sampled_from(SCRAPS)).map(b"".join))
CUTS = st.lists(st.integers(0, 12), max_size=12)


def feeding(data: bytes, sizes: list[int]) -> Callable[[], bytes | None]:
    """Give a stream of chunks of these sizes, where 0 is a pause, and then the rest."""
    chunks: list[bytes | None] = []
    for size in sizes:
        chunks.append(data[:size] or None)
        data = data[size:]
    left = iter([*chunks, data])
    return lambda: next(left, b"")


def rows(data: bytes, sizes: list[int] | None = None, max_row: int = 1_000_000) -> list[Row]:
    """Read it all."""
    source = Ndjson("f", Pieces(feeding(data, sizes or []), max_row=max_row))
    return [row for batch in source.batches() for row in batch]


@given(LINES, CUTS, st.integers(3, 30))
def test_every_line_that_is_not_blank_is_one_row(data: bytes, sizes: list[int], longest: int) -> None:
    """Arbitrary bytes, arbitrary pauses: each line once, at its number and its first byte, and never a crash."""
    found = rows(data, sizes, longest)

    offsets = [0]
    lines = data.split(b"\n")
    for line in lines:
        offsets.append(offsets[-1] + len(line) + 1)
    expected = [(number, offsets[number - 1]) for number, line in enumerate(lines, 1) if line.strip(b" \t\r")]
    assert expected == [(row.position.line, row.position.offset) for row in found]
    assert all((row.fields is None) != (row.problem is None) for row in found)
    assert rows(data, [], longest) == found


@given(st.lists(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(-(2**63), 2**64 - 1), st.none()))))
def test_what_was_written_is_read(written: list[dict[str, object]]) -> None:
    """Whatever objects a program writes come back, in their order."""
    data = "".join(json.dumps(row) + "\n" for row in written).encode()
    assert written == [row.fields for row in rows(data)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"[1]", "a row is a JSON object of fields; this is a JSON array"),
        (b'"u-1"', "a row is a JSON object of fields; this is a JSON string"),
        (b"7", "a row is a JSON object of fields; this is a JSON number"),
        (b"1.5", "a row is a JSON object of fields; this is a JSON number"),
        (b"true", "a row is a JSON object of fields; this is a JSON boolean"),
        (b"null", "a row is a JSON object of fields; this is a JSON null"),
        (b'{"a":1', "not valid JSON: "),
        (b'{"a":NaN}', "not valid JSON: "),
        (b'{"a":1e400,"b":NaN}', "not valid JSON: number is infinity"),
        (b'{"a":1e400,"b":-Infinity}', "not valid JSON: number is infinity"),
        (b'{"a":1e400,"b":"\\ud800"}', "not valid JSON: number is infinity"),
        (b'{"a":1e400,"b":"\xe9"}', "byte 17 of the row (0xe9) is not UTF-8"),
        (b'{"a":1e400', "not valid JSON: number is infinity"),
        (b"1e400", "a row is a JSON object of fields; this is a JSON number"),
        (b'{"a":1e400,"b":' + b"[" * 5000 + b"]" * 5000 + b"}", "not valid JSON: number is infinity"),
        (b'{"a":1.5,"b":' + b"[" * 1000 + b"]" * 1000 + b"}", "not valid JSON for a row: nested too deep"),
        (b'{"a":1}{"a":2}', "not valid JSON: "),
        (b'{"a":"\xe9"}', "byte 7 of the row (0xe9) is not UTF-8"),
        (b"[" * 5000, "not valid JSON: "),
    ],
)
def test_a_broken_line_is_a_row_with_a_problem_and_its_bytes(line: bytes, problem: str) -> None:
    """The rows around it are untouched."""
    before, broken, after = rows(b'{"a":"1"}\n' + line + b'\r\n{"a":"3"}\n')

    assert ({"a": "1"}, {"a": "3"}) == (before.fields, after.fields)
    assert broken.problem is not None
    assert broken.problem.startswith(problem)
    assert (line, len(line)) == (broken.raw, broken.raw_bytes)
    assert Position("f", 2, 10) == broken.position


def test_only_a_line_feed_ends_a_line() -> None:
    """Characters that Python takes for line ends stand in texts, and CR before LF is white space."""
    text = "a\u2028b\u0085c"
    assert [{"a": text}, {"a": "2"}] == [row.fields for row in rows(f'{{"a":"{text}"}}\r\n{{"a":"2"}}'.encode())]


def test_a_line_that_is_too_long_is_a_bad_row() -> None:
    """It is read past; what begins it may be valid by itself, and is not taken for the row."""
    long = b'{"a":1}' + b" " * 100 + b"x"
    found = rows(long + b'\n{"a":2}\n' + b" " * 200 + b'\n{"a":3}', max_row=50)

    assert [None, {"a": 2}, {"a": 3}] == [row.fields for row in found]
    assert "the line has 108 bytes" in str(found[0].problem)
    assert [1, 2, 4] == [row.position.line for row in found]


def test_batches_are_bounded_and_pauses_are_passed_on() -> None:
    """At most so many rows at a time; an empty list where nothing came for a while."""
    data = b"{}\n" * (2 * MAX_BATCH + 1)
    source = Ndjson("f", Pieces(feeding(data, [0, 3, 0])))

    assert [0, 1, 0, MAX_BATCH, MAX_BATCH] == [len(batch) for batch in source.batches()]
    assert source.columns is None


def test_places_go_on_behind_a_batch_and_behind_what_is_no_common_row() -> None:
    """Rows are parsed by the batch: lines and offsets are what they are one by one."""
    odd = {50: b"", 120: b"{torn", 230: b'{"a":1.10}', 231: b'{"a":7}', 320: b"[]"}
    lines = [odd.get(number, b'{"a":"%d"}' % number) for number in range(3 * MAX_BATCH + 50)]
    read = rows(b"\n".join(lines))

    offsets = list(accumulate((len(line) + 1 for line in lines), initial=0))
    expected = [Position("f", at + 1, offsets[at]) for at, line in enumerate(lines) if line]
    assert expected == [row.position for row in read]
    assert [121, 321] == [row.position.line for row in read if row.problem]
    found = {row.position.line: row.fields for row in read}
    assert {"a": "100"} == found[101]
    assert ({"a": 7}, "{'a': 1.10}") == (found[232], repr(found[231]))


def test_common_rows_are_parsed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts, booleans and nulls need no second look, nor does a file of integers have to be parsed twice."""
    monkeypatch.setattr(ndjson, "_parsed", None)
    monkeypatch.setattr(ndjson, "_exactly", None)
    for line in (b'{"a":"1.10","b":null,"c":true}', b'{"a":7}'):
        assert [json.loads(line)] * 3 == [row.fields for row in rows(b"\n".join([line] * 3))]
    monkeypatch.setattr(ndjson, "_row", None)
    assert 3 == len(rows(b'{"a":"1.10","b":null,"c":true}\n' * 3))


@pytest.mark.parametrize(
    "spelling",
    [
        "1.10",
        "-0",
        "-0.0",
        "1E5",
        "1e400",
        "1e-400",
        "18446744073709551616",
        "-9223372036854775809",
        "12345678901234567890123",
        "1" * 5000,
    ],
)
@pytest.mark.parametrize(
    "line", ['{{"a":{}}}', '{{"b":0,"a":{},"c":"1.1"}}', '{{"c":[{{"a":"-0"}},{{"d":7}}],"a":{}}}']
)
def test_a_number_keeps_its_spelling(line: str, spelling: str) -> None:
    """A parser would round it, and somebody who mends the dead letter would send another id."""
    (row,) = rows(line.format(spelling).encode())

    assert row.fields is not None
    assert (Number, spelling) == (type(row.fields["a"]), str(row.fields["a"]))


def test_a_number_within_a_value_keeps_its_spelling() -> None:
    """At any depth."""
    (row,) = rows(b'{"a":{"b":[{"c":"x"},[1.10,7]]}}')
    assert str(row.fields) == "{'a': {'b': [{'c': 'x'}, [1.10, 7]]}}"


@pytest.mark.parametrize("number", [0, 7, 2**64 - 1, -(2**63)])
@pytest.mark.parametrize("beside", ['"-0"', "1.10", "[]"])
def test_an_integer_of_64_bits_stays_one(number: int, beside: str) -> None:
    """Whatever stands beside it."""
    (row,) = rows(f'{{"a":{number},"b":{beside}}}'.encode())

    assert row.fields is not None
    assert (int, number) == (type(row.fields["a"]), row.fields["a"])


def test_the_last_of_equal_keys_counts() -> None:
    """With and without numbers that are read exactly."""
    assert [{"a": 2}, {"a": Number("2.50")}] == [row.fields for row in rows(b'{"a":1,"a":2}\n{"a":1.5,"a":2.50}')]


def test_deep_nesting_is_a_row() -> None:
    """Where no number needs a second look, it may be as deep as the parser takes it."""
    (row,) = rows(b'{"a":' + b"[" * 1000 + b"7" + b"]" * 1000 + b"}")
    assert row.problem is None
