"""Real processes share a limit through a real Redis server: the service never finds it exceeded."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from moe_bulk.config import Rate
from moe_bulk.pacing.reservations import LEAVES, Call, Terms, key_of, script
from moe_bulk.sandbox import Faults, Limit, SandboxSettings
from tests.acceptance.command import (
    KEY,
    Ended,
    environment,
    moe_bulk,
    running_sandbox,
    start,
    summary_of,
    unmeasured,
    write_devices,
)
from tests.redis_server import PASSWORD, running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from moe_bulk.sandbox import Sandbox
    from tests.redis_server import RedisServer

redis = pytest.importorskip("redis")

RATE = ("--rate", "60/s", "--timeout", "200ms")
LIMITED = SandboxSettings(api_key=KEY, limit=Limit(60, 1.0), faults=Faults.parse("latency=5ms..40ms"))
"""Refuses, and counts, what is over the same limit in any window."""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Give a server that runs."""
    with running_redis() as found:
        yield found


def know(server: RedisServer, sandbox: Sandbox, password: str | None = None) -> None:
    """Let the server know the workspace since long ago: somebody was at work, and has left."""
    key, terms = key_of(sandbox.url.removeprefix("http://"), sandbox.workspace_id), Terms("before", Rate(60, 1.0), 0.2)
    with redis.Redis(port=server.port, password=password) as client:
        carry_out = client.register_script(script())
        for want in (0, LEAVES):
            carry_out(keys=[key], args=Call(want=want).words(terms))
        client.hset(key, "blocked", "0")


def settle(sandbox: Sandbox, count: int, seconds: float = 15.0) -> None:
    """Wait until the sandbox has seen so many requests."""
    until = time.monotonic() + seconds
    while sandbox.stats.requests < count:
        assert time.monotonic() < until, f"only {sandbox.stats.requests} of {count} requests came"
        time.sleep(0.02)


def at_work(sandbox: Sandbox, server: RedisServer) -> dict[str, str]:
    """Give the environment of an upload that shares through that server."""
    return unmeasured(environment(sandbox, MOE_BULK_PACE=server.url))


def test_three_together(tmp_path: Path, server: RedisServer) -> None:
    """They deliver side by side, and the service has nothing to refuse; each one's summary names the server."""
    with running_sandbox(LIMITED) as sandbox, ExitStack() as stack:
        know(server, sandbox)
        running = []
        for number in range(3):
            source = write_devices(tmp_path / f"devices-{number}.csv", 50)
            running.append(
                stack.enter_context(start(["upload", source.name, *RATE], tmp_path, at_work(sandbox, server)))
            )
        for process in running:
            process.communicate(timeout=18)
        assert [0] * 3 == [process.returncode for process in running]
        assert 150 <= sandbox.stats.requests
        assert 0 == sandbox.stats.over_limit
        summaries = [summary_of(tmp_path / f"devices-{number}.csv.run") for number in range(3)]
        assert [f"{server.url}/0"] * 3 == [each["settings"]["pace"] for each in summaries]


def test_processes_are_killed_in_a_loop(tmp_path: Path, server: RedisServer) -> None:
    """What the lives before sent counts in each window of the next one."""
    with running_sandbox(LIMITED) as sandbox:
        write_devices(tmp_path / "devices.csv", 5000)
        know(server, sandbox)
        for life in range(1, 4):
            with start(["upload", "devices.csv", *RATE], tmp_path, at_work(sandbox, server)) as process:
                settle(sandbox, 25 * life)
                process.kill()
        assert 0 == sandbox.stats.over_limit


def test_the_server_is_killed_and_comes_back_empty(tmp_path: Path, server: RedisServer) -> None:
    """It knows nothing any more: nothing is sent for a whole window, and no row is lost."""
    with running_sandbox(LIMITED) as sandbox, ExitStack() as stack:
        know(server, sandbox)
        running = []
        for number in range(2):
            source = write_devices(tmp_path / f"devices-{number}.csv", 30)
            running.append(
                stack.enter_context(start(["upload", source.name, *RATE], tmp_path, at_work(sandbox, server)))
            )
        settle(sandbox, 20)
        server.kill()
        server.start()
        said = [process.communicate(timeout=19)[1] for process in running]
        assert [0, 0] == [process.returncode for process in running]
        assert 60 <= sandbox.stats.requests
        assert 0 == sandbox.stats.over_limit
        assert all("nothing is sent for " in each for each in said)


def test_a_server_that_stays_away_stops_the_run_and_the_same_command_goes_on(
    tmp_path: Path, server: RedisServer
) -> None:
    """Exit code 3 with a message that says what to do; afterwards it is delivered to the end."""
    with running_sandbox(LIMITED) as sandbox:
        write_devices(tmp_path / "devices.csv", 100)
        env = at_work(sandbox, server)
        command = ["upload", "devices.csv", *RATE, "--outage-limit", "1s"]
        know(server, sandbox)
        with start(command, tmp_path, env) as process:
            settle(sandbox, 30)
            server.kill()
            _, said = process.communicate(timeout=15)
        assert 3 == process.returncode
        assert (
            f"moe-bulk: {server.url}/0, which keeps the pace, was away for 1 s (--outage-limit): when it is back, run "
            "the same command again" in said
        )
        server.start()
        know(server, sandbox)
        with start(command, tmp_path, env) as process:
            process.communicate(timeout=15)
        assert 0 == process.returncode
        assert 100 == summary_of(tmp_path / "devices.csv.run")["counts"]["accepted"]


