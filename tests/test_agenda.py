"""Whose turn it is: what may go, what waits to be tried again, what waits behind others."""

from __future__ import annotations

import random
from collections import deque
from itertools import groupby, islice, pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.agenda import ROUGH_ROW_BYTES, Agenda, Entry
from moe_bulk.config import Rate
from moe_bulk.device import Device
from moe_bulk.outcome import Attempt, Outcome, Result, Status, Verdict
from moe_bulk.record import Record
from moe_bulk.retry import Trials
from moe_bulk.users import UserLimits, Users
from tests.builders import ACCEPTED, REJECTED, TIMEOUT, Looker, record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moe_bulk.agenda import Screen, Watcher


class Stream:
    """A sender that keeps nothing but what the agenda needs."""

    def __init__(self) -> None:
        self.halted = False
        self.ready: deque[Entry] = deque()
        self.parked = 0
        self.screen: Screen | None = None
        self.cleared = 0
        self.retrying = 0
        self.on_their_way = 0
        self.watcher: Watcher | None = None
        self.woken = 0

    def settled(self, *results: Result) -> None:
        """Is not told by the agenda."""
        raise AssertionError(results)

    def wake(self) -> None:
        """Is woken when its rows are held back: there may be room for more of them."""
        self.woken += 1


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


VALUES = st.sampled_from(["", "ab12", "AB12", "x", "\udc80"])
DEVICES = st.builds(
    lambda user, device, said: Device(user, device, {name: value for name, value in said.items() if value}),
    st.sampled_from(["u", "v", "x"]),
    st.sampled_from(["d", "x"]),
    st.fixed_dictionaries({"push_id": VALUES, "moe_gaid": VALUES, "idfv": VALUES}),
)


def entry_of(device: Device) -> Entry:
    """Give an entry of this device."""
    return Entry(Record(record(0).row, device), Stream())


@given(DEVICES, DEVICES)
def test_entries_share_keys_where_their_devices_do(one: Device, other: Device) -> None:
    """Lanes compare hashes, and the device's own key whole: who shares a lane is the same as with all keys whole."""
    shared = set(one.keys()) & set(other.keys())
    assert len(shared) == len(set(entry_of(one).keys) & set(entry_of(other).keys))


@given(DEVICES, st.sampled_from(Status))
def test_a_result_tells_all_keys_of_its_device(device: Device, status: Status) -> None:
    """Its line is that of a result which has the keys whole."""
    result = entry_of(device).result(status, ACCEPTED, 1.5)
    whole = result._replace(keys=device.keys(), other_hashes=())
    assert (whole.line(), whole.hashes) == (result.line(), result.hashes)


def test_an_empty_agenda() -> None:
    """There is nothing to send and nothing to wait for."""
    agenda = Agenda(Users(TIMEOUT, cells=16))
    assert (None, None, 0) == (agenda.next(0.0), agenda.next_due(), agenda.retrying)


def test_input_order_within_a_stream() -> None:
    """What shares no key goes in the order in which it came."""
    agenda, stream = Agenda(Users(TIMEOUT, cells=16)), Stream()
    for number in range(5):
        agenda.admit(entry(number, stream))
    assert [0, 1, 2, 3, 4] == taken(agenda)


def test_streams_take_turns() -> None:
    """A single row is sent next to the first of a long stream, not behind its last."""
    agenda, long, single = Agenda(Users(TIMEOUT, cells=16)), Stream(), Stream()
    for number in range(1000):
        agenda.admit(entry(number, long))
    agenda.admit(entry(5000, single))
    assert [0, 5000, 1, 2] == taken(agenda)[:4]


def test_a_parked_entry_counts_for_its_own_stream() -> None:
    """A row behind another stream's row with the same key waits, counted with the stream that it belongs to."""
    agenda, first, second = Agenda(Users(TIMEOUT, cells=16)), Stream(), Stream()
    blocker = entry(0, first, "u")
    agenda.admit(blocker)
    agenda.admit(entry(1, second, "u"))
    assert ([0], 0, 1) == (taken(agenda), first.parked, second.parked)
    agenda.done(blocker)
    assert (0, [1]) == (second.parked, taken(agenda))


