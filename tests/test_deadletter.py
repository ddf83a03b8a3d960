"""Dead letters: whatever the row held, one line of JSON that can be uploaded again."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from collections import namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.deadletter import as_json, clean, letter
from moe_bulk.outcome import Result, Status
from moe_bulk.record import RAW_KEPT, Number, Position, Row
from moe_bulk.sources.lines import Pieces
from moe_bulk.sources.ndjson import Ndjson

PLACE = Position("devices.csv", 7, 120, 1)


def failed(fields: dict[str, object] | None, mapping: dict[str, object] | None = None) -> Result:
    """Give a rejected row."""
    return Result(
        PLACE,
        Status.REJECTED,
        Row(PLACE, fields),
        http_status=400,
        error_type="ValueError",
        reason="push_id: no",
        request_id="r-1",
        tries=3,
        mapping=mapping,
    )


def unreadable(raw: bytes, raw_bytes: int) -> Result:
    """Give a row that could not be parsed."""
    return Result(PLACE, Status.INVALID, Row(PLACE, None, "no JSON", raw, raw_bytes), reason="no JSON")


def read(line: bytes) -> dict[str, object]:
    """Read one line with the standard library's parser, which knows integers of any size."""
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    said = json.loads(line)
    assert isinstance(said, dict)
    return said


def note(line: bytes) -> dict[str, object]:
    """Read what the dead letter adds to its row."""
    said = read(line)["_moe_bulk"]
    assert isinstance(said, dict)
    return said


def test_letter_is_the_row_and_why_it_failed() -> None:
    """Columns and values stand as they were read, followed by one field of ours."""
    expected = {
        "Token": "abc",
        "user": "u-1",
        "_moe_bulk": {
            "format": 1,
            "source": "devices.csv",
            "line": 7,
            "item": 1,
            "status": "rejected",
            "reason": "push_id: no",
            "http_status": 400,
            "error_type": "ValueError",
            "request_id": "r-1",
            "attempts": 3,
            "superseded_by": None,
        },
    }

    said = read(letter(failed({"Token": "abc", "user": "u-1"})))

    assert expected == said
    assert list(said) == ["Token", "user", "_moe_bulk"]


def test_letter_carries_the_mapping_where_there_was_one() -> None:
    """Re-sending reads the row in the same way."""
    mapping: dict[str, object] = {"columns": {"push_id": "Token"}}

    assert mapping == note(letter(failed({"Token": "abc"}, mapping)))["mapping"]
    assert "mapping" not in note(letter(failed({"Token": "abc"})))


def again_with(earlier: dict[str, object] | None, fields: dict[str, object] | None = None) -> list[dict[str, object]]:
    """Give the history that the letter of a row with this note tells; nothing where it has none."""
    result = failed({"a": 1} if fields is None else fields)
    result.row.note = earlier
    history = note(letter(result)).get("history", [])
    assert isinstance(history, list)
    return history


def test_letter_of_a_row_that_was_one_tells_its_history() -> None:
    """Each earlier failure, oldest first: what it was, where it stood; without what only the newest needs."""
    oldest = {"source": "a.csv", "line": 9, "item": 0, "status": "exhausted", "reason": "timeout", "attempts": 8}
    earlier = note(letter(failed({"a": 1}, {"set": {"model": "x"}})))
    newer = {name: earlier[name] for name in (*oldest, "http_status", "error_type", "request_id")}

    assert [newer] == again_with(earlier)
    assert [oldest, newer] == again_with({**earlier, "history": [oldest]})
    assert [{**newer, "status": "invalid"}] == again_with({**earlier, "status": "invalid", "raw": "{", "raw_bytes": 1})
    assert "history" not in note(letter(failed({"a": 1})))


def test_letter_that_was_superseded_once_says_so_in_its_history() -> None:
    """It was sent all the same and failed again: the next time it is left out, as before."""
    earlier = {**note(letter(failed({"a": 1}))), "superseded_by": 12}

    assert [12] == [each["superseded_by"] for each in again_with(earlier)]


