"""Small frozen values that refuse nonsense at birth: where to, with which key, how fast, how patiently."""

from __future__ import annotations

import ipaddress
import re
import resource
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from moe_bulk.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA_CENTERS = ("01", "02", "03", "04", "05", "06", "101")
"""https://developers.moengage.com/hc/en-us/articles/4404674776724: the hosts are api-01.moengage.com and so on."""

SHARE_COUNTS_FROM = 1000
DEFAULT_IN_FLIGHT = 512
"""3 s of latency at 167 requests a second."""
FILES_KEPT_FREE = 100

_SECONDS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|sec|m|min|h|d)?\s*", re.IGNORECASE)
_RATE = re.compile(r"\s*(\d[\d_,]*)\s*/\s*(\d+(?:\.\d+)?)?\s*(s|sec|m|min|h)\s*", re.IGNORECASE)
_WORKSPACE = re.compile(r"[A-Za-z0-9_-]+")


def parse_duration(text: str) -> float:
    """`30s`, `30min`, `1.5h`, or plain seconds, as seconds.

    >>> parse_duration("30min")
    1800.0
    """
    match = _DURATION.fullmatch(text)
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"{text!r} is no duration: write it like 30s, 30min or 2h")
    return float(match[1]) * _SECONDS[(match[2] or "s").lower()]


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` requests in any window of `per` seconds, wherever it starts.

    >>> Rate.parse("10000/min")
    Rate(limit=10000, per=60.0)
    """

    limit: int = 10_000
    per: float = 60.0

    def __post_init__(self) -> None:
        if type(self.limit) is not int or self.limit < 1:  # a bool is an int, and no limit
            raise ConfigError(f"a rate's limit is a whole number of requests, at least 1; got {self.limit!r}")
        if not 0.01 <= self.per <= 86400:
            raise ConfigError(f"a rate's window is 0.01 to 86400 seconds long; got {self.per!r}")

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read `COUNT/min`, `COUNT/s` or `COUNT/6s`."""
        match = _RATE.fullmatch(text)
        if not match:
            raise ConfigError(f"{text!r} is no rate: write it like 10000/min, 167/s or 1000/6s")
        unit = _SECONDS[match[3].lower()]
        return cls(int(match[1].replace("_", "").replace(",", "")), float(match[2] or 1) * unit)

    @property
    def per_second(self) -> float:
        """Requests a second, on the average."""
        return self.limit / self.per

    def __str__(self) -> str:
        """`10000/min`: the form that `parse` reads."""
        named = {1.0: "s", 60.0: "min", 3600.0: "h"}
        return f"{self.limit}/{named.get(self.per) or f'{self.per:g}s'}"


@dataclass(frozen=True, slots=True)
class Retry:
    """How patiently a record, and the run, is tried again.

    `tries` counts a record's own attempts; `free_tries` those that cost it nothing (a 429, or trouble while an outage
    was declared). Waits are drawn from 0 to `first_wait` · 2ⁿ, at most `longest_wait` seconds (exponential, full
    jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). `outage_limit` is in seconds.
    """

    tries: int = 8
    free_tries: int = 100
    first_wait: float = 0.5
    longest_wait: float = 60.0
    outage_limit: float = 1800.0

    def __post_init__(self) -> None:
        if self.tries < 1 or self.free_tries < 0:
            raise ConfigError(f"a record needs at least one try; got tries={self.tries}, free_tries={self.free_tries}")
        if not 0 < self.first_wait <= self.longest_wait:
            raise ConfigError("waits between tries are positive, and the first is not the longest")
        if self.outage_limit <= 0:
            raise ConfigError(f"the outage limit is a positive number of seconds; got {self.outage_limit!r}")


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """How many failed rows are too many: a number, or a share of the settled rows once there are 1,000 of them.

    >>> FailureLimit.parse("5%").reached(failed=60, settled=1000)
    True
    """

    count: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> FailureLimit:
        """Read `100` or `5%`."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
        if not match or (not match[2] and "." in match[1]) or (match[2] and float(match[1]) > 100):
            raise ConfigError(f"{text!r} is no limit of failures: write it like 100 or 5%")
        return cls(share=float(match[1]) / 100) if match[2] else cls(count=int(match[1]))

    def reached(self, failed: int, settled: int) -> bool:
        """True when there are more failures than that."""
        if self.count is not None:
            return failed > self.count
        return self.share is not None and settled >= SHARE_COUNTS_FROM and failed > self.share * settled

    def __str__(self) -> str:
        """`100` or `5%`: the form that `parse` reads."""
        return str(self.count) if self.share is None else f"{self.share * 100:g}%"


@dataclass(frozen=True, slots=True)
class Network:
    """How requests travel: seconds for one attempt in all, requests on their way at most, and whom TLS trusts.

    Without `in_flight` there are as many as the pace needs at the latency of the day, up to 512 or what the system's
    limit of open files allows.
    """

    timeout: float = 30.0
    in_flight: int | None = None
    ca_bundle: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= 600:
            raise ConfigError(f"the timeout is 600 seconds at most, and more than 0; got {self.timeout:g}")
        if self.in_flight is not None and self.in_flight < 1:
            raise ConfigError(f"at least one request must be allowed in flight; got {self.in_flight}")

    @property
    def most_in_flight(self) -> int:
        """The number of requests that may be on their way at a time."""
        if self.in_flight is not None:
            return self.in_flight
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = DEFAULT_IN_FLIGHT if files == resource.RLIM_INFINITY else files - FILES_KEPT_FREE
        return max(16, min(DEFAULT_IN_FLIGHT, spare))


def data_center_host(name: str) -> str:
    """`1`, `01`, `DC-01`, `dc1`, `101` or `dashboard-01`, as the API's host name."""
    match = re.fullmatch(r"(?:dashboard|api|dc)?[-_ ]?0*(\d{1,3})(?:\.moengage\.com)?", name.strip(), re.IGNORECASE)
    number = match[1].zfill(2) if match else ""
    if number not in DATA_CENTERS:
        raise ConfigError(
            f"{name!r} is no data center of MoEngage: use one of {', '.join(DATA_CENTERS)} "
            "(the number in your dashboard's address, dashboard-01.moengage.com)"
        )
    return f"api-{number}.moengage.com"


def check_base_url(url: str) -> str:
    """The URL without a trailing slash, if requests may go there.

    Plain http is allowed to loopback only, and a `localhost` becomes the loopback address that it resolves to, so that
    no later look-up can lead elsewhere.
    """
    shown = re.sub(r"//[^/]*@", "//", url)
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise ConfigError(f"the base URL {shown!r} has no usable port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"the base URL {shown!r} is none: write it like https://api-01.moengage.com")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(f"the base URL {shown!r} must hold no user, password, query or fragment")
    host = parts.hostname
    if parts.scheme == "http":
        host = _loopback(host, port or 80, shown)
    bracketed = f"[{host}]" if ":" in host else host
    netloc = bracketed if port is None else f"{bracketed}:{port}"
    return f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}"


def _loopback(host: str, port: int, shown: str) -> str:
    addresses = [host]
    if host == "localhost":
        addresses = [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in addresses:
        try:
            if not ipaddress.ip_address(address).is_loopback:
                break
        except ValueError:
            break
    else:
        return addresses[0]
    raise ConfigError(f"{shown!r} would send the key unencrypted: use https (plain http goes to 127.0.0.1, ::1 only)")


@dataclass(frozen=True, slots=True, eq=False)
class Credentials:
    """Who sends, and to where: a workspace id, its Data API key, and a data center or a base URL.

    The key is never shown: not in the `repr`, and values are compared by identity, so no hash is made of it.

    >>> Credentials("WORKSPACE", "secret", data_center="01")
    Credentials(workspace_id='WORKSPACE', api_key='***', base_url='https://api-01.moengage.com')
    """

    workspace_id: str
    api_key: str = field(repr=False)
    data_center: str | None = None
    base_url: str = ""

    def __post_init__(self) -> None:
        if not _WORKSPACE.fullmatch(self.workspace_id):
            raise ConfigError(f"the workspace id {self.workspace_id!r} may hold letters, digits, _ and - only")
        if not self.api_key or not self.api_key.isascii() or not self.api_key.isprintable():
            raise ConfigError("the API key is empty or holds characters that no key has; copy it again")
        if bool(self.data_center) == bool(self.base_url):
            raise ConfigError("say where to send to: a data center (such as 01) or a base URL, and not both")
        url = f"https://{data_center_host(self.data_center)}" if self.data_center else check_base_url(self.base_url)
        object.__setattr__(self, "base_url", url)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Credentials:
        """Take them from `MOENGAGE_WORKSPACE_ID`, `MOENGAGE_API_KEY` and `MOENGAGE_DATA_CENTER` or `_BASE_URL`."""
        for name in ("MOENGAGE_WORKSPACE_ID", "MOENGAGE_API_KEY"):
            if not environ.get(name):
                raise ConfigError(f"{name} is not set: export it, or pass Credentials(…)")
        return cls(
            environ["MOENGAGE_WORKSPACE_ID"],
            environ["MOENGAGE_API_KEY"].strip(),
            data_center=environ.get("MOENGAGE_DATA_CENTER") or None,
            base_url=environ.get("MOENGAGE_BASE_URL", ""),
        )

    @property
    def host(self) -> str:
        """The destination's name without its port: what a resumed run must have in common with its first part."""
        return urlsplit(self.base_url).hostname or ""

    def __repr__(self) -> str:
        return f"Credentials(workspace_id={self.workspace_id!r}, api_key='***', base_url={self.base_url!r})"
