"""What a run shows while it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from moe_bulk.progress import Meter, Mode, show
from moe_bulk.tally import Tally
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from moe_bulk.run import RunView


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def a_view(**more: object) -> RunView:
    """A run in its middle: 100 rows read, none settled, 3 requests."""
    tally = Tally(10_000, 60)
    tally.read(100)
    for at in range(3):
        tally.sent(float(at))
    known = {"tally": tally, "bytes_read": (50, 200), "in_flight": 3, "retrying": 0, "waits_for": ""}
    return cast("RunView", SimpleNamespace(**(known | more)))


def shown(view: RunView, mode: Mode, stream: io.StringIO, seconds: float) -> str:
    """What stands on the stream after so many seconds."""

    async def watch() -> None:
        task = asyncio.create_task(show(view, mode, stream))
        await asyncio.sleep(seconds)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run_virtually(watch)
    return stream.getvalue()


@pytest.mark.parametrize(("mode", "seconds", "lines"), [("plain", 50, 3), ("auto", 31, 2), ("none", 50, 0)])
def test_off_a_terminal_there_is_a_line_every_15_seconds(mode: Mode, seconds: float, lines: int) -> None:
    """Logs get a plain line every 15 s, and nothing with `none`."""
    said = shown(a_view(), mode, io.StringIO(), seconds).splitlines()
    assert ["0 settled · 0/s · 3 in flight · 0%"] * lines == said


def test_json_lines() -> None:
    """Machines get the same numbers as JSON."""
    found: dict[str, Any] = json.loads(shown(a_view(), "json", io.StringIO(), 16))
    assert (100, 3, 50, 200, None) == tuple(
        found[name] for name in ("read", "requests", "bytes_read", "bytes", "waits_for")
    )


@pytest.mark.parametrize("total", [200, None])
def test_on_a_terminal_there_is_a_bar(total: int | None) -> None:
    """A terminal gets a bar that is drawn again and again, and cleared at the end."""
    said = shown(a_view(bytes_read=(50, total)), "auto", Terminal(), 2)
    assert 2 < said.count("3 in flight")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"retrying": 7}, "0 settled · 0/s · 3 in flight · 7 to retry · 0%"),
        ({"waits_for": "outage"}, "0 settled · 0/s · 3 in flight · 0% · MoEngage does not answer, probing"),
        ({"waits_for": "pause", "bytes_read": (5, None)}, "0 settled · 0/s · 3 in flight · pausing, as MoEngage asked"),
    ],
)
def test_the_line_says_why_it_waits(more: dict[str, object], expected: str) -> None:
    """The line tells what waits, and for what."""
    meter = Meter(a_view(**more))
    meter.look(0.0)
    assert expected == meter.line()


def test_the_rate_is_that_of_the_last_seconds() -> None:
    """The rate shown is that of the last ten seconds."""
    view = a_view()
    meter = Meter(view)
    meter.look(0.0)
    for at in range(100):
        view.tally.sent(10.0 + at)
    meter.look(5.0)
    assert 20.0 == meter.per_second
    meter.look(15.5)
    assert 0.0 == meter.per_second
