"""What a person sees of a run, and how a person stops it."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import orjson
import pytest

from moe_bulk.display import Display, Manner, NextSteps, Unbreakable, let_go_of, stop_signals
from moe_bulk.errors import Interrupted
from moe_bulk.intake import Reading
from tests.fake_service import FakeService, device, devices
from tests.runs import deliver
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from moe_bulk.intake import Rows
    from moe_bulk.progress import Mode


class Broken(io.StringIO):
    """A stream whose reader went away."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.tried = 0
        self._error = error

    def write(self, _: str) -> int:
        """Fail."""
        self.tried += 1
        raise self._error

    def flush(self) -> None:
        """Fail."""
        raise self._error

    def isatty(self) -> bool:
        """Fail."""
        raise self._error


@pytest.mark.parametrize("error", [BrokenPipeError, ValueError])
def test_a_broken_stream_is_tried_once(error: type[Exception]) -> None:
    """After the first failure nothing more is written, and nothing is raised."""
    broken = Broken(error)
    stream = Unbreakable(broken)
    assert not stream.isatty()
    assert 2 == stream.write("ab")
    stream.say("more")
    assert 1 == broken.tried
    assert not stream.isatty()
    with pytest.raises(OSError, match="gone"):
        stream.fileno()


def test_a_stream_that_cannot_be_flushed() -> None:
    """A flush that fails silences the stream, too."""

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError

    kept = Full()
    stream = Unbreakable(kept)
    stream.say("one")
    stream.say("two")
    assert "one\n" == kept.getvalue()


def test_no_stream_at_all() -> None:
    """A closed stream is None in Python."""
    stream = Unbreakable(None)
    stream.say("x")
    assert ("utf-8", False) == (stream.encoding, stream.isatty())


def test_a_stream_that_is_read() -> None:
    """What is said arrives, and the stream tells what it is."""
    read, write = os.pipe()
    with os.fdopen(read, encoding="utf-8") as reader, os.fdopen(write, "w", encoding="utf-8") as writer:
        stream = Unbreakable(writer)
        stream.say("hello")
        assert ("hello\n", write, "utf-8", False) == (
            reader.readline(),
            stream.fileno(),
            stream.encoding,
            stream.isatty(),
        )


def test_a_broken_stream_is_let_go() -> None:
    """What is still in its buffer goes nowhere, and the interpreter finds nothing wrong when it ends."""
    read, write = os.pipe()
    writer = os.fdopen(write, "w", encoding="utf-8")
    writer.write("buffered")
    os.close(read)
    let_go_of(writer)
    writer.close()
    let_go_of(None)
    let_go_of(writer)


