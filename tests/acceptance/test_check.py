"""`moe-bulk check` as a process: what it prints, that it needs no network, and that it leaves nothing."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.command import COMMAND, environment
from tests.fake_service import devices

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_it_tidies_up(signum: signal.Signals, tmp_path: Path) -> None:
    """Whatever ends it early, the folder in which it works is removed."""
    work = tmp_path / "work"
    work.mkdir()
    process = subprocess.Popen(
        [*COMMAND, "check", "-", "--format", "ndjson"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(TMPDIR=str(work)),
    )
    assert process.stdin is not None
    process.stdin.write(b"".join(json.dumps(row).encode() + b"\n" for row in devices(3)))
    process.stdin.flush()
    while not list(work.glob("*/rows.csv")):
        assert process.poll() is None
    process.send_signal(signum)
    out, err = process.communicate(timeout=15)
    assert (128 + signum, b"", b"") == (process.returncode, out, err)
    assert [] == list(work.iterdir())


def test_standard_input_is_checked(tmp_path: Path) -> None:
    """It may be a pipe; `--json` is the only thing on standard output."""
    rows = b"".join(json.dumps(row).encode() + b"\n" for row in [*devices(1200), {}])
    command = [*COMMAND, "check", "-", "--format", "ndjson", "--json"]
    done = subprocess.run(command, input=rows, capture_output=True, env=environment(), check=False, timeout=15)
    assert (1, b"") == (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    assert (1201, 1, ["stdin"]) == (found["rows"], found["would_fail"], found["sources"])
