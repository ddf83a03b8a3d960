"""The numbers of a run: right at any size and over all its sessions, in memory that does not grow."""

from __future__ import annotations

import copy
import math
import random
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.busiest import Busiest
from moe_bulk.latency import Latency
from moe_bulk.outcome import ATTEMPTS_KEPT, Attempt, Result, Status
from moe_bulk.record import Position, Row
from moe_bulk.tally import Summary, Tally, lines
from moe_bulk.times import SPARE, Times

if TYPE_CHECKING:
    from collections.abc import Sequence


def result(status: Status, reason: str | None = None, line: int = 2, *attempts: Attempt, tries: int = 0) -> Result:
    """Give the last word on a row."""
    place = Position("devices.csv", line, line * 10)
    row = Row(place, {"customer_id": "u-1"})
    return Result(place, status, row, reason=reason, attempts=attempts, tries=tries or len(attempts))


def summary_of(tally: Tally) -> Summary:
    """Give the summary of a run of ten seconds."""
    return tally.summary(started_at=1.0, ended_at=11.0, exit_code=1, version="0.1.0")


def test_summary_of_an_empty_run() -> None:
    """A run that read nothing has a complete summary without invented numbers."""
    expected = {
        "format": 1,
        "version": "0.1.0",
        "exit_code": 1,
        "started_at": 1.0,
        "ended_at": 11.0,
        "sessions": 1,
        "counts": {"read": 0, **{status.value: 0 for status in Status}, "unsettled": 0},
        "requests": 0,
        "retries": 0,
        "pauses": 0,
        "latency_ms": {"p50": None, "p95": None, "p99": None},
        "rate": {"limit": 100, "per": 60.0, "busiest_window": {"count": 0, "at": None}, "used_share": None},
        "failures": [],
    }

    assert expected == summary_of(Tally(100, 60.0))


def test_summary_of_a_run() -> None:
    """Requests, retries, pauses, latency and the busiest window stand in the summary, in epoch seconds."""
    tally = Tally(60, 60.0, epoch=1_000.0)
    for at in (5.0, 6.0, 9.0):
        tally.sent(at)
        tally.answered(100.0, ok=True)
    tally.retried()
    tally.answered(30_000.0, ok=False)
    tally.pauses += 4

    said = summary_of(tally)

    assert (said["requests"], said["retries"], said["pauses"]) == (3, 1, 4)
    assert said["rate"]["busiest_window"] == {"count": 3, "at": 1_005.0}
    assert said["rate"]["used_share"] == 0.5
    assert said["latency_ms"]["p99"] == pytest.approx(100.0, rel=0.01)
    assert tally.unanswered == 1


def test_settings_and_the_reason_to_stop_stand_in_the_summary_when_given() -> None:
    """What the caller wants to remember of its settings travels along."""
    said = Tally(1, 1.0).summary(
        started_at=0.0, ended_at=0.0, exit_code=0, version="1", settings={"host": "api-01"}, stopped="--limit"
    )

    assert said["settings"] == {"host": "api-01"}
    assert said["stopped"] == "--limit"


@given(st.lists(st.sampled_from(list(Status))), st.integers(0, 50))
def test_every_row_that_was_read_is_counted_once(statuses: list[Status], waiting: int) -> None:
    """Read = the sum of all statuses + unsettled, always."""
    tally = Tally(1, 1.0)
    tally.read(waiting)
    for status in statuses:
        tally.read()
        tally.settled(result(status))

    counts = dict(tally.counts)

    assert len(statuses) + waiting == counts.pop("read")
    assert len(statuses) + waiting == sum(counts.values())
    assert waiting == counts["unsettled"]
    assert {status.value: statuses.count(status) for status in Status} == {s.value: counts[s.value] for s in Status}
    assert sum(result(status).failed for status in statuses) == tally.failed_rows
    assert len(statuses) == tally.settled_rows


