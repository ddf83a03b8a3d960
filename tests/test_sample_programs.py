"""The programs in samples/ run as they are, against a sandbox, with credentials from the environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fake_service import sandbox_in_a_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moe_bulk.sandbox import Sandbox

SAMPLES = Path(__file__).parent.parent / "samples"
DEVICES = "customer_id,device_id,platform,push_id\n" + "".join(f"user-{n},d{n},web,t{n}\n" for n in range(30))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Run a sandbox while the test runs."""
    with sandbox_in_a_thread() as running:
        yield running


def credentials(sandbox: Sandbox) -> dict[str, str]:
    """Give the variables that name the sandbox."""
    return {
        "MOENGAGE_WORKSPACE_ID": sandbox.workspace_id,
        "MOENGAGE_API_KEY": sandbox.api_key,
        "MOENGAGE_BASE_URL": sandbox.url,
    }


def clean_environment() -> dict[str, str]:
    """Give the environment without anything of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MOENGAGE_", "MOE_BULK"))}


def run(*command: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    everything = {**clean_environment(), "PYTHONWARNINGS": "error", **environment}
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=everything, timeout=18)


def test_the_script_delivers_a_file(sandbox: Sandbox, tmp_path: Path) -> None:
    """It prints the counts and the causes of failures, and exits with the run's own code."""
    (tmp_path / "devices.csv").write_text(DEVICES)
    script = str(SAMPLES / "upload_script.py")
    done = run(sys.executable, script, "devices.csv", cwd=tmp_path, environment=credentials(sandbox))
    assert ("", 0) == (done.stderr, done.returncode)
    assert re.search(r"accepted +30\n", done.stdout)
    (tmp_path / "devices.csv").write_text(DEVICES + "guest,d,web,t\n")
    done = run(sys.executable, script, "devices.csv", cwd=tmp_path, environment=credentials(sandbox))
    assert ("", 1) == (done.stderr, done.returncode)
    assert re.search(r"invalid +1\n(.*\n)*1 of ", done.stdout)


def test_the_script_tells_what_is_missing(tmp_path: Path) -> None:
    """Without credentials it says which variable to set, in one line."""
    done = run(sys.executable, str(SAMPLES / "upload_script.py"), "devices.csv", cwd=tmp_path, environment={})
    assert "not finished: MOENGAGE_WORKSPACE_ID is not set: export it, or pass Credentials(…)\n" == done.stderr


def test_the_application_streams_while_it_works(sandbox: Sandbox, tmp_path: Path) -> None:
    """It prints the one failure and the counts; all others arrived."""
    done = run(sys.executable, str(SAMPLES / "async_app.py"), cwd=tmp_path, environment=credentials(sandbox))
    assert ("", 0) == (done.stderr, done.returncode)
    assert "the tablet: accepted\n" in done.stdout
    assert re.search(r"user-42 \(number 43\) invalid: .*push_id", done.stdout)
    assert "199 accepted" in done.stdout
    assert 200 == len(sandbox.devices)


def cron_line() -> tuple[dict[str, str], str]:
    """Read the table as cron does: its variables, and the command of its one line."""
    lines = [line for line in (SAMPLES / "nightly.cron").read_text().splitlines() if line and line[0] != "#"]
    variables = dict(line.split("=", 1) for line in lines[:-1])
    schedule, command = lines[-1].split("  ", 1)
    assert "30 2 * * *" == schedule
    assert "%" not in command  # cron would make line feeds of them
    return variables, command


@pytest.mark.parametrize("key", ["right", "wrong"])
def test_the_cron_line_runs_every_night(key: str, sandbox: Sandbox, tmp_path: Path) -> None:
    """The command runs as it stands, with a new export or an old one; it prints only where something is wrong."""
    variables, command = cron_line()
    header, *rows = DEVICES.splitlines(keepends=True)
    exports = [DEVICES, "".join([header, *reversed(rows)]), "".join([header, *reversed(rows)])]
    (tmp_path / ".config").mkdir()
    said = {**credentials(sandbox), **({"MOENGAGE_API_KEY": "wrong"} if key == "wrong" else {})}
    (tmp_path / ".config/moe-bulk.env").write_text("".join(f"{name}={value}\n" for name, value in said.items()))
    places = {"EXPORT": str(tmp_path / "devices.csv"), "LOG": str(tmp_path / "log"), "HOME": str(tmp_path)}
    assert places.keys() - {"HOME"} <= variables.keys()
    places["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
    done = []
    for export in exports:
        (tmp_path / "devices.csv").write_text(export)
        done.append(run("/bin/sh", "-c", command, cwd=tmp_path, environment=places))
    expected = "" if key == "right" else f"moe-bulk: exit code 3, see {tmp_path / 'log'}\n"
    assert [expected] * 3 == [each.stdout + each.stderr for each in done]
    assert 1 == len([each for each in tmp_path.iterdir() if each.name.startswith("devices.csv.run-")])
    log = (tmp_path / "log").read_text()
    assert ("30 accepted" in log) is (key == "right")
    assert ("Finished before" in log) is (key == "right")
    assert (60 if key == "right" else 0) == sandbox.stats.by_status[200]
    assert sandbox.api_key not in log
