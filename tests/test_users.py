"""What each user was sent of late: never counted under, hardly over, in memory that does not grow with the users."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moe_bulk.config import Rate
from moe_bulk.errors import ConfigError
from moe_bulk.pacing.guard import CLOCK_MARGIN, GRACE
from moe_bulk.users import BUCKETS, CELLS, CLOSELY, HIGHEST_COUNT, ROUNDING, HeldBack, UserLimits, Users
from tests.builders import TIMEOUT, busiest, busiest_possible
from tests.effort import examples

WINDOW = 60.0 * (1 + CLOCK_MARGIN)
BUCKET = WINDOW / BUCKETS


def users(*rates: Rate, cells: int = 1, closely: float = CLOSELY) -> Users:
    """Give counters of one cell that keep to all of these rates."""
    return Users(TIMEOUT, UserLimits(rates, percent=100), cells, closely)


def sent(of: Users, count: int, cell: int = 0) -> None:
    """Send so many requests."""
    for _ in range(count):
        of.sent(cell)


# --- the limits ------------------------------------------------------------------------------------------------------


def test_nine_tenths_of_each_of_moengage_s_limits() -> None:
    """A user gets 4,500 requests a minute, 9,000 in 5 minutes and 45,000 in an hour."""
    assert (Rate(4_500, 60.0), Rate(9_000, 300.0), Rate(45_000, 3600.0)) == UserLimits().ours


@pytest.mark.parametrize(("limit", "percent", "ours"), [(10, 90, 9), (19, 90, 17), (1, 90, 1), (7, 100, 7)])
def test_a_share_is_rounded_down_to_at_least_one(limit: int, percent: int, ours: int) -> None:
    """A part of a request is none, but one has to go."""
    assert (Rate(ours, 5.0),) == UserLimits((Rate(limit, 5.0),), percent).ours


@pytest.mark.parametrize(("limit", "percent"), [(HIGHEST_COUNT + 1, 90), (10, 0), (10, 101)])
def test_limits_that_make_no_sense(limit: int, percent: int) -> None:
    """More than the counters hold, nothing at all, or more than all, is refused at birth."""
    with pytest.raises(ConfigError, match=r"1 to 100% of limits up to 65,535 requests each"):
        UserLimits((Rate(limit, 60.0),), percent)


# --- one cell --------------------------------------------------------------------------------------------------------


def test_the_next_session_is_told_of_busy_cells() -> None:
    """What a cell holds, on its way included, counts there from the session's end on; what is little is not told."""
    before = users(Rate(40, 60.0), Rate(1000, 3600.0), cells=3)
    for cell, count in ((0, 30), (1, 1), (2, 49)):
        sent(before, count, cell)
        for _ in range(min(count, 28)):
            before.answered([cell], 100.0)
    assert [[0, 30, 30], [2, 49, 49]] == before.busy(101.0)
    after = users(Rate(40, 60.0), Rate(1000, 3600.0), cells=3)
    after.remember(before.busy(101.0), 102.0, 110.0)
    assert [True, True, False] == [after.has_room(cell, 110.0) for cell in range(3)]
    sent(after, 10)
    assert not after.has_room(0, 110.0)
    assert [False, True] == [after.has_room(2, 102.0 + each) for each in (WINDOW - 0.1, WINDOW + BUCKET + 0.1)]


def test_what_has_passed_before_the_session_is_forgotten() -> None:
    """A run that goes on the day after holds nobody back."""
    one = users(Rate(2, 60.0))
    one.remember([[0, 2]], 100.0, 90_000.0)
    assert one.has_room(0, 90_000.0)


def test_told_more_often_than_can_be_counted() -> None:
    """Sessions that each tell of a full cell leave it full, for one window."""
    one = Users(TIMEOUT, cells=1)
    for _ in range(3):
        one.remember([[0, 5_000, 9_000, 60_000]], 100.0, 100.0)
    one.remember([[0, 10**30]], 100.0, 100.0)
    assert not one.has_room(0, 3600.0)
    assert one.has_room(0, 4000.0)