def test_letter_tells_the_last_of_a_long_history() -> None:
    """Sent again for ever, it does not grow for ever."""
    earlier: dict[str, object] = {"line": 0}
    for line in range(1, 50):
        earlier = {"line": line, "history": again_with(earlier)}

    assert [{"line": line} for line in range(30, 50)] == again_with(earlier)
    assert [{"line": line} for line in range(30, 50)] == again_with(
        {**earlier, "history": [{"line": line} for line in range(49)]}
    )


@pytest.mark.parametrize(
    ("earlier", "history"),
    [
        ({}, []),
        ({"line": None, "reason": None}, []),
        ({"line": True, "item": -1, "attempts": 2**63, "http_status": 4.5, "status": 7, "source": ["x"]}, []),
        ({"line": 1, "reason": None, "mapping": {}, "raw": "x", "previous": {}}, [{"line": 1, "reason": None}]),
        ({"reason": "r" * 5000}, [{"reason": "r" * 1000}]),
        ({"reason": "\ud800" * 1000}, [{"reason": ("\\ud800" * 1000)[:1000]}]),
        ({"line": 1, "history": "text"}, [{"line": 1}]),
        ({"line": 1, "history": [7, None, {}, [], {"line": "2"}, {"line": 3, "x": 4}]}, [{"line": 3}, {"line": 1}]),
        ({"line": 1, "history": [{"line": 2, "history": [{"line": 3}]}]}, [{"line": 2}, {"line": 1}]),
    ],
)
def test_letter_leaves_out_of_its_history_what_makes_no_sense(
    earlier: dict[str, object], history: list[dict[str, object]]
) -> None:
    """A letter is a file that people edit."""
    assert history == again_with(earlier)
    assert history == again_with(earlier, {"a": {1, 2}, "b": "\ud800"})


def test_letter_of_an_unreadable_row_holds_its_text() -> None:
    """What could not be parsed can be read and repaired."""
    said = read(letter(unreadable(b'{"a": \xc3\xa9', 8)))

    assert list(said) == ["_moe_bulk"]
    assert {"raw": '{"a": é', "raw_bytes": 8}.items() <= note(letter(unreadable(b'{"a": \xc3\xa9', 8))).items()


def test_letter_of_an_unreadable_row_that_was_cut_within_a_character() -> None:
    """A long line of text stays text, without the half character at its end."""
    raw = (b"x" + "é".encode() * RAW_KEPT)[:RAW_KEPT]

    said = note(letter(unreadable(raw, 200_000)))

    assert said["raw"] == "x" + "é" * (RAW_KEPT // 2 - 1)
    assert said["raw_bytes"] == 200_000


def test_letter_keeps_64_kib_of_an_unreadable_row() -> None:
    """A line of a megabyte is told by its beginning."""
    said = note(letter(unreadable(b"x" * 1_000_000, 1_000_000)))

    assert said["raw"] == "x" * RAW_KEPT


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"abc\xc3"])
def test_letter_of_an_unreadable_row_that_is_no_text(raw: bytes) -> None:
    """Bytes that are no UTF-8 come back exactly, as base64."""
    said = note(letter(unreadable(raw, len(raw))))

    assert raw == base64.b64decode(str(said["raw_base64"]))
    assert "raw" not in said


def test_letter_keeps_a_field_of_its_own_name() -> None:
    """A row with a `_moe_bulk` of its own loses nothing."""
    said = read(letter(failed({"_moe_bulk": {"line": 3}, "a": 1})))

    assert list(said) == ["a", "_moe_bulk"]
    assert note(letter(failed({"_moe_bulk": {"line": 3}})))["previous"] == {"line": 3}


class Colour(Enum):
    """An enumeration of a caller."""

    RED = "red"


class Name(StrEnum):
    """An enumeration that is text."""

    OWN = "_moe_bulk"


class Loud(str):
    """Text of a class of its own."""

    __slots__ = ()


class Real(float):
    """A number of a class of its own, as other libraries have them."""

    __slots__ = ()