def busiest_by_hand(times: Sequence[float], per: float) -> int:
    """Count every window that begins with a request."""
    return max((sum(start <= at and at - start < per for at in times) for start in times), default=0)


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 40))
def test_busiest_window_is_the_one_that_counting_by_hand_finds(whole: list[int], per: int) -> None:
    """No window, wherever it starts, holds more than the one that is reported; and that one holds as many."""
    times = sorted(at / 4 for at in whole)
    busiest = Busiest(per / 4)
    for at in times:
        busiest.add(at)

    assert busiest_by_hand(times, per / 4) == busiest.count
    start = busiest.at
    counted = 0 if start is None else sum(start <= at < start + per / 4 for at in times)
    assert counted == busiest.count


def test_busiest_window_forgets_what_is_older_than_a_window() -> None:
    """The memory holds one window's requests, not the run's."""
    busiest = Busiest(1.0)
    for n in range(10_000):
        busiest.add(n * 0.1)

    assert len(busiest.recent) <= 11
    assert len(busiest.recent.kept) < 2 * SPARE


@pytest.mark.parametrize(
    ("times", "share"),
    [
        ([], None),
        ([5.0], None),
        ([5.0, 5.0], 1.0),
        ([0.0, 0.25, 0.5], 1.0),
        ([0.0, 1.0, 2.0], 0.5),
        ([0.0, 0.1, 0.2], 1.0),
        ([0.0, 10.0], 0.05),
    ],
)
def test_used_share(times: list[float], share: float | None) -> None:
    """Two a second for as long as requests went out is all of a limit of 120 a minute; more is never said."""
    tally = Tally(120, 60.0)
    for at in times:
        tally.sent(at)

    assert share == tally.used_share if share is None else pytest.approx(share) == tally.used_share


def test_latency_without_answers_is_none() -> None:
    """Nothing is made up where nothing was measured."""
    assert Latency().percentile(0.5) is None


@given(st.lists(st.floats(0.001, 1e7), min_size=1), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_latency_is_right_to_one_percent(values: list[float], share: float) -> None:
    """Each percentile is within 1 % of the one that sorting all values gives."""
    latency = Latency()
    for value in values:
        latency.add(value)

    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]

    assert latency.percentile(share) == pytest.approx(exact, rel=0.01)


def test_latency_memory_is_bounded() -> None:
    """From a microsecond to three hours there are some hundred buckets to a power of ten, and no more."""
    latency = Latency()
    for n in range(20_000):
        latency.add(0.001 * 1.00115**n)

    assert len(latency._buckets) < 1_300


def test_a_summary_does_not_change_afterwards() -> None:
    """What was summed up stays as it was while the run goes on."""
    tally = Tally(1, 1.0)
    tally.settled(result(Status.INVALID, "a"))
    said = summary_of(tally)

    tally.settled(result(Status.INVALID, "a"))

    assert said["failures"][0]["count"] == 1


def test_lines_for_people() -> None:
    """The terminal shows counts, pace, latency and causes with their remedy."""
    tally = Tally(60, 60.0, epoch=1_000_000.0)
    tally.read(1_234)
    tally.settled(result(Status.ACCEPTED))
    tally.settled(result(Status.INVALID, "push_id 'SECRET' is empty", 7))
    tally.sent(0.0)
    tally.sent(2.0)
    tally.answered(100.0, ok=True)
    tally.retried()
    tally.pauses = 3

    expected = [
        "Read 1,234 rows: 1 accepted, 1 invalid, 1,232 unsettled",
        "Sent 2 requests (1 retry, 3 pauses)",
        "At most 2 in any 60 s (from 1970-01-12 13:46:40Z), the limit is 60",
        "It took 10 s, at 12 a minute",
        "Answers took 100 ms (p50), 100 ms (p95), 100 ms (p99)",
        "  1 invalid: push_id … is empty (first: line 7)",
        "    Fill in push_id, or leave these rows out",
    ]
    assert expected == lines(summary_of(tally))