def test_a_retry_waits_until_it_is_due_and_then_goes_first() -> None:
    """It is not sent before its time, keeps its lane meanwhile, and overtakes what came after it when due."""
    agenda, stream = Agenda(Users(TIMEOUT, cells=16)), Stream()
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
    agenda, stream = Agenda(Users(TIMEOUT, cells=16)), Stream()
    again = entry(0, stream)
    agenda.admit(again)
    agenda.next(0.0)
    agenda.again(again, 0.0)
    agenda.admit(entry(1, stream))
    assert (nxt := agenda.next(1.0, retries_first=False)) is not None
    assert ([1], [0]) == ([nxt.record.position.line], taken(agenda, 1.0))


def test_in_an_outage_one_of_the_retries_that_are_due_is_enough() -> None:
    """The others wait on: behind each probe there may be new rows, which go first."""
    agenda, stream = Agenda(Users(TIMEOUT, cells=16)), Stream()
    agenda.admit(*(entry(number, stream) for number in range(2)))
    for each in (agenda.next(0.0), agenda.next(0.0)):
        assert each is not None
        agenda.again(each, 0.0)
    assert agenda.next(1.0, retries_first=False) is not None
    assert (1, 0) == (agenda.retrying, len(stream.ready))


def test_several_at_once_are_counted_each() -> None:
    """Of those that come together the ones behind another wait, and go when it is their turn."""
    agenda, stream = Agenda(Users(TIMEOUT, cells=16)), Stream()
    together = [Entry(record(number, push_id="token"), stream) for number in range(3)]
    agenda.admit(*together, entry(3, stream))
    seen = [(stream.parked, len(stream.ready))]
    for each in together:
        agenda.done(each)
        seen.append((stream.parked, len(stream.ready)))
    assert [(2, 2), (1, 3), (0, 4), (0, 4)] == seen


def test_retries_that_went_last_go_first_again() -> None:
    """They are not lost behind a long stream: when they may go first again, they do."""
    agenda, stream = Agenda(Users(TIMEOUT, cells=16)), Stream()
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
    agenda, halted, other = Agenda(Users(TIMEOUT, cells=16)), Stream(), Stream()
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
    agenda, other = Agenda(Users(TIMEOUT, cells=16)), Stream()
    waiting = entry(1, other)
    agenda.admit(waiting)
    agenda.next(0.0)
    agenda.again(waiting, 5.0)
    monkeypatch.setattr("heapq.heapify", None)
    agenda.withdraw(Stream())
    assert (None, 1, 1) == (agenda.next(0.0), agenda.retrying, other.retrying)
    assert ([1], 0) == (taken(agenda, 5.0), other.retrying)


# --- users who had enough --------------------------------------------------------------------------------------------


class Traffic:
    """An agenda under small limits, and what the engine does with it: each request is answered at once."""

    def __init__(self, limit: int, per: float = 60.0) -> None:
        self.users = Users(TIMEOUT, UserLimits((Rate(limit, per),), percent=100))
        self.agenda = Agenda(self.users)

    def send(self, now: float, *, retries_first: bool = True) -> Entry | None:
        """Send the next one that may go, and take in its answer."""
        sent = self.agenda.next(now, retries_first=retries_first)
        if sent is not None:
            self.users.sent(sent.cell)
            self.users.answered([sent.cell], now)
            sent.tried(Attempt(now, now, 0.0, 503))
        return sent

    def all(self, now: float) -> list[int]:
        """Send all that may be sent now and is settled by its answer; give their rows' numbers."""
        found = []
        while (sent := self.send(now)) is not None:
            found.append(sent.record.position.line)
            self.agenda.done(sent)
        return found

    def admit(self, numbers: Iterable[int], sender: Stream, user: str | None = None) -> None:
        """Queue rows of one user; they share no lane."""
        for number in numbers:
            self.agenda.admit(Entry(record(number, customer_id=user), sender))


