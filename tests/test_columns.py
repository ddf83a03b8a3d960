"""Rows become devices: which column is which field, what is left out, and dead letters as an input."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.columns import WARNINGS_KEPT, Columns, Reader, Unsent
from moe_bulk.deadletter import letter
from moe_bulk.device import FIELDS, Device
from moe_bulk.errors import ConfigError
from moe_bulk.outcome import Result, Status
from moe_bulk.record import NOTE, RAW_KEPT, Position, Record, Row

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACE = Position("devices.csv", 2, 40)
PLAIN: dict[str, object] = {"customer_id": "u-1", "device_id": "d-1", "platform": "iOS", "push_id": "token-1"}
DEVICE = Device("u-1", "d-1", {"platform": "iOS", "push_id": "token-1"})
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["u-1", "iOS", "tok", "na", "true", ""]),
)
JSON = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
NAMES = st.one_of(st.sampled_from([*FIELDS, "type", "uid", "token", "attributes", NOTE]), st.text(max_size=8))


def row(fields: Mapping[str, Any]) -> Row:
    """Give a row."""
    return Row(PLACE, dict(fields))


def made(fields: Mapping[str, Any], columns: Columns | Reader | None = None) -> Record:
    """Make a device."""
    reader = columns if isinstance(columns, Reader) else Reader(columns or Columns())
    record = reader.read(row(fields))
    assert isinstance(record, Record)
    return record


def unsent(fields: Mapping[str, Any], columns: Columns | None = None) -> Unsent:
    """Read a row that is not sent."""
    found = Reader(columns or Columns()).read(row(fields))
    assert isinstance(found, Unsent)
    return found


def failed(read: Record | Unsent) -> bytes:
    """Give the dead letter of a row that was read."""
    if isinstance(read, Record):
        return letter(Result(PLACE, Status.REJECTED, read.row, reason="push_id: no", mapping=read.mapping))
    return letter(Result(PLACE, Status.INVALID, read.row, reason=read.reason, mapping=read.mapping))


def read_again(line: bytes, columns: Columns | None = None) -> Record | Unsent:
    """Upload a dead letter."""
    return Reader(columns or Columns()).read(row(orjson.loads(line)))


# -- rows --------------------------------------------------------------------------------------------------------------


def test_a_row_with_the_fields_names_needs_no_mapping() -> None:
    """The row stays as it was read, and the record carries no mapping."""
    record = made(PLAIN)
    assert (DEVICE, None, PLAIN, PLACE) == (record.device, record.mapping, record.row.fields, record.position)


def test_columns_and_constants_make_the_fields() -> None:
    """`--column` renames, `--set` replaces whatever the row has; the record carries both along."""
    columns = Columns.parse(column=["customer_id=uid", "push_id= token "], set_=["platform=iOS", "model=a=b"])
    fields = {"uid": "u-1", "device_id": "d-1", "token": "token-1", "platform": "web", "customer_id": "other"}
    record = made(fields, columns)

    assert Device("u-1", "d-1", {"platform": "iOS", "push_id": "token-1", "model": "a=b"}) == record.device
    mapping = {"columns": {"customer_id": "uid", "push_id": "token"}, "set": {"platform": "iOS", "model": "a=b"}}
    assert mapping == record.mapping
    assert fields == record.row.fields


def test_basic_validation_is_a_mapping_too() -> None:
    """A dead letter that was read with it is read with it again."""
    record = made({"customer_id": "u-1", "device_id": "d-1"}, Columns.parse(validate="basic"))
    assert (Device("u-1", "d-1", {}), {"validate": "basic"}) == (record.device, record.mapping)


def test_a_row_that_is_no_device_says_why_and_whose_it_is() -> None:
    """With its ids and the mapping, for the result and the dead letter."""
    columns = Columns.parse(column=["customer_id=uid"])
    found = unsent({"uid": "u-1", "device_id": "d-1", "platform": "x", "push_id": "t"}, columns)

    assert (Status.INVALID, "u-1", "d-1", columns.mapping) == (
        found.status,
        found.customer_id,
        found.device_id,
        found.mapping,
    )
    assert found.reason.startswith("platform 'x' is unknown")


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"platform": "x"}, {"device", "push_id"}),
        ({"push_id": "na"}, {"device"}),
        ({"device_id": " "}, {"push_id"}),
        ({"attributes": 7}, {"device", "push_id"}),
        ({"attributes": {"push_id": "token-2"}}, {"device", "push_id"}),
        ({NOTE: {"mapping": 7}}, {"device", "push_id"}),
        ({NOTE: {"mapping": 7}, "customer_id": None}, {"push_id"}),
        ({NOTE: {"superseded_by": 7}}, set()),
        (
            {
                "customer_id": None,
                "uid": "u-1",
                "platform": "x",
                NOTE: {"mapping": {"columns": {"customer_id": "uid"}}},
            },
            {"device", "push_id"},
        ),
    ],
)
def test_an_invalid_row_tells_the_keys_that_nothing_is_wrong_with(fields: dict[str, object], keys: set[str]) -> None:
    """Through columns and constants, so that a later row can make its letter obsolete."""
    found = unsent({**PLAIN, **fields})
    assert {key for key in DEVICE.keys() if key[0] in keys} == set(found.keys)  # noqa: SIM118  no dictionary
    renamed = unsent({"uid": "u-1", "attributes": 7}, Columns.parse(column=["customer_id=uid"], set_=["device_id=d-1"]))
    assert (("device", "u-1", "d-1"),) == renamed.keys


def test_a_row_that_could_not_be_read_stays_what_it_is() -> None:
    """Its problem is the reason."""
    bad = Row(PLACE, None, "not valid JSON", b"{", 1)
    assert Unsent(bad, Status.INVALID, "not valid JSON") == Reader(Columns()).read(bad)
    assert Unsent(Row(PLACE, None), Status.INVALID, "the row cannot be read") == Reader(Columns()).read(
        Row(PLACE, None)
    )


@pytest.mark.parametrize(
    ("where", "fields", "kept"),
    [
        ("country=DE", {"country": "DE"}, True),
        ("country=DE", {"country": "de"}, False),
        ("country=DE", {}, False),
        ("country=", {}, True),
        ("country=", {"country": None}, True),
        ("country=", {"country": "DE"}, False),
        ("active=true", {"active": True}, True),
        ("active=false", {"active": False}, True),
        ("active=1", {"active": True}, False),
        ("type=1", {"type": 1}, True),
        ("share=0.5", {"share": 0.5}, True),
        ("tags=[]", {"tags": []}, False),
        ("country=DE", {"attributes": {"country": "DE"}}, True),
        ("query=a=b", {"query": "a=b"}, True),
    ],
)
def test_where_keeps_rows_by_a_column(where: str, fields: dict[str, object], *, kept: bool) -> None:
    """Values are compared as they stand in the file; nothing and null are the empty text."""
    row = {**PLAIN, **fields} if "type" not in fields else {**PLAIN, **fields, "platform": "iOS"}
    found = Reader(Columns.parse(where=[where], validate="basic")).read(Row(PLACE, dict(row)))

    assert kept == isinstance(found, Record)
    if isinstance(found, Unsent):
        assert (Status.SKIPPED, "u-1", "d-1") == (found.status, found.customer_id, found.device_id)
        assert found.reason.startswith(f"--where {where}: here it is ")


@pytest.mark.parametrize("value", ["x" * 10_000, ["x" * 1000] * 50, "\ud800"])
def test_the_reason_of_a_skipped_row_can_be_written(value: object) -> None:
    """It is short, and no half character gets into a result line."""
    found = unsent({**PLAIN, "a": value, "customer_id": 17, "device_id": True}, Columns.parse(where=["a=b\udce9"]))

    assert len(found.reason) < 400
    assert ("17", None) == (found.customer_id, found.device_id)
    assert found.reason.encode()


# -- paths -------------------------------------------------------------------------------------------------------------

NESTED: dict[str, object] = {
    "user": {"id": "u-1", "country": "DE"},
    "device": {"id": "d-1", "os": {"name": "iOS"}, "token": "token-1"},
}
PATHS = ["customer_id=user.id", "device_id=device.id", "platform=device.os.name", "push_id=device.token"]


def test_columns_reach_into_nested_objects() -> None:
    """Dots lead into them; the letter carries the paths as they were typed."""
    record = made(NESTED, Columns.parse(column=PATHS))
    assert DEVICE == record.device
    assert {"columns": dict(path.split("=") for path in PATHS)} == record.mapping
    assert DEVICE == getattr(read_again(failed(record)), "device", None)


def test_a_column_with_dots_in_its_name_wins() -> None:
    """So a file whose columns are called so is read as before."""
    columns = Columns.parse(column=["customer_id=user.id"])
    assert "u-1" == made({**PLAIN, "user.id": "u-1", "user": {"id": "u-2"}}, columns).device.customer_id


@pytest.mark.parametrize(
    ("where", "kept"), [("user.country=DE", True), ("user.country=FR", False), ("user.age=", True)]
)
def test_where_reaches_into_nested_objects(where: str, *, kept: bool) -> None:
    """As columns do."""
    found = Reader(Columns.parse(column=PATHS, where=[where])).read(row(NESTED))
    assert kept == isinstance(found, Record)


@pytest.mark.parametrize("fields", [{"user": None}, {"user": "u-1"}, {"user": ["u-1"]}, {}])
def test_a_path_that_leads_nowhere_gives_nothing(fields: dict[str, object]) -> None:
    """The field is missing, as with a column that a row does not have."""
    found = unsent({**NESTED, **fields, "user": fields.get("user")}, Columns.parse(column=PATHS))
    assert (Status.INVALID, "customer_id is missing") == (found.status, found.reason)


def test_paths_into_attributes() -> None:
    """What lies in there counts as the row's own, and goes by either name."""
    columns = Columns.parse(column=["push_id=attributes.token"], where=["attributes.country=DE"])
    reader = Reader(columns)
    fields = {**PLAIN, "push_id": None, "attributes": {"token": "token-1", "country": "DE"}}
    assert (DEVICE, []) == (made(fields, reader).device, reader.warnings())


