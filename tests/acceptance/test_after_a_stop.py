"""The same command again, for real: after a container's stop, a revoked key, a full disk; and where it is refused."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from moe_bulk.sandbox import Faults, Sandbox, SandboxSettings
from tests.acceptance.command import (
    COMMAND,
    KEY,
    Ended,
    environment,
    lines,
    moe_bulk,
    running_sandbox,
    start,
    summary_of,
    unmeasured,
    write_devices,
)
from tests.acceptance.test_upload import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = 400
UPLOAD = ["upload", "devices.csv", "--rate", "600000/min"]
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A well-behaved MoEngage without a limit."""
    with running_sandbox(SandboxSettings(api_key=KEY, limit=None)) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of devices; the run folder is to be."""
    write_devices(tmp_path / "devices.csv", ROWS)
    return tmp_path / "devices.csv.run"


def check_that_all_is_settled_once(folder: Path) -> None:
    """Each row has one result, each failed one has one dead letter, and the summary counts the whole job."""
    results, letters = lines(folder / "results.ndjson"), lines(folder / "dead-letter.ndjson")
    assert [*range(2, ROWS + 2)] == sorted(result["line"] for result in results)
    counts = summary_of(folder)["counts"]
    assert (ROWS, 0) == (counts["read"], counts["unsettled"])
    statuses = Counter(result["status"] for result in results)
    assert statuses == {name: count for name, count in counts.items() if count and name != "read"}
    failed = sorted(result["line"] for result in results if result["status"] not in ("accepted", "superseded"))
    assert failed == [letter["_moe_bulk"]["line"] for letter in letters]


def test_a_container_is_stopped(folder: Path, sandbox: Sandbox) -> None:
    """SIGTERM with requests on their way that are never answered: ten seconds later all files are complete."""
    settings = SandboxSettings(api_key=KEY, limit=None, faults=Faults.parse("hang=100%"))
    with running_sandbox(settings) as silent, start(UPLOAD, folder.parent, environment(silent)) as process:
        wait_for(lambda: silent.stats.requests > 50)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=10)
    assert 143 == process.returncode
    assert "SIGTERM" in said
    assert (143, 0) == (summary_of(folder)["exit_code"], summary_of(folder)["counts"]["accepted"])

    ended = moe_bulk(UPLOAD, folder.parent, environment(sandbox))
    assert 0 == ended.code, ended.err
    check_that_all_is_settled_once(folder)
    assert 2 == summary_of(folder)["sessions"]


def test_a_key_is_revoked_in_the_middle(folder: Path, sandbox: Sandbox) -> None:
    """The run stops at once, and goes on with the new key; no row was given up for it."""
    sandbox.script("device-200", ["401"])
    ended = moe_bulk(UPLOAD, folder.parent, environment(sandbox))
    assert 3 == ended.code
    assert "refuses the credentials" in ended.err
    assert "run the same command again" in ended.err
    before = lines(folder / "results.ndjson")
    assert 0 < len(before) < ROWS

    ended = moe_bulk(UPLOAD, folder.parent, environment(sandbox))
    assert 0 == ended.code, ended.err
    assert before == lines(folder / "results.ndjson")[: len(before)]
    check_that_all_is_settled_once(folder)


def with_room_for(size: int, arguments: list[str], folder: Path, sandbox: Sandbox) -> Ended:
    """Run the command where no file may grow beyond `size` bytes, as on a disk that is full."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(size), *COMMAND, *arguments],
        cwd=folder,
        env=unmeasured(environment(sandbox)),
        capture_output=True,
        text=True,
        check=False,
        timeout=18,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="the system cannot limit files")