def test_lines_of_short_runs() -> None:
    """An empty run, and one with a single request, have no share and no latency to tell."""
    tally = Tally(60, 60.0)
    empty = lines(summary_of(tally))
    tally.sent(0.0)

    assert empty == ["Read 0 rows: nothing to do", "Sent 0 requests (0 retries, 0 pauses)"]
    assert lines(summary_of(tally))[2:] == [
        "At most 1 in any 60 s (from 1970-01-01 00:00:00Z), the limit is 60",
        "It took 10 s, at 6 a minute",
    ]


def test_one_of_each_is_told_as_one() -> None:
    """One row, one request, one retry, one pause."""
    tally = Tally(60, 60.0)
    tally.read()
    tally.sent(0.0)
    tally.retried()
    tally.pauses = 1
    assert ["Read 1 row: 1 unsettled", "Sent 1 request (1 retry, 1 pause)"] == lines(summary_of(tally))[:2]


def test_lines_tell_of_sessions() -> None:
    """A run that was interrupted says in how many sessions it was made."""
    tally = Tally.restored(Tally(60, 60.0).state(), 60, 60.0)

    assert "Read 0 rows in 2 sessions: nothing to do" == lines(summary_of(tally))[0]


# -- several sessions --------------------------------------------------------------------------------------------------

PACE = 100 / 60.0


class Event(NamedTuple):
    """What the tally was told, of which row and in which session."""

    row: int
    session: int
    name: str
    arguments: dict[str, Any]


class Open:
    """A row under way."""

    def __init__(self) -> None:
        self.in_flight: float | None = None
        self.attempts: deque[Attempt] = deque(maxlen=ATTEMPTS_KEPT)


class Story:
    """A run in sessions: each ends at once, and the next goes on from the last state and the lines behind it.

    `told` is what an uncut run would have been told that did the same: without what nobody can know of, which is what
    rows that were under way went through after the last state.
    """

    def __init__(self) -> None:
        self.tally = Tally(100, 60.0)
        self.now = 0.0
        self.session = 1
        self.told: list[Event] = []
        self.open: dict[int, Open] = {}
        self.unread: list[int] = []
        self.rows = 0
        self.save()

    def tell(self, row: int, name: str, *args: Any, **named: Any) -> None:
        """Let the tally know, and remember it."""
        getattr(self.tally, name)(*args, **named)
        self.told.append(Event(row, self.session, name, {"args": args, "named": named}))

    def read(self, _: int) -> None:
        """A row is taken in: one that was under way when the last session ended, or a new one."""
        if not self.unread:
            self.rows += 1
            self.unread.append(self.rows)
        row = self.unread.pop(0)
        self.open[row] = Open()
        self.tell(row, "read")

    def send(self, pick: int) -> None:
        """A row's request leaves."""
        waiting = [row for row, under_way in self.open.items() if under_way.in_flight is None]
        if waiting:
            row = waiting[pick % len(waiting)]
            self.open[row].in_flight = self.now
            self.tell(row, "sent", self.now)
            if self.open[row].attempts:
                self.tell(row, "retried")

    def answer(self, pick: int) -> None:
        """A request is over, one way or the other."""
        sent = [row for row, under_way in self.open.items() if under_way.in_flight is not None]
        if sent:
            row = sent[pick % len(sent)]
            at = self.open[row].in_flight or 0.0
            self.open[row].in_flight = None
            status, error = (None, "timeout") if pick % 3 == 0 else (200, None)
            attempt = Attempt(at + 1e9, at, (self.now - at) * 1000, status, error)
            self.open[row].attempts.append(attempt)
            self.tell(row, "answered", attempt.ms, ok=error is None)

    def settle(self, pick: int) -> None:
        """A row has its result: it has gone through something, or was invalid."""
        waiting = [row for row, under_way in self.open.items() if under_way.in_flight is None]
        if waiting:
            row = waiting[pick % len(waiting)]
            attempts = self.open.pop(row).attempts
            status = list(Status)[pick % len(Status)]
            settled = result(status, ("bad", "model 'x' is bad", None)[pick % 3], row, *attempts)
            self.tell(row, "settled", settled)
            self.behind.append(settled.line())

    def save(self, _: int = 0) -> None:
        """A checkpoint is written."""
        self.state, self.since, self.saved = orjson.dumps(self.tally.state()), self.now, len(self.told)
        self.behind: list[bytes] = []

    def kill(self, boot: int) -> None:
        """The session ends; another one begins, perhaps after a restart of the machine."""
        self.unread = sorted([*self.open, *self.unread])
        lost = set(self.unread)
        self.told = [
            event
            for number, event in enumerate(self.told)
            if event.row not in lost or (event.name != "read" and number < self.saved)
        ]
        self.open = {}
        self.tally = Tally.restored(orjson.loads(self.state), 100, 60.0)
        for line in self.behind:
            self.tally.read_back(Result.from_line(line), self.since)
        self.now = 0.0 if boot % 2 else self.now
        self.session += 1
        self.save()

    def uncut(self) -> Tally:
        """Give the tally of a run in one go."""
        tally = Tally(100, 60.0)
        for event in self.told:
            getattr(tally, event.name)(*event.arguments["args"], **event.arguments["named"])
        return tally

    def used_share(self) -> float | None:
        """Count by hand what was used of the limit while sessions went on."""
        gaps, possible = 0, 0.0
        for session in range(1, self.session + 1):
            times = [
                event.arguments["args"][0] for event in self.told if (event.session, event.name) == (session, "sent")
            ]
            gaps += max(0, len(times) - 1)
            possible += (max(times) - min(times)) * PACE if times else 0.0
        return None if not gaps else min(1.0, gaps / possible)