def test_what_paths_lead_into_needs_no_warning() -> None:
    """It is in use; what stands beside it is none of ours to judge."""
    reader = Reader(Columns.parse(column=PATHS, where=["user.country=DE"]))
    made({**NESTED, "tags": []}, reader)
    assert ["field 'tags' is not sent: it is none of the API's."] == reader.warnings()


def test_a_path_is_no_column_of_a_file_with_a_header() -> None:
    """There is nothing nested in it."""
    with pytest.raises(ConfigError, match=r"--column names a column 'user\.id' that is not there"):
        Reader(Columns.parse(column=["customer_id=user.id"])).check_header("f.csv", [*PLAIN, "user"])


# -- the API's own shape -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {
            "type": "device",
            "customer_id": "u-1",
            "device_id": "d-1",
            "attributes": {"platform": "iOS", "push_id": "token-1"},
        },
        {**PLAIN, "attributes": {"platform": "iOS", "push_id": "token-1"}},
        {**PLAIN, "attributes": {"platform": None, "push_id": ""}},
        {**PLAIN, "platform": None, "push_id": " ", "attributes": {"platform": "iOS", "push_id": "token-1"}},
        {**PLAIN, "attributes": {}},
        {**PLAIN, "attributes": None},
        {**PLAIN, "attributes": " "},
        {**PLAIN, "attributes": "somebody's own column"},
    ],
)
def test_rows_may_have_the_api_s_shape(fields: dict[str, object]) -> None:
    """Flat, nested or both, where both say the same; what says nothing does not count."""
    record = made(fields)
    assert (DEVICE, fields) == (record.device, record.row.fields)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"push_id": "token-2"}, "push_id stands twice, as 'token-1' and in attributes as 'token-2'"),
        ({"customer_id": "u-2"}, "customer_id stands twice, as 'u-1' and in attributes as 'u-2'"),
        (["platform"], "attributes must be an object of fields; it is ['platform']"),
        (7, "attributes must be an object of fields; it is 7"),
        (False, "attributes must be an object of fields; it is False"),
    ],
)
def test_attributes_that_contradict_the_row_or_are_none(attributes: object, reason: str) -> None:
    """Nobody guesses which one is meant."""
    found = unsent({**PLAIN, "attributes": attributes})
    assert (Status.INVALID, reason, "u-1", "d-1") == (found.status, found.reason, found.customer_id, found.device_id)


