"""What a run shows while it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.config import Rate
from moe_bulk.meter import Meter
from moe_bulk.outcome import Status
from moe_bulk.progress import REASONS, Mode, line, picture, resolved, show
from moe_bulk.screen import Screen
from moe_bulk.waiting import Waits
from tests.test_meter import a_view, settle
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from moe_bulk.view import RunView


class Stream(io.StringIO):
    """A stream that may be a terminal, and may be full."""

    def __init__(self, *, terminal: bool = False, ready: bool = True, encoding: str = "utf-8") -> None:
        super().__init__()
        self.ready = ready
        self._terminal = terminal
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """What it can show."""
        return self._encoding

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._terminal


def shown(view: RunView, mode: Mode, stream: Stream, seconds: float, columns: int = 80) -> str:
    """What stands on the stream after so many seconds."""

    async def watch() -> None:
        screen = Screen(stream, lambda: os.terminal_size((columns, 24)))
        task = asyncio.create_task(show(Meter(view), mode, stream, screen, lambda: 1_700_000_000.0))
        await asyncio.sleep(seconds)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run_virtually(watch)
    return stream.getvalue()


LINE = "0 rows · 0 settled · 0 of 10,000/min · 3 in flight · at the limit's pace"


@pytest.mark.parametrize(("mode", "seconds", "lines"), [("plain", 50, 3), ("plain", 31, 2), ("none", 50, 0)])
def test_off_a_terminal_there_is_a_line_every_15_seconds(mode: Mode, seconds: float, lines: int) -> None:
    """Logs get a plain line every 15 s, and nothing with `none`."""
    assert [LINE] * lines == shown(a_view(), mode, Stream(), seconds).splitlines()


def test_where_nobody_reads_nothing_is_written() -> None:
    """A full pipe does not keep the run waiting."""
    assert "" == shown(a_view(), "plain", Stream(ready=False), 50)
    assert "" == shown(a_view(), "bar", Stream(ready=False), 50)


def test_ascii_where_there_is_nothing_else() -> None:
    """A stream that shows ASCII only gets nothing else."""
    assert shown(a_view(bytes_read=(50, 200)), "plain", Stream(encoding="ascii"), 16).isascii()
    assert shown(a_view(bytes_read=(50, 200)), "bar", Stream(encoding="ANSI_X3.4-1968"), 16).isascii()


def test_json_lines() -> None:
    """Machines get the same numbers as JSON, with the time of day."""
    found: dict[str, Any] = json.loads(shown(a_view(bytes_read=(50, 200)), "json", Stream(), 16))
    assert (100, 3, 50, 200, "pace", 1_700_000_000.0) == tuple(
        found[name] for name in ("read", "requests", "bytes_read", "bytes", "waits_for", "at")
    )


def test_on_a_terminal_it_is_painted() -> None:
    """A terminal gets a picture that is painted again where something has changed."""
    said = shown(a_view(), "bar", Stream(terminal=True), 3)
    assert 1 == said.count("3 in flight")
    assert "\x1b[2mAt the limit's pace\x1b[0m" in said


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants no colours gets none (https://no-color.org)."""
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*m", shown(a_view(), "bar", Stream(terminal=True), 1))


