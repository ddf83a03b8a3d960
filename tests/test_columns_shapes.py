"""Rows as others were before them: folded together, and never otherwise than one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk import device as device_module
from moe_bulk import ids as ids_module
from moe_bulk.columns import Columns, Reader, Unsent, shapes
from moe_bulk.columns.shapes import Shapes
from moe_bulk.device import MAX_BODY, Device, Problem, fold
from moe_bulk.record import Position, Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from moe_bulk.columns import Made

PLACE = Position("devices.csv", 2, 40)
TOKEN = "dK3_x:APA91bEx4mpl3"
GAID = "38400000-8cf0-11bd-b23e-10b96e40000d"
COMMON: dict[str, Any] = {
    "customer_id": "u-1",
    "device_id": "d-1",
    "platform": "android",
    "push_id": TOKEN,
    "model": "Pixel 9",
    "app_version": "1.10",
    "moe_push_opted": "true",
    "moe_gaid": GAID,
}

ODD: st.SearchStrategy[object] = st.sampled_from(
    [None, "", " ", 1, True, 1.5, "a b", "\x7f", "é", "\ud800", "NA", "000", [], {}, "x" * 1100]
)
FEW: dict[str, st.SearchStrategy[object]] = {
    "customer_id": st.sampled_from(["u-1", "u-2", "guest", "x", " u-3 "]),
    "device_id": st.sampled_from(["d-1", "d-2", " d-3"]),
    "platform": st.sampled_from(["ANDROID", "ios", "web", "TV", "Symbian"]),
    "push_id": st.sampled_from([TOKEN, "ab" * 32, "<ab cd>"]),
    "model": st.sampled_from(["Pixel 9", "iPhone"]),
    "app_version": st.sampled_from(["1.10", "1.1"]),
    "moe_push_opted": st.sampled_from(["true", "0", "maybe"]),
    "moe_gaid": st.sampled_from([GAID, "0" * 32]),
    "idfv": st.sampled_from([GAID.upper(), "not available"]),
    "forwarded_for": st.sampled_from(["192.0.2.1", "nobody"]),
    "type": st.sampled_from(["device", "user"]),
    "other": st.text(max_size=3),
    "uid": st.sampled_from(["u-7", "u-8"]),
}
ROWS = st.fixed_dictionaries(
    {name: FEW[name] for name in ("customer_id", "platform", "push_id")},
    optional={name: FEW[name] | ODD for name in FEW.keys() - {"customer_id", "platform", "push_id"}},
) | st.fixed_dictionaries({}, optional={name: values | ODD for name, values in FEW.items()})
COLUMNS = st.builds(
    Columns,
    columns=st.dictionaries(st.sampled_from(["customer_id", "model", "moe_gaid"]), st.sampled_from(["uid", "other"])),
    constants=st.dictionaries(
        st.sampled_from(["platform", "app_version", "moe_push_opted", "forwarded_for", "idfv", "push_id"]),
        st.sampled_from(["iOS", "1.0", "false"]),
    ),
    validate=st.sampled_from(["strict", "basic"]),
)


@given(st.lists(ROWS, min_size=2, max_size=8), COLUMNS | st.just(Columns()))
def test_what_was_read_before_changes_nothing(rows: list[dict[str, object]], columns: Columns) -> None:
    """A row becomes what it would have become as the first one, in the same order of its attributes."""
    reader = Reader(columns)
    for fields in [*rows, *rows]:
        found, expected = (each.read(Row(PLACE, dict(fields))) for each in (reader, Reader(columns)))
        assert expected == found
        if not isinstance(found, Unsent) and not isinstance(expected, Unsent):
            assert list(expected.device.attributes) == list(found.device.attributes)


@given(st.lists(ROWS, min_size=1, max_size=6), st.lists(ROWS, min_size=1, max_size=4), COLUMNS | st.just(Columns()))
def test_rows_by_column_are_what_they_are_one_by_one(
    before: list[dict[str, object]], rows: list[dict[str, object]], columns: Columns
) -> None:
    """The same devices, or there is none that can be told so."""
    reader = Reader(columns)
    for fields in [*before, *rows, *rows]:
        reader.read(Row(PLACE, dict(fields)))
    for some in (rows, [rows[0]] * 3, before[:1] * 2):
        portion = reader.portion([Row(PLACE, fields) for fields in some])
        one_by_one = [Reader(columns).read(Row(PLACE, dict(fields))) for fields in some]
        together = reader.read_all([Row(PLACE, dict(fields)) for fields in some])
        assert one_by_one == together
        assert [_names(each) for each in one_by_one] == [_names(each) for each in together]
        if portion is not None:
            assert [each.device for each in one_by_one if not isinstance(each, Unsent)] == portion.devices()
            assert len(portion) == len(some)
            assert [list(each.attributes) for each in portion.devices()] == [
                list(each.device.attributes) for each in one_by_one if not isinstance(each, Unsent)
            ]


def _names(made: Made) -> list[str]:
    """The attributes, in the order in which they are sent."""
    return [] if isinstance(made, Unsent) else list(made.device.attributes)


def test_nearly_all_rows_are_told_by_column() -> None:
    """What other rows were before is enough; rows of other shapes, or without fields, have to be read."""
    reader, row = Reader(Columns()), Row(PLACE, dict(COMMON))
    reader.read(row)
    assert None is not reader.portion([row] * 3)
    assert None is not learnt(COMMON).devices([row] * 3)
    for other in (Row(PLACE, None, "torn"), Row(PLACE, COMMON | {"model": "new"}), Row(PLACE, COMMON | {"uid": "1"})):
        assert None is reader.portion([row, other])
    assert None is reader.portion([])


@pytest.mark.parametrize("unit", ["x", '"'])
@pytest.mark.parametrize("length", [49_000, 49_900, 50_000, 63_000, 64_000, 127_000, 128_000])
@pytest.mark.parametrize("name", ["customer_id", "device_id", "push_id", "moe_gaid"])
def test_ids_of_any_length_are_judged_as_they_are_one_by_one(name: str, unit: str, length: int) -> None:
    """The short ways end long before a body may be too large, whatever JSON makes of the ids and of all else."""
    common = COMMON | {"model": "é" * 400, "app_version": "電" * 300, "os_version": "\U0001f600" * 250}
    long = common | {name: f"a{unit * length}b"}
    exact = device_module._Reading(long, strict=True).device()
    expected = exact.reason if isinstance(exact, Problem) else exact
    reader = Reader(Columns())
    reader.read(Row(PLACE, dict(common)))
    assert None is not reader.portion([Row(PLACE, common)])
    for made in (reader.read(Row(PLACE, dict(long))), *reader.read_all([Row(PLACE, dict(long))] * 2)):
        assert expected == (made.reason if isinstance(made, Unsent) else made.device)


def test_a_body_of_the_longest_ids_has_room() -> None:
    """Quotes are doubled, and the other texts are as long as the short way lets them be."""
    quotes, token = '"' * (ids_module._LONGEST_IDS // 4 - 20), "abcdefghijklmnop"
    ids = {"customer_id": quotes, "device_id": quotes, "push_id": quotes + token, "moe_gaid": quotes + token}
    texts = dict.fromkeys(("model", "app_version", "os_version"), "\U0001f600" * 1000)
    folded = device_module._fold_common(COMMON | ids | texts)
    assert folded is not None
    assert 100_000 < len(orjson.dumps(folded.payload())) <= MAX_BODY


def test_constants_count_in_a_body_too() -> None:
    """A long one leaves less room for ids, so each row's body is looked at."""
    reader = Reader(Columns(constants={"model": "m" * 60_000}))
    long = COMMON | {"device_id": '"' * 40_000}
    for fields in (COMMON, long, COMMON, long):
        made = reader.read_all([Row(PLACE, dict(fields))] * 2)
        assert [fields is long] * 2 == [isinstance(each, Unsent) for each in made]