def due(agenda: Agenda) -> float:
    """Tell when to look again; there is a time."""
    at = agenda.next_due()
    assert at is not None
    return at


def test_a_user_who_had_enough_waits_in_order_and_others_do_not() -> None:
    """Two a minute here: the third and later ones are held back, counted as parked, and go when there is room."""
    traffic, stream = Traffic(2), Stream()
    traffic.admit(range(5), stream, "hot")
    traffic.admit(range(5, 9), stream)
    assert [0, 1, 5, 6, 7, 8] == traffic.all(1.0)
    assert (3, 3, 0) == (stream.parked, traffic.agenda.lanes.parked, len(stream.ready))
    assert traffic.agenda.lanes.parked_bytes > 3 * ROUGH_ROW_BYTES
    later = due(traffic.agenda)
    assert ([], [2, 3]) == (traffic.all(later - 0.1), traffic.all(later))
    assert ([4], None) == (traffic.all(due(traffic.agenda)), traffic.agenda.next_due())
    lanes = traffic.agenda.lanes
    assert (0, 0, 0, 0) == (stream.parked, lanes.parked, lanes.parked_bytes, len(lanes))


def test_a_stream_is_told_that_its_rows_are_held_back() -> None:
    """Held back, they take none of the room that it may be waiting for."""
    traffic, stream = Traffic(1), Stream()
    traffic.admit(range(3), stream, "hot")
    assert ([0], 2) == (traffic.all(1.0), stream.woken)


def test_a_stream_is_told_that_a_row_waits_to_be_tried_again() -> None:
    """Up to some number they take none of the room that it may be waiting for, either."""
    stream, agenda = Stream(), Agenda(Users(TIMEOUT))
    agenda.admit(first := entry(0, stream))
    assert ([0], 0) == (taken(agenda), stream.woken)
    agenda.again(first, 5.0)
    assert (1, 1) == (stream.retrying, stream.woken)


def test_what_was_held_back_and_what_was_not_take_turns() -> None:
    """Neither a user's backlog nor a stream's keeps the other waiting."""
    traffic, stream = Traffic(3), Stream()
    traffic.admit(range(6), stream, "hot")
    assert [0, 1, 2] == traffic.all(1.0)
    traffic.admit(range(10, 16), stream)
    order = traffic.all(1000.0)
    assert ([3, 4, 5], [10, 11, 12, 13, 14, 15]) == ([n for n in order if n < 10], [n for n in order if n >= 10])
    assert all({before, after} & {3, 4, 5} for before, after in pairwise(order[:6]))


def test_what_comes_later_goes_behind_what_was_held_back() -> None:
    """A user's rows keep their order although there is room again when the later ones come."""
    traffic, stream = Traffic(2), Stream()
    traffic.admit(range(3), stream, "hot")
    assert [0, 1] == traffic.all(1.0)
    traffic.admit([3], stream, "hot")
    assert [2, 3] == traffic.all(due(traffic.agenda))


def test_the_lanes_of_what_is_held_back_stay_taken() -> None:
    """Another user's row with the same token waits behind it, and goes after it."""
    traffic, stream = Traffic(1), Stream()
    traffic.admit([0], stream, "hot")
    traffic.agenda.admit(Entry(record(1, customer_id="hot", push_id="token"), stream))
    traffic.agenda.admit(Entry(record(2, push_id="token"), stream))
    assert ([0], 2) == (traffic.all(1.0), stream.parked)
    assert [1, 2] == traffic.all(due(traffic.agenda))


@pytest.mark.parametrize(("retries_first", "order"), [(True, [0, 1, 2]), (False, [1, 2, 0])])
def test_a_retry_is_held_back_before_the_others_of_its_user(*, retries_first: bool, order: list[int]) -> None:
    """It goes first when there is room again; in an outage last, so that each probe is another one."""
    traffic, stream = Traffic(1), Stream()
    traffic.admit(range(3), stream, "hot")
    first = traffic.send(1.0)
    assert first is not None
    assert traffic.send(1.0) is None
    traffic.agenda.again(first, 2.0)
    assert (2.0, None, 0, 3) == (
        traffic.agenda.next_due(),
        traffic.send(2.0, retries_first=retries_first),
        stream.retrying,
        stream.parked,
    )
    assert order == [line for _ in range(3) for line in traffic.all(due(traffic.agenda))]


