"""Decide which request meets which misfortune: seeded, by arrival number, or by a script for one device. Pure."""

from __future__ import annotations

import difflib
import hashlib
import re
import struct
from dataclasses import dataclass
from typing import NamedTuple

from .answers import FAULT_STATUSES
from .duration import parse_duration

SERVER_ERRORS = (500, 502, 503, 504)
KINDS = {
    "5xx": "500, 502, 503 or 504",
    "reset": "the connection is reset, nothing is applied",
    "reset-after": "the device is applied, then the connection is reset",
    "hang": "never an answer",
    "half": "the device is applied, half an answer comes, the connection ends",
    "broken": "200 with no JSON",
    "nosuccess": "200 whose status is not success",
    "slow": "the answer comes later, by slow-by (5s)",
}
SETTINGS = {
    "latency": "how long every answer takes: 50ms or 50ms..300ms",
    "retry-after": "the Retry-After of injected 429s: 2s",
    "slow-by": "how much later slow answers come: 5s",
    "seed": "a number: the same one repeats the same faults",
}
_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?)%", re.ASCII)
_DRAWS = struct.Struct("<QQQ")


class FaultsError(ValueError):
    """Faults that cannot be understood; the message names the spelling to use."""


class Decision(NamedTuple):
    """What becomes of one request.

    `kind` is "ok" (the rules decide), "status" (`status` is answered) or one of KINDS; `name` is what was asked for,
    for the books; `delay` and `retry_after` are seconds.
    """

    kind: str = "ok"
    name: str | None = None
    status: int = 0
    delay: float = 0.0
    retry_after: float | None = None


FINE = Decision()


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what goes wrong. `Faults()` is fair weather; `Faults.parse("5xx=2%,latency=50ms..300ms")` is not.

    `shares` are parts of 1, `latency` the bounds in seconds between which the delay of every answer lies.
    """

    shares: tuple[tuple[str, float], ...] = ()
    latency: tuple[float, float] = (0.0, 0.0)
    retry_after: float | None = None
    slow_by: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, share in self.shares:
            _check_kind(name)
            if not 0 <= share <= 1:
                raise FaultsError(f"{name}={share:.4%} is no share: it lies between 0% and 100%")
        if sum(share for _, share in self.shares) > 1 + 1e-9:
            raise FaultsError("the shares of all faults together are more than 100%")
        if self.latency[0] > self.latency[1]:
            raise FaultsError("latency begins above its end: write the shorter time first, such as 50ms..300ms")

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Read `5xx=2%,429=1%,reset=1%,hang=0.1%,latency=50ms..300ms`; an empty text means none.

        Raises FaultsError for an unknown name (with a suggestion), a name given twice, and a value that does not fit
        its name.
        """
        values: dict[str, str] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = (part.strip() for part in item.partition("="))
            if name not in SETTINGS:
                _check_kind(name)
            if not equals:
                raise FaultsError(f"{name} has no value: write one behind =, such as 5xx=2% or latency=50ms")
            if name in values:
                raise FaultsError(f"{name} is given twice")
            values[name] = value
        low, dots, high = values.get("latency", "0s").partition("..")
        retry_after = values.get("retry-after")
        return cls(
            shares=tuple((name, _share(name, value)) for name, value in values.items() if name not in SETTINGS),
            latency=(_seconds("latency", low), _seconds("latency", high if dots else low)),
            retry_after=None if retry_after is None else _seconds("retry-after", retry_after),
            slow_by=_seconds("slow-by", values.get("slow-by", "5s")),
            seed=_seed(values.get("seed", "0")),
        )

    def decide(self, number: int) -> Decision:
        """Tell what becomes of the request that arrived as the `number`-th; the same for the same seed, always."""
        if not self.shares and not self.latency[1]:
            return FINE
        which, wait, status = _draws(self.seed, number)
        low, high = self.latency
        delay = low + (high - low) * wait
        for name, share in self.shares:
            if which < share:
                return self._decision(name, SERVER_ERRORS[int(status * len(SERVER_ERRORS))], delay)
            which -= share
        return Decision(delay=delay)

    def step(self, text: str) -> Decision:
        """Tell what one step of a script means: `200` (the normal answer), a fault's name, a status, or `429:2s`."""
        if text.strip() == "200":
            return FINE
        name, colon, wait = text.strip().partition(":")
        _check_kind(name)
        if colon and name != "429":
            raise FaultsError(f"{text!r}: only 429 takes a Retry-After")
        decision = self._decision(name, SERVER_ERRORS[0], 0.0)
        return decision._replace(retry_after=_seconds("429", wait)) if colon else decision

    def _decision(self, name: str, server_error: int, delay: float) -> Decision:
        if name == "5xx":
            return Decision("status", name, server_error, delay)
        if name == "slow":
            return Decision("ok", name, delay=delay + self.slow_by)
        if name.isdigit():
            return Decision("status", name, int(name), delay, self.retry_after if name == "429" else None)
        return Decision(name, name, delay=delay)


def _draws(seed: int, number: int) -> tuple[float, float, float]:
    """Draw three numbers in [0, 1) by a hash, so that no draw depends on how many came before it."""
    digest = hashlib.blake2b(b"%d:%d" % (seed, number), digest_size=_DRAWS.size).digest()
    first, second, third = _DRAWS.unpack(digest)
    return (first >> 11) / 2**53, (second >> 11) / 2**53, (third >> 11) / 2**53


def _check_kind(name: str) -> None:
    if name in KINDS or (name.isdigit() and int(name) in FAULT_STATUSES):
        return
    known = [*KINDS, *SETTINGS, *map(str, sorted(FAULT_STATUSES))]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    raise FaultsError(f"{name!r} is no fault: {hint}")


def _share(name: str, text: str) -> float:
    match = _PERCENTAGE.fullmatch(text)
    if match is None:
        raise FaultsError(f"{name}={text} is no share: write a percentage, such as {name}=2%")
    return float(match[1]) / 100


def _seconds(name: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise FaultsError(f"{name}: {error}") from None


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise FaultsError(f"seed={text} is no whole number") from None
