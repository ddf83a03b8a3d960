"""Amounts as people say them: how many, bytes and times."""

from __future__ import annotations


def counted(count: int, one: str, more: str = "") -> str:
    """How many of something; `more` is its plural where that is not just an s.

    >>> counted(1, "row"), counted(2_000, "row"), counted(0, "retry", "retries")
    ('1 row', '2,000 rows', '0 retries')
    """
    return f"{count:,} {one if count == 1 else more or f'{one}s'}"


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


def lasting(seconds: float) -> str:
    """How long something took, to what matters: short times in their first two digits, long ones rounded.

    >>> lasting(0.019), lasting(4), lasting(7_490), lasting(200_000)
    ('0.019 s', '4.0 s', '2 h 5 min', '2 d 8 h')
    """
    if seconds < 9.95:
        return f"{max(seconds, 0.0):{'.2g' if seconds < 1 else '.1f'}} s"
    unit = 1 if round(seconds) < 3_600 else 60 if round(seconds / 60) < 1_440 else 3_600
    return duration(round(seconds / unit) * unit)
