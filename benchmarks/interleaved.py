"""Contenders side by side: in each round in random order, each time in a fresh process, all against one server.

What differs by less than the machine's speed swings meanwhile is measured by `pairs`.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from machine import cores
from measure import ASYNCIO, UNCAPPED, Job, Measured, Report, certify, run, serving
from records import write_records

if TYPE_CHECKING:
    from collections.abc import Sequence

WARM_UP = 256
"""Requests before the measured ones, or as many as are in flight where that is more."""

HOLD_SECONDS = 1.0
"""How long the first of them wait for their answers: so all connections are open before anything is measured.

A server that answers at once gets 256 requests over some 40 connections, and making one costs as much as ten requests.
"""


@dataclass(frozen=True, slots=True)
class Entrant:
    """One contender with what it has to do in each round; `requests` may differ, costs are for one of them."""

    contender: str
    in_flight: int | None
    requests: int
    loop: str = ASYNCIO
    limit: int = UNCAPPED
    python: str = sys.executable


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the server does (its latency in milliseconds), and how much is sent before anything is measured."""

    latency: float
    tls: bool
    warm_up: int = WARM_UP


@dataclass(frozen=True, slots=True)
class Round:
    """What an entrant measured and what the server saw of it."""

    measured: Measured
    report: Report


def interleave(
    entrants: Sequence[Entrant], circumstances: Circumstances, rounds: int, folder: Path
) -> dict[Entrant, list[Round]]:
    """Run all entrants for so many rounds; by entrant, its rounds."""
    found: dict[Entrant, list[Round]] = {entrant: [] for entrant in entrants}
    client, server_core = cores()
    certificate, authority = certify(folder) if circumstances.tls else (None, None)
    latency = circumstances.latency / 1000
    with serving(latency, certificate=certificate, core=server_core, hold=HOLD_SECONDS) as server:
        for _ in range(rounds):
            for entrant in random.sample(list(entrants), len(entrants)):
                with tempfile.TemporaryDirectory(dir=folder) as scratch:
                    job = replace(
                        _job(entrant, circumstances.warm_up, Path(scratch), server.url),
                        authority=str(authority) if authority else None,
                        core=client,
                    )
                    found[entrant].append(Round(run(job, entrant.python), server.report()))
    return found


def _job(entrant: Entrant, warm_up: int, scratch: Path, url: str) -> Job:
    first = max(warm_up, entrant.in_flight or 0)
    return Job(
        entrant.contender,
        url,
        source=str(write_records(scratch / "devices.csv", entrant.requests, first=first)),
        warm_up=str(write_records(scratch / "warm-up.csv", first)),
        in_flight=entrant.in_flight,
        limit=entrant.limit,
        loop=entrant.loop,
    )


def costs(rounds: Sequence[Round]) -> list[float]:
    """CPU time for a request that was accepted, in microseconds, by round; infinite where none was."""
    return [
        found.cpu * 1e6 / found.accepted if found.accepted else math.inf for found in (each.measured for each in rounds)
    ]


def lost(entrant: Entrant, rounds: Sequence[Round]) -> int:
    """How many of its requests were not accepted, in all rounds."""
    return sum(entrant.requests - each.measured.accepted for each in rounds)


def rates(entrant: Entrant, rounds: Sequence[Round]) -> list[float]:
    """Requests a second, by round."""
    return [entrant.requests / each.measured.seconds for each in rounds]
