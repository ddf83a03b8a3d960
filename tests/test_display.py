"""What a person sees of a run, and how a person stops it."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import orjson
import pytest

from moe_bulk.display import Display, Manner, NextSteps, stop_signals
from moe_bulk.errors import Interrupted
from moe_bulk.intake import Files, Reading
from tests.fake_service import FakeService, device, devices
from tests.runs import deliver
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from moe_bulk.intake import Rows
    from moe_bulk.progress import Mode


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
    """JSON progress is nothing but JSON, to its end; --json puts the summary on standard output."""
    lines, said = shown(tmp_path / "b.run", capsys, "json", as_json=True)
    last = orjson.loads(lines[-1])
    assert (4, 1, True) == (last["read"], last["exit_code"], last["finished"])
    assert 4 == orjson.loads(said)["counts"]["read"]
    lines, said = shown(tmp_path / "b.run", capsys, "json", as_json=True)
    (again,) = map(orjson.loads, lines)
    assert (4, 1, 3) == (again["read"], again["exit_code"], again["accepted"])
    assert last.keys() > again.keys()
    assert 4 == orjson.loads(said)["counts"]["read"]
    assert 1 == len(shown(tmp_path / "b.run", capsys, "json", quiet=True)[0])
    assert ([], "") == shown(tmp_path / "c.run", capsys, "json", devices(3), quiet=True)


def test_quiet_says_only_what_went_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Why rows failed, and where they are, each time it is asked; nothing where nothing failed."""
    out = tmp_path / "a.run"
    for _ in range(2):
        lines, said = shown(out, capsys, quiet=True)
        assert "  1 invalid: " in lines[0]
        assert (3, f"Failed rows: {out / 'dead-letter.ndjson'}", "") == (len(lines), lines[-1], said)
    assert ([], "") == shown(tmp_path / "b.run", capsys, rows=devices(3), quiet=True)
    for name, row in (("good", "u-1,d-1,ANDROID,token-1"), ("bad", "u-2,,ANDROID,token-2")):
        (tmp_path / f"{name}.csv").write_text(f"customer_id,device_id,platform,push_id\n{row}\n", encoding="utf-8")
    files = Files((str(tmp_path / "good.csv"), str(tmp_path / "bad.csv")))
    (cause, *_), _ = shown(tmp_path / "c.run", capsys, rows=files, quiet=True)
    assert cause.endswith(f"(first: {tmp_path / 'bad.csv'}, line 2)")


def test_the_last_line_of_json_tells_how_fast_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Over the last seconds, as all lines do."""

    async def rows() -> AsyncIterator[Mapping[str, object]]:
        for number in range(300):
            yield device(number)
            await asyncio.sleep(0.1)

    lines, _ = shown(tmp_path / "x.run", capsys, "json", rows())
    *_, before, last = map(orjson.loads, lines)
    assert 300 == last["accepted"]
    assert 9 < before["per_second"] < 11
    assert 9 < last["per_second"] < 11


def test_names_cannot_speak_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a file is called is shown, and not obeyed."""
    name = "ev\x1b]0;pwned\x07.run"
    for quiet in (False, False, True):
        lines, _ = shown(tmp_path / name, capsys, quiet=quiet)
        assert any("ev\\x1b]0;pwned\\x07.run" in line for line in lines)
        assert not any("\x1b" in line or "\x07" in line for line in lines)


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