@pytest.mark.parametrize(
    ("mode", "terminal", "term", "expected"),
    [
        ("auto", 1, "xterm", "bar"),
        ("auto", 1, "dumb", "plain"),
        ("auto", 1, None, "plain"),
        ("auto", 0, "xterm", "plain"),
        ("bar", 0, "xterm", "plain"),
        ("json", 1, "xterm", "json"),
        ("none", 1, "xterm", "none"),
    ],
)
def test_a_bar_only_where_it_can_be_shown(
    mode: Mode, terminal: int, term: str | None, expected: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, and a terminal that cannot move its cursor, get lines."""
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    assert expected == resolved(mode, Stream(terminal=bool(terminal)))


# -- in words ----------------------------------------------------------------------------------------------------------


def a_meter(seconds: int = 1, **more: object) -> Meter:
    """The meter of a run that was looked at for so many seconds."""
    meter = Meter(a_view(**more))
    for second in range(seconds):
        meter.look(float(second))
    return meter


@pytest.mark.parametrize("waits_for", list(REASONS))
def test_each_reason_is_told(waits_for: Waits | None) -> None:
    """Whatever the run waits for, it is said in words."""
    assert line(a_meter(waits_for=waits_for)).endswith(REASONS[waits_for])
    assert {*Waits, None} == set(REASONS)


def test_the_line() -> None:
    """It tells how far, what became of the rows, how fast, and why no faster."""
    meter = a_meter(bytes_read=(500_000, 1_000_000), retrying=7)
    settle(meter.view, 30)
    settle(meter.view, 10, Status.REJECTED)
    meter.view.tally.answered(100.0, ok=True)
    assert (
        "20.0% · 200.0 kB of 1.0 MB · 30 accepted · 10 rejected · 7 to retry · 0 of 10,000/min · 3 in flight · "
        "100 ms (95 %: 100 ms) · at the limit's pace"
    ) == line(meter)


def test_the_line_of_a_stream() -> None:
    """Where nobody knows how much there is, it tells how much was read."""
    meter = a_meter(bytes_read=(2_000, None), rate=Rate(5, 2.0))
    settle(meter.view, 1)
    assert "1 rows · 2.0 kB read · 1 accepted · 0 of 5/2 s · 3 in flight · at the limit's pace" == line(meter)


@pytest.mark.parametrize(("rows", "expected"), [(1, "1 h 23 min left"), (10, "8 min left"), (50, "10 s left")])
def test_the_time_that_is_left_does_not_jump_about(rows: int, expected: str) -> None:
    """It is told in minutes, or in steps of five seconds."""
    meter = Meter(a_view(rows_expected=1_000.0 if rows > 10 else 5_000.0))
    meter.view.tally.read(10_000)
    for second in range(10):
        settle(meter.view, rows)
        meter.look(float(second))
    assert expected in line(meter)


def test_a_slowed_pace_is_told() -> None:
    """After 429s it goes on more slowly, and that is not the limit's fault."""
    assert line(a_meter(pace_share=0.49)).endswith("slower since MoEngage said 429: at 49% of the limit")


def test_the_picture() -> None:
    """At 80 columns it is a few short lines."""
    meter = a_meter(bytes_read=(500_000, 1_000_000))
    settle(meter.view, 50)
    assert [
        "━━━━━━━━──────────────────────  25.0%  250.0 kB of 1.0 MB",
        "0 of 10,000/min · 3 in flight",
        "50 accepted",
        "At the limit's pace",
    ] == picture(meter, 79)


def test_the_picture_on_a_narrow_terminal() -> None:
    """At 40 columns nothing is lost, it takes more lines."""
    meter = a_meter(bytes_read=(500_000, 1_000_000), waits_for=Waits.OUTAGE)
    settle(meter.view, 50)
    assert [
        "━━━━━━━━──────────────────────  25.0%",
        "250.0 kB of 1.0 MB",
        "0 of 10,000/min · 3 in flight",
        "50 accepted",
        "MoEngage does not answer: one row at a",
        "time asks whether it is back",
    ] == picture(meter, 39)


@given(
    width=st.integers(1, 120),
    waits_for=st.sampled_from([*Waits, None]),
    total=st.one_of(st.none(), st.integers(1, 10**15)),
    settled=st.integers(0, 100),
)
def test_no_line_is_wider_than_the_terminal(
    width: int, waits_for: Waits | None, total: int | None, settled: int
) -> None:
    """Always: else the terminal would break lines, and the next picture would not cover this one."""
    meter = a_meter(bytes_read=(1, total), waits_for=waits_for, retrying=12_345)
    settle(meter.view, settled)
    assert [] == [each for each in picture(meter, width) if len(each) > width]