def test_columns_reach_into_attributes() -> None:
    """The names in there count like those outside."""
    columns = Columns.parse(column=["push_id=token"])
    fields = {**PLAIN, "push_id": None, "attributes": {"token": "token-1"}}
    assert DEVICE == made(fields, columns).device


# -- warnings ----------------------------------------------------------------------------------------------------------


def test_fields_that_are_not_sent_are_told_once() -> None:
    """With a suggestion where one is close; fields in use are none of them."""
    reader = Reader(Columns.parse(column=["push_id=token"], where=["country=DE"]))
    fields = {
        **PLAIN,
        "token": "t-1",
        "country": "DE",
        "app_verison": "1",
        "attributes": {"tags": [], "type": "device"},
    }
    for _ in range(3):
        made(fields, reader)

    assert [
        "field 'app_verison' is not sent: it is none of the API's. Did you mean app_version?",
        "field 'tags' is not sent: it is none of the API's.",
    ] == reader.warnings()


def test_columns_hold_no_memory_of_their_use() -> None:
    """Whoever reads with them a second time is warned as the first was."""
    columns = Columns()
    for _ in range(2):
        reader = Reader(columns)
        made({**PLAIN, "junk": "x"}, reader)
        assert ["field 'junk'"] == [text.split(" is not")[0] for text in reader.warnings()]
        assert 1 == len(reader.check_header("f.csv", [*PLAIN, "Notes"]))


