"""Another machine's clock is known from its answers, as exactly as these came quickly."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.pacing.farclock import FarClock


def test_nothing_is_known_at_first() -> None:
    """Before an answer no moment is sure."""
    clock = FarClock()
    assert (False, -math.inf, math.inf) == (clock.is_known, clock.earliest(5.0), clock.latest(5.0))


def test_an_answer_bounds_it() -> None:
    """It was told between sending and receiving; a quicker answer later makes the bounds narrower, not wider."""
    clock = FarClock()
    assert clock.note(10.0, 12.0, 1011.5)
    assert (1011.5, 1013.5) == pytest.approx((clock.earliest(12.0), clock.latest(12.0)), abs=0.003)
    assert clock.note(20.0, 20.1, 1020.3)
    assert (1020.3, 1020.4) == pytest.approx((clock.earliest(20.1), clock.latest(20.1)), abs=0.001)
    assert clock.note(30.0, 34.0, 1032.5)
    assert (1034.18, 1034.32) == pytest.approx((clock.earliest(34.0), clock.latest(34.0)), abs=0.01)
    assert 40.0 == pytest.approx(clock.reaches(1040.2, 34.0), abs=0.03)


@pytest.mark.parametrize("by", [-3600.0, -1.0, 1.0, 3600.0])
def test_a_clock_that_was_set_is_noticed(by: float) -> None:
    """Either way; from then on the new time holds."""
    clock = FarClock()
    clock.note(10.0, 10.1, 1010.0)
    assert not clock.note(20.0, 20.1, 1020.0 + by)
    assert clock.note(30.0, 30.1, 1030.0 + by)
    assert clock.earliest(30.1) <= 1030.1 + by <= clock.latest(30.1)


@given(
    ahead=st.floats(-1e9, 1e9),
    drift=st.floats(-0.0005, 0.0005),
    talks=st.lists(st.tuples(st.floats(0, 3600), st.floats(0, 5), st.floats(0, 1)), min_size=1, max_size=20),
)
def test_the_truth_is_never_out_of_bounds(ahead: float, drift: float, talks: list[tuple[float, float, float]]) -> None:
    """Whatever the ways take, and however the clocks drift apart: it counts as in step, and its time lies between."""
    clock, now = FarClock(), 100.0

    def truth(at: float) -> float:
        return at * (1 + drift) + ahead

    for pause, seconds, part in talks:
        now += pause
        if clock.is_known:
            assert clock.earliest(now) - 1e-6 <= truth(now) <= clock.latest(now) + 1e-6
        assert clock.note(now, now + seconds, truth(now + part * seconds))
        now += seconds
        assert clock.earliest(now) - 1e-6 <= truth(now) <= clock.latest(now) + 1e-6
