"""Show a run while it goes on: a bar on a terminal, a plain line every 15 s elsewhere, JSON lines for machines."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal, TextIO

import anyio
import orjson

if TYPE_CHECKING:
    from moe_bulk.run import RunView

Mode = Literal["auto", "bar", "plain", "json", "none"]

PLAIN_SECONDS = 15.0
BAR_SECONDS = 0.25
RATE_OVER = 10.0
"""Seconds over which the shown rate is taken."""

_WAITS = {
    "outage": "MoEngage does not answer, probing",
    "pause": "pausing, as MoEngage asked",
    "user": "the rows at hand are of users who got 90 % of what MoEngage allows them: they go on in time",
    "order": "many rows wait behind earlier ones of the same device, token or user",
}


class Meter:
    """Turns a run's counters into what people want to know: how far, how fast, how long still."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self._seen: deque[tuple[float, int]] = deque()

    def look(self, now: float) -> None:
        """Take a reading at `now` (seconds); call it before asking for the rate."""
        self._seen.append((now, self.view.tally.requests))
        while self._seen[-1][0] - self._seen[0][0] > RATE_OVER:
            self._seen.popleft()

    @property
    def per_second(self) -> float:
        """Requests a second over the last readings; 0 before there are two."""
        if not self._seen:
            return 0.0
        (begun, before), (now, after) = self._seen[0], self._seen[-1]
        return (after - before) / (now - begun) if now > begun else 0.0

    @property
    def share(self) -> float | None:
        """How much of the input is settled, 0 to 1; None where its size is not known."""
        done, total = self.view.bytes_read
        counts = self.view.tally.counts
        if not total or not counts["read"]:
            return None
        return min(1.0, done / total) * (1 - counts["unsettled"] / counts["read"])

    def snapshot(self) -> dict[str, object]:
        """The numbers, for machines."""
        view = self.view
        done, total = view.bytes_read
        return {
            **view.tally.counts,
            "requests": view.tally.requests,
            "per_second": round(self.per_second, 1),
            "in_flight": view.in_flight,
            "retrying": view.retrying,
            "waits_for": view.waits_for or None,
            "bytes_read": done,
            "bytes": total,
        }

    def line(self) -> str:
        """`12,000 settled (50 failed) · 167/s · 12 in flight · 3 to retry · 45%`: one line for people."""
        view = self.view
        failed = f" ({view.tally.failed_rows:,} failed)" if view.tally.failed_rows else ""
        said = [
            f"{view.tally.settled_rows:,} settled{failed}",
            f"{self.per_second:,.0f}/s",
            f"{view.in_flight:,} in flight",
        ]
        if view.retrying:
            said.append(f"{view.retrying:,} to retry")
        if self.share is not None:
            said.append(f"{self.share:.0%}")
        if view.waits_for:
            said.append(_WAITS[view.waits_for])
        return " · ".join(said)


async def show(view: RunView, mode: Mode, stream: TextIO) -> None:
    """Show the run on `stream` until cancelled."""
    if mode == "auto":
        mode = "bar" if stream.isatty() else "plain"
    if mode == "bar":
        await _bar(Meter(view), stream)
    elif mode != "none":
        await _lines(Meter(view), stream, as_json=mode == "json")


async def _lines(meter: Meter, stream: TextIO, *, as_json: bool) -> None:
    while True:
        meter.look(anyio.current_time())
        await anyio.sleep(PLAIN_SECONDS)
        meter.look(anyio.current_time())
        line = orjson.dumps(meter.snapshot()).decode() if as_json else meter.line()
        print(line, file=stream, flush=True)


async def _bar(meter: Meter, stream: TextIO) -> None:
    from rich.console import Console  # noqa: PLC0415  60 ms that only a terminal needs
    from rich.live import Live  # noqa: PLC0415
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    def picture() -> Table:
        meter.look(anyio.current_time())
        table = Table.grid(padding=(0, 1))
        share = meter.share
        bar = ProgressBar(total=1.0, completed=share or 0.0, width=20, pulse=share is None)
        table.add_row(bar, Text(meter.line(), no_wrap=True, overflow="ellipsis"))
        return table

    with Live(picture(), console=Console(file=stream), auto_refresh=False, transient=True) as live:
        while True:
            await anyio.sleep(BAR_SECONDS)
            live.update(picture(), refresh=True)
