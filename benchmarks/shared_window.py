"""Several uploads for one workspace at once: one limit together, how much of it is used, and who gets which share.

    python benchmarks/shared_window.py --processes 1 2 3 10 --seconds 60 --rate 1000/6s

Each is the real command line, with a file of its own. A local server notes when each request arrived and when it was
answered; windows are counted from its notes. Afterwards all are stopped, with SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machine import describe, load, loopback_environment
from measure import Report, busiest, serving, table
from records import API_KEY, WORKSPACE, write_records

from moe_bulk import Rate

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = ("processes", "used", "busiest window: arrivals", "any moment", "least share", "largest share")

LEGEND = """\
used            requests that arrived, as a share of what the limit allows, from the end of the first window on
busiest window  the most requests that the server received in any window of the limit's length, wherever it starts
any moment      the same, each request counted at whichever moment between its arrival and its answer is the worst
share           what the process that sent least, or most, sent of an equal part"""


@dataclass(frozen=True, slots=True)
class Findings:
    """What so many processes made of the limit together."""

    report: Report
    sent: list[int]
    rate: Rate

    def row(self) -> tuple[str, ...]:
        """Its line in the table."""
        arrivals, equal = self.report.arrivals, sum(self.sent) / len(self.sent)
        start = arrivals[0] + self.rate.per
        later = sum(at >= start for at in arrivals)
        used = (later - 1) / ((arrivals[-1] - start) * self.rate.per_second)
        stays = zip(arrivals, self.report.answers, strict=False)
        return (
            str(len(self.sent)),
            f"{used:.2%}",
            f"{busiest(zip(arrivals, arrivals, strict=True), self.rate.per):,}",
            f"{busiest(stays, self.rate.per):,}",
            f"{min(self.sent) / equal:.0%}",
            f"{max(self.sent) / equal:.0%}",
        )


def upload(number: int, count: int, folder: Path, url: str, rate: Rate) -> subprocess.Popen[bytes]:
    """Start one upload of `count` devices of its own."""
    source = write_records(folder / f"devices-{number}.csv", count, number * count)
    environment = loopback_environment() | {
        "MOENGAGE_WORKSPACE_ID": WORKSPACE,
        "MOENGAGE_API_KEY": API_KEY,
        "MOENGAGE_BASE_URL": url,
        "XDG_STATE_HOME": str(folder / "state"),
    }
    command = [sys.executable, "-m", "moe_bulk", "upload", str(source), "--quiet", "--rate", str(rate)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def together(processes: int, rate: Rate, seconds: float, latency: float) -> Findings:
    """Let so many processes upload for so many seconds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moe-bulk-benchmark-")))
        server = stack.enter_context(serving(latency, 0.2))
        count = math.ceil(rate.per_second * seconds * 1.2)
        running = [stack.enter_context(upload(each, count, folder, server.url, rate)) for each in range(processes)]
        time.sleep(seconds)
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(timeout=30)
        summaries = [folder / f"devices-{each}.csv.run" / "summary.json" for each in range(processes)]
        return Findings(server.report(), [json.loads(each.read_bytes())["requests"] for each in summaries], rate)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3, 10])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each number of processes; default 60")
    parser.add_argument("--rate", type=Rate.parse, default=Rate(1000, 6.0), help="default 1000/6s")
    parser.add_argument("--latency", type=float, default=50.0, metavar="MS", help="default 50, give or take a fifth")
    options = parser.parse_args(argv)
    if options.seconds < 2 * options.rate.per or options.seconds > 500 or options.latency < 0:
        parser.error("it takes two windows at least and 500 seconds at most, and a latency that is not negative")
    if not all(1 <= each <= 4 * (os.cpu_count() or 1) + 8 for each in options.processes):
        parser.error("so many processes would only measure the machine")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = arguments(argv)
    print(f"{describe()}\n\n{LEGEND}\n", flush=True)
    before = load()
    found = [together(each, options.rate, options.seconds, options.latency / 1000) for each in options.processes]
    print(f"limit {options.rate}, {options.seconds:g} s, answers after {options.latency:g} ms ± 20%; ", end="")
    print(f"load average {before} before, {load()} after\n")
    print(table(HEAD, [findings.row() for findings in found]))


if __name__ == "__main__":
    main()