def steps_of(seed: int) -> list[tuple[str, int, int]]:
    """Give what happens in a run, what it happens to, and after how many microseconds; most rows get far."""
    chance = random.Random(seed)
    names = chance.choices(
        ["read", "send", "answer", "settle", "save", "kill"],
        weights=[5, 8, 8, 3, chance.random(), chance.random()],
        k=100,
    )
    return [(name, chance.randrange(21), chance.randrange(1, 5_000_000)) for name in names]


STEPS = st.integers(0, 2**32).map(steps_of)


@given(STEPS)
def test_sessions_add_up_to_the_run(steps: list[tuple[str, int, int]]) -> None:
    """However often a run is cut off, its numbers are those of a run in one go."""
    story = Story()
    for name, pick, microseconds in [*steps, ("kill", 0, 1)]:
        story.now += microseconds / 1_000_000 + 2e-6
        getattr(story, name)(pick)
        if name != "kill":
            continue
        whole, uncut = summary_of(story.tally), summary_of(story.uncut())
        for part in ("counts", "failures", "requests", "retries", "latency_ms"):
            assert uncut[part] == whole[part]
        assert story.uncut().unanswered == story.tally.unanswered
        assert story.used_share() == pytest.approx(story.tally.used_share, abs=1e-5)
        assert story.session == whole["sessions"]


@given(STEPS)
def test_a_tally_is_rebuilt_from_all_lines(steps: list[tuple[str, int, int]]) -> None:
    """Without a state, the lines tell of all rows that are settled, and of all that these went through."""
    story, rebuilt, uncut = Story(), Tally(100, 60.0), Tally(100, 60.0)
    for name, pick, microseconds in steps:
        story.now += microseconds / 1_000_000
        getattr(story, "read" if name in ("save", "kill") else name)(pick)

    for line in story.behind:
        rebuilt.read_back(Result.from_line(line), None)
    for event in story.told:
        if event.row not in story.open:
            getattr(uncut, event.name)(*event.arguments["args"], **event.arguments["named"])

    for part in ("counts", "failures", "requests", "retries", "latency_ms"):
        assert summary_of(uncut)[part] == summary_of(rebuilt)[part]
    assert rebuilt.used_share is None


def test_tries_that_a_line_has_no_room_for_count_when_rebuilt() -> None:
    """A line tells the last twenty attempts and how many there were: all of them were requests."""
    attempts = [Attempt(1e9 + at, at, 10.0, 200) for at in range(20)]
    rebuilt = Tally(100, 60.0)

    rebuilt.read_back(result(Status.ACCEPTED, None, 2, *attempts, tries=33), None)

    assert (33, 32) == (rebuilt.requests, rebuilt.retries)


