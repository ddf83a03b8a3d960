"""Show a run while it goes on: a bar on a terminal, a plain line every 15 s elsewhere, JSON lines for machines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal, TextIO

import anyio
import orjson

if TYPE_CHECKING:
    from moe_bulk.run import RunView

Mode = Literal["auto", "bar", "plain", "json", "none"]

PLAIN_SECONDS = 15.0
BAR_SECONDS = 0.25


def snapshot(view: RunView) -> dict[str, object]:
    """The run's numbers at this moment."""
    done, total = view.bytes_read
    return {
        **view.tally.counts,
        "requests": view.tally.requests,
        "retrying": view.retrying,
        "in_flight": view.in_flight,
        "waits_for": view.waits_for or None,
        "bytes_read": done,
        "bytes": total,
    }


def plain_line(view: RunView) -> str:
    """`12,000 read, 11,950 settled (11,900 accepted, 50 failed), 167/s …`: one line for logs."""
    tally = view.tally
    counts = tally.counts
    said = f"{counts['read']:,} read, {counts['accepted']:,} accepted, {tally.failed_rows:,} failed"
    said += f", {view.in_flight:,} in flight, {view.retrying:,} waiting to be tried again"
    done, total = view.bytes_read
    if total:
        said += f", {done / total:.0%} of the input"
    return said + {"outage": "; MoEngage does not answer, probing", "pause": "; pausing as MoEngage asked"}.get(
        view.waits_for, ""
    )


async def show(view: RunView, mode: Mode, stream: TextIO) -> None:
    """Show the run on `stream` until cancelled."""
    if mode == "auto":
        mode = "bar" if stream.isatty() else "plain"
    if mode == "bar":
        await _bar(view, stream)
    elif mode != "none":
        await _lines(view, mode, stream)


async def _lines(view: RunView, mode: Mode, stream: TextIO) -> None:
    while True:
        await anyio.sleep(PLAIN_SECONDS)
        line = orjson.dumps(snapshot(view)).decode() if mode == "json" else plain_line(view)
        print(line, file=stream, flush=True)


async def _bar(view: RunView, stream: TextIO) -> None:
    from rich.console import Console  # noqa: PLC0415  60 ms that only a terminal needs
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with Live(Text(plain_line(view)), console=Console(file=stream), auto_refresh=False, transient=True) as live:
        while True:
            await anyio.sleep(BAR_SECONDS)
            live.update(Text(plain_line(view)), refresh=True)


def notice(text: str) -> None:
    """Say something to the person at the terminal."""
    print(text, file=sys.stderr, flush=True)
