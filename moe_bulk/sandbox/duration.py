"""Read a length of time as people write it: `50ms`, `2s`, `1.5min`, `1h`."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|h)", re.ASCII)


def parse_duration(text: str) -> float:
    """Tell how many seconds `50ms`, `2s`, `1.5min` or `1h` are.

    Raises ValueError where the number or its unit is missing.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no length of time: write a number and its unit, such as 50ms, 2s, 5min or 1h")
    return float(match[1]) * _UNITS[match[2]]


def unit_seconds(unit: str) -> float:
    """Tell how many seconds `min`, `s` or `6s` are: the right side of a rate such as 10000/min."""
    return _UNITS[unit] if unit in _UNITS else parse_duration(unit)