def test_of_many_tries_only_the_late_ones_are_behind_a_state() -> None:
    """What a line no longer tells of happened before the state, and every attempt that it tells is a retry."""
    attempts = [Attempt(1e9 + at, at, 10.0, 200) for at in range(20)]
    tally = Tally.restored(Tally(100, 60.0).state(), 100, 60.0)

    tally.read_back(result(Status.ACCEPTED, None, 2, *attempts, tries=33), 9.5)

    assert (10, 10) == (tally.requests, tally.retries)


def test_an_answer_behind_the_state_counts_though_its_request_was_sent_before() -> None:
    """What was on its way when the state was taken counts once as sent and once as answered."""
    tally = Tally(100, 60.0)
    tally.sent(5.0)
    restored = Tally.restored(tally.state(), 100, 60.0)

    restored.read_back(result(Status.ACCEPTED, None, 2, Attempt(1e9, 5.0, 2_000.0, 200)), 6.0)

    assert 1 == restored.requests
    assert restored.latency.percentile(0.5) == pytest.approx(2_000.0, rel=0.01)


def test_requests_behind_a_state_lengthen_their_session_in_any_order() -> None:
    """Results come as they settle, and their session lasted from its first request to its last."""
    tally = Tally.restored(Tally(60, 60.0).state(), 60, 60.0)

    for at in (4.0, 0.0, 8.0, 6.0):
        tally.read_back(result(Status.ACCEPTED, None, 2, Attempt(1e9 + at, at, 1.0, 200)), -1.0)
    again = Tally.restored(tally.state(), 60, 60.0)

    assert 3 / 8 == tally.used_share == again.used_share


def test_an_answer_is_timed_as_its_line_tells_it() -> None:
    """A line rounds to the microsecond; counted from there or at once, an answer is in the same bucket."""
    edge = 1.0003
    tally, told = Tally(60, 60.0), Tally(60, 60.0)

    tally.answered(edge, ok=True)
    told.read_back(result(Status.ACCEPTED, None, 2, Attempt.from_json(Attempt(1e9, 1.0, edge, 200).as_json())), None)

    assert told.latency.state() == tally.latency.state() != [0]


def test_a_busiest_window_does_not_begin_in_the_future() -> None:
    """Where all that it holds was clamped, it begins with the request of now."""
    tally = Tally(60, 60.0)
    tally.before([9.0, 9.0])

    tally.sent(5.0)

    assert (3, 5.0) == (tally.busiest.count, tally.busiest.at)


def test_a_window_is_clamped_amid_what_is_told_at_once() -> None:
    """Of those that came before, only the ones that still count are told to have come later than they did."""
    busiest = Busiest(1.0)

    busiest.add(0.0, 1.0, 0.5)
    busiest.add(1.25)

    assert (3, 0.5) == (busiest.count, busiest.at)


@given(
    st.lists(st.lists(st.integers(0, 60), max_size=8), max_size=8),
    st.integers(1, 40),
    st.integers(0, 6),
    st.lists(st.integers(0, 60), max_size=5).map(sorted),
)
def test_many_at_once_count_as_one_by_one(batches: list[list[int]], per: int, count: int, earlier: list[int]) -> None:
    """Whether they come in their order or claim to be later than others, and whatever came before."""
    together, each = Busiest(per / 4, count, 0.0), Busiest(per / 4, count, 0.0)
    together.recent, each.recent = Times(earlier), Times(earlier)
    at = 0
    for batch in batches:
        times = [(at + step) / 4 for step in batch]
        at += max(batch, default=0) // 2
        together.add(*times)
        for one in times:
            each.add(one)
        assert (each.count, each.at) == (together.count, together.at)
        found, expected = ([*busiest.recent.kept[busiest.recent.first :]] for busiest in (together, each))
        assert expected == found


def test_a_clamped_window_that_stays_the_busiest_begins_now() -> None:
    """Also where the request of now does not make it larger."""
    busiest = Busiest(1.0, count=5, at=9.0)
    busiest.recent = Times([9.0])

    busiest.add(5.0)

    assert (5, 5.0) == (busiest.count, busiest.at)


