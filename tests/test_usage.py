"""What a run made of its limit, in words that are true of short runs, too."""

from __future__ import annotations

import pytest

from moe_bulk.usage import used


@pytest.mark.parametrize(
    ("requests", "share", "seconds", "expected"),
    [
        (300, 1.0, 1.75, "It took 1.8 s, at 10,286 a minute"),
        (1, None, 0.25, "It took 0.2 s"),
        (5_000, 0.25, 120.0, "25.0% of the limit was used in 2 min"),
        (10_001, 0.99, 59.0, "99.0% of the limit was used in 59 s"),
        (300, 1.0, None, ""),
        (20_000, 0.9876, None, "98.8% of the limit was used"),
        (3, 0.5, 0.0, ""),
        (3, 0.5, -7.0, ""),
    ],
)
def test_it_says_what_can_be_said(requests: int, share: float | None, seconds: float | None, expected: str) -> None:
    """A share only where a window could have been filled; a rate only from a second on; no time over sessions."""
    assert [expected] * bool(expected) == used(requests, 10_000, 60.0, share, seconds)
