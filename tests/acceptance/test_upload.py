"""The honest witness: the real command line against the sandbox on a real socket."""

from __future__ import annotations

import gzip
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from backports import zstd

from moe_bulk import cli
from moe_bulk.sandbox import Faults, Limit, Sandbox, SandboxSettings
from tests.acceptance.command import (
    KEY,
    Ended,
    environment,
    lines,
    moe_bulk,
    running_sandbox,
    start,
    summary_of,
    write_devices,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = Path(__file__).parents[2] / "samples"
FAST = ["--rate", "600000/min"]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A well-behaved MoEngage without a limit."""
    with running_sandbox(SandboxSettings(api_key=KEY, limit=None)) as running:
        yield running


def wait_for(condition: object, seconds: float = 10.0) -> None:
    """Wait until a condition holds: for what another process does, nothing else can tell."""
    assert callable(condition)
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def caught_by(pid: int) -> set[int]:
    """The signals for which a process has a handler."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    mask = int(status.partition("SigCgt:")[2].split()[0], 16)
    return {number for number in range(1, 32) if mask >> (number - 1) & 1}


def test_the_readme_s_first_upload(tmp_path: Path) -> None:
    """A newcomer's upload of the samples to the embedded sandbox ends well and leaves a run folder."""
    (tmp_path / "devices.csv").write_bytes((SAMPLES / "devices.csv").read_bytes())
    ended = moe_bulk(["upload", "devices.csv", "--sandbox", *FAST], tmp_path, environment())
    folder = tmp_path / "devices.csv.sandbox.run"
    assert (0, "") == (ended.code, ended.out), ended.err
    assert 300 == summary_of(folder)["counts"]["accepted"]
    files = ["checkpoint.json", "dead-letter.ndjson", "report.html", "results.ndjson", "summary.json"]
    assert files == sorted(path.name for path in folder.iterdir())
    assert [0o700, *(0o600 for _ in files)] == [
        stat.S_IMODE(path.stat().st_mode) for path in (folder, *sorted(folder.iterdir()))
    ]
    assert ["devices.csv", "devices.csv.sandbox.run"] == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["messy.csv", "messy.ndjson"])
def test_messy_rows_have_one_result_each(tmp_path: Path, sandbox: Sandbox, name: str) -> None:
    """Each row of a messy file ends in exactly one result; each failure has a dead letter; the server agrees."""
    source = tmp_path / name
    source.write_bytes((SAMPLES / name).read_bytes())
    ended = moe_bulk(["upload", name, "--json", *FAST], tmp_path, environment(sandbox))
    folder = tmp_path / f"{name}.run"
    results, letters = lines(folder / "results.ndjson"), lines(folder / "dead-letter.ndjson")
    summary = json.loads(ended.out)
    assert 1 == ended.code, ended.err
    assert summary == summary_of(folder)
    assert len(results) == summary["counts"]["read"] == len({(r["source"], r["offset"], r["item"]) for r in results})
    failed = [(r["line"], r["status"]) for r in results if r["status"] not in ("accepted", "skipped")]
    assert sorted(failed) == sorted((each["_moe_bulk"]["line"], each["_moe_bulk"]["status"]) for each in letters)
    assert all(each["_moe_bulk"]["reason"] for each in letters)
    accepted = {(r["customer_id"], r["device_id"]) for r in results if r["status"] == "accepted"}
    assert accepted == {(exchange.customer_id, exchange.device_id) for exchange in sandbox.requests}
    assert {200} == {exchange.status for exchange in sandbox.requests}