def test_pauses_and_sessions_go_on() -> None:
    """Both are those of the whole job."""
    tally = Tally(100, 60.0)
    tally.pauses += 2
    again = Tally.restored(tally.state(), 100, 60.0)
    again.pauses += 1

    said = summary_of(Tally.restored(again.state(), 100, 60.0))

    assert (3, 3) == (said["pauses"], said["sessions"])


TIMES = st.lists(st.integers(0, 300).map(lambda whole: whole / 4), max_size=60).map(sorted)


@given(TIMES, st.integers(1, 40), st.sets(st.integers(0, 60), max_size=3), st.randoms())
def test_a_window_that_spans_a_restart_is_counted_whole(
    times: list[float], per: int, cuts: set[int], any_: Any
) -> None:
    """The busiest window is that of the run in one go, wherever it is cut, when the last window's requests are told."""
    uncut, tally = Tally(60, per, 1e9), Tally(60, per, 1e9)
    for number, at in enumerate(times):
        if number in cuts:
            tally = Tally.restored(orjson.loads(orjson.dumps(tally.state())), 60, per, 1e9)
            last = [before for before in times[:number] if times[number - 1] - before < per]
            any_.shuffle(last)
            tally.before(last)
        uncut.sent(at)
        tally.sent(at)

    assert summary_of(uncut)["rate"]["busiest_window"] == summary_of(tally)["rate"]["busiest_window"]


@given(TIMES, TIMES, st.integers(1, 40))
def test_requests_that_claim_to_be_later_are_clamped(before: list[float], after: list[float], per: int) -> None:
    """Earlier requests whose time lies in the future count as sent with the first request of now, and none is lost."""
    tally = Tally(60, per)
    tally.before(before)
    for at in after:
        tally.sent(at)

    clamped = [min(at, after[0]) for at in before] if after else []

    most = max(busiest_by_hand(before, per), busiest_by_hand([*clamped, *after], per))
    assert most == tally.busiest.count
    assert len(after) == tally.requests
    assert tally.busiest.at is None or tally.busiest.at <= max(before + after)


@pytest.mark.parametrize(("limit", "per", "count"), [(60, 60.0, 3), (30, 60.0, 3), (60, 1.0, 0)])
def test_a_busiest_window_of_another_length_is_none(limit: int, per: float, count: int) -> None:
    """Another limit leaves it as it is; a window of another length cannot be compared."""
    tally = Tally(60, 60.0)
    for at in (1.0, 2.0, 3.0):
        tally.sent(at)

    assert count == Tally.restored(tally.state(), limit, per).busiest.count


def test_each_session_has_its_own_pace() -> None:
    """What a session could have sent depends on its own limit, and the time between sessions does not count."""
    first = Tally(60, 60.0)
    first.sent(0.0)
    first.sent(2.0)
    second = Tally.restored(first.state(), 120, 60.0)
    second.sent(1_000.0)
    second.sent(1_002.0)

    assert second.used_share == pytest.approx(2 / (2 + 4))


@given(st.lists(st.floats(0, 1e300), max_size=50))
def test_latency_goes_on_from_a_state(values: list[float]) -> None:
    """A histogram that was restored has the same percentiles, whatever was counted."""
    latency = Latency()
    for value in values:
        latency.add(value)

    restored = Latency.restored(orjson.loads(orjson.dumps(latency.state())))

    assert [latency.percentile(share / 10) for share in range(11)] == [
        restored.percentile(share / 10) for share in range(11)
    ]
    assert len(latency.state()) <= 1_512


def busy_tally(rows: int) -> Tally:
    """Give a tally that has seen much."""
    tally = Tally(10_000, 60.0, 1.7e9)
    for n in range(rows):
        tally.read()
        tally.sent(n / 100)
        tally.answered(1.02 ** (n % 1_500), ok=n % 7 > 0)
        tally.settled(result(list(Status)[n % len(Status)], f"model {chr(97 + n % 26) * (n % 750)} is bad", n))
    return tally


