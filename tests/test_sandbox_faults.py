"""The sandbox's bad weather is read as it is written, and repeats itself for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.sandbox.answers import FAULT_STATUSES
from moe_bulk.sandbox.faults import FINE, KINDS, SERVER_ERRORS, SETTINGS, Decision, Faults, FaultsError


def test_parse_reads_the_documented_example() -> None:
    """The line of the command line's help means what it says."""
    faults = Faults.parse("5xx=2%, 429=1%,reset=1%,hang=0.1%,latency=50ms..300ms")

    assert pytest.approx(dict(faults.shares)) == {"5xx": 0.02, "429": 0.01, "reset": 0.01, "hang": 0.001}
    assert faults.latency == (0.05, 0.3)


def test_parse_reads_every_setting() -> None:
    """Besides shares there are lengths of time and the seed."""
    faults = Faults.parse("latency=20ms,retry-after=2s,slow-by=1min,seed=7")

    assert Faults(latency=(0.02, 0.02), retry_after=2.0, slow_by=60.0, seed=7) == faults


def test_parse_reads_nothing_as_fair_weather() -> None:
    """An empty text, or one of commas, means no faults."""
    assert Faults() == Faults.parse("") == Faults.parse(" , ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rest=1%", "'rest' is no fault: did you mean reset\\?"),
        ("latncy=5ms", "did you mean latency\\?"),
        ("retry_after=2s", "did you mean retry-after\\?"),
        ("zzzzzzz=1%", "'zzzzzzz' is no fault: known are 5xx, reset"),
        ("418=1%", "'418' is no fault"),
        ("200=1%", "'200' is no fault"),
        ("5xx", "5xx has no value: write one behind ="),
        ("5xx=2", "5xx=2 is no share: write a percentage, such as 5xx=2%"),
        ("5xx=x%", "is no share"),
        ("5xx=-1%", "is no share"),
        ("5xx=101%", "between 0% and 100%"),
        ("5xx=60%,reset=60%", "together are more than 100%"),
        ("5xx=1%,5xx=2%", "5xx is given twice"),
        ("seed=1,seed=2", "seed is given twice"),
        ("latency=50", "latency: '50' is no length of time"),
        ("latency=3s..2s", "latency begins above its end"),
        ("retry-after=soon", "retry-after: 'soon' is no length of time"),
        ("slow-by=5", "slow-by: '5' is no length of time"),
        ("seed=lucky", "seed=lucky is no whole number"),
    ],
)
def test_parse_refuses_what_it_does_not_know(text: str, message: str) -> None:
    """A misspelt fault is never a silent default: the message says what to write."""
    with pytest.raises(FaultsError, match=message):
        Faults.parse(text)


def test_shares_that_fill_the_whole_are_allowed() -> None:
    """Ten times ten percent is everything, whatever floating point makes of it."""
    names = ["reset", "half", "hang", "broken", "nosuccess", "slow", "400", "401", "429", "503"]

    faults = Faults.parse(",".join(f"{name}=10%" for name in names))

    assert set(names) >= {faults.decide(number).name for number in range(200)} - {None}


def test_fair_weather_decides_nothing() -> None:
    """Without faults every request is judged by the rules, at once."""
    assert Faults().decide(1) == FINE


@given(st.integers(), st.integers(0, 2**40))
def test_the_same_seed_makes_the_same_decision(seed: int, number: int) -> None:
    """A decision depends on seed and arrival number alone, not on what was asked before."""
    shares = (("5xx", 0.3), ("reset", 0.3))
    first = Faults(shares, latency=(0.1, 0.2), seed=seed)
    second = Faults(shares, latency=(0.1, 0.2), seed=seed)
    second.decide(number + 1)

    decision = first.decide(number)

    assert decision == second.decide(number)
    assert 0.1 <= decision.delay <= 0.2
    assert decision.status in {0, *SERVER_ERRORS}


def test_another_seed_makes_other_decisions() -> None:
    """A seed is worth setting."""
    days = [[Faults.parse(f"reset=50%,seed={seed}").decide(number) for number in range(50)] for seed in (1, 2)]

    assert days[0] != days[1]


def test_shares_come_true_over_many_requests() -> None:
    """Ten thousand requests meet each fault about as often as was asked for, and every server error among 5xx."""
    faults = Faults.parse("5xx=20%,429=10%,reset=5%,latency=0s..100ms")

    decisions = [faults.decide(number) for number in range(10_000)]

    counts = Counter(decision.name for decision in decisions)
    for name, expected in {"5xx": 2000, "429": 1000, "reset": 500, None: 6500}.items():
        assert expected == pytest.approx(counts[name], abs=200)
    assert {*SERVER_ERRORS, 429, 0} == {decision.status for decision in decisions}
    assert pytest.approx(0.05, abs=0.005) == sum(decision.delay for decision in decisions) / 10_000


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("200", FINE),
        ("500", Decision("status", "500", 500)),
        ("302", Decision("status", "302", 302)),
        ("5xx", Decision("status", "5xx", 500)),
        ("429", Decision("status", "429", 429, retry_after=3.0)),
        ("429:2s", Decision("status", "429", 429, retry_after=2.0)),
        (" reset-after ", Decision("reset-after", "reset-after")),
        ("hang", Decision("hang", "hang")),
        ("slow", Decision("ok", "slow", delay=9.0)),
    ],
)
def test_step_reads_one_step_of_a_script(text: str, decision: Decision) -> None:
    """A script speaks of the same faults as the shares do."""
    assert decision == Faults(retry_after=3.0, slow_by=9.0).step(text)


@pytest.mark.parametrize("text", ["", "ok", "resett", "500:2s", "429:", "429:soon", "200:1s", "latency"])
def test_step_refuses_what_is_no_step(text: str) -> None:
    """A script with a slip is refused when it is written, not when it is played."""
    with pytest.raises(FaultsError):
        Faults().step(text)


def test_every_fault_can_be_given_as_share_and_as_step() -> None:
    """The names that messages list are all understood."""
    for name in [*KINDS, *map(str, FAULT_STATUSES)]:
        assert Faults.parse(f"{name}=100%").decide(1).name == Faults().step(name).name == name
    assert not set(KINDS) & set(SETTINGS)
