"""What a check finds, in the form that `moe-bulk check --json` prints."""

from __future__ import annotations

from typing import TypedDict

FORMAT = 1


def hint(text: str) -> str:
    """Enough of an id or a token to know it again, and not all of it: findings leave the run folder.

    >>> hint("the-token-of-many"), hint("user-1")
    ('the-t…many', 'us…1')
    """
    if len(text) > 12:
        return f"{text[:5]}…{text[-4:]}"
    return f"{text[:2]}…{text[-1:]}" if len(text) > 3 else f"{text[:1]}…"


class Cause(TypedDict):
    """Rows that would fail for one reason: how many, the first one, and what to do."""

    cause: str
    count: int
    source: str
    first_line: int
    example: str
    remedy: str


class Skipped(TypedDict):
    """Rows that are left out for one reason."""

    cause: str
    count: int
    source: str
    first_line: int


class Oddity(TypedDict):
    """Values that are allowed, and hardly meant; `first_line` is 0 where it is about all rows."""

    what: str
    count: int
    source: str
    first_line: int
    example: str
    remedy: str


class Place(TypedDict):
    """Where a row stands."""

    source: str
    line: int


class Group(TypedDict):
    """Rows that share something: `value` is enough of it to know it again, where it could be read again."""

    value: str | None
    rows: int
    devices: int
    places: list[Place]


class Collision(TypedDict):
    """What several rows share: how many such values, with how many rows and devices, and the worst of them."""

    values: int
    rows: int
    devices: int
    worst: list[Group]


class Users(TypedDict):
    """Users who have more than MoEngage lets them: `rows_left_out` would be invalid."""

    over_the_most_devices: Collision
    most_devices: int
    rows_left_out: int
    over_the_rates: Collision


class Effort(TypedDict):
    """What the upload will take: seconds at the `rate`, bytes of its largest body and of what it writes."""

    requests: int
    rate: str
    seconds: float
    largest_body: int
    results_bytes: int
    dead_letter_bytes: int


class Findings(TypedDict):
    """All that can be known without sending. rows = valid + invalid + skipped + superseded."""

    format: int
    version: str
    sources: list[str]
    rows: int
    valid: int
    invalid: int
    skipped: int
    superseded: int
    would_fail: int
    failures: list[Cause]
    skips: list[Skipped]
    repeated: Collision
    shared: dict[str, Collision]
    users: Users
    platforms: dict[str, int]
    notes: list[str]
    suspicious: list[Oddity]
    upload: Effort
    exit_code: int