def test_a_state_is_bounded() -> None:
    """Ten times the rows make no larger state, but for the digits of its numbers."""
    small, large = (len(orjson.dumps(busy_tally(rows).state())) for rows in (1_500, 15_000))

    assert large < small * 1.05
    assert large < 200_000


SOUND: dict[str, Any] = orjson.loads(orjson.dumps(busy_tally(100).state()))


def paths(value: Any, *before: Any) -> list[tuple[Any, ...]]:
    """Give the way to everything in a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [before, *(path for key, each in inside for path in paths(each, *before, key))]


def changed(path: tuple[Any, ...], junk: Any) -> Any:
    """Give the sound state with something else in one place."""
    whole = [copy.deepcopy(SOUND)]
    spot: Any = whole
    for key in (0, *path)[:-1]:
        spot = spot[key]
    spot[(0, *path)[-1]] = junk
    return whole[0]


NUMBERS = [path for path in paths(SOUND) if path and path[0] != "causes" and (path[0] != "latency" or path[1:] == (0,))]
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(paths(SOUND)), JUNK)
def test_a_state_is_refused_or_good_to_go_on_with(path: tuple[Any, ...], junk: Any) -> None:
    """Whatever stands in a damaged state: nothing breaks later on."""
    try:
        tally = Tally.restored(changed(path, junk), 10_000, 60.0)
    except ValueError:
        return
    assert orjson.dumps(tally.state())
    assert orjson.dumps(summary_of(tally))
    assert lines(summary_of(tally))


@pytest.mark.parametrize("junk", [None, True, -1, -0.5, "1", math.nan, math.inf, 2**63, [[]], {"a": 1}])
def test_no_number_is_replaced_by_nonsense(junk: Any) -> None:
    """None, true, negative, infinite, a text, another thing altogether: refused wherever it stands."""
    for path in NUMBERS:
        with pytest.raises(ValueError, match="damaged"):
            Tally.restored(changed(path, junk), 10_000, 60.0)


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        {},
        {**SOUND, "more": 1},
        *({name: value for name, value in SOUND.items() if name != left_out} for left_out in SOUND),
        {**SOUND, "requests": 1.0},
        {**SOUND, "statuses": {**SOUND["statuses"], "lost": 1}},
        {**SOUND, "statuses": dict.fromkeys(SOUND["statuses"], 9_999)},
        {**SOUND, "causes": []},
        {**SOUND, "retries": SOUND["requests"] + 1},
        {**SOUND, "latency": [0] * 2_000},
        {**SOUND, "span": {**SOUND["span"], "first": SOUND["span"]["last"] + 1}},
        {**SOUND, "busiest": {**SOUND["busiest"], "at": 1e12}},
    ],
)
def test_nonsense_is_no_state(state: object) -> None:
    """What lacks something, has too much or contradicts itself is refused."""
    with pytest.raises(ValueError, match=r"damaged|contradict|cannot be"):
        Tally.restored(state, 10_000, 60.0)


EVENTS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.001, 0.2, 7.0]), st.sampled_from([None, "timeout", 200, 200, 429, 503])),
    max_size=80,
)


@given(EVENTS, st.sampled_from([0.5, 12.3456789, 300.0]))
def test_events_are_counted_together_as_one_by_one(told: list[tuple[float, str | int | None]], ms: float) -> None:
    """Requests that left (None) and attempts that are over, in whatever order: the state is the same in all of it."""
    single, many, now = Tally(60, 5.0, 1e9), Tally(60, 5.0, 1e9), 100.0
    events: list[float | Attempt] = []
    for gap, what in told:
        now += gap
        if what is None:
            single.sent(now)
            single.timeline.sent(now)
            events.append(now)
            continue
        status, error = (what, None) if isinstance(what, int) else (None, what)
        attempt = Attempt(now - ms / 1000 + 1e9, now - ms / 1000, ms, status, error)
        single.answered(ms, ok=error is None)
        single.timeline.answered(attempt)
        events.append(attempt)
    many.note(events)
    assert single.state() == many.state()