def test_the_next_look_is_for_whoever_is_due_first() -> None:
    """A retry or a user's room, whichever comes earlier."""
    traffic, stream = Traffic(1), Stream()
    other = Entry(record(9), stream)
    traffic.agenda.admit(other)
    traffic.send(0.0)
    traffic.admit(range(2), stream, "hot")
    assert [0] == traffic.all(1.0)
    room_at = due(traffic.agenda)
    traffic.agenda.again(other, 5.0)
    assert 5.0 == traffic.agenda.next_due()
    traffic.agenda.next(5.0)
    traffic.agenda.again(other, 500.0)
    assert room_at == traffic.agenda.next_due()


def test_what_a_halted_stream_had_held_back_is_withdrawn() -> None:
    """It is not sent, its lanes are free and it is parked no more; another stream's row of that user waits on."""
    traffic, halted, other = Traffic(1), Stream(), Stream()
    traffic.admit(range(2), halted, "hot")
    traffic.agenda.admit(Entry(record(2, customer_id="hot", push_id="token"), halted))
    assert [0] == traffic.all(1.0)
    traffic.admit([3], other, "hot")
    traffic.agenda.admit(Entry(record(4, push_id="token"), other))
    assert ([], 2, 2) == (traffic.all(1.0), halted.parked, other.parked)
    halted.halted = True
    traffic.agenda.withdraw(halted)
    assert (0, 1, 1) == (halted.parked, other.parked, traffic.agenda.lanes.parked)
    assert ([4], [3]) == (traffic.all(1.0), traffic.all(due(traffic.agenda)))
    assert (0, None) == (len(traffic.agenda.lanes), traffic.agenda.next_due())


# --- the last word ---------------------------------------------------------------------------------------------------


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
    one.trials = Trials(3, 2)
    one.tried(Attempt(1.0, 2.0, 3.0, outcome.http_status, outcome.error))
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


@pytest.mark.parametrize("tries", [0, 1])
def test_tries_of_a_row_that_nothing_went_wrong_with(tries: int) -> None:
    """One that was accepted at once has one, one that need not be sent has none."""
    one = entry(7, Stream())
    for _ in range(tries):
        one.tried(Attempt(1.0, 2.0, 3.0, 200))
    assert tries == one.result(Status.ACCEPTED if tries else Status.UNCHANGED, ACCEPTED, 0.0).tries


def test_twenty_attempts_are_told() -> None:
    """Of many attempts the last twenty are kept."""
    one = entry(7, Stream())
    for number in range(50):
        one.tried(Attempt(float(number), 0.0, 0.0, 503))
    told = one.result(Status.ACCEPTED, ACCEPTED, 0.0).attempts
    assert [float(number) for number in range(30, 50)] == [attempt.sent for attempt in told]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc")), max_size=30),
    st.integers(0, 2**32),
    st.sampled_from((1000, 3, 1)),
)
def test_each_entry_once_and_in_order(rows: list[tuple[int, str]], seed: int, limit: int) -> None:
    """Over any streams, keys, limits, retries and one halt: no entry is sent twice at a time, per key in input order.

    What was not halted is sent to its end, exactly once; of what was halted nothing is sent after the halt.
    """
    users = Users(TIMEOUT, UserLimits((Rate(limit, 5.0),), percent=100), cells=2)
    agenda, streams, chance = Agenda(users), [Stream() for _ in range(3)], random.Random(seed)
    todo = [entry(number, streams[which], user) for number, (which, user) in enumerate(rows)]
    away: list[Entry] = []
    done: list[Entry] = []
    now, admitted, halted = 0.0, 0, None
    while admitted < len(todo) or away or agenda.retrying or agenda.lanes.parked or any(each.ready for each in streams):
        now += 1.0
        match chance.choices(("admit", "send", "finish", "retry", "halt"), (20, 20, 20, 10, 1))[0]:
            case "admit" if admitted < len(todo):
                sender, alike = next(groupby(todo[admitted:], lambda each: each.sender))
                some = list(islice(alike, chance.randrange(1, 6)))
                if sender is not halted:
                    agenda.admit(*some)
                admitted += len(some)
            case "send" if (nxt := agenda.next(now)) is not None:
                assert nxt.sender is not halted
                users.sent(nxt.cell)
                assert all(nxt.record.device.keys() != other.record.device.keys() for other in away)
                away.append(nxt)
            case "finish" if away:
                done.append(away.pop(chance.randrange(len(away))))
                users.answered([done[-1].cell], now)
                agenda.done(done[-1])
            case "retry" if away and away[0].sender is not halted:
                users.answered([away[0].cell], now)
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
    lanes = agenda.lanes
    assert [0] * 6 == [lanes.parked, lanes.parked_bytes, len(lanes), *(stream.parked for stream in streams)]


