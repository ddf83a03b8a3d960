"""What happens in a run stands in the log of whoever keeps one, and nothing of what stands in its rows."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from moe_bulk.chronicle import said_of
from moe_bulk.config import Rate, Retry
from moe_bulk.errors import CredentialsRejected, Interrupted, RunRefused, SourceError
from moe_bulk.intake import Reading
from moe_bulk.jsonlog import JsonLines
from tests.fake_service import KEY, accept, answer, device, devices
from tests.runs import Cut, Ended, deliver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    import httpx

SLOW = Rate(600, per=60.0)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the run goes."""
    return tmp_path / "x.run"


@pytest.fixture(autouse=True)
def listening(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody keeps a log."""
    caplog.set_level(logging.INFO, "moe_bulk")


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged since the last time."""
    return [getattr(record, "event", "?") for record in caplog.records if record.name == "moe_bulk"]


def fields_of(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """The fields of each such event."""
    return [record.__dict__["fields"] for record in caplog.records if record.__dict__.get("event") == event]


def until(seconds: float, response: Callable[[], httpx.Response]) -> Callable[[dict[str, Any]], httpx.Response]:
    """A service that answers otherwise for so long."""
    return lambda _: response() if asyncio.get_running_loop().time() < seconds else answer(200)


def test_a_run_begins_and_ends(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With its numbers, and the same id in each record."""
    ended = deliver(devices(3), out)
    assert ["run_begun", "run_ended"] == events(caplog)
    (begun,), (over,) = fields_of(caplog, "run_begun"), fields_of(caplog, "run_ended")
    assert (str(out), 1, 0, 1_000_000) == (begun["folder"], begun["session"], begun["settled"], begun["limit"])
    assert ended.summary is not None
    assert (True, None, 0, ended.summary["counts"]) == (
        over["finished"],
        over["error"],
        over["exit_code"],
        over["counts"],
    )
    assert ["INFO", "INFO"] == [record.levelname for record in caplog.records if record.name == "moe_bulk"]
    assert 1 == len({record.__dict__["run_id"] for record in caplog.records if record.name == "moe_bulk"})


def test_the_id_is_the_same_in_all_sessions(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run that goes on has the id with which it began; another run has another one."""
    deliver(devices(60), out, rate=SLOW, cut=Cut("signal", 20))
    deliver(devices(60), out, rate=SLOW, clock=(1e4, 1.7e9), cut=Cut("crash", 20))
    deliver(devices(60), out, rate=SLOW, clock=(2e4, 1.7e9))
    told = [record for record in caplog.records if record.name == "moe_bulk"]
    assert ["run_begun", "run_resumed", "run_resumed"] == [
        each for each in events(caplog) if each.startswith(("run_b", "run_r"))
    ]
    assert 1 == len({record.__dict__["run_id"] for record in told})
    assert [20, 40] == [round(each["settled"], -1) for each in fields_of(caplog, "run_resumed")]
    caplog.clear()
    deliver(devices(61), out, clock=(3e4, 1.7e9))
    assert told[0].__dict__["run_id"] != caplog.records[-1].__dict__["run_id"]


def test_a_finished_run_is_not_sent_again(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """That is told as what it is."""
    deliver(devices(3), out)
    begun = caplog.records[-1].__dict__["run_id"]
    caplog.clear()
    deliver(devices(3), out)
    assert ["finished_before"] == events(caplog)
    assert begun == caplog.records[-1].__dict__["run_id"]
    assert 3 == fields_of(caplog, "finished_before")[0]["counts"]["accepted"]


def test_a_pause(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told when it begins, and how long it was when it is over."""
    throttled = partial(answer, 429, "Rate Limits Exceeded", **{"Retry-After": "30"})
    deliver(devices(200), out, until(2.0, throttled), rate=SLOW)
    assert ["run_begun", "pause", "pause_over", "run_ended"] == events(caplog)
    assert pytest.approx(30, abs=4) == fields_of(caplog, "pause_over")[0]["seconds"]


def test_an_outage(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """So is an outage."""
    deliver(devices(200), out, until(60.0, partial(answer, 503, "Maintenance")), rate=SLOW)
    assert ["run_begun", "outage", "outage_over", "run_ended"] == events(caplog)
    assert 50 < fields_of(caplog, "outage_over")[0]["seconds"] < 100


def test_an_outage_that_ends_the_run(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What ended it is told, as an error."""
    deliver(devices(200), out, lambda _: answer(503, "Maintenance"), rate=SLOW, retry=Retry(outage_limit=60.0))
    assert ["run_begun", "outage"] == events(caplog)[:2]
    (over,) = fields_of(caplog, "run_ended")
    assert (False, "ServiceUnavailable", 3) == (over["finished"], over["error"], over["exit_code"])
    assert "ERROR" == caplog.records[-1].levelname


def test_a_stop(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Stopping takes a while, and is told at once."""

    async def rows() -> AsyncIterator[Mapping[str, object]]:
        for number in range(100):
            yield device(number)

    def watch(view: Any) -> None:
        asyncio.get_running_loop().call_later(2.0, view._engine.stop, Interrupted("interrupted by SIGTERM", 15))

    deliver(rows(), out, rate=SLOW, latency=5.0, watch=watch)
    assert ["run_begun", "stopping", "run_ended"] == events(caplog)
    assert "interrupted by SIGTERM" == fields_of(caplog, "run_ended")[0]["reason"]


def test_a_run_that_was_cut(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a limit of rows it ends in peace and is not finished."""
    deliver(devices(5), out, reading=Reading(limit=2))
    (over,) = fields_of(caplog, "run_ended")
    assert (False, None, 0) == (over["finished"], over["error"], over["exit_code"])
    assert over["reason"].startswith("--limit was reached")


def test_what_cannot_begin_is_told_by_its_error_alone(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No run was there to be told of."""
    deliver(devices(5), out, reading=Reading(limit=2))
    caplog.clear()
    assert isinstance(deliver(devices(5)[::-1], out).error, RunRefused)
    assert [] == events(caplog)


SECRET = "s3cret\"'\\\n\x1b[31m"


def hostile(said: str) -> Callable[[dict[str, Any]], httpx.Response]:
    """A service that repeats what it was sent, wherever it can."""
    return lambda row: answer(401 if said == "401" else 400, f"{SECRET} {row['customer_id']} {row} {KEY}")


@pytest.mark.parametrize("said", ["400", "401"])
def test_nothing_of_a_row_or_of_what_the_service_says(said: str, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ids, tokens, names of fields and the key stand in no record, whoever writes them where."""
    rows: list[Mapping[str, object]] = [
        device(1, **{f"name {SECRET}": SECRET}),
        {"customer_id": f"user-{SECRET}", "device_id": SECRET, "platform": SECRET, "push_id": SECRET},
        device(3, model=SECRET),
    ]
    ended: Ended = deliver(rows, out, hostile(said))
    assert (said == "401") == isinstance(ended.error, CredentialsRejected)
    text = "\n".join(
        f"{record.getMessage()} {record.__dict__.get('fields')} {JsonLines().format(record)}"
        for record in caplog.records
        if record.name == "moe_bulk"
    )
    assert "run_ended" in text
    for each in ("s3cret", "user-", "device-1", "token-1", KEY, "\x1b"):
        assert each not in text


def test_an_error_of_others_is_told_by_its_name() -> None:
    """What the caller's code raises may say anything."""
    assert "KeyError" == said_of(KeyError("user-7"))
    assert "column … is not there" == said_of(SourceError("column 'user-7' is not there"))


def test_the_caller_s_rows_that_fail(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They end the run, and the log does not repeat what they said."""

    async def rows() -> AsyncIterator[Mapping[str, object]]:
        yield device(1)
        raise ValueError("user-1 is odd")

    deliver(rows(), out, accept)
    (over,) = fields_of(caplog, "run_ended")
    assert ("ValueError", "ValueError", 2) == (over["error"], over["reason"], over["exit_code"])


def test_nothing_is_configured_by_the_import() -> None:
    """A program that keeps no log hears nothing, and its logging is as it was."""
    code = (
        "import logging, moe_bulk.chronicle as c\n"
        "c.tell(logging.ERROR, 'x', 'to nobody', {})\n"
        "print(logging.getLogger().handlers, logging.getLogger('moe_bulk').level)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ("[] 0\n", "") == (ended.stdout, ended.stderr)