def test_what_little_was_counted_in_one_window_only_is_told_too() -> None:
    """The next session hears of all that it has to, however few requests were not counted closely."""
    before = users(Rate(100, 60.0), Rate(1000, 3600.0), cells=2, closely=0.5)
    sent(before, 40)
    for _ in range(40):
        before.answered([0], 100.0)
    assert [[0, 40, 40]] == before.busy(101.0)


def test_the_plain_counter_forgets_after_two_of_the_longest_windows() -> None:
    """Until then what it knows counts in full, as soon as the cell gets much; afterwards none of it does."""
    hour = 3600.0 * (1 + CLOCK_MARGIN)
    for hours, told in ((0.9, [[0, 6, 6]]), (1.9, [[0, 6, 6]]), (2.0, []), (20.0, [])):
        later = 100.0 + hours * hour
        one = users(Rate(100, 60.0), Rate(100, 3600.0), closely=0.05)
        sent(one, 6)
        one.answered([0, 0, 0], 100.0)  # it turns for the first time here, and so it does an hour later
        one.answered([0], later)
        one.answered([0, 0], later)
        assert told == one.busy(later), hours


def test_what_the_plain_counter_has_counts_from_the_moment_of_the_closer_look() -> None:
    """All of it as if it had just ended, for one window; what is on its way is not among it."""
    one = users(Rate(10, 60.0), closely=0.5)
    sent(one, 6)
    one.answered([0] * 5, 1.0)
    assert one.has_room(0, 50.0)
    one.answered([0], 50.0)
    sent(one, 4)
    assert [False, False, True] == [one.has_room(0, at) for at in (50.0, 50.0 + WINDOW - 0.1, 50.0 + WINDOW + BUCKET)]


def test_what_stands_before_a_turn_and_behind_it_counts_together() -> None:
    """No window around the turn of the plain counter holds more than the limit."""
    one = users(Rate(6, 60.0), closely=0.5)
    sent(one, 6)
    one.answered([0], 0.0)
    one.answered([0, 0], WINDOW - 1.0)
    one.answered([0, 0, 0], WINDOW + 1.0)
    assert [False, False, True] == [one.has_room(0, at) for at in (WINDOW + 1.0, 2 * WINDOW, 2 * WINDOW + BUCKET + 1.0)]


def test_the_closer_look_forgets_what_is_long_over() -> None:
    """Nothing was answered since, so the plain counter has not turned by itself."""
    one = users(Rate(10, 60.0), closely=0.5)
    sent(one, 6)
    one.answered([0] * 5, 1.0)
    one.given_up(0, 9_000.0, 9_001.0)
    assert [[0, 1]] == one.busy(9_001.0)


def test_much_on_its_way_calls_for_the_closer_look() -> None:
    """A cell with few answers, and with as many on their way as there may be, has no room."""
    one = users(Rate(10, 60.0), closely=0.5)
    sent(one, 4)
    one.answered([0] * 4, 1.0)
    sent(one, 6)
    assert [False, False, True] == [one.has_room(0, at) for at in (1.0, WINDOW + 0.9, WINDOW + BUCKET + 1.0)]


def test_a_user_has_the_same_cell_in_every_process() -> None:
    """Sessions talk of cells, so they must mean the same; a lone surrogate has one, too."""
    assert [1556, 2439] == [Users(TIMEOUT).cell(each) for each in ("user-1", "\udcff")]


def test_what_is_on_its_way_counts() -> None:
    """The limit is used up by requests without an answer, however long ago they were sent."""
    one = users(Rate(2, 60.0))
    seen = [one.has_room(0, 0.0)]
    for _ in range(2):
        one.sent(0)
        seen.append(one.has_room(0, 0.0))
    assert [True, True, False] == seen
    assert not one.has_room(0, 1e6)


def test_an_answered_request_counts_for_a_window() -> None:
    """It counts from its sending until a window after its answer, and at most a bucket longer."""
    one = users(Rate(1, 60.0))
    sent(one, 1)
    one.answered([0], 10.0)
    assert not one.has_room(0, 10.0 + WINDOW - 0.001)
    assert one.has_room(0, 10.0 + WINDOW + BUCKET)


