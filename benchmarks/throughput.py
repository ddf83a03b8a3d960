"""Requests a second and CPU time per 1,000 requests: moe_bulk, a bare loop over its client, and two by hand.

    python benchmarks/throughput.py --in-flight 16 64 256 --latency 0 50 --tls

All of them send the same records to the same local server, one after the other in random order, each time in a fresh
process; the medians of the rounds are shown with the least and the most.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from interleaved import WARM_UP, Circumstances, Entrant, Round, costs, interleave, rates
from machine import describe, load
from measure import BARE, ENGINE, PIPELINE, SCRIPT, spread, table

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTENDERS = (ENGINE, BARE, SCRIPT, PIPELINE)

HEAD = ("", "requests/s", "of script", "of bare", "CPU ms per 1,000", "of script", "of bare", "MB", "connections")

LEGEND = f"""\
{ENGINE:16}  Uploader.run, uncapped, the whole of it: CSV read, rows checked, order kept, pace and window counted,
                  answers judged, journal written and synced
{BARE:16}  the same client alone: prepared records, answers judged; no file, order, pace, retry or journal
{SCRIPT:16}  plain_script.py: httpx.AsyncClient as it comes, gather, Semaphore, AsyncLimiter, csv.DictReader
{PIPELINE:16}  aiohttp_pipeline.py: by hand; parses, posts, reads the answer, writes a line, and nothing else
CPU, MB           the client process's: user and system time of all threads; peak memory
connections       all that a round opened, warm-up included
Median (least to most) of the rounds; start-up and warm-up are not measured."""

NOT_COVERED = """\
What these numbers do not cover: a network (loopback only: no loss, no distance), MoEngage's own speed and its limit
(10,000 a minute, 167 a second), answers other than acceptance, another event loop, runs of hours. The client has one
core and the server another; rates and times are this machine's, ratios carry further."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One table's circumstances: requests in flight, latency in milliseconds, TLS or not."""

    in_flight: int
    latency: float
    tls: bool

    def __str__(self) -> str:
        return f"{self.in_flight} in flight, server answers after {self.latency:g} ms, {'TLS' if self.tls else 'HTTP'}"


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured: rounds, and requests in each."""

    rounds: int
    requests: int


def compare(setting: Setting, amount: Amount, folder: Path) -> dict[Entrant, list[Round]]:
    """Run all contenders for so many rounds; by contender, its rounds."""
    circumstances = Circumstances(setting.latency, setting.tls, min(WARM_UP, amount.requests))
    entrants = [Entrant(each, setting.in_flight, amount.requests) for each in CONTENDERS]
    return interleave(entrants, circumstances, amount.rounds, folder)


def show(found: dict[Entrant, list[Round]], requests: int) -> str:
    """The table, and lines about what went wrong."""
    speed = {entrant.contender: rates(entrant, rounds) for entrant, rounds in found.items()}
    cost = {entrant.contender: costs(rounds) for entrant, rounds in found.items()}
    rounds = {entrant.contender: rounds for entrant, rounds in found.items()}
    rows = [
        (
            contender,
            spread(speed[contender]),
            *(_times(speed[contender], speed[other]) for other in (SCRIPT, BARE)),
            spread(cost[contender]),
            *(_times(cost[contender], cost[other]) for other in (SCRIPT, BARE)),
            spread([max(each.measured.memory for each in rounds[contender])]),
            spread([max(each.report.connections for each in rounds[contender])]),
        )
        for contender in CONTENDERS
    ]
    return "\n".join([table(HEAD, rows), *_server(rounds), *_lost(rounds, requests)])


def _times(values: Sequence[float], others: Sequence[float]) -> str:
    """One median as a multiple of another."""
    found = statistics.median(values) / statistics.median(others)
    return f"{found:.2f}x" if found < 10 else f"{found:.1f}x"


def _server(rounds: dict[str, list[Round]]) -> list[str]:
    """How fast the server could have gone: it must not be what was measured."""
    reports = [each.report for found in rounds.values() for each in found]
    most = sum(len(each.arrivals) for each in reports) / max(sum(each.cpu for each in reports), 1e-9)
    return [f"The server's own CPU time would allow {most:,.0f} requests/s."]


def _lost(rounds: dict[str, list[Round]], requests: int) -> list[str]:
    lost = {name: sum(requests - each.measured.accepted for each in found) for name, found in rounds.items()}
    return [f"NOT ACCEPTED: {count:,} requests of {contender}." for contender, count in lost.items() if count]


def settings(options: argparse.Namespace) -> list[Setting]:
    """One for every table."""
    return [
        Setting(in_flight, latency, tls)
        for tls in ((False, True) if options.tls else (False,))
        for latency in options.latency
        for in_flight in options.in_flight
    ]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64], metavar="N", help="default 64")
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0], metavar="MS", help="default 0")
    parser.add_argument("--tls", action="store_true", help="measure with TLS, too (needs trustme: the [test] extra)")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--requests", type=int, help="in each round; default 5000")
    parser.add_argument("--quick", action="store_true", help="one round of 500 requests: to see that it works")
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.requests = options.requests or (500 if options.quick else 5000)
    if min(options.rounds, options.requests, *options.in_flight) < 1 or min(options.latency) < 0:
        parser.error("rounds, requests and requests in flight are positive numbers, a latency is not negative")
    if options.tls and find_spec("trustme") is None:
        parser.error("--tls needs trustme: pip install '.[test]'")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = arguments(argv)
    amount = Amount(options.rounds, options.requests)
    print(
        f"{describe()}\n{amount.rounds} rounds of {amount.requests:,} requests, contenders in random order\n\n{LEGEND}"
    )
    with tempfile.TemporaryDirectory(prefix="moe-bulk-benchmark-") as folder:
        for setting in settings(options):
            before = load()
            shown = show(compare(setting, amount, Path(folder)), amount.requests)
            print(f"\n{setting}; load average {before} before, {load()} after\n\n{shown}", flush=True)
    print(f"\n{NOT_COVERED}")


if __name__ == "__main__":
    main()