# -- a screen before the others ----------------------------------------------------------------------------------------


def screened() -> tuple[Stream, Looker]:
    """Give a stream with a screen."""
    sender, looker = Stream(), Looker()
    sender.screen = looker
    return sender, looker


def test_a_screen_is_asked_when_an_entry_is_first_in_its_lanes() -> None:
    """Nothing goes that it did not clear; those behind an entry are asked about once that one is done."""
    sender, looker = screened()
    agenda = Agenda(Users(TIMEOUT))
    entries = [entry(0, sender, "a"), entry(1, sender, "a"), entry(2, sender)]
    for each in entries:
        agenda.admit(each)
    assert ([entries[0], entries[2]], []) == (looker.withdraw(), taken(agenda))
    agenda.done(entries[0])
    assert ([entries[1]], 0) == (looker.withdraw(), sender.parked)
    agenda.clear(entries[1])
    agenda.clear(entries[2])
    assert (2, [1, 2]) == (sender.cleared, taken(agenda))
    agenda.done(entries[1])
    agenda.ask_again(entries[2])
    assert ([entries[2]], 0) == (looker.withdraw(), sender.cleared)


def test_what_is_cleared_and_held_back_counts_once() -> None:
    """It counts as parked while its user has had enough, and whatever is withdrawn counts no more."""
    sender, looker = screened()
    traffic = Traffic(limit=1)
    traffic.admit([0, 1], sender, "a")
    for each in looker.withdraw():
        traffic.agenda.clear(each)
    traffic.admit([2], sender)
    first = traffic.send(0.0)
    assert first is not None
    assert traffic.send(0.0) is None
    assert (1, 1) == (sender.cleared, sender.parked)
    traffic.agenda.done(first)
    assert traffic.send(100.0) is not None
    assert (1, 0) == (sender.cleared, sender.parked)
    sender.halted = True
    traffic.agenda.withdraw(sender)
    assert [] == looker.asked


@pytest.mark.parametrize("end", ["sent", "withdrawn"])
def test_what_is_cleared_and_waits_to_be_tried_again_counts_once(end: str) -> None:
    """It counts as waiting until it is due, and as cleared once it may go again."""
    sender, looker = screened()
    agenda = Agenda(Users(TIMEOUT))
    agenda.admit(entry(0, sender))
    agenda.clear(*looker.withdraw())
    tried = agenda.next(0.0)
    assert tried is not None
    agenda.again(tried, 5.0)
    assert (0, 1) == (sender.cleared, sender.retrying)
    if end == "sent":
        assert tried is agenda.next(5.0)
        assert (1, 0) == (sender.cleared, sender.retrying)
        agenda.done(tried)
    else:
        sender.halted = True
        agenda.withdraw(sender)
    assert (0, 0) == (sender.cleared, sender.retrying)