def test_warnings_are_bounded() -> None:
    """Rows with ever new names fill no memory."""
    reader = Reader(Columns())
    for number in range(3 * WARNINGS_KEPT):
        made({**PLAIN, f"x{number}": "1", "y" * 1000: "2"}, reader)

    assert WARNINGS_KEPT == len(reader.warnings())
    assert all(len(warning) < 200 for warning in reader.warnings())
    assert WARNINGS_KEPT == len(
        Reader(Columns()).check_header("f", [*PLAIN, *(f"x{number}" for number in range(1000))])
    )


def test_names_that_are_no_text_are_told_as_they_are() -> None:
    """Rows in memory may have any keys."""
    reader = Reader(Columns())
    reader.read(Row(PLACE, {**PLAIN, 7: "x", "\ud800": "y"}))  # type: ignore[dict-item]  # as callers do
    assert ["field '7' is not sent", "field '\\\\ud800' is not sent"] == [
        text.split(":")[0] for text in reader.warnings()
    ]


# -- headers -----------------------------------------------------------------------------------------------------------


def test_a_header_s_columns_that_are_not_sent_are_told_once() -> None:
    """And not again for each row."""
    reader = Reader(Columns.parse(column=["push_id=token"], where=["country=DE"]))
    header = ["customer_id", "device_id", "platform", "token", "country", "Notes", "type", NOTE]

    assert [
        "column 'Notes' is not sent: it is none of the API's.",
        f"column '{NOTE}' is not sent: it is none of the API's.",
    ] == reader.check_header("f.csv", header)
    made({**dict.fromkeys(header, ""), **PLAIN, "token": "t-1", "country": "DE"}, reader)
    assert [] == reader.warnings()