def test_long_ids_in_different_rows_are_looked_at_together() -> None:
    """It is the longest of each column that could meet in one row."""
    reader, half = Reader(Columns()), "x" * 26_000
    reader.read(Row(PLACE, dict(COMMON)))
    long = [Row(PLACE, COMMON | {"device_id": half}), Row(PLACE, COMMON | {"push_id": half})]
    assert None is reader.portion(long)
    assert None is not reader.portion([long[0], Row(PLACE, COMMON)] * 3)


def test_fewer_are_tried_together_where_one_in_some_is_odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half as many after each that was in vain, twice as many after each that was not."""
    tried: list[int] = []
    devices = Shapes.devices

    def spy(self: Shapes, rows: Sequence[Row]) -> list[Device] | None:
        tried.append(len(rows))
        return devices(self, rows)

    monkeypatch.setattr(Shapes, "devices", spy)
    reader, common = Reader(Columns()), Row(PLACE, dict(COMMON))
    odd = Row(PLACE, COMMON | {"customer_id": "ü"})
    reader.read(common)
    for rows in ([common] * 200, [odd] * 200, [odd] * 200, [common] * 400):
        assert len(rows) == len(reader.read_all(rows))
    assert [200, 200, 100, 50, 25, 12, 20, 40, 80, 160, 100] == tried


def learnt(*rows: Mapping[str, Any], columns: Mapping[str, str] | None = None, **constants: str) -> Shapes:
    """Give shapes that know these rows, all of them devices."""
    known = Shapes(columns or {}, constants)
    for fields in rows:
        names = {name: fields.get(column) for name, column in (columns or {}).items()}
        device = fold({**fields, **names, **constants})
        assert isinstance(device, Device)
        known.learn(fields, device)
    return known


def test_a_row_that_repeats_what_was_learnt_is_folded_at_once() -> None:
    """Ids, token and advertising id are its own."""
    known = learnt(COMMON)
    new = COMMON | {"customer_id": "u-2", "device_id": "d-2", "push_id": TOKEN * 2, "moe_gaid": GAID[::-1]}
    assert fold(new) == known.device(new)
    assert known.device(new) is not None


@pytest.mark.parametrize(
    "differs",
    [
        {"model": "Pixel 8"},
        {"platform": "ANDROID"},
        {"moe_push_opted": True},
        {"app_version": 1.10},
        {"other": "x"},
        {"push_id": " token"},
        {"push_id": "na"},
        {"moe_gaid": "-"},
        {"moe_gaid": 1},
        {"moe_gaid": False},
        {"moe_gaid": []},
        {"customer_id": "Guest"},
        {"device_id": ""},
        {"model": []},
    ],
)
def test_another_one_gets_a_closer_look(differs: dict[str, object]) -> None:
    """Whatever is new in it, or no plain text."""
    assert learnt(COMMON).device(COMMON | differs) is None


def test_columns_and_constants_have_shapes_too() -> None:
    """Renamed rows are not renamed one by one."""
    fields = {"uid": "u-1", "device_id": "d-1", "token": TOKEN, "forwarded_for": ""}
    known = learnt(fields, columns={"customer_id": "uid", "push_id": "token"}, platform="iOS")
    expected = Device("u-2", "d-1", {"platform": "iOS", "push_id": TOKEN})
    assert expected == known.device(fields | {"uid": "u-2"})
    assert known.device(fields | {"forwarded_for": "192.0.2.1"}) is None


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no more repeated makes room; shapes beyond the bound get a closer look each time."""
    monkeypatch.setattr(shapes, "COMBINATIONS_KEPT", 3)
    monkeypatch.setattr(shapes, "SHAPES_KEPT", 2)
    many = [COMMON | {"model": f"Pixel {number}"} for number in range(10)]
    known = learnt(*many)
    assert [False] * 9 + [True] == [known.device(fields) is not None for fields in many]
    wide = [COMMON | {f"other {number}": ""} for number in range(3)]
    known = learnt(*wide)
    assert [True, True, False] == [known.device(fields) is not None for fields in wide]
    assert learnt(COMMON | {"model": "x" * 1001}).device(COMMON | {"model": "x" * 1001}) is None
