"""The cap: how much of the limit is used, whether any window exceeds it, and what a record costs at that pace.

    python benchmarks/at_the_cap.py --seconds 120

A local server takes about 300 ms for each answer and notes when each request arrived and when it was answered; what is
said about windows is counted from its notes, not from the client's.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machine import cores, describe, load
from measure import ENGINE, SCRIPT, Job, Measured, Report, busiest, certify, run, serving, table
from records import write_records

from moe_bulk import Rate

if TYPE_CHECKING:
    from collections.abc import Sequence

SPREAD = 0.2
"""Latencies differ by up to this share of the wanted one, either way."""

HEAD = (
    "",
    "used after 1st window",
    "used over all",
    "busiest window: arrivals",
    "any moment",
    "CPU ms per 1,000",
    "of a core",
    "MB",
)

LEGEND = """\
used            requests that arrived, as a share of what the limit allows between the first arrival (or the end of
                the first window) and the last
busiest window  the most requests that the server received in any window of the limit's length, wherever it starts
any moment      the same, each request counted at whichever moment between its arrival and its answer makes the window
                fullest: a server may count at any of them
CPU, MB         the client process's: user and system time of all threads; peak memory"""

NOT_COVERED = """\
What these numbers do not cover: a network (loopback only: the jitter is the server's, uniform), 429s and other trouble,
several processes that share one workspace, runs of hours. The client has one core, the server another. At this pace
much of the CPU time is the event loop waking up for single requests, so a record costs more than it does uncapped."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What one contender made of the limit."""

    measured: Measured
    report: Report
    rate: Rate

    @property
    def used(self) -> float:
        """Share of the limit between the first arrival and the last: n requests have n - 1 gaps between them."""
        arrivals = self.report.arrivals
        return self._share(len(arrivals) - 1, arrivals[-1] - arrivals[0])

    @property
    def used_later(self) -> float | None:
        """The same from the end of the first window on; None where the run was shorter than two windows."""
        arrivals = self.report.arrivals
        start = arrivals[0] + self.rate.per
        seconds = arrivals[-1] - start
        later = sum(at >= start for at in arrivals)
        return self._share(later, seconds) if seconds >= 0.9 * self.rate.per else None

    @property
    def cost(self) -> float:
        """CPU microseconds a request, or milliseconds for 1,000 of them."""
        return self.measured.cpu * 1e6 / len(self.report.arrivals)

    def busiest_window(self, *, any_moment: bool) -> int:
        """The fullest window, of arrivals or of any moments between arrival and answer."""
        lasts = self.report.answers if any_moment else self.report.arrivals
        return busiest(zip(self.report.arrivals, lasts, strict=True), self.rate.per)

    def _share(self, requests: int, seconds: float) -> float:
        return requests / (seconds * self.rate.per_second)

    def row(self, contender: str) -> tuple[str, ...]:
        """Its line in the table."""
        later = self.used_later
        return (
            contender,
            "" if later is None else f"{later:.2%}",
            f"{self.used:.2%}",
            f"{self.busiest_window(any_moment=False):,}",
            f"{self.busiest_window(any_moment=True):,}",
            f"{self.cost:,.0f}",
            f"{self.measured.cpu / self.measured.seconds:.1%}",
            f"{self.measured.memory:,.0f}",
        )


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the server does: seconds until an answer, give or take a share of them, TLS, and a share of faults."""

    latency: float
    spread: float = SPREAD
    tls: bool = False
    faults: float = 0.0


def deliver(
    contender: str, rate: Rate, seconds: float, conditions: Conditions, python: str = sys.executable
) -> Findings:
    """Send as many records as the limit allows in so many seconds."""
    client, server_core = cores()
    with tempfile.TemporaryDirectory(prefix="moe-bulk-benchmark-") as folder:
        certificate, authority = certify(Path(folder)) if conditions.tls else (None, None)
        source = write_records(Path(folder) / "devices.csv", math.ceil(rate.per_second * seconds))
        with serving(conditions.latency, conditions.spread, certificate, server_core, conditions.faults) as server:
            job = Job(
                contender,
                server.url,
                str(source),
                in_flight=None,
                limit=rate.limit,
                per=rate.per,
                authority=str(authority) if authority else None,
                core=client,
            )
            return Findings(run(job, python), server.report(), rate)


def lost(contender: str, findings: Findings) -> list[str]:
    """A line where not every request was accepted."""
    count = len(findings.report.arrivals) - findings.measured.accepted
    return [f"NOT ACCEPTED: {count:,} requests of {contender}."] if count else []


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="default 120: two windows")
    parser.add_argument("--rate", type=Rate.parse, default=Rate(), help="default 10000/min")
    parser.add_argument("--latency", type=float, default=300.0, metavar="MS", help="default 300, give or take a fifth")
    parser.add_argument("--script", action="store_true", help="the plain script, too: takes as long again")
    options = parser.parse_args(argv)
    if options.seconds * options.rate.per_second < 2 or options.seconds > 500 or options.latency < 0:
        parser.error("it takes at least two requests and 500 seconds at most, and a latency that is not negative")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = arguments(argv)
    rate: Rate = options.rate
    print(f"{describe()}\n\n{LEGEND}\n", flush=True)
    before = load()
    contenders = (ENGINE, SCRIPT) if options.script else (ENGINE,)
    conditions = Conditions(options.latency / 1000)
    found = {each: deliver(each, rate, options.seconds, conditions) for each in contenders}
    print(f"limit {rate}, {options.seconds:g} s, answers after {options.latency:g} ms ± {SPREAD:.0%}; ", end="")
    print(f"load average {before} before, {load()} after\n")
    print(table(HEAD, [findings.row(contender) for contender, findings in found.items()]))
    print("\n".join(line for contender, findings in found.items() for line in lost(contender, findings)))
    print(NOT_COVERED)


if __name__ == "__main__":
    main()
