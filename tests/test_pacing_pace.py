"""Permission to send: an even pace that starts slowly, a hard cap, and pauses."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pytest

from moe_bulk.config import Rate
from moe_bulk.outcome import Outcome, Verdict
from moe_bulk.pacing import Pace, Slot
from moe_bulk.pacing.guard import CLOCK_MARGIN, GRACE
from moe_bulk.pacing.pace import AT_ONCE_SECONDS, BUCKET_SECONDS
from tests.builders import ACCEPTED, SILENCE, TIMEOUT, busiest, throttled
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Coroutine

FULL_PACE = Rate(10_000, 60.0)
NOTHING_LEFT = Outcome(Verdict.ACCEPTED, 200, remaining=0, reset_after=10.0)


def now() -> float:
    """Give the loop's time."""
    return asyncio.get_running_loop().time()


def taken(pace: Pace, at: float = 0.0) -> Slot:
    """Take a slot that is known to be free."""
    slot = pace.take(at)
    assert slot is not None
    return slot


async def tokens(pace: Pace, count: int) -> list[float]:
    """Ask for so many tokens in a row; give when each was there."""
    times = []
    for _ in range(count):
        if not pace.spend(now()):
            await pace.token(now())
        times.append(now())
    return times


def token_times(rate: Rate, count: int) -> list[float]:
    """Give the moments of the first tokens of a new pace."""

    def main() -> Coroutine[None, None, list[float]]:
        return tokens(Pace(rate, TIMEOUT), count)

    times: list[float] = run_virtually(main)
    return times


@pytest.mark.parametrize("rate", [FULL_PACE, Rate(1, 60.0), Rate(7, 2.0), Rate(3000, 1.0)])
def test_it_starts_empty(rate: Rate) -> None:
    """There is no burst at the start: the n-th token is not there before n intervals have passed, and hardly later."""
    interval = rate.per / rate.limit
    for number, at in enumerate(token_times(rate, 40), start=1):
        assert number * interval * 0.999 <= at + 1e-3
        assert at <= max(number * interval * 1.001, number * interval + AT_ONCE_SECONDS) + 1e-3


def test_what_is_in_hand_is_spent_before_more_is_taken() -> None:
    """At any rate the even pace gives as many as the rate says, in portions of five milliseconds' worth at most."""
    times = token_times(Rate(3000, 1.0), 6000)
    assert 2.0 == pytest.approx(times[-1], abs=AT_ONCE_SECONDS + 1e-3)
    assert 3000 * AT_ONCE_SECONDS == max(Counter(times).values())


def test_who_is_cancelled_wins_no_tokens() -> None:
    """What was taken from the bucket for a request that is not sent is lost, at most."""

    async def main() -> float:
        pace = Pace(Rate(3000, 1.0), TIMEOUT)
        for _ in range(50):
            with anyio.move_on_after(0.002):
                await pace.token(now())
        began = now()
        await tokens(pace, 3000)
        return now() - began

    assert 1.0 <= run_virtually(main) + AT_ONCE_SECONDS


def test_below_full_pace_what_is_in_hand_buys_less() -> None:
    """Tokens that are in hand when the pace falls pay for fewer requests."""
    rate = Rate(3000, 1.0)

    async def main() -> list[bool]:
        pace = Pace(rate, TIMEOUT)
        await pace.token(now())
        pace.answered(taken(pace), Outcome(Verdict.ACCEPTED, 200, remaining=0, reset_after=0.0), now())
        return [pace.spend(now()) for _ in range(15)]

    assert [True] * 9 + [False] * 6 == run_virtually(main)  # fourteen in hand, at 1/0.7 each


def test_a_late_wake_up_is_caught_up_within_the_bucket() -> None:
    """After half a minute without asking, half a second's worth of tokens is there at once, and not one more."""

    async def main() -> list[float]:
        pace = Pace(FULL_PACE, TIMEOUT)
        await pace.token(0.0)
        await asyncio.sleep(30)
        began = now()
        return [at - began for at in await tokens(pace, 200)]

    waits = run_virtually(main)
    at_once = sum(wait < 0.003 for wait in waits)
    most = BUCKET_SECONDS * 10_000 / 60
    assert most - 2 < at_once <= most


def test_the_pace_is_even() -> None:
    """In no second of a minute there are more tokens than a second's share and the bucket."""
    times = token_times(FULL_PACE, 10_000)
    assert busiest(times, 1.0) <= 10_000 / 60 * (1 + BUCKET_SECONDS) + 1
    assert 60.0 == pytest.approx(times[-1], rel=1e-3)


@pytest.mark.parametrize("rate", [FULL_PACE, Rate(5, 10.0)])
def test_below_full_pace_a_request_waits_longer(rate: Rate) -> None:
    """At 70 % of the pace the tokens come at 70 % of it, also where the bucket is smaller than their price."""

    async def main() -> float:
        pace = Pace(rate, TIMEOUT)
        await pace.token(now())
        pace.answered(taken(pace), Outcome(Verdict.ACCEPTED, 200, remaining=0, reset_after=1e6), now())
        times = await tokens(pace, 200)
        return (times[-1] - times[99]) / 100

    assert rate.per / rate.limit / 0.7 == pytest.approx(run_virtually(main), rel=0.01)


def test_an_answer_frees_its_slot_after_a_window() -> None:
    """With the window full the next may be sent one window after the first answer."""
    pace = Pace(Rate(1, 60.0), TIMEOUT)
    slot = taken(pace)
    assert (None, None) == (pace.take(1.0), pace.send_at(1.0))
    pace.answered(slot, ACCEPTED, 2.0)
    assert 2.0 + 60 * (1 + CLOCK_MARGIN) == pace.send_at(3.0)


def test_no_answer_holds_its_slot_longer() -> None:
    """What was given up counts until its timeout, a window and five seconds have passed."""
    pace = Pace(Rate(1, 60.0), TIMEOUT)
    slot = taken(pace)
    pace.answered(slot, SILENCE, 2.0)
    assert TIMEOUT + 60 * (1 + CLOCK_MARGIN) + GRACE == pace.send_at(3.0)


def test_nobody_sends_in_a_pause() -> None:
    """While a pause is on no slot is given, however empty the window."""
    pace = Pace(FULL_PACE, TIMEOUT)
    slot = taken(pace)
    assert 1.0 == pace.send_at(1.0)
    pace.answered(slot, NOTHING_LEFT, 1.0)
    assert (11.0, None) == (pace.send_at(5.0), pace.take(10.9))
    assert (11.0, True) == (pace.send_at(11.0), pace.take(11.0) is not None)


def test_a_429_takes_its_slot_like_any_answer() -> None:
    """A refused request has been received: it counts in the window."""
    pace = Pace(Rate(1, 60.0), TIMEOUT)
    slot = taken(pace)
    pace.answered(slot, throttled(1.0), 0.5)
    assert pace.take(30.0) is None