@pytest.mark.parametrize(
    ("columns", "header", "message"),
    [
        (
            Columns(),
            ["Customer_ID", "device_id", "platform", "push_id"],
            "f.csv: there is no column customer_id: name one ",
        ),
        (
            Columns(),
            ["Customer_ID", "device_id", "platform", "push_id"],
            "Did you mean Customer_ID? Its columns: Customer_",
        ),
        (
            Columns(),
            ["customer_id", "device_id", "push_id"],
            "no column platform: name one with --column platform=COLUMN",
        ),
        (Columns(), ["customer_id", "device_id", "push_id"], "give all rows the same with --set platform=VALUE. Its"),
        (Columns(), [f"c{number}" for number in range(30)], "c19 …"),
        (Columns(), ["x" * 1000], "Its columns: " + "x" * 60),
        (Columns(), ["\x1b[2J\rdevice_id", "n\u202eo"], "Its columns: \\x1b[2J\\rdevice_id, n\\u202eo"),
        (Columns(), ["customer_id\x07"], "Did you mean customer_id\\x07? Its columns: customer_id\\x07"),
        (
            Columns.parse(column=["push_id=tokn"]),
            ["token"],
            "--column names a column 'tokn' that is not there. Did you mean token?",
        ),
        (
            Columns.parse(where=["land=DE"]),
            ["token"],
            "--where names a column 'land' that is not there. Its columns: token",
        ),
        (Columns.parse(validate="basic"), ["device_id"], "there is no column customer_id"),
    ],
)
def test_a_header_without_what_is_needed_is_refused(columns: Columns, header: list[str], message: str) -> None:
    """Before the first row is sent, with what to type."""
    with pytest.raises(ConfigError) as refused:
        Reader(columns).check_header("f.csv", header)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("columns", "header"),
    [
        (Columns(), [*FIELDS]),
        (Columns.parse(column=["push_id=token"], set_=["platform=TV"]), ["customer_id", "device_id", "token"]),
        (Columns.parse(validate="basic"), ["customer_id", "device_id"]),
    ],
)
def test_a_header_with_what_is_needed_is_taken(columns: Columns, header: list[str]) -> None:
    """Columns, constants and the lesser validation count."""
    assert [] == Reader(columns).check_header("f.csv", header)


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"column": ["customer_id"]}, "--column 'customer_id': write it like --column FIELD=COLUMN"),
        ({"column": ["=uid"]}, "--column '=uid': write it like --column FIELD=COLUMN"),
        ({"column": ["customer_id= "]}, "customer_id is given no column: write --column customer_id=COLUMN"),
        ({"column": ["customer_id=a", " customer_id =b"]}, "--column names customer_id twice: 'a' and 'b'"),
        (
            {"column": ["customerid=uid"]},
            "there is no field 'customerid'. Did you mean customer_id? Fields: customer_id, ",
        ),
        ({"set_": ["colour=red"]}, "there is no field 'colour'. Fields: "),
        ({"set_": ["platform"]}, "--set 'platform': write it like --set FIELD=VALUE"),
        ({"where": ["country"]}, "--where 'country': write it like --where COLUMN=VALUE"),
        ({"where": ["a=1", "a=2"]}, "--where names a twice: '1' and '2'"),
        ({"column": ["model=a"], "set_": ["model=b"]}, "model has both a column and a constant: keep one of"),
        ({"validate": "lax"}, "there is no validation 'lax': use strict or basic"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    """At birth, with what to type."""
    with pytest.raises(ConfigError) as refused:
        Columns.parse(**settings)
    assert str(refused.value).startswith(message)


# -- dead letters ------------------------------------------------------------------------------------------------------


@given(
    fields=st.dictionaries(NAMES, JSON, max_size=6),
    renamed=st.sampled_from(["", "customer_id", "device_id", "platform", "push_id"]),
    constant=st.booleans(),
    validate=st.sampled_from(["strict", "basic"]),
)
def test_a_dead_letter_is_read_as_its_row_was(
    *, fields: dict[str, object], renamed: str, constant: bool, validate: Any
) -> None:
    """Unchanged, it comes to the same: the same device or reason, keys, row and letter, but for history."""
    fields = {**PLAIN, **{name: value for name, value in fields.items() if not isinstance(value, dict) or name != NOTE}}
    columns = Columns.parse(
        column=[f"{renamed}=uid"] if renamed else [], set_=["model=Pixel"] if constant else [], validate=validate
    )
    first = Reader(columns).read(row(fields))
    again = read_again(failed(first))

    assert type(first) is type(again)
    if isinstance(first, Record) and isinstance(again, Record):
        assert (first.device, first.mapping, fields) == (again.device, again.mapping, again.row.fields)
    if isinstance(first, Unsent) and isinstance(again, Unsent):
        assert (first.reason, first.customer_id, first.device_id) == (again.reason, again.customer_id, again.device_id)
        assert (first.keys, fields) == (again.keys, again.row.fields)
    assert orjson.loads(failed(first))[NOTE] == again.row.note
    again.row.note = None
    assert failed(first) == failed(again)


@given(raw=st.binary(max_size=40), cut=st.booleans())
def test_the_letter_of_an_unreadable_row_stays_the_same(*, raw: bytes, cut: bool) -> None:
    """It is invalid again, with the same bytes, until somebody writes the fields."""
    first = Reader(Columns()).read(Row(PLACE, None, "not valid JSON", raw, len(raw) + 5 * cut))
    again = read_again(failed(first))

    assert isinstance(again, Unsent)
    assert (Status.INVALID, "not valid JSON", None) == (again.status, again.reason, again.row.fields)
    assert again.row.raw_bytes == len(raw) + 5 * cut
    assert raw == again.row.raw or (cut and raw.startswith(again.row.raw))
    repaired = {**PLAIN, NOTE: json.loads(failed(again))[NOTE]}
    assert DEVICE == made(repaired).device


def test_a_letter_s_row_loses_its_note() -> None:
    """What is counted, shown and written again is the row as it was read at first; the note stands beside it."""
    note = {"status": "rejected", "line": 7, "superseded_by": None}
    record = made({**PLAIN, NOTE: note})
    assert (DEVICE, PLAIN, note) == (record.device, record.row.fields, record.row.note)
    assert made(PLAIN).row.note is None


@pytest.mark.parametrize(
    "note",
    [
        {"raw": "{", "raw_bytes": 1, "reason": "no"},
        {"superseded_by": 9},
        {"mapping": 7},
        {"mapping": {"set": {"model": "x"}}},
    ],
)
def test_every_letter_keeps_its_note(note: dict[str, object]) -> None:
    """Also one that cannot be read, is left out or is invalid: its history goes on."""
    fields = {} if "raw" in note else PLAIN
    assert note == Reader(Columns()).read(row({**fields, NOTE: note})).row.note


def test_a_row_that_fails_again_and_again_tells_its_history() -> None:
    """From letter to letter, oldest first."""
    read: Record | Unsent = made(PLAIN)
    for line in (7, 3, 5):
        note = orjson.loads(failed(read))[NOTE]
        read = made({**PLAIN, NOTE: {**note, "line": line}})

    history = orjson.loads(failed(read))[NOTE]["history"]
    assert [7, 3, 5] == [each["line"] for each in history]
    assert {"push_id: no"} == {each["reason"] for each in history}


def test_the_mapping_of_this_run_lies_on_top_of_the_letter_s() -> None:
    """Field by field: what is said now counts, the rest is read as it was."""
    note = {
        "mapping": {"columns": {"customer_id": "uid", "push_id": "token"}, "set": {"platform": "iOS", "model": "old"}}
    }
    reader = Reader(Columns.parse(column=["model=modell", "push_id=tok"], set_=["customer_id=u-9"]))
    fields = {"uid": "u-1", "device_id": "d-1", "token": "t-1", "tok": "t-2", "modell": "new", "junk": "x"}
    record = made({**fields, NOTE: note}, reader)

    assert Device("u-9", "d-1", {"platform": "iOS", "push_id": "t-2", "model": "new"}) == record.device
    assert record.mapping == {
        "columns": {"push_id": "tok", "model": "modell"},
        "set": {"platform": "iOS", "customer_id": "u-9"},
    }
    made({**fields, NOTE: note}, reader)
    assert ["field 'uid'", "field 'token'", "field 'junk'"] == [text.split(" is not")[0] for text in reader.warnings()]


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        ("x", "_moe_bulk.mapping: it must be an object with columns and set"),
        ({"columns": ["a"]}, "_moe_bulk.mapping: columns must map fields to text"),
        ({"set": {"platform": 7}}, "_moe_bulk.mapping: set must map fields to text"),
        ({"columns": {"colour": "x"}}, "_moe_bulk.mapping: there is no field 'colour'"),
        ({"columns": {"c" * 5000: "x"}}, "_moe_bulk.mapping: there is no field 'ccc"),
        (
            {"columns": {"model": "x"}, "set": {"model": "y"}},
            "_moe_bulk.mapping: model has both a column and a constant",
        ),
    ],
)
def test_a_mapping_that_makes_no_sense_makes_the_letter_invalid(mapping: object, reason: str) -> None:
    """It is data: a result, not an error."""
    found = unsent({**PLAIN, NOTE: {"mapping": mapping}})
    assert (Status.INVALID, "u-1", PLAIN) == (found.status, found.customer_id, found.row.fields)
    assert found.reason.startswith(reason)
    assert len(found.reason) <= 1000


