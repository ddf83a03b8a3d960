"""A real service that is gone for a while: nothing is given up, hardly anything is sent meanwhile, and all goes on."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from moe_bulk.sandbox import Faults, SandboxSettings
from tests.acceptance.command import (
    KEY,
    environment,
    lines,
    moe_bulk,
    running_sandbox,
    start,
    summary_of,
    unmeasured,
    write_devices,
)

if TYPE_CHECKING:
    from pathlib import Path

SERVICE = SandboxSettings(api_key=KEY, limit=None, faults=Faults.parse("latency=5ms..20ms"))
DOWN = replace(SERVICE, faults=Faults.parse("5xx=100%"))
HANGING = replace(SERVICE, faults=Faults.parse("hang=100%"))


def settle(condition: object, seconds: float = 15.0) -> None:
    """Wait until a condition holds."""
    assert callable(condition)
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.parametrize("meanwhile", [None, DOWN, HANGING], ids=["nobody listens", "503", "no answer"])
def test_a_service_that_comes_back(tmp_path: Path, meanwhile: SandboxSettings | None) -> None:
    """It costs no row its tries: all are accepted, in one session, and hardly anything is sent meanwhile."""
    write_devices(tmp_path / "devices.csv", 300)
    command = ["upload", "devices.csv", "--rate", "200/s", "--tries", "4", "--timeout", "400ms"]
    with ExitStack() as stack:
        with running_sandbox(SERVICE) as first:
            port = urlsplit(first.url).port
            assert port is not None
            process = stack.enter_context(start(command, tmp_path, unmeasured(environment(first))))
            settle(lambda: first.stats.requests > 50)
        if meanwhile is None:
            time.sleep(1.5)
        else:
            with running_sandbox(replace(meanwhile, port=port)) as ill:
                settle(lambda: ill.stats.requests > 0)
                time.sleep(1.5)
                assert ill.stats.requests < 20 + 80 + 5  # what led to the outage, what was on its way, some probes
        with running_sandbox(replace(SERVICE, port=port)) as again:
            process.communicate(timeout=18)
            assert again.stats.requests >= 200
    summary = summary_of(tmp_path / "devices.csv.run")
    assert (0, 300) == (process.returncode, summary["counts"]["accepted"])
    results = lines(tmp_path / "devices.csv.run" / "results.ndjson")
    assert 300 == len({line["line"] for line in results}) == len(results)


def test_a_service_that_does_not_come_back(tmp_path: Path) -> None:
    """Patience ends resumable, with nothing given up; the same command finishes when it is there again."""
    write_devices(tmp_path / "devices.csv", 60)
    command = ["upload", "devices.csv", "--rate", "100/s", "--outage-limit", "2s", "--timeout", "400ms"]
    with running_sandbox(DOWN) as down:
        port = urlsplit(down.url).port
        assert port is not None
        ended = moe_bulk(command, tmp_path, environment(down))
        assert 3 == ended.code
        assert "--outage-limit" in ended.err
        assert b"" == (tmp_path / "devices.csv.run" / "dead-letter.ndjson").read_bytes()
    with running_sandbox(replace(SERVICE, port=port)) as again:
        assert 0 == moe_bulk(command, tmp_path, environment(again)).code
    assert 60 == summary_of(tmp_path / "devices.csv.run")["counts"]["accepted"]
