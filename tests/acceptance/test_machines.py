"""What machines see of the real command line: the metrics file and the log's JSON lines, over a kill and a stop."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from moe_bulk.sandbox import Faults, Sandbox, SandboxSettings
from tests.acceptance.command import KEY, environment, moe_bulk, running_sandbox, start, unmeasured, write_devices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UPLOAD = ["upload", "devices.csv", "--rate", "100/s", "--pace", "process", "--progress", "none"]
ROWS = 150


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A MoEngage that takes a moment to answer."""
    with running_sandbox(SandboxSettings(api_key=KEY, limit=None, faults=Faults.parse("latency=20ms"))) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with rows of which one is no device."""
    source = write_devices(tmp_path / "devices.csv", ROWS)
    with source.open("a", encoding="utf-8") as file:
        file.write("guest,device-x,web,token-x\n")
    return tmp_path


def metrics(file: Path) -> dict[tuple[str, str], float]:
    """All that stands in a metrics file: by name and its further label, each with the label `upload`."""
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(file.read_text(encoding="utf-8")):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert file.stem == labels.pop("upload")
            found[sample.name.removeprefix("moe_bulk_"), ",".join(labels.values())] = sample.value
    return found


def wait_until_half_of_it_is_settled(folder: Path) -> None:
    """Wait while a run into `devices.csv.run` goes on."""
    results, until = folder / "devices.csv.run" / "results.ndjson", time.monotonic() + 15
    while time.monotonic() < until and (not results.exists() or results.read_bytes().count(b"\n") < ROWS // 3):
        time.sleep(0.02)


def test_a_scraper_sees_a_kill_and_the_end(folder: Path, sandbox: Sandbox) -> None:
    """A killed run goes on saying that it is at work, as the README has it; the next session counts all of it."""
    file = folder / "crm.prom"
    said = [*UPLOAD, "--metrics-file", str(file)]
    with start(said, folder, unmeasured(environment(sandbox))) as process:
        wait_until_half_of_it_is_settled(folder)
        process.kill()
        process.wait(10)
    killed = metrics(file)
    assert (1.0, 1.0) == (killed["running", ""], killed["sessions", ""])
    assert ("run_exit_code", "") not in killed

    assert 1 == moe_bulk(said, folder, environment(sandbox)).code
    ended = metrics(file)
    assert (0.0, 2.0, 1.0) == tuple(ended[name, ""] for name in ("running", "sessions", "run_exit_code"))
    assert (ROWS, 1.0, ROWS + 1) == (
        ended["rows_total", "accepted"],
        ended["rows_total", "invalid"],
        ended["rows_read_total", ""],
    )
    assert ended["requests_total", ""] >= ROWS
    assert 0o644 == file.stat().st_mode & 0o777
    assert not any(secret in file.read_text() for secret in ("guest", "token", "user-", KEY))


def test_a_log_tells_a_stop_and_the_end_as_one_run(folder: Path, sandbox: Sandbox) -> None:
    """Each line is an object, from the beginning to what to type next; both sessions have one id, no row is in it."""
    with start([*UPLOAD, "--log-json"], folder, unmeasured(environment(sandbox))) as process:
        wait_until_half_of_it_is_settled(folder)
        process.send_signal(signal.SIGTERM)
        _, first = process.communicate(timeout=15)
        assert 143 == process.returncode
    second = moe_bulk([*UPLOAD, "--log-json"], folder, environment(sandbox))
    assert (1, "") == (second.code, second.out)

    stopped, ended = (events(said) for said in (first, second.err))
    assert ["run_begun", "run_ended"] == [each["event"] for each in stopped if each["event"].startswith("run_")]
    assert ["run_resumed", "run_ended"] == [each["event"] for each in ended if each["event"].startswith("run_")]
    assert (["next", "error"], ["next"]) == ([each["event"] for each in stopped[-2:]], [ended[-1]["event"]])
    of_runs = {each["run_id"] for each in [*stopped, *ended] if each["event"].startswith("run_")}
    assert 1 == len(of_runs)
    assert (143, False) == tuple(run_end(stopped)[name] for name in ("exit_code", "finished"))
    last = run_end(ended)
    assert (1, True, ROWS) == (last["exit_code"], last["finished"], last["counts"]["accepted"])
    assert not any(secret in first + second.err for secret in ("guest", "token-", "user-", KEY))


def events(said: str) -> list[dict[str, Any]]:
    """The lines of a log, each with what all of them have."""
    found = [json.loads(line) for line in said.splitlines()]
    assert all({"format", "time", "level", "event", "run_id", "message"} <= each.keys() for each in found)
    return found


def run_end(told: list[dict[str, Any]]) -> dict[str, Any]:
    """How the session ended."""
    (found,) = (each for each in told if each["event"] == "run_ended")
    return found
