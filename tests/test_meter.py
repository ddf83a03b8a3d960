"""The numbers of a run while it goes on."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import orjson
import pytest

from moe_bulk.config import Rate
from moe_bulk.meter import Meter
from moe_bulk.outcome import Result, Status
from moe_bulk.record import Position, Row
from moe_bulk.tally import Tally
from moe_bulk.waiting import Waits

if TYPE_CHECKING:
    from moe_bulk.view import RunView


def a_view(**more: object) -> RunView:
    """A run in its middle: 100 rows read, none settled, 3 requests; it has no size that is known."""
    tally = Tally(10_000, 60)
    tally.read(100)
    for at in range(3):
        tally.sent(float(at))
    known = {"tally": tally, "bytes_read": (0, None), "rows_expected": None, "in_flight": 3, "retrying": 0, "parked": 0}
    known |= {
        "waits_for": Waits.PACE,
        "pace_share": 1.0,
        "rate": Rate(),
        "seconds_writing": 0.0,
        "run_id": "abc",
        "pauses": 0,
    }
    return cast("RunView", SimpleNamespace(**(known | more)))


def settle(view: RunView, rows: int, status: Status = Status.ACCEPTED) -> None:
    """Settle so many rows."""
    for line in range(rows):
        view.tally.settled(
            Result(Position("a.csv", line, line), status, Row(Position("a.csv", line, line), {}), "", "")
        )


def change(view: RunView, **values: object) -> None:
    """Let the run go on."""
    for name, value in values.items():
        setattr(view, name, value)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    """The rate is that of the last ten seconds."""
    view = a_view()
    meter = Meter(view)
    assert 0.0 == meter.per_second
    meter.look(0.0)
    for at in range(100):
        view.tally.sent(10.0 + at)
    meter.look(5.0)
    assert 20.0 == meter.per_second
    meter.look(15.5)
    assert 0.0 == meter.per_second


def test_latency_is_that_of_the_last_minute() -> None:
    """What was slow an hour ago is not told any more."""
    view = a_view()
    meter = Meter(view)
    for at in range(0, 300, 5):
        meter.look(float(at))
        for number in range(20):
            view.tally.answered(10.0 * number if at >= 200 else 5_000.0, ok=True)
    median, most = meter.latency_ms
    assert pytest.approx(90, rel=0.02) == median
    assert pytest.approx(180, rel=0.02) == most
    for at in range(300, 400, 5):
        meter.look(float(at))
    assert (None, None) == meter.latency_ms


@pytest.mark.parametrize(
    ("more", "rows", "expected"),
    [
        ({"bytes_read": (50, 200)}, 40, 0.1),
        ({"bytes_read": (300, 200)}, 100, 1.0),
        ({"rows_expected": 400.0}, 40, 0.1),
        ({"rows_expected": 10.0}, 40, 1.0),
        ({}, 40, None),
    ],
)
def test_the_share_that_is_done(more: dict[str, object], rows: int, expected: float | None) -> None:
    """What was read and settled, by bytes, else by rows; unknown where nobody knows how much there is."""
    view = a_view(**more)
    settle(view, rows)
    assert expected == Meter(view).share


def test_before_the_first_row_there_is_no_share() -> None:
    """Nothing read is nothing to divide by."""
    assert Meter(a_view(tally=Tally(1, 1.0), bytes_read=(0, 100))).share is None


def test_the_time_that_is_left() -> None:
    """By what was done in the last minute; not before there is something to judge by, and not in an outage."""
    view = a_view(bytes_read=(100, 1_000))
    meter = Meter(view)
    assert meter.seconds_left is None
    for second in range(11):
        meter.look(float(second))
        assert (second < 5) == (meter.seconds_left is None)
        settle(view, 1)
    assert 990 / 10 * 10 == pytest.approx(meter.seconds_left)
    change(view, waits_for=Waits.OUTAGE)
    meter.look(11.0)
    assert meter.seconds_left is None


def test_nothing_that_moves_has_no_end() -> None:
    """Where nothing was settled in the last minute nobody can say how long it takes."""
    meter = Meter(a_view(bytes_read=(100, 1_000)))
    for second in range(100):
        meter.look(float(second))
    assert meter.seconds_left is None


def test_what_it_mostly_waited_for() -> None:
    """A moment does not change what is told; an outage, a pause and a stop do, at once, and are over at once."""
    view = a_view(rate=Rate(10**6, 1.0))
    meter = Meter(view)
    told: list[Waits | None] = [meter.waits_for]
    for second, now in enumerate([Waits.PACE, Waits.PACE, Waits.ROWS, Waits.PAUSE, Waits.PACE, Waits.PACE]):
        change(view, waits_for=now)
        meter.look(float(second))
        told.append(meter.waits_for)
    assert [*[Waits.PACE] * 4, Waits.PAUSE, Waits.PACE, Waits.PACE] == told
    for second in range(6, 20):
        change(view, waits_for=None)
        meter.look(float(second))
    assert meter.waits_for is None


def test_at_the_pace_the_pace_is_waited_for() -> None:
    """A busy machine sends in bursts: nobody is seen waiting, and still it is the limit that holds it back."""
    view = a_view(waits_for=None, rate=Rate(600, 60.0))
    meter = Meter(view)
    for second in range(10):
        meter.look(float(second))
        for _ in range(10):
            view.tally.sent(float(second))
    told = [meter.waits_for]
    change(view, rate=Rate(1200, 60.0))
    told.append(meter.waits_for)
    change(view, pace_share=0.5)
    told.append(meter.waits_for)
    assert [Waits.PACE, None, Waits.PACE] == told


def test_a_slow_disk() -> None:
    """Where writing takes most of the time, that is what is waited for."""
    view = a_view()
    meter = Meter(view)
    for second in range(5):
        change(view, seconds_writing=0.6 * second)
        meter.look(float(second))
    assert Waits.DISK is meter.waits_for


def test_the_snapshot() -> None:
    """Machines get all of it, and it is JSON."""
    view = a_view(bytes_read=(50, 200))
    settle(view, 20)
    meter = Meter(view)
    meter.look(0.0)
    view.tally.answered(10.0, ok=True)
    found = json.loads(orjson.dumps(meter.snapshot(1_700_000_000.12345)))
    latency = found.pop("latency_ms")
    assert {"p50": pytest.approx(10.0, rel=0.02), "p95": pytest.approx(10.0, rel=0.02)} == latency
    assert {
        "format": 1,
        "run_id": "abc",
        "at": 1_700_000_000.123,
        "read": 100,
        **dict.fromkeys(("rejected", "invalid", "exhausted", "superseded", "unchanged", "skipped"), 0),
        "accepted": 20,
        "unsettled": 80,
        "requests": 3,
        "retries": 0,
        "pauses": 0,
        "per_second": 0.0,
        "limit_per_second": 166.667,
        "pace_share": 1.0,
        "in_flight": 3,
        "retrying": 0,
        "parked": 0,
        "waits_for": "pace",
        "bytes_read": 50,
        "bytes": 200,
        "share": 0.05,
        "seconds_left": None,
    } == found
