"""The command line on uvloop and on asyncio's own loop: signals, exit codes and what is left behind are the same."""

from __future__ import annotations

import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moe_bulk.sandbox import Faults, SandboxSettings
from tests.acceptance.command import (
    KEY,
    environment,
    moe_bulk,
    running_sandbox,
    start,
    summary_of,
    write_devices,
)

if TYPE_CHECKING:
    from moe_bulk.sandbox import Sandbox

ROWS = 200


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the environment has to say for the command to run on this loop."""
    if request.param == "uvloop":
        if find_spec("uvloop") is None:
            pytest.skip("uvloop is not installed")
        return {}
    folder = tmp_path_factory.mktemp("without")
    (folder / "uvloop.py").write_text("raise ImportError('hidden by a test')\n")
    return {"PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}"}


def _environment(sandbox: Sandbox, loop: dict[str, str]) -> dict[str, str]:
    return environment(sandbox, **loop)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_orderly(tmp_path: Path, loop: dict[str, str], signum: signal.Signals, code: int) -> None:
    """The first signal takes in what is on its way, and every device that arrived has its result."""
    settings = SandboxSettings(api_key=KEY, limit=None, faults=Faults.parse("latency=100ms..200ms"))
    with running_sandbox(settings) as sandbox:
        write_devices(tmp_path / "devices.csv", ROWS)
        env, command = _environment(sandbox, loop), ["upload", "devices.csv", "--in-flight", "10"]
        with start(command, tmp_path, env) as process:
            while sandbox.stats.requests < 10:
                time.sleep(0.02)
            process.send_signal(signum)
            _, err = process.communicate(timeout=15)
        assert code == process.returncode == summary_of(tmp_path / "devices.csv.run")["exit_code"], err
        assert "Traceback" not in err
    results = (tmp_path / "devices.csv.run" / "results.ndjson").read_text().splitlines()
    assert len(results) == len(sandbox.devices)  # what was on its way was taken in, and nothing else went


def test_a_second_interrupt_leaves_now(tmp_path: Path, loop: dict[str, str]) -> None:
    """Whoever presses Ctrl-C twice does not wait for answers."""
    settings = SandboxSettings(api_key=KEY, limit=None, faults=Faults.parse("hang=100%"))
    with running_sandbox(settings) as sandbox:
        write_devices(tmp_path / "devices.csv", 50)
        with start(["upload", "devices.csv"], tmp_path, _environment(sandbox, loop)) as process:
            while sandbox.stats.requests < 5:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=7)  # less than the orderly stop would wait
        assert 130 == process.returncode, err
        assert "Traceback" not in err


def test_what_is_refused_has_its_exit_code(tmp_path: Path, loop: dict[str, str]) -> None:
    """A wrong key ends with 3, a dead letter with 1."""
    write_devices(tmp_path / "devices.csv", 3)
    with running_sandbox(SandboxSettings(api_key=KEY, limit=None)) as sandbox:
        env = _environment(sandbox, loop)
        ended = moe_bulk(["upload", "devices.csv"], tmp_path, env | {"MOENGAGE_API_KEY": "another"})
        assert 3 == ended.code, ended.err
        (tmp_path / "bad.csv").write_text("customer_id,device_id,platform,push_id\nu-1,d-1,toaster,tok\n")
        ended = moe_bulk(["upload", "bad.csv"], tmp_path, env)
        assert 1 == ended.code, ended.err