class Indexed:
    """An integer of another library."""

    def __index__(self) -> int:
        """Tell the number."""
        return 42


class Mute:
    """An object that refuses to be shown."""

    def __str__(self) -> str:
        """Refuse."""
        raise RuntimeError


class Broken(dict[str, object]):
    """A mapping that refuses to be read."""

    def items(self) -> None:  # type: ignore[override]  # it is broken on purpose
        """Refuse."""
        raise RuntimeError


@dataclass
class Point:
    """A dataclass of a caller."""

    x: object
    y: object = None


Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - as untyped code makes them

VALUES: list[tuple[object, object]] = [
    (2**64 - 1, 2**64 - 1),
    (-(2**63), -(2**63)),
    (2**64, str(2**64)),
    (-(2**63) - 1, str(-(2**63) - 1)),
    (float("nan"), None),
    (float("inf"), None),
    (Real(1.5), 1.5),
    (Number("nan"), None),
    (Number("1_0.50"), 10.5),
    (Number(" 1.5\n"), 1.5),
    (Decimal("1.10"), "1.10"),
    (datetime(2026, 11, 23, tzinfo=UTC), "2026-11-23T00:00:00+00:00"),
    (date(2026, 11, 23), "2026-11-23"),
    (time(1, 2, tzinfo=UTC), "01:02:00+00:00"),
    (b"abc", "abc"),
    (bytearray(b"\xff"), "\\xff"),
    ("\ud800x", "\\ud800x"),
    (Loud("loud"), "loud"),
    ({1}, [1]),
    (frozenset({1}), [1]),
    ((1, 2), [1, 2]),
    (Pair(1, 2), [1, 2]),
    (Colour.RED, "red"),
    (Point(1), {"x": 1, "y": None}),
    (Path("a/b"), "a/b"),
    (Indexed(), 42),
    (Mute(), "<Mute that cannot be shown>"),
    (Point, f"{Point}"),
    ({1: "a", "1": "b"}, {"1 (2)": "a", "1": "b"}),
    ({"1": "b", 1: "a", b"1": "c"}, {"1": "b", "1 (2)": "a", "1 (3)": "c"}),
    ({Mute(): 1, Loud("k"): 2, None: 3}, {"<Mute that cannot be shown>": 1, "k": 2, "None": 3}),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=map(str, range(len(VALUES))))
@pytest.mark.parametrize("beside", [None, 2**70], ids=["plain", "beside a large number"])
def test_letter_of_a_value_that_json_does_not_know(value: object, expected: object, beside: object) -> None:
    """Each value has one form, whatever stands beside it in the row."""
    assert expected == read(letter(failed({"value": value, "beside": beside})))["value"]


def test_letter_of_an_integer_that_python_does_not_print() -> None:
    """Not even ten thousand digits are lost."""
    assert read(letter(failed({"value": 16**10_000})))["value"] == "0x1" + "0" * 10_000


def test_letter_of_a_mapping_that_refuses_to_be_read() -> None:
    """An object that raises when looked at costs its own value only."""
    said = read(letter(failed({"value": [Broken(), 1], "big": 2**70, "a": 1})))

    assert {"value": ["<Broken that cannot be shown>", 1], "a": 1}.items() <= said.items()


def test_letter_of_a_value_that_contains_itself() -> None:
    """A circle ends where it begins."""
    circle: list[object] = [1]
    circle.append(circle)

    assert read(letter(failed({"value": circle})))["value"] == [1, "…"]


def test_letter_of_a_value_that_is_very_deep() -> None:
    """Nesting that no parser takes is cut off."""
    deep: object = "core"
    for _ in range(2_000):
        deep = [deep]

    line = letter(failed({"value": deep, "a": 1}))

    assert read(line)["a"] == 1
    assert b"core" not in line