@pytest.mark.parametrize(("given_up", "counts_from"), [(3.0, TIMEOUT), (TIMEOUT, TIMEOUT), (95.0, 95.0)])
def test_a_request_given_up_counts_longer(given_up: float, counts_from: float) -> None:
    """It may arrive until its timeout, or its late giving up, and five seconds more; its window begins then."""
    one = users(Rate(1, 60.0))
    sent(one, 1)
    one.given_up(0, 0.0, given_up)
    assert not one.has_room(0, counts_from + GRACE + WINDOW - 0.001)
    assert one.has_room(0, counts_from + GRACE + WINDOW + BUCKET)


def test_every_window_counts() -> None:
    """There is room only where all three windows have it, and the one that is full for longest says when to look."""
    three = users(Rate(2, 1.0), Rate(3, 10.0), Rate(4, 100.0))
    now, room_after = 0.0, []
    for _ in range(4):
        now = three.look_again_at(0, now)
        room_after.append(round(now))
        three.sent(0)
        three.answered([0], now)
    assert ([0, 0, 1, 10], 100) == (room_after, round(three.look_again_at(0, now), -1))


def test_when_to_look_again() -> None:
    """As soon as the oldest bucket is forgotten, or what is on its way could be if it ended now."""
    one = users(Rate(2, 60.0))
    sent(one, 2)
    assert pytest.approx(100 * BUCKET + WINDOW + BUCKET + ROUNDING) == one.look_again_at(0, 100.5 * BUCKET)
    one.answered([0], 102.5 * BUCKET)
    one.answered([0], 110.5 * BUCKET)
    look_at = one.look_again_at(0, 111 * BUCKET)
    assert pytest.approx(102 * BUCKET + WINDOW + BUCKET + ROUNDING) == look_at
    assert [False, True] == [one.has_room(0, look_at - 2 * ROUNDING), one.has_room(0, look_at)]


def test_there_is_no_need_to_look_where_there_is_room() -> None:
    """A cell with room can be looked at now."""
    assert 7.0 == users(Rate(1, 60.0)).look_again_at(0, 7.0)


def test_a_cell_that_nobody_asked_about_for_a_day() -> None:
    """Whatever it held is forgotten, and it counts on."""
    one = users(Rate(2, 60.0))
    sent(one, 2)
    one.answered([0], 1.0)
    one.given_up(0, 0.0, 1.0)
    assert one.has_room(0, 86_400.0)
    sent(one, 1)
    one.answered([0], 86_400.0)
    assert one.has_room(0, 86_400.0)
    sent(one, 1)
    assert not one.has_room(0, 86_400.0)


# --- many users ------------------------------------------------------------------------------------------------------


def test_a_user_s_cell() -> None:
    """It is the same for the same user, and most users have one of their own."""
    many = Users(TIMEOUT)
    cells = [many.cell(f"u-{number}") for number in range(1000)]
    assert cells == [many.cell(f"u-{number}") for number in range(1000)]
    assert len(set(cells)) > 900
    assert set(cells) <= set(range(CELLS))


def test_cells_do_not_count_for_each_other() -> None:
    """A full one says nothing about its neighbours."""
    three = users(Rate(1, 60.0), cells=3)
    sent(three, 1, cell=1)
    three.answered([1], 5.0)
    assert [True, False, True] == [three.has_room(cell, 6.0) for cell in range(3)]


def test_memory_is_that_of_the_cells() -> None:
    """The counters take a few megabytes from the beginning, and no more for a hundred thousand users."""

    def size(many: Users) -> int:
        arrays = [many._open, many._lately, many._before]
        for window in many._windows:
            arrays += [window._counts, window._moved, window.sums]
        return sum(each.itemsize * len(each) for each in arrays)

    many = Users(TIMEOUT)
    before = size(many)
    for number in range(100_000):
        cell = many.cell(f"u-{number}")
        many.sent(cell)
        many.answered([cell], number / 1000)
    assert before == size(many) < 6_000_000


