"""Report and audit of real runs, by the real command line: after a kill, and at their end."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

from moe_bulk.sandbox import Faults, SandboxSettings
from tests.acceptance.command import environment, moe_bulk, running_sandbox, start, write_devices

if TYPE_CHECKING:
    from pathlib import Path


def test_a_killed_run_is_told_of_and_its_end_holds(tmp_path: Path) -> None:
    """In between it says that it is not finished; in the end the lines hold against the summary, the page is there."""
    write_devices(tmp_path / "devices.csv", 250)
    results = tmp_path / "devices.csv.run" / "results.ndjson"
    with running_sandbox(SandboxSettings(limit=None, faults=Faults.parse("5xx=3%,latency=5ms..30ms"))) as sandbox:
        env = environment(sandbox)
        command = ["upload", "devices.csv", "--rate", "6000/min", "--pace", "process"]
        with start(command, tmp_path, env) as process:
            while not (results.exists() and results.read_bytes().count(b"\n") > 60):
                time.sleep(0.02)
                assert process.poll() is None
            os.kill(process.pid, signal.SIGKILL)
        report = moe_bulk(["report", "devices.csv"], tmp_path, env)
        audit = moe_bulk(["audit", "devices.csv"], tmp_path, env)
        assert (0, 0) == (report.code, audit.code), audit.out
        assert "Not finished: " in report.out
        assert "Nothing contradicts so far." in audit.out
        assert 0 == moe_bulk(command, tmp_path, env).code
        report = moe_bulk(["report", "devices.csv.run"], tmp_path, env)
        audit = moe_bulk(["audit", "devices.csv.run", "--json"], tmp_path, env)
    assert (0, "") == (report.code, report.err)
    assert "All 250 rows were accepted." in report.out
    assert 80 >= max(map(len, report.out.partition("Page:")[0].splitlines()))
    assert (0, True) == (audit.code, json.loads(audit.out)["holds"]), audit.out
    page = (tmp_path / "devices.csv.run" / "report.html").read_text(encoding="utf-8")
    assert "in 2 sessions" in page
    assert sandbox.api_key not in page