def test_letter_of_columns_whose_names_are_no_text() -> None:
    """Every column is there, and our own field is ours."""
    fields: dict[object, object] = {None: 1, 2: 2, "\ud800": 3, Name.OWN: 4, (1, 2): 5}

    said = read(letter(failed(fields)))  # type: ignore[arg-type]  # rows of untyped code

    assert {"None": 1, "2": 2, "\\ud800": 3, "(1, 2)": 5}.items() <= said.items()
    assert note(letter(failed(fields)))["previous"] == 4  # type: ignore[arg-type]


def test_letter_of_a_reason_with_lone_surrogates() -> None:
    """What the note says is made readable as the row is."""
    place = Position("\udcff.csv", 1, 0)

    said = note(letter(Result(place, Status.INVALID, Row(place, {}), reason="\ud800")))

    assert (said["source"], said["reason"]) == ("\\udcff.csv", "\\ud800")


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SIMPLE = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT
ODD = (
    st.integers()
    | st.floats()
    | st.binary()
    | st.decimals()
    | st.datetimes()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.complex_numbers()
    | st.text()
    | st.sampled_from([value for value, _ in VALUES])
)
ANY = st.recursive(
    SIMPLE | ODD,
    lambda inner: (
        st.lists(inner) | st.dictionaries(TEXT | st.integers() | st.none() | st.text(), inner) | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(TEXT.filter(lambda name: name != "_moe_bulk"), SIMPLE), st.dictionaries(st.text(), ANY))
def test_letter_keeps_simple_values_as_they_are(simple: dict[str, object], odd: dict[str, object]) -> None:
    """Text, 64-bit integers, booleans and nulls survive exactly, whatever else the row holds; it is always one line."""
    line = letter(failed({**odd, **simple}))

    said = read(line)

    assert [(value, type(value)) for value in simple.values()] == [(said[name], type(said[name])) for name in simple]
    assert len({*odd, *simple, "_moe_bulk"}) == len(said)
    assert orjson.loads(line).keys() == said.keys()


def again(line: bytes) -> dict[str, object]:
    """Read a row as an upload does."""
    feed = iter([line])
    ((row,),) = Ndjson("f", Pieces(lambda: next(feed, b""), max_row=1_000_000)).batches()
    assert row.fields is not None
    return row.fields


SPELLING = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
NESTED = st.recursive(
    SPELLING,
    lambda inner: st.lists(inner, max_size=4).map(lambda each: f"[{','.join(each)}]") | inner.map('{{"n":{}}}'.format),
    max_leaves=8,
)


@given(st.lists(NESTED, min_size=1, max_size=4))
def test_letter_keeps_numbers_as_they_were_spelt(values: list[str]) -> None:
    """An upload of the letter gives the same letter, byte for byte: no id loses its digits on the way."""
    row = ",".join(f'"k{number}":{value}' for number, value in enumerate(values))

    first = letter(failed(again(f"{{{row}}}".encode())))
    fields = again(first)
    del fields["_moe_bulk"]

    assert first.startswith(f"{{{row},".encode())
    assert first == letter(failed(fields))


@pytest.mark.parametrize("beside", [None, "\ud800"], ids=["plain", "beside half a character"])
def test_letter_spells_numbers_beside_anything(beside: object) -> None:
    """Other values of the row, and a copy of the number, change nothing."""
    number = pickle.loads(pickle.dumps(copy.deepcopy(Number("1.10"))))  # noqa: S301 - it is our own

    assert letter(failed({"a": [number], "beside": beside})).startswith(b'{"a":[1.10],')


@given(ANY)
def test_json_of_anything(value: object) -> None:
    """Nothing is refused: a lossy value is better than a lost row."""
    json.loads(as_json(value))


def test_json_takes_options() -> None:
    """A summary is indented, also where it holds what JSON does not know."""
    assert as_json({"a": 1}, option=orjson.OPT_INDENT_2) == b'{\n  "a": 1\n}'
    assert as_json({"a": "\ud800"}, option=orjson.OPT_INDENT_2) == b'{\n  "a": "\\\\ud800"\n}'


def test_clean_spells_out_lone_surrogates_only() -> None:
    """Text that is text stays as it is."""
    assert (clean("é😀"), clean("a\udcff")) == ("é😀", "a\\udcff")