def test_a_dead_letter_is_an_input(tmp_path: Path, sandbox: Sandbox) -> None:
    """Corrected or not, the dead letter is uploaded as it is, with its column mapping carried along."""
    source = tmp_path / "export.csv"
    source.write_text("uid,device_id,push_id\nuser-1,device-1,tok-1\nna,device-2,tok-2\n", encoding="utf-8")
    mapping = ["--column", "customer_id=uid", "--set", "platform=iOS"]
    first = moe_bulk(["upload", "export.csv", *mapping], tmp_path, environment(sandbox))
    letter = tmp_path / "export.csv.run" / "dead-letter.ndjson"
    assert 1 == first.code
    assert '{"uid":"na","device_id":"device-2","push_id":"tok-2","_moe_bulk":' in letter.read_text(encoding="utf-8")
    again = moe_bulk(["upload", str(letter)], tmp_path, environment(sandbox))
    assert 1 == again.code
    fixed = tmp_path / "fixed.ndjson"
    fixed.write_text(letter.read_text(encoding="utf-8").replace('"na"', '"user-2"'), encoding="utf-8")
    assert 0 == moe_bulk(["upload", "fixed.ndjson"], tmp_path, environment(sandbox)).code
    assert {"platform": "iOS", "push_id": "tok-2"} == sandbox.devices["user-2", "device-2"].attributes


def test_faults_lose_nothing_and_the_window_holds(tmp_path: Path) -> None:
    """With errors, resets, broken answers and a limit, every row is accepted in the end and no window overflows."""
    faults = Faults.parse("5xx=5%,reset=3%,reset-after=3%,half=2%,broken=2%,429=2%,latency=5ms..40ms,seed=4")
    with running_sandbox(SandboxSettings(api_key=KEY, limit=Limit(100, 1.0), faults=faults)) as sandbox:
        write_devices(tmp_path / "devices.csv", 250)
        ended = moe_bulk(["upload", "devices.csv", "--rate", "100/s"], tmp_path, environment(sandbox))
        stats = sandbox.stats
        assert 0 == ended.code, ended.err
        assert 250 == len(sandbox.devices)
        assert 0 == stats.over_limit
        assert 100 >= stats.busiest.most
        assert 100 >= stats.busiest_in_service.most
        summary = summary_of(tmp_path / "devices.csv.run")
        assert stats.requests == summary["requests"]
        assert summary["retries"] == summary["requests"] - 250
        assert 100 >= summary["rate"]["busiest_window"]["count"]


def test_a_limit_shared_with_others_is_given_way_to(tmp_path: Path) -> None:
    """A server that allows less than --rate answers 429; nothing is lost, and the record's tries are not used up."""
    with running_sandbox(SandboxSettings(api_key=KEY, limit=Limit(20, 1.0), retry_after=True)) as sandbox:
        write_devices(tmp_path / "devices.csv", 60)
        ended = moe_bulk(["upload", "devices.csv", "--rate", "60/s", "--tries", "1"], tmp_path, environment(sandbox))
        assert 0 == ended.code, ended.err
        assert 60 == len(sandbox.devices)
        assert 0 < sandbox.stats.by_status[429]


@pytest.mark.parametrize(
    ("name", "pack"),
    [("rows.csv.gz", gzip.compress), ("rows.csv.zst", zstd.compress), ("rows.gz", gzip.compress)],
)
def test_compressed_files(tmp_path: Path, sandbox: Sandbox, name: str, pack: object) -> None:
    """Gzip and zstd files are read as they are."""
    assert callable(pack)
    (tmp_path / name).write_bytes(pack(write_devices(tmp_path / "rows.csv", 20).read_bytes()))
    ended = moe_bulk(["upload", name, *FAST], tmp_path, environment(sandbox))
    assert (0, 20) == (ended.code, len(sandbox.devices)), ended.err


def test_standard_input_and_several_sources(tmp_path: Path, sandbox: Sandbox) -> None:
    """`-` is standard input; several sources, or a glob, are one run whose rows name their source."""
    text = write_devices(tmp_path / "b.csv", 3).read_text(encoding="utf-8")
    ended = moe_bulk(["upload", "-"], tmp_path, environment(sandbox), text)
    assert (0, 3) == (ended.code, summary_of(tmp_path / "stdin.run")["counts"]["accepted"]), ended.err
    row = '{"customer_id": "user-a", "device_id": "d", "platform": "web", "push_id": "t"}\n'
    (tmp_path / "a.ndjson").write_text(row, encoding="utf-8")
    ended = moe_bulk(["upload", "[ab].*"], tmp_path, environment(sandbox))
    results = lines(tmp_path / "a.ndjson.run" / "results.ndjson")
    assert 0 == ended.code, ended.err
    assert [("a.ndjson", 1), ("b.csv", 2), ("b.csv", 3), ("b.csv", 4)] == sorted(
        (r["source"], r["line"]) for r in results
    )


