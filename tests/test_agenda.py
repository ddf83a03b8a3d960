"""Whose turn it is: what may go, what waits to be tried again, what waits behind others."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.agenda import ROUGH_ROW_BYTES, Agenda, Entry
from moe_bulk.outcome import Attempt, Outcome, Result, Status, Verdict
from tests.builders import ACCEPTED, REJECTED, record

if TYPE_CHECKING:
    from moe_bulk.agenda import Watcher


class Stream:
    """A sender that keeps nothing but what the agenda needs."""

    def __init__(self) -> None:
        self.halted = False
        self.ready: deque[Entry] = deque()
        self.parked = 0
        self.retrying = 0
        self.on_their_way = 0
        self.watcher: Watcher | None = None

    def settled(self, result: Result) -> None:
        """Is not told by the agenda."""
        raise AssertionError(result)

    def wake(self) -> None:
        """Is not woken by the agenda."""
        raise AssertionError


def entry(number: int, sender: Stream, user: str | None = None) -> Entry:
    """Give an entry; those with one `user` share a lane."""
    device_id = "d" if user else None
    return Entry(record(number, customer_id=user, device_id=device_id), sender)


def taken(agenda: Agenda, now: float = 0.0) -> list[int]:
    """Take all that may be sent; give their rows' numbers."""
    found = []
    while (nxt := agenda.next(now)) is not None:
        found.append(nxt.record.position.line)
    return found


def test_an_empty_agenda() -> None:
    """There is nothing to send and nothing to wait for."""
    agenda = Agenda()
    assert (None, None, 0) == (agenda.next(0.0), agenda.next_due(), agenda.retrying)


def test_input_order_within_a_stream() -> None:
    """What shares no key goes in the order in which it came."""
    agenda, stream = Agenda(), Stream()
    for number in range(5):
        agenda.admit(entry(number, stream))
    assert [0, 1, 2, 3, 4] == taken(agenda)


def test_streams_take_turns() -> None:
    """A single row is sent next to the first of a long stream, not behind its last."""
    agenda, long, single = Agenda(), Stream(), Stream()
    for number in range(1000):
        agenda.admit(entry(number, long))
    agenda.admit(entry(5000, single))
    assert [0, 5000, 1, 2] == taken(agenda)[:4]


def test_a_parked_entry_counts_for_its_own_stream() -> None:
    """A row behind another stream's row with the same key waits, counted with the stream that it belongs to."""
    agenda, first, second = Agenda(), Stream(), Stream()
    blocker = entry(0, first, "u")
    agenda.admit(blocker)
    agenda.admit(entry(1, second, "u"))
    assert ([0], 0, 1) == (taken(agenda), first.parked, second.parked)
    agenda.done(blocker)
    assert (0, [1]) == (second.parked, taken(agenda))


def test_a_retry_waits_until_it_is_due_and_then_goes_first() -> None:
    """It is not sent before its time, keeps its lane meanwhile, and overtakes what came after it when due."""
    agenda, stream = Agenda(), Stream()
    again = entry(0, stream, "u")
    agenda.admit(again)
    agenda.next(0.0)
    agenda.again(again, 5.0)
    for number, user in ((1, None), (2, "u"), (3, None)):
        agenda.admit(entry(number, stream, user))
    assert (5.0, 1) == (agenda.next_due(), agenda.retrying)
    assert (nxt := agenda.next(4.9)) is not None
    assert 1 == nxt.record.position.line
    assert ([0, 3], 0) == (taken(agenda, 5.0), agenda.retrying)
    agenda.done(again)
    assert [2] == taken(agenda, 5.0)


def test_in_an_outage_retries_go_last() -> None:
    """Asked not to put them first, what was tried before goes behind what was not."""
    agenda, stream = Agenda(), Stream()
    again = entry(0, stream)
    agenda.admit(again)
    agenda.next(0.0)
    agenda.again(again, 0.0)
    agenda.admit(entry(1, stream))
    assert (nxt := agenda.next(1.0, retries_first=False)) is not None
    assert ([1], [0]) == ([nxt.record.position.line], taken(agenda, 1.0))


def test_retries_that_went_last_go_first_again() -> None:
    """They are not lost behind a long stream: when they may go first again, they do."""
    agenda, stream = Agenda(), Stream()
    again = entry(0, stream)
    agenda.admit(again)
    agenda.next(0.0)
    agenda.again(again, 0.0)
    for number in range(1, 100):
        agenda.admit(entry(number, stream))
    found = [agenda.next(1.0, retries_first=number > 1) for number in range(4)]
    assert [1, 2, 0, 3] == [each.record.position.line for each in found if each is not None]


