"""The hard cap: never more than the limit in any window, of requests sent and of requests possibly received."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from moe_bulk.config import Rate
from moe_bulk.pacing.guard import CLOCK_MARGIN, GRACE, Slot, WindowGuard
from tests.builders import busiest, busiest_possible
from tests.effort import examples

TIMEOUT = 30.0
WINDOW = 60.0 * (1 + CLOCK_MARGIN)


def guard(limit: int = 2) -> WindowGuard:
    """Give a guard of so many requests a minute."""
    return WindowGuard(Rate(limit, 60.0), TIMEOUT)


def taken(of: WindowGuard, now: float) -> Slot:
    """Take a slot that is known to be free."""
    slot = of.take(now)
    assert slot is not None
    return slot


def test_there_are_as_many_slots_as_the_limit() -> None:
    """A slot more than the limit is refused, however long ago the others were sent, while no answer came."""
    full = guard(2)
    assert [True, True, False] == [full.take(0.0) is not None for _ in range(3)]
    assert full.take(1e6) is None
    assert full.free_at(1e6) is None


def test_a_slot_is_free_one_window_after_the_answer() -> None:
    """Not the sending but the answer starts the window, and the clocks' drift is added to it."""
    one = guard(1)
    one.answered(taken(one, 0.0), 10.0)
    assert 10.0 + WINDOW == one.free_at(11.0)
    assert one.take(10.0 + WINDOW - 0.001) is None
    assert one.take(10.0 + WINDOW) is not None


@pytest.mark.parametrize(("given_up", "counts_from"), [(3.0, TIMEOUT), (TIMEOUT, TIMEOUT), (95.0, 95.0)])
def test_a_request_given_up_counts_longer(given_up: float, counts_from: float) -> None:
    """Without an answer the slot is held for timeout + window + 5 s from its sending, or longer if that was late."""
    one = guard(1)
    one.given_up(taken(one, 0.0), given_up)
    assert counts_from + WINDOW + GRACE == one.free_at(given_up)


def test_requests_of_an_earlier_process_count() -> None:
    """They hold their slots as if they had been sent here: one window after the answer, longer without one."""
    guard = WindowGuard(Rate(2, per=60), timeout=30)
    guard.remember(-20.0, -19.0, answered=True)
    guard.remember(-10.0, -9.0, answered=False)
    assert guard.take(0.0) is None
    assert 41.06 == pytest.approx(guard.free_at(0.0), abs=0.001)
    assert guard.take(41.1) is not None
    assert 20.0 + 60.06 + 5.0 == pytest.approx(guard.free_at(41.2), abs=0.001)


def test_slots_are_free_again_without_being_asked_for() -> None:
    """However they were closed, and in whatever order: the one that is taken finds those whose time has come."""
    three = guard(3)
    answered, given_up = taken(three, 0.0), taken(three, 0.0)
    three.given_up(given_up, 0.0)
    three.answered(answered, 10.0)
    three.remember(-5.0, -1.0, answered=True)
    assert three.take(WINDOW - 1.001) is None
    assert three.take(WINDOW - 1) is not None
    assert three.take(10.0 + WINDOW) is not None
    assert three.take(TIMEOUT + WINDOW + GRACE - 0.001) is None
    assert three.take(TIMEOUT + WINDOW + GRACE) is not None


def test_memory_is_that_of_one_window() -> None:
    """A run of any length keeps what one window holds."""
    fast = WindowGuard(Rate(100, 0.01), TIMEOUT)
    tracemalloc.start()
    try:
        for number in range(30_000):
            fast.answered(taken(fast, number / 1000), number / 1000)
        assert tracemalloc.get_traced_memory()[0] < 50_000
    finally:
        tracemalloc.stop()
    assert fast.held < 15


def test_free_at_is_the_earliest_end() -> None:
    """With all slots held the next is free when the first of them ends, in whatever order the answers came."""
    two = guard(2)
    first, second = taken(two, 0.0), taken(two, 1.0)
    assert two.free_at(2.0) is None
    two.given_up(first, 2.0)
    two.answered(second, 3.0)
    assert 3.0 + WINDOW == two.free_at(4.0)