def test_a_letter_that_a_later_row_made_obsolete_is_left_out() -> None:
    """Unless it is asked for; its ids are told, through its mapping."""
    fields = {
        "uid": "u-1",
        "device_id": "d-1",
        "push_id": "t",
        NOTE: {"superseded_by": 9, "mapping": {"columns": {"customer_id": "uid"}, "set": {"platform": "TV"}}},
    }
    found = unsent(fields)

    assert (Status.SUPERSEDED, "line 9, which came later, was accepted") == (found.status, found.reason)
    assert ("u-1", "d-1") == (found.customer_id, found.device_id)
    assert "u-1" == made(fields, Columns.parse(include_superseded=True)).device.customer_id


def test_a_letter_that_was_obsolete_before_is_left_out() -> None:
    """It was sent all the same, and failed again: what superseded it is still newer."""
    history = ["junk", {"line": 3}, {"superseded_by": 9}]
    fields = {**PLAIN, NOTE: {"superseded_by": None, "history": history}}

    assert "line 9, which came later, was accepted" == unsent(fields).reason
    assert DEVICE == made(fields, Columns.parse(include_superseded=True)).device
    assert DEVICE == made({**PLAIN, NOTE: {"history": "junk"}}).device


@pytest.mark.parametrize("line", [None, 0, -1, True, "9", [9], {}])
def test_only_a_line_supersedes(line: object) -> None:
    """Anything else that somebody wrote there holds nothing back."""
    assert DEVICE == made({**PLAIN, NOTE: {"superseded_by": line}}).device


