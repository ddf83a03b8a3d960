"""Only what changed, for real: the command line killed in the middle, its options, and its settings file."""

from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from moe_bulk.sandbox import Faults, Sandbox, SandboxSettings
from tests.acceptance.command import KEY, environment, lines, moe_bulk, running_sandbox, start, summary_of
from tests.acceptance.test_upload import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = 300
UPLOAD = ["upload", "devices.csv", "--rate", "600000/min", "--in-flight", "8", "--changed-only"]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A MoEngage that takes its time."""
    settings = SandboxSettings(api_key=KEY, limit=None, faults=Faults.parse("latency=5ms..20ms"))
    with running_sandbox(settings) as running:
        yield running


def write(folder: Path, models: dict[int, str], tokens: dict[int, int]) -> dict[tuple[str, str], dict[str, str]]:
    """Write a CSV; return what MoEngage has once it has all of it."""
    there: dict[tuple[str, str], dict[str, str]] = {}
    text = "customer_id,device_id,platform,push_id,model\n"
    for number in range(ROWS):
        token, model = f"token-{tokens.get(number, number)}:APA91b", models.get(number, "old")
        text += f"user-{number},device-{number},ANDROID,{token},{model}\n"
        for who in [who for who, device in there.items() if device["push_id"] == token]:
            del there[who]
        there[f"user-{number}", f"device-{number}"] = {"platform": "ANDROID", "push_id": token, "model": model}
    (folder / "devices.csv").write_text(text, encoding="utf-8")
    return there


def devices(sandbox: Sandbox) -> dict[tuple[str, str], dict[str, str]]:
    """What the sandbox has."""
    return {who: device.attributes for who, device in sandbox.devices.items()}


def test_killed_in_the_middle(tmp_path: Path, sandbox: Sandbox) -> None:
    """Killed twice and taken up again, MoEngage ends with what the file says; then nothing is left to send."""
    env = environment(sandbox, XDG_STATE_HOME=str(tmp_path / "state"))
    assert write(tmp_path, {}, {}) != {}
    assert 0 == moe_bulk(UPLOAD, tmp_path, env).code
    expected = write(tmp_path, dict.fromkeys(range(0, ROWS, 2), "new"), dict.fromkeys((100, 200), 7))
    for more in (30, 60):
        enough = sandbox.stats.requests + more
        with start(UPLOAD, tmp_path, env) as process:
            wait_for(lambda: sandbox.stats.requests >= enough)  # noqa: B023  it is called here
            process.send_signal(signal.SIGKILL)
            process.wait()
    ended = moe_bulk(UPLOAD, tmp_path, env)
    assert 0 == ended.code, ended.err
    assert expected == devices(sandbox)
    statuses = Counter(each["status"] for each in lines(tmp_path / "devices.csv.run" / "results.ndjson"))
    assert {"accepted", "unchanged"} == set(statuses)
    # What was accepted in the last moments of a killed run was not noted: the next run sends it again, and notes it.
    for _ in range(2):
        sent = sandbox.stats.requests
        assert 0 == moe_bulk([*UPLOAD, "--fresh"], tmp_path, env).code
        assert expected == devices(sandbox)
    # the three that share a token: each deletes the one before
    assert 3 == sandbox.stats.requests - sent


def test_a_settings_file_and_a_file_of_ones_own(tmp_path: Path, sandbox: Sandbox) -> None:
    """The same names as on the command line; without --changed-only no state is taken."""
    env = environment(sandbox)
    write(tmp_path, {}, {})
    settings = 'changed-only = true\nstate = "mine.known"\nresend-after = "12h"\nrate = "600000/min"\n'
    (tmp_path / "moe-bulk.toml").write_text(settings, encoding="utf-8")
    for _ in range(2):
        assert 0 == moe_bulk(["upload", "devices.csv", "--fresh"], tmp_path, env).code
    counts = summary_of(tmp_path / "devices.csv.run")["counts"]
    assert (ROWS, 0) == (counts["unchanged"], counts["accepted"])
    assert (tmp_path / "mine.known").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--state", "mine.known"], "--state says where --changed-only remembers"),
        (["--changed-only", "--resend-after", "soon"], "'soon' is no duration"),
        (["--changed-only", "--state", "devices.csv"], "devices.csv is damaged, or none of ours"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, sandbox: Sandbox, more: list[str], said: str) -> None:
    """Exit 2 before anything is sent."""
    write(tmp_path, {}, {})
    (tmp_path / "devices.csv").chmod(0o600)
    ended = moe_bulk(["upload", "devices.csv", *more], tmp_path, environment(sandbox))
    assert (2, 0) == (ended.code, sandbox.stats.requests)
    assert said in ended.err
    assert "Traceback" not in ended.err