def test_a_halted_stream_is_forgotten() -> None:
    """Neither its ready nor its retried nor its parked rows are sent, and others behind them need not wait."""
    agenda, halted, other = Agenda(), Stream(), Stream()
    away = entry(0, halted, "a")
    agenda.admit(away)
    agenda.next(0.0)
    again = entry(1, halted, "b")
    agenda.admit(again)
    agenda.next(0.0)
    agenda.again(again, 9.0)
    others_again = entry(2, other)
    agenda.admit(others_again)
    agenda.next(0.0)
    agenda.again(others_again, 8.0)
    for number, sender, user in (
        (3, halted, "c"),
        (4, halted, "a"),
        (5, other, "a"),
        (6, other, "b"),
        (7, other, "c"),
        (8, halted, "c"),
    ):
        agenda.admit(entry(number, sender, user))
    halted.halted = True
    agenda.withdraw(halted)
    assert ({6, 7}, 8.0, 1) == (set(taken(agenda, 5.0)), agenda.next_due(), agenda.retrying)
    agenda.done(away)
    assert ([5], [2]) == (taken(agenda, 5.0), taken(agenda, 10.0))
    assert 1 == halted.parked  # 8 still waits behind 7, which is on its way


def test_a_halted_stream_without_anything_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to forget, and nobody else's retries are looked through for it."""
    agenda, other = Agenda(), Stream()
    waiting = entry(1, other)
    agenda.admit(waiting)
    agenda.next(0.0)
    agenda.again(waiting, 5.0)
    monkeypatch.setattr("heapq.heapify", None)
    agenda.withdraw(Stream())
    assert (None, 1, 1) == (agenda.next(0.0), agenda.retrying, other.retrying)
    assert ([1], 0) == (taken(agenda, 5.0), other.retrying)


def test_an_entry_weighs_its_text() -> None:
    """What parked rows take in memory grows with their text."""
    light, heavy = record(1), record(1, model="x" * 500)
    assert 1000 == Entry(heavy, Stream()).size - Entry(light, Stream()).size
    assert Entry(light, Stream()).size > ROUGH_ROW_BYTES


@pytest.mark.parametrize(
    ("status", "outcome", "reason"),
    [
        (Status.ACCEPTED, Outcome(Verdict.ACCEPTED, 200, reason="fine", request_id="r-1"), None),
        (Status.REJECTED, REJECTED, "a bad value"),
        (Status.EXHAUSTED, Outcome(Verdict.TROUBLE, error="timeout"), "timeout"),
    ],
)
def test_the_last_word(status: Status, outcome: Outcome, reason: str | None) -> None:
    """A result tells the row, the last answer, the last attempts and the number of all."""
    one = entry(7, Stream())
    one.trials.tries, one.trials.free = 3, 2
    one.attempts.append(Attempt(1.0, 2.0, 3.0, outcome.http_status, outcome.error))
    assert Result(
        position=one.record.position,
        status=status,
        row=one.record.row,
        customer_id="u-7",
        device_id="d-7",
        http_status=outcome.http_status,
        error_type=outcome.error_type,
        reason=reason,
        request_id=outcome.request_id,
        attempts=(Attempt(1.0, 2.0, 3.0, outcome.http_status, outcome.error),),
        tries=5,
        settled_at=99.0,
        keys=one.record.device.keys(),
    ) == one.result(status, outcome, 99.0)


def test_twenty_attempts_are_told() -> None:
    """Of many attempts the last twenty are kept."""
    one = entry(7, Stream())
    one.attempts.extend(Attempt(float(number), 0.0, 0.0, 503) for number in range(50))
    told = one.result(Status.ACCEPTED, ACCEPTED, 0.0).attempts
    assert [float(number) for number in range(30, 50)] == [attempt.sent for attempt in told]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc")), max_size=30), st.integers(0, 2**32))
def test_each_entry_once_and_in_order(rows: list[tuple[int, str]], seed: int) -> None:
    """Over any streams, keys, retries and one halt: no entry is sent twice at a time, per key in input order.

    What was not halted is sent to its end, exactly once; of what was halted nothing is sent after the halt.
    """
    agenda, streams, chance = Agenda(), [Stream() for _ in range(3)], random.Random(seed)
    todo = [entry(number, streams[which], user) for number, (which, user) in enumerate(rows)]
    away: list[Entry] = []
    done: list[Entry] = []
    now, admitted, halted = 0.0, 0, None
    while admitted < len(todo) or away or agenda.next_due() is not None or any(stream.ready for stream in streams):
        now += 1.0
        match chance.choices(("admit", "send", "finish", "retry", "halt"), (20, 20, 20, 10, 1))[0]:
            case "admit" if admitted < len(todo):
                if todo[admitted].sender is not halted:
                    agenda.admit(todo[admitted])
                admitted += 1
            case "send" if (nxt := agenda.next(now)) is not None:
                assert nxt.sender is not halted
                assert all(nxt.record.device.keys() != other.record.device.keys() for other in away)
                away.append(nxt)
            case "finish" if away:
                done.append(away.pop(chance.randrange(len(away))))
                agenda.done(done[-1])
            case "retry" if away and away[0].sender is not halted:
                agenda.again(away.pop(0), now + chance.randrange(5))
            case "halt" if halted is None:
                halted = chance.choice(streams)
                halted.halted = True
                agenda.withdraw(halted)
            case _:
                agenda.next_due()
    assert len(done) == len(set(done))
    assert {one for one in todo if one.sender is not halted} <= set(done)
    for user in "abc":
        order = [one.record.position.line for one in done if one.record.device.customer_id == user]
        assert sorted(order) == order
    assert 0 == agenda.lanes.parked == len(agenda.lanes)