def test_a_wrong_key_stops_the_run(tmp_path: Path, sandbox: Sandbox) -> None:
    """401 stops at once, orderly: exit 3, nothing dead-lettered, and what to do is said."""
    write_devices(tmp_path / "devices.csv", 500)
    env = environment(sandbox, MOENGAGE_API_KEY="another-key")
    ended = moe_bulk(["upload", "devices.csv"], tmp_path, env)
    folder = tmp_path / "devices.csv.run"
    assert 3 == ended.code
    assert "check the workspace id, the Data API key" in ended.err
    assert b"" == (folder / "dead-letter.ndjson").read_bytes() + (folder / "results.ndjson").read_bytes()
    summary = summary_of(folder)
    assert (3, 0) == (summary["exit_code"], summary["counts"]["rejected"])
    assert sandbox.stats.requests < 20


def test_a_wrong_workspace_stops_the_run(tmp_path: Path, sandbox: Sandbox) -> None:
    """A path that is not the API's is a wrong host or workspace: exit 3."""
    write_devices(tmp_path / "devices.csv", 50)
    env = environment(sandbox, MOENGAGE_BASE_URL=sandbox.url + "/elsewhere")
    ended = moe_bulk(["upload", "devices.csv"], tmp_path, env)
    assert 3 == ended.code
    assert "not the Track Device API" in ended.err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_orderly(tmp_path: Path, signum: signal.Signals, code: int) -> None:
    """The first signal sends no more, takes in what is on its way, and leaves complete files."""
    faults = Faults.parse("latency=300ms..400ms")
    with running_sandbox(SandboxSettings(api_key=KEY, limit=None, faults=faults)) as sandbox:
        write_devices(tmp_path / "devices.csv", 2000)
        with start(["upload", "devices.csv"], tmp_path, environment(sandbox)) as process:
            wait_for(lambda: sandbox.stats.requests > 100)
            process.send_signal(signum)
            _, err = process.communicate(timeout=15)
        folder = tmp_path / "devices.csv.run"
        summary, results = summary_of(folder), lines(folder / "results.ndjson")
        counts = summary["counts"]
        assert code == process.returncode == summary["exit_code"], err
        assert len(results) == counts["accepted"] == sandbox.stats.by_status[200] == sandbox.stats.requests
        assert counts["read"] == counts["accepted"] + counts["unsettled"]


def test_a_second_signal_leaves_at_once(tmp_path: Path) -> None:
    """Whoever cannot wait for the answers presses twice."""
    with running_sandbox(SandboxSettings(api_key=KEY, limit=None, faults=Faults.parse("hang=100%"))) as sandbox:
        write_devices(tmp_path / "devices.csv", 100)
        with start(["upload", "devices.csv"], tmp_path, environment(sandbox)) as process:
            wait_for(lambda: sandbox.stats.requests > 5)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            while "once more to leave at once" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=15)
        assert 130 == process.returncode
        assert not (tmp_path / "devices.csv.run" / "summary.json").exists()  # an orderly stop would have written it


def test_a_signal_while_nothing_was_read(tmp_path: Path, sandbox: Sandbox) -> None:
    """A run that still waits for its first byte of standard input ends, too."""
    with start(["upload", "-"], tmp_path, environment(sandbox), stdin=subprocess.PIPE) as process:
        # Its handler is there once SIGTERM stands among the caught signals (proc(5): SigCgt, a mask in hexadecimal).
        wait_for(lambda: signal.SIGTERM in caught_by(process.pid))
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    assert 143 == process.returncode
    assert [] == list(tmp_path.iterdir())