def test_a_server_that_was_never_there(tmp_path: Path) -> None:
    """It is waited for, and people know at once; then the run stops, to be taken up again."""
    with running_redis() as server:
        pass
    with running_sandbox(LIMITED) as sandbox:
        write_devices(tmp_path / "devices.csv", 3)
        command = ["upload", "devices.csv", *RATE, "--outage-limit", "500ms"]
        ended = moe_bulk(command, tmp_path, at_work(sandbox, server))
        assert 3 == ended.code
        assert "cannot be reached (connection refused): nothing is sent" in ended.err
        assert 0 == sandbox.stats.requests


@pytest.fixture
def guarded() -> Iterator[RedisServer]:
    """Give a server that asks for a password."""
    with running_redis("--requirepass", PASSWORD) as found:
        yield found


SPELT = "p%40ss%2Fw0rd%3Aof%3Fthe%23tests%25"


def _everything(ended: Ended, folder: Path) -> str:
    files = "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())
    return ended.out + ended.err + files


@pytest.mark.parametrize(
    "command",
    [
        ["upload", "devices.csv", *RATE, "-v", "--json"],
        ["upload", "devices.csv", *RATE, "--log-json"],
        ["config", "--json"],
        ["doctor"],
    ],
)
def test_the_password_is_nowhere(tmp_path: Path, guarded: RedisServer, command: list[str]) -> None:
    """Not in what is said, logged or written."""
    with running_sandbox(LIMITED) as sandbox:
        know(guarded, sandbox, PASSWORD)
        write_devices(tmp_path / "devices.csv", 3)
        url = f"redis://:{SPELT}@{guarded.url.removeprefix('redis://')}"
        ended = moe_bulk(command, tmp_path, environment(sandbox, MOE_BULK_PACE=url))
    assert 0 == ended.code, ended.err
    everything = _everything(ended, tmp_path)
    assert PASSWORD not in everything
    assert SPELT not in everything


@pytest.mark.parametrize("wrong", [True, False])
def test_a_password_that_cannot_be_used_is_not_told(tmp_path: Path, guarded: RedisServer, wrong: bool) -> None:  # noqa: FBT001
    """A wrong one is refused by the server, one on the command line by the command: exit code 2, nothing is sent."""
    place = guarded.url.removeprefix("redis://")
    url = f"redis://:{SPELT}{'wrong' if wrong else ''}@{place}"
    with running_sandbox(LIMITED) as sandbox:
        write_devices(tmp_path / "devices.csv", 3)
        env = environment(sandbox, MOE_BULK_PACE=url) if wrong else environment(sandbox)
        ended = moe_bulk(["upload", "devices.csv", *RATE, *([] if wrong else ["--pace", url])], tmp_path, env)
        assert 0 == sandbox.stats.requests
    refused = f"redis://{place}/0, which keeps the pace, refuses: the user name or the password is wrong, or missing\n"
    assert (2, "") == (ended.code, ended.out)
    assert SPELT not in ended.err
    assert (refused if wrong else "say --pace @FILE") in ended.err


def test_the_url_in_a_file(tmp_path: Path, guarded: RedisServer) -> None:
    """`--pace @FILE`, here from the settings file; doctor looks at the same server."""
    (tmp_path / "pace").write_text(f"redis://:{SPELT}@{guarded.url.removeprefix('redis://')}\n")
    (tmp_path / "moe-bulk.toml").write_text('pace = "@pace"\nrate = "60/s"\n[upload]\npace-fallback = "share=3"\n')
    with running_sandbox(LIMITED) as sandbox:
        ended = moe_bulk(["doctor", "--json"], tmp_path, environment(sandbox))
        assert 0 == ended.code
        (found,) = [each for each in json.loads(ended.out)["findings"] if each["check"] == "pace"]
        assert ("ok", f"{guarded.url}/0") == (found["status"], found["figures"]["place"])
        assert "it does not know this workspace yet: a first upload waits for 38 s" in found["said"]
        with redis.Redis(port=guarded.port, password=PASSWORD) as client:
            assert [] == client.keys()


@pytest.mark.parametrize(("settings", "said"), [({"pace": "redis://127.0.0.1:1"}, "connection refused")])
def test_doctor_fails_where_an_upload_could_not_begin(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    """One line says what is wrong with the server, and what to do."""
    with running_sandbox(LIMITED) as sandbox:
        ended = moe_bulk(["doctor", "--pace", settings["pace"]], tmp_path, environment(sandbox))
        assert 1 == ended.code
        assert f"fail pace         redis://127.0.0.1:1/0: {said}" in ended.out
