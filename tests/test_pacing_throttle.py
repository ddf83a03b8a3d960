"""What a 429 asks of everybody: when to pause, how much slower to go on, and how the pace comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.config import Rate
from moe_bulk.outcome import Outcome, Verdict
from moe_bulk.pacing.throttle import Throttle
from tests.builders import ACCEPTED, BROKEN, SILENCE, throttled


def told(*outcomes: Outcome, start: float = 100.0) -> Throttle:
    """Give a throttle that was told these outcomes at one moment, all sent a second before."""
    throttle = Throttle()
    for outcome in outcomes:
        throttle.note(outcome, start - 1, start)
    return throttle


@pytest.mark.parametrize(
    ("accepted", "refused", "pauses"),
    [
        (0, 4, 0),
        (0, 5, 1),
        (45, 5, 1),
        (45, 4, 0),
        (50, 4, 0),
    ],
)
def test_five_of_the_last_fifty(accepted: int, refused: int, pauses: int) -> None:
    """Five 429s among the last fifty answers pause everybody, fewer are their own records' affair."""
    assert pauses == told(*[ACCEPTED] * accepted, *[throttled(2.0)] * refused).pauses


def test_answers_before_the_last_fifty_are_forgotten() -> None:
    """Four 429s, fifty other answers, and a fifth 429: no pause; the forgotten ones no longer count."""
    assert 0 == told(*[throttled(2.0)] * 4, *[ACCEPTED] * 50, throttled(2.0)).pauses


def test_no_answer_is_no_answer() -> None:
    """Attempts that came to no answer neither fill the last fifty nor ask for anything."""
    assert 1 == told(*[throttled(2.0)] * 4, *[SILENCE] * 50, throttled(2.0)).pauses
    assert 0 == told(Outcome(Verdict.TROUBLE, error="timeout", remaining=0)).pauses


@pytest.mark.parametrize(
    ("last", "until"),
    [
        (throttled(7.0), 107.0),
        (throttled(1.0), 103.0),
        (throttled(reset_after=9.0), 109.0),
        (throttled(4.0, reset_after=9.0), 104.0),
        (throttled(4.0, remaining=0, reset_after=9.0), 109.0),
        (throttled(), 103.0),
    ],
)
def test_everybody_pauses_until_the_latest_asked_for(last: Outcome, until: float) -> None:
    """The pause ends at the latest moment that any of the answers asked for."""
    assert until == told(*[throttled(3.0)] * 4, last).paused_until


def test_a_second_where_nothing_was_asked_for() -> None:
    """Without any time in the answers the pause is a second."""
    assert 101.0 == told(*[throttled()] * 5).paused_until


@pytest.mark.parametrize(
    ("outcome", "until"),
    [
        (Outcome(Verdict.ACCEPTED, 200, remaining=0), 101.0),
        (Outcome(Verdict.ACCEPTED, 200, remaining=0, reset_after=12.0), 112.0),
        (Outcome(Verdict.TROUBLE, 503, remaining=0, retry_after=3.0), 103.0),
        (throttled(8.0, remaining=0), 108.0),
    ],
)
def test_nothing_remaining_pauses_everybody(outcome: Outcome, until: float) -> None:
    """One answer that says that nothing is left is enough."""
    throttle = told(outcome)
    assert (1, until) == (throttle.pauses, throttle.paused_until)


@pytest.mark.parametrize("outcome", [ACCEPTED, BROKEN, Outcome(Verdict.ACCEPTED, 200, remaining=1, reset_after=9.0)])
def test_other_answers_pause_nobody(outcome: Outcome) -> None:
    """Neither success nor trouble nor a remaining allowance asks for a pause."""
    throttle = told(*[outcome] * 60)
    assert (0, 0.0, 1.0) == (throttle.pauses, throttle.paused_until, throttle.share(100.0))


def test_a_lone_429_counts_for_the_pause_that_others_start() -> None:
    """The pause lasts until the latest of what was asked for, also by an answer that was too few by itself."""
    throttle = told(throttled(50.0))
    throttle.note(Outcome(Verdict.ACCEPTED, 200, remaining=0, reset_after=2.0), 100.0, 101.0)
    assert 150.0 == throttle.paused_until


def test_the_pace_is_cut_and_comes_back() -> None:
    """A pause multiplies the pace by 0.7; 5 % of the limit come back each second after it, and no more than all."""
    throttle = told(*[throttled(10.0)] * 5)
    shares = [throttle.share(now) for now in (100.0, 110.0, 112.0, 116.0, 500.0)]
    assert [0.7, 0.7, 0.8, 1.0, 1.0] == pytest.approx(shares)


def test_each_pause_multiplies_down_to_the_floor() -> None:
    """Pause after pause the pace falls by 0.7, from what had come back, but never below a tenth."""
    throttle = Throttle()
    seen = []
    for count in range(8):
        now = 100.0 + count * 2
        throttle.note(Outcome(Verdict.ACCEPTED, 200, remaining=0, reset_after=2.0), now, now)
        seen.append(throttle.share(now))
    assert [0.7, 0.49, 0.343, 0.2401, 0.16807, 0.117649, 0.1, 0.1] == pytest.approx(seen)
    throttle.note(Outcome(Verdict.ACCEPTED, 200, remaining=0), 120.0, 120.0)  # 4 s after the last pause ended
    assert (0.1 + 4 * 0.05) * 0.7 == pytest.approx(throttle.share(120.0))