def test_an_earlier_run_is_not_overwritten(tmp_path: Path, sandbox: Sandbox) -> None:
    """A finished run of the same file is not sent again; with --fresh, or for other rows, it is moved aside."""
    write_devices(tmp_path / "devices.csv", 3)
    env = environment(sandbox)
    first = moe_bulk(["upload", "devices.csv", "--json"], tmp_path, env)
    assert 0 == first.code
    same = moe_bulk(["upload", "devices.csv", "--json"], tmp_path, env)
    assert (0, 3, first.out) == (same.code, sandbox.stats.requests, same.out)
    assert f"Finished before, in {tmp_path / 'devices.csv.run'}: nothing is sent. To send" in same.err
    again = moe_bulk(["upload", "devices.csv", "--fresh"], tmp_path, env)
    (moved,) = (path for path in tmp_path.iterdir() if path.name.startswith("devices.csv.run-"))
    assert (0, 6) == (again.code, sandbox.stats.requests)
    assert f"The earlier run there is now {moved}" in again.err
    write_devices(tmp_path / "devices.csv", 4)
    other = moe_bulk(["upload", "devices.csv", "--keep-runs", "1"], tmp_path, env)
    assert (0, 10) == (other.code, sandbox.stats.requests)
    assert 1 == len([path for path in tmp_path.iterdir() if path.name.startswith("devices.csv.run-")])


def test_an_unfinished_run_of_other_rows_is_refused(tmp_path: Path, sandbox: Sandbox) -> None:
    """Exit 2 with the way out, and nothing is sent; --if-changed fresh moves it aside."""
    write_devices(tmp_path / "devices.csv", 3)
    env = environment(sandbox)
    assert 0 == moe_bulk(["upload", "devices.csv", "--limit", "2"], tmp_path, env).code
    write_devices(tmp_path / "devices.csv", 4)
    refused = moe_bulk(["upload", "devices.csv"], tmp_path, env)
    assert (2, 2) == (refused.code, sandbox.stats.requests)
    assert "unfinished run of other data (changed: devices.csv)" in refused.err
    assert "--fresh" in refused.err
    assert 0 == moe_bulk(["upload", "devices.csv", "--if-changed", "fresh"], tmp_path, env).code
    assert 6 == sandbox.stats.requests


def test_a_run_that_another_process_holds(tmp_path: Path) -> None:
    """A second upload into the same folder is refused with exit 4, --fresh or not."""
    with running_sandbox(SandboxSettings(api_key=KEY, limit=None, faults=Faults.parse("hang=100%"))) as sandbox:
        write_devices(tmp_path / "devices.csv", 10)
        env = environment(sandbox)
        with start(["upload", "devices.csv"], tmp_path, env):
            wait_for(lambda: sandbox.stats.requests > 0)
            second = moe_bulk(["upload", "devices.csv", "--fresh"], tmp_path, env)
        assert 4 == second.code, second.err


def test_the_key_is_nowhere(tmp_path: Path, sandbox: Sandbox) -> None:
    """The key is in no file, no output and no process list, even when things go wrong."""
    write_devices(tmp_path / "devices.csv", 300)
    with start(["upload", "devices.csv", "-v"], tmp_path, environment(sandbox)) as process:
        wait_for(lambda: sandbox.stats.requests > 10)
        seen = Path(f"/proc/{process.pid}/cmdline").read_bytes() if Path("/proc").exists() else b""
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=15)
    wrong = moe_bulk(
        ["upload", "devices.csv", "--fresh"], tmp_path, environment(sandbox, MOENGAGE_WORKSPACE_ID="OTHER")
    )
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in seen + written + (out + err + wrong.out + wrong.err).encode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["upload", "nope.csv"], "there is no file nope.csv"),
        (["upload", "devices.csv", "--api-key=" + KEY], "there is no option --api-key. Did you mean --api-key-file?"),
        (["sandbox", "--faults", "5yy=2%"], "5yy"),
    ],
)
def test_wrong_usage(tmp_path: Path, sandbox: Sandbox, arguments: list[str], said: str) -> None:
    """What cannot be done is refused with exit 2 and a message that helps; nothing is sent, nothing left behind."""
    write_devices(tmp_path / "devices.csv", 3)
    check_that_nothing_was_done(moe_bulk(arguments, tmp_path, environment(sandbox)), tmp_path, sandbox, said)


