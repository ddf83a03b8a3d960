"""Amounts as people say them: bytes and times."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes as people say them.

    >>> size(4_900_000_000)
    '4.9 GB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.{0 if unit == 'bytes' else 1}f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def duration(seconds: float) -> str:
    """A time as people say it: two units at most, and no more exact than anybody wants to know.

    >>> duration(4), duration(95), duration(30_000), duration(200_000)
    ('4 s', '1 min 35 s', '8 h 20 min', '2 d 7 h')
    """
    if seconds < 10 and round(seconds, 1) % 1:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, below, name, below_name in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit:,} {name}" + (f" {rest} {below_name}" if rest else "")
    return f"{whole} s"
