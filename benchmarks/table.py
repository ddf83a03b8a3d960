"""The whole table: how fast it is, beside what else one could use, and whether that is what was wanted.

    python benchmarks/table.py quick
    python benchmarks/table.py full --out table.md
    python benchmarks/table.py quick uncapped cap --peers-python PEERS/bin/python

`quick` is meant for under ten minutes on two quiet cores, `full` takes hours, `smoke` shows in seconds that all of it
runs and says nothing. Contenders run side by side, in random order or in pairs with either first in turn, each in a
fresh process on one core; the server has another. What is compared is CPU time, user and system, of all threads;
medians of the rounds, or of what follows from each pair, and least to most.

Peers (dlt, drt) live in an environment of their own:

    python -m venv PEERS && PEERS/bin/pip install -r benchmarks/requirements.txt
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from machine import describe, load, load_average
from measure import Failed, table
from rows import ROWS, Line, Setup, Told
from sizes import SIZES

if TYPE_CHECKING:
    from collections.abc import Sequence

LEGEND = """\
moe_bulk          Uploader.run, the whole of it: rows read and checked, order kept, pace and window counted, answers
                  judged, journal written and synced
bare loop         the same client alone: prepared records, answers judged; no file, order, pace, retry or journal
plain script      httpx.AsyncClient as it comes, gather, Semaphore, AsyncLimiter, csv.DictReader
aiohttp pipeline  by hand: parses, posts, reads the answer, writes a line, and nothing else
dlt, drt          a custom destination; the rest_api destination: with their best settings, told in peers.py
Loopback only: no network, no MoEngage. Times are this machine's; ratios carry further."""


def versions(python: str) -> str:
    """The peers and their versions; OSError or CalledProcessError where they are not there."""
    asked = "from importlib.metadata import version; print(f\"dlt {version('dlt')}, drt-core {version('drt-core')}\")"
    done = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=list(SIZES))
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; default all")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table there, too (Markdown)")
    parser.add_argument("--peers-python", metavar="PATH", help="the interpreter of the peers' environment")
    options = parser.parse_args(argv)
    if unknown := [row for row in options.rows if row not in ROWS]:
        parser.error(f"there is no row {unknown[0]!r}: choose from {', '.join(ROWS)}")
    if find_spec("trustme") is None:
        parser.error("it measures over TLS, and needs trustme: pip install '.[test]'")
    options.peers = "peers are not installed: pip install -r benchmarks/requirements.txt, and --peers-python"
    if options.peers_python:
        try:
            options.peers = versions(options.peers_python)
        except (OSError, subprocess.CalledProcessError):
            install = f"{options.peers_python} -m pip install -r benchmarks/requirements.txt"
            parser.error(f"{options.peers_python} has not all peers: {install}")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write; a row that fails costs the others nothing but a clean exit."""
    options = arguments(argv)
    began, before = time.monotonic(), load_average()
    lines: list[Line] = []
    details: list[str] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="moe-bulk-benchmark-") as folder:
        setup = Setup(SIZES[options.size], Path(folder), options.peers_python)
        for name in options.rows or ROWS:
            try:
                told = ROWS[name](setup)
            except Failed as error:
                told = Told([Line(name, "measured", f"failed: {error}", met=False)], f"{name} failed: {error}")
                failed.append(name)
            lines += told.lines if options.size != "smoke" else [replace(line, met=None) for line in told.lines]
            details.append(told.details)
            print(f"{told.details}\n", flush=True)
    minutes = (time.monotonic() - began) / 60
    loads = f"load average {before:.1f} before, {load()} after"
    head = f"`{options.size}`, {minutes:.1f} min; {loads}\n{describe()}\n{options.peers}"
    shown = table(("work", "to reach", "measured", "met"), [line.cells() for line in lines])
    print(f"{head}\n\n{shown}\n\n{LEGEND}")
    if options.out is not None:
        text = [
            f"# moe_bulk, measured\n\n{head}\n",
            f"{shown}\n",
            f"```text\n{LEGEND}\n```\n",
            *(f"{each}\n" for each in details),
        ]
        options.out.write_text("\n".join(text), encoding="utf-8")
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
