"""What a run made of its limit, in words: no share of a window that it was too short to fill."""

from __future__ import annotations

from moe_bulk.amounts import duration

LEAST = 1.0
"""Seconds from which on it means something how many requests a minute there were."""


def used(requests: int, limit: int, per: float, share: float | None, seconds: float | None) -> list[str]:
    """What was used of `limit` in `per` seconds, or for short runs how long they took: a line, or none.

    `seconds` is None where there were several sessions, since nobody knows what lay between them: then the time is not
    told, and the share only where there were more requests than one window holds.

    >>> used(84_000_000, 10_000, 60.0, 0.993, 507_600.0)
    ['99.3% of the limit was used in 5 d 21 h']
    >>> used(300, 10_000, 60.0, 1.0, 5.1)
    ['It took 5.1 s, at 3,529 a minute']
    """
    if share is not None and (requests > limit or (seconds is not None and seconds >= per)):
        return [f"{share:.1%} of the limit was used" + (f" in {duration(seconds)}" if seconds is not None else "")]
    if not seconds or seconds < 0:
        return []
    speed = f", at {requests * 60 / seconds:,.0f} a minute" if seconds >= LEAST else ""
    return [f"It took {duration(seconds)}{speed}"]
