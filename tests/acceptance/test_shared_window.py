"""Real processes share a workspace's window: the service never finds the limit exceeded, whatever becomes of them."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from moe_bulk.sandbox import Faults, Limit, SandboxSettings
from tests.acceptance.command import (
    KEY,
    environment,
    moe_bulk,
    running_sandbox,
    start,
    summary_of,
    unmeasured,
    write_devices,
)

if TYPE_CHECKING:
    from pathlib import Path

    from moe_bulk.sandbox import Sandbox

RATE = "60/s"
LIMITED = SandboxSettings(api_key=KEY, limit=Limit(60, 1.0), faults=Faults.parse("latency=5ms..40ms"))
"""Refuses, and counts, what is over the same limit in any window."""


def settle(sandbox: Sandbox, count: int, seconds: float = 15.0) -> None:
    """Wait until the sandbox has seen so many requests."""
    until = time.monotonic() + seconds
    while sandbox.stats.requests < count:
        assert time.monotonic() < until, f"only {sandbox.stats.requests} of {count} requests came"
        time.sleep(0.02)


@pytest.mark.parametrize("count", [2, 3])
def test_several_together(tmp_path: Path, count: int) -> None:
    """They deliver side by side, and the service has nothing to refuse."""
    with running_sandbox(LIMITED) as sandbox, ExitStack() as stack:
        env = unmeasured(environment(sandbox))
        running = []
        for number in range(count):
            source = write_devices(tmp_path / f"devices-{number}.csv", 100)
            running.append(stack.enter_context(start(["upload", source.name, "--rate", RATE], tmp_path, env)))
        for process in running:
            process.communicate(timeout=18)
        assert [0] * count == [process.returncode for process in running]
        assert (100 * count, 0) == (sandbox.stats.requests, sandbox.stats.over_limit)


def test_killed_and_restarted_in_a_loop(tmp_path: Path) -> None:
    """What the lives before sent counts in each window of the next one."""
    with running_sandbox(LIMITED) as sandbox:
        env = unmeasured(environment(sandbox))
        write_devices(tmp_path / "devices.csv", 5000)
        command = ["upload", "devices.csv", "--rate", RATE, "--timeout", "500ms"]
        for life in range(1, 5):
            with start(command, tmp_path, env) as process:
                settle(sandbox, 20 * life)
                process.kill()
        assert 0 == sandbox.stats.over_limit


def test_stopped_for_a_while(tmp_path: Path) -> None:
    """A process that stood still adds nothing to a window when it goes on; meanwhile the other has it all."""
    with running_sandbox(LIMITED) as sandbox, ExitStack() as stack:
        env = unmeasured(environment(sandbox))
        running = []
        for number, rows in enumerate((100, 300)):
            source = write_devices(tmp_path / f"devices-{number}.csv", rows)
            command = ["upload", source.name, "--rate", RATE, "--timeout", "1s"]
            running.append(stack.enter_context(start(command, tmp_path, env)))
        settle(sandbox, 60)
        os.kill(running[0].pid, signal.SIGSTOP)
        running[1].communicate(timeout=18)
        os.kill(running[0].pid, signal.SIGCONT)
        running[0].communicate(timeout=18)
        assert [0, 0] == [process.returncode for process in running]
        assert 0 == sandbox.stats.over_limit
        requests = sum(summary_of(tmp_path / f"devices-{number}.csv.run")["requests"] for number in (0, 1))
        assert requests >= sandbox.stats.requests >= 400


def test_a_state_folder_of_no_use(tmp_path: Path) -> None:
    """The upload says so, keeps its own pace, and delivers."""
    with running_sandbox(LIMITED) as sandbox:
        write_devices(tmp_path / "devices.csv", 10)
        (tmp_path / "state").write_text("no folder")
        ended = moe_bulk(
            ["upload", "devices.csv"], tmp_path, environment(sandbox, XDG_STATE_HOME=str(tmp_path / "state"))
        )
        assert 0 == ended.code
        assert "this upload keeps its pace alone. Let no other run beside it" in ended.err


def test_a_pace_of_its_own(tmp_path: Path) -> None:
    """Asked for it, or with a sandbox of its own, a process shares nothing and leaves nothing in the state folder."""
    state = tmp_path / "state"
    with running_sandbox(LIMITED) as sandbox:
        write_devices(tmp_path / "devices.csv", 3)
        env = environment(sandbox, XDG_STATE_HOME=str(state))
        assert 0 == moe_bulk(["upload", "devices.csv", "--pace", "process"], tmp_path, env).code
        assert 0 == moe_bulk(["upload", "devices.csv", "--sandbox"], tmp_path, env).code
        assert not state.exists()
        assert 0 == moe_bulk(["upload", "devices.csv", "--fresh"], tmp_path, env).code
        assert 1 == len(list((state / "moe-bulk").iterdir()))