class AnyTraffic(RuleBasedStateMachine):
    """Whatever is sent to whom, answered and given up, and whenever, as long as there is said to be room.

    Compared with an exact model, the list of all requests with the time in which each can have arrived, the counters
    are never under; and over by no more than what ended within a bucket before the window, and what others of the cell
    were sent. Where a cell may get more before it is counted closely, they may be over by that.
    """

    @precondition(lambda self: not hasattr(self, "users"))
    @rule(
        rates=st.lists(st.builds(Rate, st.integers(1, 6), st.floats(0.5, 200)), min_size=1, max_size=3),
        cells=st.integers(1, 3),
        timeout=st.floats(0.1, 90),
        start=st.floats(0, 1e6),
        closely=st.sampled_from((CLOSELY, CLOSELY, 0.5, 1.0)),
    )
    def begin(self, rates: list[Rate], cells: int, timeout: float, start: float, closely: float) -> None:
        """Set the limits, and from which share of them on a cell is counted closely."""
        self.rates, self.timeout, self.now = rates, timeout, start
        self.exact = closely == CLOSELY
        self.users = Users(timeout, UserLimits(tuple(rates), percent=100), cells, closely)
        self.open: list[tuple[str, float]] = []
        self.spans: dict[str, list[tuple[float, float]]] = {user: [] for user in "abcd"}

    @precondition(lambda self: hasattr(self, "users"))
    @rule(data=st.data(), share=st.floats(0, 1.2))
    def wait(self, data: st.DataObject, share: float) -> None:
        """Let time pass."""
        self.now += share * data.draw(st.sampled_from(self.rates)).per

    @precondition(lambda self: hasattr(self, "users"))
    @rule(user=st.sampled_from("abcd"))
    def wait_for_room(self, user: str) -> None:
        """Let time pass until a user's cell is to be looked at again: until then it has no room."""
        cell = self.users.cell(user)
        if self.users.has_room(cell, self.now):
            return
        look_at = self.users.look_again_at(cell, self.now)
        assert look_at > self.now
        assert not self.users.has_room(cell, max(self.now, look_at - 2 * ROUNDING))
        self.now = look_at

    @precondition(lambda self: hasattr(self, "users"))
    @rule(user=st.sampled_from("abcd"), tries=st.integers(1, 8))
    def send(self, user: str, tries: int) -> None:
        """Send as much as there is room for, up to `tries`."""
        cell = self.users.cell(user)
        for _ in range(tries):
            if self.users.has_room(cell, self.now):
                self.users.sent(cell)
                self.open.append((user, self.now))

    @precondition(lambda self: hasattr(self, "users") and bool(self.open))
    @rule(data=st.data(), answered=st.booleans())
    def end(self, data: st.DataObject, *, answered: bool) -> None:
        """Let a request end by an answer or without one."""
        user, taken = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        if answered:
            self.users.answered([self.users.cell(user)], self.now)
            over = self.now
        else:
            self.users.given_up(self.users.cell(user), taken, self.now)
            over = max(taken + self.timeout, self.now) + GRACE
        self.spans[user].append((taken, over))

    def of(self, user: str) -> list[tuple[float, float]]:
        """All requests of a user."""
        return self.spans[user] + [(taken, float("inf")) for whose, taken in self.open if whose == user]

    @precondition(lambda self: hasattr(self, "users"))
    @invariant()
    def never_under(self) -> None:
        """No window of sendings to a user holds more than any limit, nor one of possible arrivals."""
        for user in self.spans:
            for rate in self.rates:
                assert busiest([taken for taken, _ in self.of(user)], rate.per) <= rate.limit
                assert busiest_possible(self.of(user), rate.per) <= rate.limit

    @precondition(lambda self: hasattr(self, "users") and self.exact)
    @invariant()
    def hardly_over(self) -> None:
        """Where all that can still count, by a bucket's width, does not fill any limit, there is room."""
        for user in self.spans:
            cell = self.users.cell(user)
            alike = [span for each in self.spans if self.users.cell(each) == cell for span in self.of(each)]
            counted = [
                sum(over + rate.per * (1 + CLOCK_MARGIN) * (1 + 1.01 / BUCKETS) >= self.now for _, over in alike)
                for rate in self.rates
            ]
            if all(count < rate.limit for count, rate in zip(counted, self.rates, strict=True)):
                assert self.users.has_room(cell, self.now)


TestAnyTraffic = AnyTraffic.TestCase
TestAnyTraffic.settings = settings(max_examples=examples(80), stateful_step_count=40, deadline=None)


# --- those held back -------------------------------------------------------------------------------------------------