def test_answers_from_before_the_pause_do_not_slow_twice() -> None:
    """What was on its way when the pause began may prolong it, but the pace is cut once."""
    throttle = told(*[throttled(5.0)] * 5)
    for _ in range(40):
        throttle.note(throttled(8.0), 99.5, 101.0)
    throttle.note(Outcome(Verdict.ACCEPTED, 200, remaining=0, reset_after=1.0), 99.5, 101.0)
    throttle.note(ACCEPTED, 99.5, 101.0)
    assert (1, 109.0, 0.7) == (throttle.pauses, throttle.paused_until, throttle.share(109.0))


def test_answers_from_before_the_pause_do_not_count_for_the_next() -> None:
    """After the pause it takes five new 429s: late answers to old requests neither count nor start a pause."""
    throttle = told(*[throttled(5.0)] * 5)
    for _ in range(40):
        throttle.note(throttled(1.0), 99.5, 106.0)
    assert 105.0 == throttle.paused_until
    for _ in range(4):
        throttle.note(throttled(1.0), 105.5, 106.0)
    assert 1 == throttle.pauses
    throttle.note(throttled(1.0), 105.5, 106.0)
    assert (2, 107.0) == (throttle.pauses, throttle.paused_until)


# --- a limit that others use, too -------------------------------------------------------------------------------------


def shared(accepted_each_second: int, until: int = 300, limit: int = 600) -> Throttle:
    """Give a throttle that got so many a second through from second 100 on, and then was paused for a second."""
    throttle = Throttle(Rate(limit, 60.0))
    for second in range(100, until):
        for _ in range(accepted_each_second):
            throttle.note(ACCEPTED, second, second)
    for _ in range(6):
        throttle.note(throttled(), until - 0.6, until - 0.5)
    assert 1 == throttle.pauses
    return throttle


def test_the_pace_comes_back_to_what_was_got() -> None:
    """To nine tenths of the last window's at 5 % a second; by 1 % more in the next window, by 2 % in the one after."""
    throttle = shared(6)
    over = throttle.paused_until
    top = 0.9 * 0.6
    assert top == pytest.approx(throttle.share(over))  # it went at full pace, for 0.6 of which there was room
    shares = [throttle.share(over + 60.0 * windows) for windows in (1, 2, 3, 20)]
    assert [top + 0.01, top + 0.03, top + 0.07, 1.0] == pytest.approx(shares)


def test_a_slow_start_back_to_what_was_got() -> None:
    """A second pause halves what is left of the pace; it comes back as fast as ever until it is there."""
    throttle = shared(6)
    for _ in range(6):
        throttle.note(throttled(), throttle.paused_until + 0.5, throttle.paused_until + 1)
    over = throttle.paused_until
    assert [0.378, 0.428, 0.478] == pytest.approx([throttle.share(over + second) for second in range(3)], abs=0.001)


def test_without_a_whole_window_nothing_is_known() -> None:
    """Before it has sent for a whole window, or after a silence that no pause explains, all of the pace comes back."""
    for throttle in (shared(6, until=155), shared(0)):
        assert 1.0 == throttle.share(throttle.paused_until + 10)
    throttle = Throttle(Rate(600, 60.0))
    for second in (*range(100, 200), *range(215, 240)):
        for _ in range(6):
            throttle.note(ACCEPTED, second, second)
    for _ in range(6):
        throttle.note(throttled(), 240.0, 240.0)
    assert (1, 1.0) == (throttle.pauses, throttle.share(throttle.paused_until + 10))


def test_a_pause_is_no_silence() -> None:
    """Half a minute in which the service asked for nothing to be sent is part of the window."""
    throttle = Throttle(Rate(600, 60.0))
    for second in (*range(100, 200), *range(230, 260)):
        for _ in range(8):
            throttle.note(ACCEPTED, second, second)
        if second == 199:
            throttle.note(Outcome(Verdict.ACCEPTED, 200, remaining=0, reset_after=30.0), second, second)
    for _ in range(6):
        throttle.note(throttled(), 259.5, 259.5)
    assert 2 == throttle.pauses
    assert 0.9 * 30 * 8 / 600 == pytest.approx(throttle.share(throttle.paused_until + 10), abs=0.002)


def test_what_was_got_is_at_least_the_floor() -> None:
    """Where nothing got through for a window the pace goes on at a tenth."""
    throttle = Throttle(Rate(600, 60.0))
    for second in range(100, 200):
        throttle.note(throttled(), second, second)
    assert 0.1 == pytest.approx(throttle.share(throttle.paused_until + 0.1), abs=0.001)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([ACCEPTED] * 6 + [throttled(2.0), throttled(30.0), BROKEN, SILENCE]),
            st.sampled_from([0.0, 0.01, 0.5, 3.0, 20.0]),
            st.sampled_from([0.0, 0.2, 5.0]),
        ),
        max_size=150,
    )
)
def test_acceptances_are_taken_in_together_as_one_by_one(answers: list[tuple[Outcome, float, float]]) -> None:
    """Whatever came between them: pauses, share and all that later ones depend on are the same."""
    single, many, now = Throttle(Rate(60, 10.0)), Throttle(Rate(60, 10.0)), 100.0
    accepted: list[tuple[float, float]] = []
    for outcome, gap, took in answers:
        now += gap
        single.note(outcome, now - took, now)
        if outcome is ACCEPTED:
            accepted.append((now - took, now))
        else:
            many.note_accepted(accepted)
            many.note(outcome, now - took, now)
            accepted = []
    many.note_accepted(accepted)
    first, second = ({**vars(each), "_got": vars(each._got)} for each in (single, many))
    assert first == second
