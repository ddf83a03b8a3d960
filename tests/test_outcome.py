"""Results and their lines: what is written can be read back, and nothing else can."""

from __future__ import annotations

import base64
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.device import Device
from moe_bulk.outcome import DELIVERED, FAILED, KEYED, Attempt, Result, Status, hashed, hashes_told, rounded
from moe_bulk.record import Position, Row

PLACE = Position("devices.csv", 7, 120, 1)
KEYS = (("device", "u-1", "d-1"), ("push_id", "token"))
WHOLE = Result(
    PLACE,
    Status.REJECTED,
    Row(PLACE, {}),
    "u-1",
    "d-1",
    400,
    "ValueError",
    "push_id: no",
    "r-1",
    (Attempt(1_700_000_000.25, 12.5, 301.125, error="timeout"), Attempt(1_700_000_001.0, 13.5, 99.0, 400)),
    tries=2,
    settled_at=1_700_000_002.5,
    keys=KEYS,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COUNTS = st.integers(0, 2**53)
TIMES = st.floats(-1e12, 1e12)
ATTEMPTS = st.builds(Attempt, TIMES, TIMES, TIMES, st.none() | st.integers(100, 999), st.none() | TEXT)
RESULTS = st.builds(
    Result,
    position=st.builds(Position, TEXT, COUNTS, COUNTS, COUNTS),
    status=st.sampled_from(list(Status)),
    row=st.just(Row(PLACE, {})),
    customer_id=st.none() | TEXT,
    device_id=st.none() | TEXT,
    http_status=st.none() | st.integers(100, 999),
    error_type=st.none() | TEXT,
    reason=st.none() | TEXT,
    request_id=st.none() | TEXT,
    attempts=st.lists(ATTEMPTS, max_size=3).map(tuple),
    tries=COUNTS,
    settled_at=TIMES | st.integers(0, 10**10),
    keys=st.lists(st.lists(st.text(max_size=9), max_size=3).map(tuple), max_size=3).map(tuple),
    other_hashes=st.lists(st.text("aZ0+/", min_size=12, max_size=12), max_size=2).map(tuple),
)
OF_DEVICES = st.builds(
    lambda result, customer, device: result._replace(
        customer_id=customer, device_id=device, keys=(("device", customer, device), *result.keys)
    ),
    RESULTS,
    TEXT,
    TEXT,
)


def test_line_tells_the_keys_last() -> None:
    """As hashes, behind all that people read."""
    said = orjson.loads(WHOLE.line())

    assert ["settled_at", "keys"] == list(said)[-2:]
    assert list(hashed(KEYS)) == said["keys"]


@pytest.mark.parametrize("status", Status)
def test_line_of_what_moengage_has_leaves_out_what_its_ids_tell(status: Status) -> None:
    """The device's own key, as long as these are the ids: those of failed rows may be cut, others may be spelt out."""
    keys = (("device", "u-1", "d-1"), ("push_id", "t"))
    result = Result(PLACE, status, Row(PLACE, {}), "u-1", "d-1", keys=keys)
    for told in (result, result._replace(device_id="d-2"), result._replace(keys=keys[1:])):
        said = orjson.loads(told.line())
        if status in DELIVERED and told is result:
            assert ("other_keys", list(hashed(keys[1:]))) == list(said.items())[-1]
        elif status in KEYED:
            assert ("keys", list(hashed(told.keys))) == list(said.items())[-1]
        else:
            assert not {"keys", "other_keys"} & said.keys()


def test_a_device_is_what_its_ids_tell() -> None:
    """The device of a record, not only one that a test makes up."""
    device = Device("u-1", "d-1", {"platform": "ANDROID", "push_id": "t"})
    line = Result(PLACE, Status.ACCEPTED, Row(PLACE, {}), "u-1", "d-1", keys=device.keys()).line()
    assert list(hashed(device.keys()[1:])) == orjson.loads(line)["other_keys"]
    assert hashed(device.keys()) == Result.from_line(line).hashes


@pytest.mark.parametrize("status", Status)
def test_line_tells_keys_of_rows_that_can_supersede_or_be_superseded(status: Status) -> None:
    """Of rows that MoEngage has and of failed ones, an empty list included; of others it says nothing."""
    said = orjson.loads(Result(PLACE, status, Row(PLACE, {})).line())

    assert (status in KEYED) == ("keys" in said)
    assert {*FAILED, Status.ACCEPTED, Status.UNCHANGED} == KEYED


def test_failed_rows_are_those_that_need_somebody() -> None:
    """They have dead letters."""
    failed = {status for status in Status if Result(PLACE, status, Row(PLACE, {})).failed}
    assert {Status.REJECTED, Status.INVALID, Status.EXHAUSTED} == failed


@given(st.floats(0, 4e9), st.sampled_from([1e3, 1e6]))
def test_rounded_is_what_round_makes_of_it(number: float, parts: float) -> None:
    """Up to a tie, for times until the year 2096; and no longer when it is written down."""
    places = {1e3: 3, 1e6: 6}[parts]
    assert abs(rounded(number, parts) - round(number, places)) <= 1.5 / parts
    assert rounded(number, parts) == round(rounded(number, parts), places)


@given(st.floats(0, 4e9), st.floats(0, 4e9), st.floats(0, 4e9))
def test_an_attempt_is_written_in_rounded_numbers(sent: float, at: float, ms: float) -> None:
    """What compares with them rounds in the same way."""
    said = {"sent": rounded(sent), "at": rounded(at), "ms": rounded(ms, 1e3), "http_status": 200}
    assert said == Attempt(sent, at, ms, 200).as_json()


def test_hashed_is_the_same_for_ever() -> None:
    """Runs that were begun with another version go on: twelve characters of Base64 over nine bytes of BLAKE2b."""
    assert ("0uru+oYM//in",) == hashed([("device", "u-1", "d-1")])
    assert [9, 9] == [len(base64.b64decode(each)) for each in hashed([(), ()])]


@given(st.lists(st.lists(st.text(max_size=3), max_size=2).map(tuple), max_size=5))
def test_keys_are_hashed_in_their_order(keys: list[tuple[str, ...]]) -> None:
    """However many there are."""
    assert [each for key in keys for each in hashed([key])] == list(hashed(keys))


@given(*[st.lists(st.text('ab",[\\\ud800\0', max_size=4), max_size=3).map(tuple)] * 2)
def test_hashed_tells_keys_apart(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """However their texts are put together, halves of characters included."""
    told, others = hashed([one, other])
    assert (one == other) == (told == others)
    assert re.fullmatch(r"[A-Za-z0-9+/]{12}", told)
    assert (others,) == hashed([other])


@given(RESULTS | OF_DEVICES)
def test_a_line_read_and_written_again_is_the_same(result: Result) -> None:
    """Byte for byte; and the result is the same but for its row and the keys behind the hashes."""
    line = result.line()
    read = Result.from_line(line)
    assert read.hashes == hashes_told(orjson.loads(line))

    assert line == read.line()
    assert (result.position, result.status, Row(result.position, {})) == (read.position, read.status, read.row)
    assert (result.hashes if result.status in KEYED else ()) == read.hashes
    assert len(result.attempts) == len(read.attempts)


def test_from_line_reads_everything() -> None:
    """What a tally and a dead letter's look-out need."""
    read = Result.from_line(WHOLE.line())

    assert (WHOLE.attempts, WHOLE.hashes, ()) == (read.attempts, read.hashes, read.keys)
    assert ("u-1", "d-1", 400, "ValueError", "push_id: no", "r-1", 2, 1_700_000_002.5) == (
        read.customer_id,
        read.device_id,
        read.http_status,
        read.error_type,
        read.reason,
        read.request_id,
        read.tries,
        read.settled_at,
    )
    assert Row(PLACE, None) == Result.from_line(WHOLE.line(), unreadable=True).row


def changed(**fields: Any) -> bytes:
    """Give the line of a result with these fields instead."""
    return orjson.dumps({**orjson.loads(WHOLE.line()), **fields})


def attempt(**fields: Any) -> dict[str, object]:
    """Give attempts with these fields instead."""
    return {"attempts": [{**WHOLE.attempts[1].as_json(), **fields}]}


@pytest.mark.parametrize(
    "fields",
    [
        {"format": 2},
        {"format": True},
        {"format": 1.0},
        {"format": None},
        {"source": None},
        {"source": 7},
        {"line": -1},
        {"line": True},
        {"line": "7"},
        {"offset": -1},
        {"offset": 1.5},
        {"item": False},
        {"status": "delivered"},
        {"status": None},
        {"customer_id": 7},
        {"device_id": ["d"]},
        {"http_status": True},
        {"http_status": "400"},
        {"error_type": 1},
        {"reason": {}},
        {"request_id": False},
        {"attempts": None},
        {"attempts": {}},
        {"attempts": [7]},
        attempt(sent=None),
        attempt(at="1"),
        attempt(ms=True),
        attempt(http_status=2.5),
        attempt(error=7),
        {"tries": -1},
        {"tries": None},
        {"settled_at": None},
        {"settled_at": True},
        {"settled_at": "now"},
        {"keys": None},
        {"keys": [7]},
        {"keys": ["short"]},
        {"keys": ["with blank !"]},
        {"keys": ["aaaaaaaaaaaa\n"]},
        {"other_keys": None},
        {"other_keys": ["short"]},
        {"other_keys": [], "customer_id": None},
        {"other_keys": [], "device_id": None},
    ],
)
def test_from_line_refuses_what_no_result_says(fields: dict[str, object]) -> None:
    """Wrong types, numbers out of range, another format."""
    with pytest.raises(ValueError, match=r"\w"):
        Result.from_line(changed(**fields))


@pytest.mark.parametrize("name", ["format", "source", "line", "offset", "item", "status", "attempts", "tries"])
def test_from_line_misses_what_every_line_has(name: str) -> None:
    """Half a line is none."""
    said = orjson.loads(WHOLE.line())
    del said[name]
    with pytest.raises(ValueError, match=name):
        Result.from_line(orjson.dumps(said))


@given(st.integers(0, len(WHOLE.line()) - 2))
def test_from_line_refuses_a_torn_line(length: int) -> None:
    """Wherever it was torn, and where zeros stand instead of the rest."""
    for raw in (WHOLE.line()[:length], WHOLE.line()[length + 1 :], WHOLE.line()[:length].ljust(600, b"\0")):
        with pytest.raises(ValueError, match=r"\w"):
            Result.from_line(raw)


@pytest.mark.parametrize("raw", [b"", b"\n", b"[]", b"7", b"null", b'"text"', b"{}", b"\xff", WHOLE.line() * 2])
def test_from_line_refuses_what_is_no_object(raw: bytes) -> None:
    """Other JSON, and what is none."""
    with pytest.raises(ValueError, match=r"\w"):
        Result.from_line(raw)
