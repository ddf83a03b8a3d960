"""Small frozen values that refuse nonsense at birth: where to, with which key, how fast, how patiently."""

from __future__ import annotations

import ipaddress
import math
import re
import resource
import socket
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, NoReturn, Self
from urllib.parse import urlsplit

from moe_bulk.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

DATA_CENTERS = ("01", "02", "03", "04", "05", "06", "101")
"""https://developers.moengage.com/hc/en-us/articles/4404674776724: the hosts are api-01.moengage.com and so on."""

SHARE_COUNTS_FROM = 1000
DEFAULT_IN_FLIGHT = 512
"""3 s of latency at 167 requests a second."""
LEAST_IN_FLIGHT = 16
FILES_KEPT_FREE = 100
LONGEST_TIMEOUT = 600.0
HIGHEST_LIMIT = 1_000_000_000

_SECONDS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]+)?"
_DURATION = re.compile(rf"\s*({_NUMBER})\s*(ms|s|sec|m|min|h|d)?\s*", re.IGNORECASE)
_RATE = re.compile(rf"\s*([0-9][0-9_,]{{0,19}})\s*/\s*({_NUMBER})?\s*(s|sec|m|min|h)\s*", re.IGNORECASE)
_FAILURES = re.compile(rf"\s*(?:([0-9]{{1,15}})|({_NUMBER})\s*%)\s*")
_FOREIGN_TO_WORKSPACES = re.compile(r"[^A-Za-z0-9_-]")
_DATA_CENTER = re.compile(r"(?:(?:dashboard|api|dc)[-_ ]?)?0*([0-9]{1,3})(?:\.moengage\.com)?", re.IGNORECASE)
_USER_INFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://|//)?.*@", re.DOTALL)
_DIGITS = "0123456789.:"
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?\.?|[0-9a-f:]*:[0-9a-f:.]*")


def _whole(value: object, least: int) -> bool:
    return type(value) is int and value >= least  # a bool is an int, and no number of anything


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


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
        if not _whole(self.limit, 1) or self.limit > HIGHEST_LIMIT:
            raise ConfigError(f"a rate's limit is a whole number of requests, 1 to 1,000,000,000; got {self.limit!r}")
        if not _positive(self.per) or not 0.01 <= self.per <= 86400:
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
        return f"{self.limit}/{named.get(self.per) or f'{self.per!r}s'.replace('.0s', 's')}"


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
        if not _whole(self.tries, 1):
            raise ConfigError(f"a record needs at least one try, a whole number; got tries={self.tries!r}")
        if not _whole(self.free_tries, 0):
            raise ConfigError(f"the free tries are a whole number, 0 or more; got free_tries={self.free_tries!r}")
        if not _positive(self.first_wait) or not _positive(self.longest_wait) or self.first_wait > self.longest_wait:
            raise ConfigError(
                "waits between tries are more than 0 seconds, and the first is not above the longest; "
                f"got first_wait={self.first_wait!r}, longest_wait={self.longest_wait!r}"
            )
        if not _positive(self.outage_limit):
            raise ConfigError(f"the outage limit is a number of seconds above 0; got {self.outage_limit!r}")


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """How many failed rows are too many: a number, or a share of the settled rows once there are 1,000 of them.

    >>> FailureLimit.parse("5%").reached(failed=60, settled=1000)
    True
    """

    count: int | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if (self.count is None) == (self.share is None):
            raise ConfigError("a limit of failures is a count or a share: FailureLimit(count=100), or share=0.05")
        if self.count is not None and not _whole(self.count, 0):
            raise ConfigError(f"the count of a limit of failures is a whole number, 0 or more; got {self.count!r}")
        if self.share is not None and not (self.share == 0 or (_positive(self.share) and self.share <= 1)):
            raise ConfigError(f"the share of a limit of failures is 0 to 1, 0.05 for 5%; got {self.share!r}")

    @classmethod
    def parse(cls, text: str) -> FailureLimit:
        """Read `100` or `5%`."""
        match = _FAILURES.fullmatch(text)
        if not match or (match[2] and float(match[2]) > 100):
            raise ConfigError(f"{text!r} is no limit of failures: write it like 100 or 5%")
        return cls(count=int(match[1])) if match[1] else cls(share=float(f"{match[2]}e-2"))

    def reached(self, failed: int, settled: int) -> bool:
        """True when there are more failures than that."""
        if self.count is not None:
            return failed > self.count
        return self.share is not None and settled >= SHARE_COUNTS_FROM and failed > self.share * settled

    def __str__(self) -> str:
        """`100` or `5%`: the form that `parse` reads."""
        return str(self.count) if self.share is None else f"{(Decimal(str(self.share)) * 100).normalize():f}%"


