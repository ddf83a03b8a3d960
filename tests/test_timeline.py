"""What a run did when: every request and answer in its bin, in few bins however long the run is, over all sessions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.outcome import Attempt
from moe_bulk.timeline import MOST_BINS, RATES_KEPT, Timeline
from tests.fake_service import accept, answer, devices
from tests.runs import Cut, deliver

if TYPE_CHECKING:
    from pathlib import Path

EPOCH = 1_700_000_000.0


def attempt(at: float, ms: float = 100.0, status: int | None = 200, *, epoch: float = EPOCH) -> Attempt:
    """Make a request that was sent at this boot-clock second."""
    return Attempt(at + epoch, at, ms, status, None if status is not None else "timeout")


def sums(timeline: Timeline) -> tuple[float, ...]:
    """Add all bins up."""
    bins = timeline.bins()
    return (
        sum(each.requests for each in bins),
        sum(each.retries for each in bins),
        sum(each.throttled for each in bins),
        sum(each.troubled for each in bins),
        sum(sum(each.latencies.values()) for each in bins),
    )


def restored(timeline: Timeline, limit: int = 100, per: float = 60.0, epoch: float = EPOCH) -> Timeline:
    """Write its state down and go on from it."""
    return Timeline.restored(orjson.loads(orjson.dumps(timeline.state())), limit, per, epoch)


def test_each_event_counts_when_it_happened() -> None:
    """A request in the bin in which it was sent, its answer in the one in which it came."""
    timeline = Timeline(100, 60.0, EPOCH)
    timeline.sent(10.0, again=False)
    timeline.sent(10.1, again=True)
    timeline.answered(attempt(10.0, 300.0))
    timeline.answered(attempt(10.1, 300.0, 429))
    timeline.answered(attempt(10.1, 300.0, 503))
    timeline.answered(attempt(10.1, 300.0, None))
    timeline.answered(attempt(10.1, 300.0, 400))
    told = [(each.at - EPOCH, each.requests, each.retries, each.throttled, each.troubled) for each in timeline.bins()]
    assert [(10.0, 2, 1, 0, 0), (10.25, 0, 0, 1, 2)] == told


def test_waiting_is_told_where_it_was() -> None:
    """Seconds of a pause and of an outage are kept apart; nothing else is waiting."""
    timeline = Timeline(100, 60.0, EPOCH)
    timeline.waited(1.0, 1.0, "pause")
    timeline.waited(2.0, 1.0, "outage")
    timeline.waited(3.0, 1.0, "")
    assert [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)] == [(each.paused, each.out) for each in timeline.bins()]


def test_latencies_are_told_to_five_percent() -> None:
    """The median of a bin, and the value that 95 % did not exceed."""
    timeline = Timeline(100, 60.0, EPOCH)
    for ms in range(1, 101):
        timeline.answered(attempt(0.0, float(ms)))
    (found,) = timeline.bins()
    assert pytest.approx(50, rel=0.06) == found.percentile(0.5)
    assert pytest.approx(95, rel=0.06) == found.percentile(0.95)
    assert None is Timeline(1, 1.0)._at(0.0).percentile(0.5)


@given(st.lists(st.floats(0, 1e7), max_size=600), st.integers(0, 3))
def test_nothing_is_lost_however_long_it_takes(times: list[float], kills: int) -> None:
    """At no time are there more bins than there may be, and every event is in one, sessions and gaps included."""
    timeline = Timeline(100, 60.0, EPOCH)
    for number, at in enumerate(sorted(times)):
        timeline.sent(at, again=number % 3 == 0)
        timeline.answered(attempt(at))
        if kills and number % 100 == 99:
            timeline = restored(timeline)
        assert len(timeline._bins) <= MOST_BINS
    assert (len(times), len(times[::3]), 0, 0, len(times)) == sums(timeline)
    assert sorted(each.at for each in timeline.bins()) == [each.at for each in timeline.bins()]
    for each in timeline.bins():
        assert math.isclose(each.at % timeline.width, 0.0, abs_tol=1e-9)


def test_a_day_takes_few_bins_and_a_minute_fine_ones() -> None:
    """Bins are as narrow as their number allows; a weekend between two sessions costs nothing."""
    timeline = Timeline(100, 60.0, EPOCH)
    for start in (0, 250_000):
        for second in range(32):
            timeline.sent(start + second, again=False)
    assert (0.25, 64) == (timeline.width, len(timeline.bins()))
    for second in range(86_400):
        timeline.sent(500_000 + second, again=False)
    assert timeline.width == 512.0


def test_what_is_read_back_counts_by_its_own_time() -> None:
    """Of what was written after the checkpoint the lines tell: sent, answered, or both."""
    timeline = Timeline(100, 60.0, EPOCH)
    timeline.read_back(attempt(5.0, 1_000.0), again=True, sent=True, answered=False)
    timeline.read_back(attempt(5.0, 1_000.0), again=True, sent=False, answered=True)
    told = [(each.at - EPOCH, each.requests, each.retries, len(each.latencies)) for each in timeline.bins()]
    assert [(5.0, 1, 1, 0), (6.0, 0, 0, 1)] == told


def test_a_state_does_not_change_any_more() -> None:
    """It is written in a thread while the run goes on."""
    timeline = Timeline(100, 60.0, EPOCH)
    timeline.sent(0.0, again=False)
    state = timeline.state()
    before = orjson.dumps(state)
    timeline.sent(0.1, again=False)
    timeline.read_back(attempt(0.1), again=False, sent=True, answered=True)
    timeline.sent(50.0, again=False)
    timeline.state()
    assert before == orjson.dumps(state)
    assert timeline.state() == restored(timeline).state()


def test_the_limits_of_all_sessions_are_known() -> None:
    """Each from when on it held; the last ones where there are many."""
    timeline = Timeline(100, 60.0, EPOCH)
    timeline.sent(1.0, again=False)
    again = restored(timeline)
    again.sent(2.0, again=False)
    other = restored(again, 200)
    other.sent(3.0, again=False)
    assert [(EPOCH + 1, 100, 60.0), (EPOCH + 3, 200, 60.0)] == other.rates
    for number in range(2 * RATES_KEPT):
        other = restored(other, 300 + number % 2)
        other.sent(4.0 + number, again=False)
    assert len(other.rates) == RATES_KEPT


def test_times_that_cannot_be_do_no_harm() -> None:
    """A line that somebody made up may tell any time."""
    timeline = Timeline(100, 60.0, EPOCH)
    for sent in (-1e300, 1e300, 0.0):
        timeline.read_back(Attempt(sent, 0.0, 1.0, 200), again=False, sent=True, answered=True)
    assert (3, 0, 0, 0, 3) == sums(restored(timeline))


BIN = [4, 1, 0, 0, 0, 0.0, 0.0, [70, 1]]


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"width": 0.3, "rates": [], "bins": []},
        {"width": 0.25, "rates": [[0, 0, 60]], "bins": []},
        {"width": 0.25, "rates": [[1, 1, 1]] * (RATES_KEPT + 1), "bins": []},
        {"width": 0.25, "rates": [], "bins": [BIN, BIN]},
        {"width": 0.25, "rates": [], "bins": [BIN[:-1]]},
        {"width": 0.25, "rates": [], "bins": [[*BIN[:-1], [70]]]},
        {"width": 0.25, "rates": [], "bins": [[*BIN[:-1], [70, True]]]},
        {"width": 0.25, "rates": [], "bins": [[-4, *BIN[1:]]]},
        {"width": 0.25, "rates": [], "bins": [[2**60, *BIN[1:]]]},
    ],
)
def test_a_damaged_state_is_refused(state: Any) -> None:
    """Nothing is counted on from numbers that cannot be."""
    with pytest.raises(ValueError, match="damaged"):
        Timeline.restored(state, 100, 60.0)


@pytest.mark.parametrize("way", ["crash", "signal"])
def test_a_run_that_was_cut_tells_of_all_its_requests(tmp_path: Path, way: Any) -> None:
    """After a kill and a resumption the bins hold what the summary counts."""
    rows = devices(40)
    deliver(rows, tmp_path / "x.run", lambda _: answer(200), cut=Cut(way, 20))
    ended = deliver(rows, tmp_path / "x.run", accept, clock=(100_000.0, EPOCH))
    assert ended.summary is not None
    state = ended.written.checkpoint.tally["timeline"]
    assert (ended.summary["requests"], ended.summary["retries"]) == sums(Timeline.restored(state, 1, 1.0))[:2]