def full(*cells: int, at: float = 0.0) -> tuple[Users, HeldBack[str]]:
    """Give counters of one request a minute, full in these cells since `at`, and nobody held back yet."""
    counters = users(Rate(1, 60.0), cells=8)
    for cell in cells:
        counters.sent(cell)
        counters.answered([cell], at)
    return counters, HeldBack(counters)


def gone(counters: Users, held: HeldBack[str], cell: int, now: float) -> str | None:
    """Send the next one that may go; it is one of `cell`."""
    item = held.next(now)
    if item is not None:
        counters.sent(cell)
        counters.answered([cell], now)
    return item


def must_wait(counters: Users, held: HeldBack[str], cell: int, now: float) -> bool:
    """Tell whether another one of the cell would have to wait."""
    return cell in held.queues or not counters.has_room(cell, now)


def test_a_cell_s_queue_goes_in_order_as_there_is_room() -> None:
    """One a minute here: the first, then the second, and nobody passes those that wait."""
    counters, held = full(3)
    for item in ("a", "b"):
        assert must_wait(counters, held, 3, 1.0)
        held.hold(item, 3, 1.0)
    assert (None, 2) == (held.next(1.0), len(held))
    due = held.next_due()
    assert due is not None
    assert (None, "a", None) == (held.next(due - 0.01), gone(counters, held, 3, due), gone(counters, held, 3, due))
    assert must_wait(counters, held, 3, due)
    due = held.next_due()
    assert due is not None
    assert (True, "b", None) == (must_wait(counters, held, 3, due), gone(counters, held, 3, due), held.next_due())
    assert (False, 0) == (must_wait(counters, held, 3, 1e6), len(held))


def test_to_the_front_of_the_queue() -> None:
    """One that was tried before can be put before the others of its user."""
    _, held = full(3)
    held.hold("a", 3, 1.0)
    held.hold("again", 3, 1.0, first=True)
    assert ["again", "a"] == [held.next(1000.0), held.next(1000.0)]


def test_cells_with_room_take_turns() -> None:
    """A long queue does not keep another cell's from going."""
    counters = users(Rate(3, 60.0), cells=8)
    sent(counters, 3, cell=1)
    sent(counters, 3, cell=2)
    held: HeldBack[str] = HeldBack(counters)
    for cell, items in ((1, "abcd"), (2, "xy")):
        for item in items:
            held.hold(item, cell, 0.0)
    for cell in (1, 2):
        for _ in range(3):
            counters.answered([cell], 0.0)
    assert ["a", "x", "b", "y", "c", "d", None] == [held.next(1000.0) for _ in range(7)]


def test_a_cell_that_has_no_room_after_all_is_looked_at_later() -> None:
    """What was on its way has ended later than it could have: the cell waits on, and nobody looks at it meanwhile."""
    counters = users(Rate(1, 60.0), cells=8)
    counters.sent(5)
    held: HeldBack[str] = HeldBack(counters)
    held.hold("a", 5, 0.0)
    first = held.next_due()
    assert first is not None
    counters.answered([5], first - 1.0)
    assert held.next(first) is None
    second = held.next_due()
    assert second is not None
    assert (True, "a") == (second >= first - 1.0 + WINDOW, held.next(second))


def test_taken_out() -> None:
    """Chosen ones come back in order; a cell whose queue is empty is not looked at any more, whatever it waited for."""
    counters, held = full(1, 2, 3)
    for cell, items in ((1, "ab"), (2, "AB"), (3, "Ab")):
        for item in items:
            held.hold(item, cell, 1.0)
    due = held.next_due()
    assert due is not None
    held.hold("c", 1, due)
    assert "a" == gone(counters, held, 1, due)
    assert ["A", "B", "A"] == held.take_out(str.isupper)
    assert (3, False) == (len(held), must_wait(counters, held, 2, due))
    assert ({"b", "c"}, None) == ({held.next(1000.0), held.next(1000.0), held.next(1000.0)}, held.next_due())


def test_nobody_is_held_back() -> None:
    """There is nothing to take, to wait for or to take out."""
    _, held = full()
    assert (None, None, [], 0) == (held.next(0.0), held.next_due(), held.take_out(bool), len(held))
