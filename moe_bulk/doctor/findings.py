"""What the doctor saw, and what it made of it: small frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from moe_bulk.config import Rate
    from moe_bulk.outcome import Outcome


class Worth(StrEnum):
    """How good a finding is: an upload goes well, may go less well, or cannot go at all."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: what was looked at, what it is worth, what was seen, and what to do about it.

    `figures` are the same for machines, in plain numbers and texts.
    """

    check: str
    worth: Worth
    said: str
    remedy: str = ""
    figures: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an upload with these settings would do: the way that it takes, how fast, and how many requests at once.

    `host` and `port` are the destination's; `proxy` is the proxy's host and port where one is on the way. `timeout` is
    seconds. `in_flight` is as many as may be on their way, or why that many cannot; `files` the limit of open files,
    None where there is none.
    """

    workspace_id: str
    host: str
    port: int
    encrypted: bool
    rate: Rate
    timeout: float
    in_flight: int | str
    files: int | None
    proxy: tuple[str, int] | None = None

    @property
    def first_stop(self) -> tuple[str, int]:
        """Whom connections are made to: the proxy, else the destination."""
        return self.proxy or (self.host, self.port)


@dataclass(frozen=True, slots=True)
class Reached:
    """One address of the host: how many seconds a connection took, or why there was none."""

    address: str
    seconds: float | None
    trouble: str = ""

    @property
    def family(self) -> str:
        """`IPv4` or `IPv6`."""
        return "IPv6" if ":" in self.address else "IPv4"


@dataclass(frozen=True, slots=True)
class Tried:
    """One Test connection: what came of it, and when.

    `started` is epoch seconds by this machine's clock; `seconds` how long it took. `date` is the answer's own moment,
    in epoch seconds and without fractions, `limits` the headers that tell of limits, `app_name` the workspace's name.
    """

    outcome: Outcome
    started: float
    seconds: float
    date: float | None = None
    limits: Mapping[str, str] = field(default_factory=dict)
    app_name: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The server's: until when it holds (epoch seconds), and who vouches for it."""

    ends: float
    issuer: str


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Whether uploads can share a window there: why not, or what they would be told."""

    path: Path
    trouble: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PaceServer:
    """The Redis server that keeps the pace, as an upload would find it.

    `place` is its URL without a password; `trouble` why an upload would not get on with it, `missing` where that is a
    package which is not installed. `seconds` says how long its answers took, `policy` what it does when its memory is
    full; `told` is False where it tells nothing of itself. `wait` is for how many seconds a first upload waits.
    """

    place: str
    trouble: str = ""
    missing: bool = False
    seconds: tuple[float, ...] = ()
    version: str = ""
    policy: str = ""
    told: bool = True
    wait: float = 0.0