def test_free_at_is_now_while_there_is_room() -> None:
    """Nobody waits while a slot is free."""
    two = guard(2)
    taken(two, 0.0)
    assert 5.0 == two.free_at(5.0)


def test_a_slot_is_closed_once() -> None:
    """Freeing a slot twice would break the promise, so it is refused."""
    one = guard(1)
    slot = taken(one, 0.0)
    one.answered(slot, 1.0)
    with pytest.raises(RuntimeError, match="closed before"):
        one.given_up(slot, 2.0)
    with pytest.raises(RuntimeError, match="closed before"):
        one.answered(slot, 2.0)
    assert 1 == one.held


def test_shown() -> None:
    """What is held can be read in a debugger."""
    two = guard(2)
    slot = taken(two, 1.5)
    assert ("<Slot taken at 1.500>", "<WindowGuard 1 of 2 slots held>") == (repr(slot), repr(two))
    two.answered(slot, 2.0)
    assert ("<Slot taken at 1.500, closed>", 1) == (repr(slot), two.held)


class AnyTraffic(RuleBasedStateMachine):
    """Whatever is sent, answered and given up, and whenever: no window holds more than the limit.

    A request given up can be received until its timeout, or its late giving up, and five seconds more.
    """

    open_slots: Bundle[Slot] = Bundle("open_slots")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.limit = 0

    @precondition(lambda self: not self.limit)
    @rule(limit=st.integers(1, 6), per=st.floats(0.5, 60), timeout=st.floats(0.1, 60))
    def begin(self, limit: int, per: float, timeout: float) -> None:
        """Set the rate."""
        self.guard = WindowGuard(Rate(limit, per), timeout)
        self.limit, self.per, self.timeout = limit, per, timeout
        self.spans: dict[Slot, tuple[float, float]] = {}

    @precondition(lambda self: self.limit)
    @rule(share=st.floats(0, 1.5))
    def wait(self, share: float) -> None:
        """Let time pass."""
        self.now += share * self.per

    @precondition(lambda self: self.limit)
    @rule()
    def wait_until_free(self) -> None:
        """Let time pass to the very moment at which a slot is said to be free."""
        self.now = max(self.now, self.guard.free_at(self.now) or 0.0)

    @precondition(lambda self: self.limit)
    @rule(target=open_slots, tries=st.integers(1, 8))
    def send(self, tries: int) -> Slot:
        """Send as much as is allowed, up to `tries`; keep the last slot at hand."""
        for _ in range(tries):
            said_free = self.guard.free_at(self.now) == self.now
            slot = self.guard.take(self.now)
            assert said_free == (slot is not None)
            if slot is not None:
                self.spans[slot] = (self.now, float("inf"))
        return next(reversed(self.spans))

    @rule(slot=consumes(open_slots))
    def answer(self, slot: Slot) -> None:
        """Close a slot by an answer."""
        self.answer_if_open(slot)

    @rule(slot=consumes(open_slots))
    def give_up(self, slot: Slot) -> None:
        """Close a slot without an answer."""
        if not slot.closed:
            self.guard.given_up(slot, self.now)
            self.spans[slot] = (slot.taken, max(slot.taken + self.timeout, self.now) + GRACE)

    @precondition(lambda self: self.limit)
    @rule()
    def answer_all(self) -> None:
        """Close all open slots."""
        for slot in self.spans:
            self.answer_if_open(slot)

    def answer_if_open(self, slot: Slot) -> None:
        """Close a slot by an answer, unless it was closed before."""
        if not slot.closed:
            self.guard.answered(slot, self.now)
            self.spans[slot] = (slot.taken, self.now)

    @precondition(lambda self: self.limit)
    @invariant()
    def holds(self) -> None:
        """No window of sendings holds more than the limit, nor one of possible arrivals."""
        assert busiest([sent for sent, _ in self.spans.values()], self.per) <= self.limit
        assert busiest_possible(list(self.spans.values()), self.per) <= self.limit


TestAnyTraffic = AnyTraffic.TestCase
TestAnyTraffic.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)