def check_that_nothing_was_done(ended: Ended, folder: Path, sandbox: Sandbox, said: str) -> None:
    """Exit 2 and a message that helps; nothing sent, nothing left behind, and no key told."""
    assert (2, 0, ["devices.csv"]) == (
        ended.code,
        sandbox.stats.requests,
        [path.name for path in folder.iterdir()],
    ), ended.err
    assert said in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    assert KEY not in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["upload", "devices.csv", "--rte", "5/s"], "Did you mean --rate?"),
        (["upload", "devices.csv", "--rate", "fast"], "write it like 10000/min"),
        (["upload", "devices.csv", "--column", "platfrom=x"], "Did you mean platform?"),
        (["upload", "devices.csv", "--column", "model=modle"], "names a column 'modle' that is not there"),
        (["upload", "*.parquet"], "no file matches"),
        (["upload", "."], "is a folder"),
        (["upload", "devices.csv", "--limit", "0"], "at least 1"),
        (["upload", "devices.csv", "--in-flight", "0", "--sandbox"], "at least one request"),
        (["upload"], "upload what? Name a file"),
    ],
)
def test_wrong_usage_of_any_kind(
    tmp_path: Path,
    sandbox: Sandbox,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same in the test's own process, which is faster; `test_wrong_usage` shows how one of its own ends."""
    write_devices(tmp_path / "devices.csv", 3)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("MOE_BULK_", "MOENGAGE_"))]:
        monkeypatch.delenv(name)
    for name, value in environment(sandbox).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["moe-bulk", *arguments])
    code = cli.run(arguments)
    out, err = capsys.readouterr()
    check_that_nothing_was_done(Ended(code, out, err), tmp_path, sandbox, said)


def test_settings_from_a_file(tmp_path: Path, sandbox: Sandbox) -> None:
    """moe-bulk.toml in the current folder is read, a flag beats it, and it may not say where the data goes."""
    write_devices(tmp_path / "devices.csv", 5)
    (tmp_path / "moe-bulk.toml").write_text('limit = 2\nset = ["model=Pixel 9"]\n', encoding="utf-8")
    env = environment(sandbox)
    assert 0 == moe_bulk(["upload", "devices.csv"], tmp_path, env).code
    assert (2, {"Pixel 9"}) == (len(sandbox.devices), {d.attributes["model"] for d in sandbox.devices.values()})
    assert 0 == moe_bulk(["upload", "devices.csv", "--fresh", "--limit", "4"], tmp_path, env).code
    assert 4 == len(sandbox.devices)
    (tmp_path / "moe-bulk.toml").write_text('base-url = "https://evil.example"\n', encoding="utf-8")
    refused = moe_bulk(["upload", "devices.csv", "--fresh"], tmp_path, env)
    assert 2 == refused.code
    assert "only from a file that you name" in refused.err


def test_max_failures_stops_the_run(tmp_path: Path, sandbox: Sandbox) -> None:
    """More failures than allowed stop the run with exit 3."""
    rows = "".join(f"na,device-{number},web,token-{number}\n" for number in range(50))
    (tmp_path / "bad.csv").write_text("customer_id,device_id,platform,push_id\n" + rows, encoding="utf-8")
    ended = moe_bulk(["upload", "bad.csv", "--max-failures", "10"], tmp_path, environment(sandbox))
    assert 3 == ended.code
    assert "--max-failures 10" in ended.err


def test_progress_as_json_lines_and_quiet(tmp_path: Path, sandbox: Sandbox) -> None:
    """--quiet says nothing when all is well; --json puts the summary, alone, on standard output."""
    write_devices(tmp_path / "devices.csv", 3)
    ended = moe_bulk(["upload", "devices.csv", "-q", "--json"], tmp_path, environment(sandbox))
    assert (0, "", 3) == (ended.code, ended.err, json.loads(ended.out)["counts"]["accepted"])


def test_the_sandbox_command(tmp_path: Path) -> None:
    """`moe-bulk sandbox` says what to export, serves, and ends with Ctrl-C."""
    with start(["sandbox", "--port", "0", "--rate", "600000/min"], tmp_path, environment()) as process:
        said: dict[str, str] = {}
        assert process.stdout is not None
        while len(said) < 3:
            name, _, value = process.stdout.readline().strip().removeprefix("export ").partition("=")
            if name.startswith("MOENGAGE_"):
                said[name] = value.strip("'\"")
        write_devices(tmp_path / "devices.csv", 10)
        ended = moe_bulk(["upload", "devices.csv"], tmp_path, environment(None, **said))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert (0, 0) == (ended.code, process.returncode), ended.err