@pytest.mark.parametrize("own", ["text", 7, None, ["x"]])
def test_a_row_s_own_field_of_that_name_is_kept(own: object) -> None:
    """It is a field like any other that is not sent; the letter keeps it as `previous`, and reading gives it back."""
    reader = Reader(Columns())
    first = made({**PLAIN, NOTE: own}, reader)
    assert (DEVICE, {**PLAIN, NOTE: own}) == (first.device, first.row.fields)
    assert [f"field '{NOTE}' is not sent: it is none of the API's."] == reader.warnings()

    written = failed(first)
    assert own == orjson.loads(written)[NOTE]["previous"]
    again = read_again(written)
    assert isinstance(again, Record)
    assert (DEVICE, first.row.fields) == (again.device, again.row.fields)
    assert own == orjson.loads(failed(again))[NOTE]["previous"]


@pytest.mark.parametrize(
    ("note", "raw", "length", "reason"),
    [
        ({"raw": "abc", "raw_bytes": 3, "reason": "no"}, b"abc", 3, "no"),
        ({"raw": "abc", "raw_bytes": 70_000}, b"abc", 70_000, "the row could not be read"),
        ({"raw": "abc", "raw_bytes": -1, "reason": 7}, b"abc", 3, "the row could not be read"),
        ({"raw": "abc", "raw_bytes": "3", "reason": ""}, b"abc", 3, ""),
        ({"raw_base64": base64.b64encode(b"\xff\xfe").decode()}, b"\xff\xfe", 2, "the row could not be read"),
        ({"raw_base64": "no base64!"}, b"no base64!", 10, "the row could not be read"),
        ({"raw_base64": "né"}, "né".encode(), 3, "the row could not be read"),
        ({"raw_base64": 7}, b"", 0, "the row could not be read"),
        ({"raw": 7, "raw_base64": "YWI="}, b"ab", 2, "the row could not be read"),
        ({"raw": "x" * 100_000, "reason": "y" * 5000}, b"x" * RAW_KEPT, 100_000, "y" * 1000),
    ],
)
def test_what_is_noted_of_an_unreadable_row(note: dict[str, object], raw: bytes, length: int, reason: str) -> None:
    """Taken as it stands, whatever became of it."""
    found = unsent({NOTE: note})
    assert (Status.INVALID, reason, None) == (found.status, found.reason, found.row.fields)
    assert (reason, raw, length) == (found.row.problem, found.row.raw, found.row.raw_bytes)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: JSON | st.integers(1, 9)
            for name in ("mapping", "superseded_by", "raw", "raw_base64", "raw_bytes", "reason", "previous", "status")
        },
    ),
    st.dictionaries(NAMES, JSON, max_size=3),
)
def test_whatever_stands_in_a_note_it_never_raises(note: dict[str, object], fields: dict[str, object]) -> None:
    """And a letter can be written of what comes out."""
    read = Reader(Columns()).read(row({**fields, NOTE: note}))
    assert NOTE not in (read.row.fields or {}) or "previous" in note
    assert failed(read).endswith(b"\n")


class Hostile:
    """A value that cannot be compared, shown or turned into text."""

    __hash__ = None  # type: ignore[assignment]  # on purpose

    def __eq__(self, other: object) -> bool:
        """Refuse."""
        raise RuntimeError

    def __str__(self) -> str:
        """Refuse."""
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize("name", [*FIELDS, "type", "attributes", "other", NOTE])
@pytest.mark.parametrize(
    "columns", [Columns(), Columns.parse(where=["other=x"]), Columns.parse(column=["model=other"])]
)
def test_values_of_other_people_s_classes_never_raise(name: str, columns: Columns) -> None:
    """Rows in memory may hold anything at all."""
    for fields in ({**PLAIN, name: Hostile()}, {**PLAIN, "attributes": {name: Hostile()}}):
        assert isinstance(Reader(columns).read(row(fields)), (Record, Unsent))
    hostile = unsent({**PLAIN, "attributes": {"push_id": Hostile()}})
    assert "the row cannot be read: RuntimeError" == hostile.reason