def test_closed_standard_streams_are_filled() -> None:
    """A process started without standard streams opens no file in their place."""
    code = (
        "import os; from moe_bulk.display import open_standard_streams; open_standard_streams(); "
        "fd = os.open('/dev/null', 0); os._exit(0 if fd == 3 else 1)"
    )
    ended = subprocess.run(["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=False)
    assert 0 == ended.returncode


def test_ignored_signals_stay_ignored() -> None:
    """What nohup has told to ignore does not stop a run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert (signal.SIGINT, signal.SIGTERM) == stop_signals()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) == stop_signals()


# -- one run, shown ----------------------------------------------------------------------------------------------------


ROWS: list[Mapping[str, object]] = [{"customer_id": "guest", "colour": "blue"}, *devices(3)]


STEPS = NextSteps("moe-bulk upload x.csv --rate 5/s")


def shown(
    out: Path, capsys: pytest.CaptureFixture[str], mode: Mode = "plain", rows: Rows = ROWS, **more: bool | str
) -> tuple[list[str], str]:
    """Deliver rows and show it: the lines for people, and what is on standard output."""

    async def main() -> None:
        async with FakeService().uploader() as uploader:
            said: dict[str, Any] = {**more}
            plan = said.pop("plan", "")
            display = Display(uploader, Manner(mode, **said), plan=plan, steps=STEPS)
            try:
                async with display:
                    summary = await uploader.run(rows, out=out, watch=display.begin)
            finally:
                display.end()
            display.nothing_to_do(summary, out)

    run_virtually(main)
    told = capsys.readouterr()
    return told.err.splitlines(), told.out


def test_a_run_is_shown_from_beginning_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it goes, what is not sent, what came of it; the same again is not sent, and its summary shown once more."""
    out = tmp_path / "x.run"
    lines, nothing = shown(out, capsys, plan="The plan")
    assert [f"Results go to {out}", "The plan"] == lines[:2]
    assert "Note: field 'colour' is not sent: it is none of the API's." in lines
    assert [
        f"Each row's result: {out / 'results.ndjson'}",
        f"All of it, plotted: {out / 'report.html'}",
        f"Failed rows: {out / 'dead-letter.ndjson'}",
        f"To send them again, corrected or not: moe-bulk upload {out / 'dead-letter.ndjson'}",
    ] == lines[-4:]
    assert "" == nothing
    again, _ = shown(out, capsys)
    assert f"Finished before, in {out}: nothing is sent. To send everything again, add --fresh" == again[0]
    assert lines[-len(again) + 1 :] == again[1:]


def test_a_run_that_goes_on_or_replaces_another_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """People want to know what became of the earlier one."""
    out = tmp_path / "x.run"
    deliver(devices(5), out, reading=Reading(limit=2))
    lines, _ = shown(out, capsys, rows=devices(5))
    assert "Going on with 2 rows settled before" in lines
    assert "Read 5 rows in 2 sessions: 5 accepted" in lines
    lines, _ = shown(out, capsys, rows=devices(3))
    assert "The earlier run there is now " == lines[1][: len("The earlier run there is now ")]


def test_quiet_runs_and_runs_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Quiet says nothing, JSON progress nothing but JSON, --json puts the summary on standard output."""
    assert ([], "") == shown(tmp_path / "a.run", capsys, quiet=True)
    lines, said = shown(tmp_path / "b.run", capsys, "json", as_json=True)
    assert 4 == orjson.loads(lines[-1])["read"]
    assert 4 == orjson.loads(said)["counts"]["read"]
    lines, said = shown(tmp_path / "b.run", capsys, "json", as_json=True)
    assert ([], 4) == (lines, orjson.loads(said)["counts"]["read"])


def test_what_is_found_later_is_told_while_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings come when they are known, each once."""

    async def rows() -> AsyncIterator[Mapping[str, object]]:
        yield device(1)
        await asyncio.sleep(5)
        yield device(2, colour="blue")
        await asyncio.sleep(5)

    lines, _ = shown(tmp_path / "x.run", capsys, rows=rows())
    assert 1 == sum("colour" in line for line in lines)


@pytest.mark.parametrize("signals", [1, 2])
def test_signals_stop_a_run(
    signals: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one stops it in order, the second at once."""
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)

    async def rows() -> AsyncIterator[Mapping[str, object]]:
        yield device(1)
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.1)
        await asyncio.sleep(60)

    with pytest.raises(Interrupted, match="SIGTERM"):
        shown(tmp_path / "x.run", capsys, rows=rows())
    told = capsys.readouterr().err
    assert "SIGTERM: taking in what is on its way (8 s at most)" in told
    assert told.endswith("To go on: moe-bulk upload x.csv --rate 5/s\n")
    assert [143] * (signals - 1) == left


def test_a_signal_before_the_run_began_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to take in."""
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)

    monkeypatch.setattr("moe_bulk.display.leave_now", leave)

    async def main() -> None:
        async with FakeService().uploader() as uploader:
            Display(uploader, Manner("none", quiet=True))._obey(signal.SIGINT)

    run_virtually(main)
    assert [130] == codes


def test_a_display_that_cannot_be_entered_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the main thread there are no signals to obey: the error is itself, and no task is left."""

    def refuse(*_: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr("anyio.open_signal_receiver", refuse)

    async def main() -> None:
        async with FakeService().uploader() as uploader:
            display = Display(uploader, Manner("none", quiet=True))
            with pytest.raises(ZeroDivisionError):
                await display.__aenter__()
            display.end()

    run_virtually(main)