@dataclass(frozen=True, slots=True)
class Network:
    """How requests travel: seconds for one attempt in all, requests on their way at most, and whom TLS trusts.

    Without `in_flight` there are as many as the pace needs at the latency of the day, up to 512. More than the system's
    limit of open files allows are refused.
    """

    timeout: float = 30.0
    in_flight: int | None = None
    ca_bundle: str | None = None

    def __post_init__(self) -> None:
        if not _positive(self.timeout) or self.timeout > LONGEST_TIMEOUT:
            raise ConfigError(f"the timeout is more than 0 and at most 600 seconds; got {self.timeout!r}")
        if self.in_flight is not None and not _whole(self.in_flight, 1):
            raise ConfigError(
                f"at least one request, a whole number, must be allowed in flight; got {self.in_flight!r}"
            )

    @property
    def most_in_flight(self) -> int:
        """The number of requests that may be on their way at a time; raises ConfigError where files are too few."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = math.inf if files == resource.RLIM_INFINITY else max(LEAST_IN_FLIGHT, files - FILES_KEPT_FREE)
        if self.in_flight is not None and self.in_flight > spare:
            raise ConfigError(
                f"{self.in_flight} requests in flight are more than the limit of {files} open files allows: raise it "
                f"with ulimit -n {self.in_flight + FILES_KEPT_FREE}, or let at most {spare} be in flight"
            )
        return self.in_flight or int(min(DEFAULT_IN_FLIGHT, spare))


# --- where to --------------------------------------------------------------------------------------------------------


def data_center_host(name: str) -> str:
    """`1`, `01`, `DC-01`, `dc1`, `101` or `dashboard-01`, as the API's host name."""
    match = _DATA_CENTER.fullmatch(str(name).strip())
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
    shown, parts = _without_secrets(url), _split(url)
    if parts is None:
        raise ConfigError(f"the base URL {shown!r} is none: write it like https://api-01.moengage.com")
    if "@" in parts.netloc or set(url) & set("?#"):
        raise ConfigError(f"the base URL {shown!r} must hold no user, password, query or fragment: leave them out")
    host = parts.hostname or ""
    if parts.scheme == "http":
        host = _loopback(host, shown)
    bracketed = f"[{host}]" if ":" in host else host
    netloc = bracketed if parts.port is None else f"{bracketed}:{parts.port}"
    return f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}"


def _split(url: str) -> SplitResult | None:
    """The parts of a URL that every reader reads alike, or None."""
    try:
        parts = urlsplit(url)
        if parts.netloc.startswith("[") or not parts.netloc.strip(_DIGITS):
            ipaddress.ip_address(parts.hostname or "")
        usable = parts.scheme in ("http", "https") and parts.port != 0 and _HOST.fullmatch(parts.hostname or "")
    except ValueError:
        return None
    readable = url.isascii() and url.isprintable() and not set(url) & set(" \\")
    return parts if usable and readable else None


def _without_secrets(url: str) -> str:
    """What a message may show of a URL: no user, no password, no query."""
    return re.split(r"[?#]", _USER_INFO.sub(r"\1***@", url), maxsplit=1)[0]


def _loopback(host: str, shown: str) -> str:
    """The loopback address that `host` is or resolves to, 127.0.0.1 before ::1: that is where local servers listen."""
    addresses = [host]
    if host == "localhost":
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            raise ConfigError("localhost resolves to nothing on this machine: write 127.0.0.1 instead") from None
        addresses = sorted({str(each[4][0]) for each in found}, key=lambda address: ":" in address)
    if not all(map(_is_loopback, addresses)):
        raise ConfigError(
            f"{shown!r} would send the key unencrypted: use https (plain http goes to 127.0.0.1, ::1 only)"
        )
    return addresses[0]


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


# --- with which key --------------------------------------------------------------------------------------------------


class Secret:
    """Text that shows as ***, wherever it is printed, and is never pickled.

    >>> Secret("hunter2")
    ***
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself: for the wire and for masking, nothing else."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: give the other process its own, from the environment")


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Credentials:
    """Who sends, and to where: a workspace id, its Data API key, and a data center or a base URL.

    The key is never shown: not in the `repr`, not by `dataclasses.asdict`, not by `pickle`, which is refused. Values
    are compared by identity, so no hash is made of it.

    >>> Credentials("WORKSPACE", "secret", data_center="01")
    Credentials(workspace_id='WORKSPACE', api_key='***', base_url='https://api-01.moengage.com')
    """

    workspace_id: str
    base_url: str
    _key: Secret

    def __init__(self, workspace_id: str, api_key: str, data_center: str | None = None, base_url: str = "") -> None:
        foreign = _FOREIGN_TO_WORKSPACES.search(workspace_id)
        if not workspace_id or foreign:
            # Not the whole value: it may be the key, in the wrong place.
            wrong = f"holds {foreign[0]!r}" if foreign else "is empty"
            raise ConfigError(f"the workspace id {wrong}: it is made of letters, digits, _ and - only")
        if not api_key or not api_key.isascii() or not api_key.isprintable():
            raise ConfigError("the API key is empty or holds characters that no key has: copy it again")
        if bool(data_center) == bool(base_url):
            raise ConfigError("say where to send to: a data center (such as 01) or a base URL, and not both")
        url = f"https://{data_center_host(data_center)}" if data_center else check_base_url(base_url)
        for name, value in (("workspace_id", workspace_id), ("base_url", url), ("_key", Secret(api_key))):
            object.__setattr__(self, name, value)

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
    def api_key(self) -> str:
        """The key itself."""
        return self._key.reveal()

    @property
    def host(self) -> str:
        """The destination's name without its port: what a resumed run must have in common with its first part."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def address(self) -> str:
        """The destination's name and port: whose window it is."""
        parts = urlsplit(self.base_url)
        return f"{self.host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"

    def __repr__(self) -> str:
        return f"Credentials(workspace_id={self.workspace_id!r}, api_key='***', base_url={self.base_url!r})"