def test_a_disk_is_full(folder: Path, sandbox: Sandbox) -> None:
    """Nothing further is sent, the message names the folder and the room that is needed; with room it goes on."""
    ended = with_room_for(40_000, UPLOAD, folder.parent, sandbox)
    assert 3 == ended.code
    assert str(folder) in ended.err
    assert "Free at least 1 MB there, then run the same command again" in ended.err
    assert "Traceback" not in ended.err
    arrived = sandbox.stats.requests
    assert arrived < ROWS

    again = with_room_for(40_000, UPLOAD, folder.parent, sandbox)
    assert 3 == again.code, "still no room"

    ended = moe_bulk(UPLOAD, folder.parent, environment(sandbox))
    assert 0 == ended.code, ended.err
    check_that_all_is_settled_once(folder)


def test_the_same_command_again_on_the_same_data(folder: Path, sandbox: Sandbox) -> None:
    """Unfinished, with other settings, finished: the first lines of the README's table."""
    env = environment(sandbox)

    def upload(*more: str) -> Ended:
        return moe_bulk([*UPLOAD, *more], folder.parent, env)

    first = upload("--limit", "100")
    assert (0, 100) == (first.code, summary_of(folder)["counts"]["read"])
    other = upload("--set", "model=X")
    assert (2, True) == (
        other.code,
        "begun with" in other.err and "--set model=X" in other.err and "--fresh" in other.err,
    )
    assert (0, ROWS) == (upload().code, summary_of(folder)["counts"]["accepted"])
    sent = sandbox.stats.requests
    assert ROWS == sent
    finished = upload("--json")
    assert (0, sent) == (finished.code, sandbox.stats.requests)
    assert "nothing is sent" in finished.err
    assert '"accepted": 400' in finished.out


def test_the_same_command_again_on_other_data(folder: Path, sandbox: Sandbox) -> None:
    """Touched, of other bytes after a finished run and after an unfinished one: the other lines of the table."""
    source, env = folder.with_suffix(""), environment(sandbox)

    def upload(*more: str) -> Ended:
        return moe_bulk([*UPLOAD, *more], folder.parent, env)

    assert (0, ROWS) == (upload().code, sent := sandbox.stats.requests)
    source.touch()
    assert (0, sent) == (upload().code, sandbox.stats.requests), "the same bytes, whatever the file's time says"
    with source.open("a") as file:
        file.write("user-new,device-new,web,token-new:APA91b\n")
    assert (0, sent + 1) == (upload("--limit", "1").code, sandbox.stats.requests), "of other bytes: a new run"
    (aside,) = (path for path in folder.parent.iterdir() if path.name.startswith("devices.csv.run-"))
    assert ROWS == summary_of(aside)["counts"]["accepted"]

    write_devices(source, 3)
    refused = upload()
    assert (2, sent + 1) == (refused.code, sandbox.stats.requests)
    assert "unfinished" in refused.err
    assert "--if-changed fresh" in refused.err
    assert (0, sent + 4) == (upload("--if-changed", "fresh", "--keep-runs", "1").code, sandbox.stats.requests)
    assert 1 == len([path for path in folder.parent.iterdir() if path.name.startswith("devices.csv.run-")])


def test_the_dead_letter_of_an_unfinished_run(folder: Path, sandbox: Sandbox) -> None:
    """It is refused: the run may still deliver something newer."""
    source = folder.with_suffix("")
    source.write_text(source.read_text().replace("user-3,", "NA,"))
    assert 1 == moe_bulk([*UPLOAD, "--limit", "10"], folder.parent, environment(sandbox)).code
    letters = ["upload", str(folder / "dead-letter.ndjson"), "--rate", "600000/min"]
    refused = moe_bulk(letters, folder.parent, environment(sandbox))
    assert 2 == refused.code
    assert "Finish that run first" in refused.err

    assert 1 == moe_bulk(UPLOAD, folder.parent, environment(sandbox)).code
    assert 1 == moe_bulk(letters, folder.parent, environment(sandbox)).code
    (letter,) = lines(folder / "dead-letter.ndjson.run" / "dead-letter.ndjson")
    assert [5] == [note["line"] for note in letter["_moe_bulk"]["history"]]
