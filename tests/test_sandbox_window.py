"""The sandbox's sliding windows count what they say, to the request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.sandbox.duration import parse_duration
from moe_bulk.sandbox.window import BusiestServiceWindow, BusiestWindow, Limit, LimitError, SlidingWindow

# whole seconds: sums are exact, so that the edge of a window can be tested
gaps = st.lists(st.integers(0, 7), max_size=60)


def moments(steps: list[int]) -> list[float]:
    """Turn gaps into times that never go back."""
    return [float(sum(steps[: index + 1])) for index in range(len(steps))]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("50ms", 0.05), ("2s", 2.0), ("1.5min", 90.0), ("1h", 3600.0), (" 6s ", 6.0), ("0s", 0.0)],
)
def test_parse_duration_reads_a_number_and_its_unit(text: str, seconds: float) -> None:
    """Lengths of time are read as people write them."""
    assert seconds == pytest.approx(parse_duration(text))


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-1s", "1e3s", "5d", "\u0665s"])
def test_parse_duration_refuses_what_has_no_number_or_unit(text: str) -> None:
    """A number alone could be anything, so it is refused with the spelling to use."""
    with pytest.raises(ValueError, match="write a number and its unit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("10000/min", Limit(10_000, 60)),
        ("10_000 / min", Limit(10_000, 60)),
        ("10,000/min", Limit(10_000, 60)),
        ("200/s", Limit(200, 1)),
        ("100/6s", Limit(100, 6)),
        ("5/500ms", Limit(5, 0.5)),
        ("none", None),
        ("Unlimited", None),
    ],
)
def test_limit_parse_reads_the_command_line_s_spelling(text: str, limit: Limit | None) -> None:
    """A limit reads as --rate writes it, and can be lifted."""
    assert limit == Limit.parse(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10000", "COUNT/min"),
        ("fast/min", "COUNT/min"),
        ("-5/s", "COUNT/min"),
        ("5/fortnight", "such as 50ms, 2s"),
        ("0/min", "lets nothing through"),
        ("5/0s", "lets nothing through"),
    ],
)
def test_limit_parse_refuses_what_cannot_be_meant(text: str, hint: str) -> None:
    """A refused limit says how to write one."""
    with pytest.raises(LimitError, match=hint):
        Limit.parse(text)


def test_limit_refuses_an_endless_window() -> None:
    """A window without an end would never free a place."""
    with pytest.raises(LimitError):
        Limit(5, float("inf"))


@given(gaps, st.integers(1, 5), st.integers(1, 10))
def test_sliding_window_never_admits_more_than_its_limit(steps: list[int], count: int, per: int) -> None:
    """No window, wherever it begins, holds more admitted requests than the limit, and none is refused without need."""
    window = SlidingWindow(Limit(count, per))
    admitted: list[float] = []
    for now in moments(steps):
        recent = [time for time in admitted if time > now - per]
        assert count - len(recent) == window.remaining(now)
        assert (recent[0] + per - now if recent else 0.0) == window.until_free(now)
        expected = len(recent) < count
        assert expected == window.admit(now)
        if expected:
            admitted.append(now)


@given(gaps, st.integers(1, 10))
def test_busiest_window_is_the_largest_of_all_windows(steps: list[int], per: int) -> None:
    """The busiest window agrees with a count of every window that ends at an arrival."""
    times = moments(steps)
    window = BusiestWindow(per)
    for now in times:
        window.arrive(now)
    counts = [sum(end - per < time <= end for time in times) for end in times]
    assert max(counts, default=0) == window.most
    assert not times or window.most == sum(window.at <= time < window.at + per for time in times)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), max_size=40), st.integers(1, 10))
def test_busiest_service_window_counts_requests_anywhere_between_arrival_and_answer(
    requests: list[tuple[int, int]], per: int
) -> None:
    """Its count is what an adversary could make of it who places each request between its arrival and its answer."""
    arrivals = moments([gap for gap, _ in requests])
    spans = [(arrival, arrival + length) for arrival, (_, length) in zip(arrivals, requests, strict=True)]
    window = BusiestServiceWindow(per)
    # of events at one moment, arrivals come first: a request that ends as another comes is still there
    events = sorted([(start, 0) for start, _ in spans] + [(end, 1) for _, end in spans])
    for now, leaves in events:
        if leaves:
            window.leave(now)
        else:
            window.arrive(now)
    counts = [sum(start <= end and answer > end - per for start, answer in spans) for end in arrivals]
    assert max(counts, default=0) == window.most
    assert window.in_service == 0
