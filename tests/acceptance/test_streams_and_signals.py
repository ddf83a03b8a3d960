"""Lost terminals, closed pipes, early and ignored signals: none of them may harm a run or misreport it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moe_bulk.sandbox import Faults, Sandbox, SandboxSettings
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
    from collections.abc import Iterator

PROGRAM = f"{sys.executable} -m moe_bulk upload devices.csv"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A well-behaved MoEngage without a limit."""
    with running_sandbox(SandboxSettings(api_key=KEY, limit=None)) as running:
        yield running


def in_a_shell(text: str, folder: Path, sandbox: Sandbox) -> subprocess.CompletedProcess[str]:
    """Run a line as a person would type it."""
    return subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        env=environment(sandbox),
        capture_output=True,
        text=True,
        check=False,
        timeout=18,
    )


@pytest.mark.parametrize(
    "redirection",
    [
        "2>&-",
        "2>/dev/full",
        "2> >(true)",
        "--json >&- 2>&-",
        "--json >/dev/full",
        "--json > >(true)",
        "--progress json 2>&-",
        "--progress bar 2>/dev/full",
        "<&- >&- 2>&-",
    ],
)
def test_nobody_has_to_listen(tmp_path: Path, sandbox: Sandbox, redirection: str) -> None:
    """A closed, full or broken output changes neither what is delivered nor the exit code."""
    write_devices(tmp_path / "devices.csv", 30)
    ended = in_a_shell(f"{PROGRAM} {redirection}; echo code $?", tmp_path, sandbox)
    assert "code 0" in ended.stdout, ended
    assert "Traceback" not in ended.stderr
    assert 30 == len(sandbox.devices) == summary_of(tmp_path / "devices.csv.run")["counts"]["accepted"]


def test_what_is_for_people_never_lands_in_the_json(tmp_path: Path, sandbox: Sandbox) -> None:
    """With standard error closed, standard output still holds the summary alone."""
    write_devices(tmp_path / "devices.csv", 3)
    ended = in_a_shell(f"{PROGRAM} --json 2>&-", tmp_path, sandbox)
    assert 3 == json.loads(ended.stdout)["counts"]["accepted"]


@pytest.mark.parametrize("locale", ["PYTHONIOENCODING=latin-1", "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"])
def test_no_locale_takes_a_word(tmp_path: Path, sandbox: Sandbox, locale: str) -> None:
    """JSON is UTF-8 for whoever reads it, and what people see has all its lines."""
    write_devices(tmp_path / "devices✓.csv", 3)
    program = f"{locale} {PROGRAM}".replace("devices.csv", "devices*.csv")
    for more in ("--json 2>/dev/null", "--fresh --log-json 2>&1", "--fresh --progress json 2>&1"):
        said = in_a_shell(f"{program} {more}", tmp_path, sandbox).stdout
        assert said
        for document in [said] if more.startswith("--json") else said.splitlines():
            json.loads(document)
    told = in_a_shell(f"{program} --fresh 2>&1", tmp_path, sandbox).stdout
    assert "Results go to" in told
    assert "devices\\u2713.csv.run" in told or "devices\\udc" in told
    assert "Read 3 rows: 3 accepted" in told
    found = in_a_shell(f"{locale} {sys.executable} -m moe_bulk check devices*.csv --json", tmp_path, sandbox).stdout
    assert 3 == json.loads(found)["rows"]


def test_no_name_speaks_to_the_terminal(tmp_path: Path, sandbox: Sandbox) -> None:
    """Whatever a file is called, each command shows it, and none sends it as it is."""
    name = "ev\x1b]0;pwned\x07\x9b.csv"
    write_devices(tmp_path / name, 2)
    for words in (["upload", "ev*.csv"], ["upload", name], ["report", name], ["audit", name], ["check", name]):
        ended = moe_bulk(words, tmp_path, environment(sandbox))
        assert 0 == ended.code, ended
        assert not {"\x1b", "\x07", "\x9b"} & {*ended.out, *ended.err}, (words, ended)
    for words in (["upload", "no" + name], ["report", "no" + name], ["upload", name, "--config", name]):
        ended = moe_bulk(words, tmp_path, environment(sandbox))
        assert 2 == ended.code, ended
        assert not {"\x1b", "\x07", "\x9b"} & {*ended.out, *ended.err}, (words, ended)


def test_json_progress_is_json(tmp_path: Path, sandbox: Sandbox) -> None:
    """With --progress json each line on standard error is JSON, and the last one is the end."""
    write_devices(tmp_path / "devices.csv", 7)
    ended = moe_bulk(["upload", "devices.csv", "--progress", "json"], tmp_path, environment(sandbox))
    assert [7] == [json.loads(line)["accepted"] for line in ended.err.splitlines()]


def test_json_progress_ends_with_the_error(tmp_path: Path, sandbox: Sandbox) -> None:
    """What stops a run, or keeps it from beginning, is a JSON line, too."""
    upload = ["upload", "devices.csv", "--progress", "json"]
    nothing = moe_bulk(upload, tmp_path, environment(sandbox))
    (line,) = map(json.loads, nothing.err.splitlines())
    assert (2, 2, "SourceError", None) == (nothing.code, line["exit_code"], line["error"], line["run_id"])
    assert "devices.csv" in line["message"]

    (tmp_path / "devices.csv").write_text("customer_id,device_id,platform,push_id\n" + "a,b,fridge,c\n" * 9)
    ended = moe_bulk([*upload, "--max-failures", "2"], tmp_path, environment(sandbox))
    *_, last, error = map(json.loads, ended.err.splitlines())
    assert (3, 3, False) == (ended.code, last["exit_code"], last["finished"])
    assert ("TooManyFailures", last["run_id"]) == (error["error"], error["run_id"])
    assert "rows failed, more than --max-failures 2 allows" in error["message"]


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.1, 0.15, 0.2, 0.3])
def test_an_early_interrupt_is_an_interrupt(tmp_path: Path, sandbox: Sandbox, wait: float) -> None:
    """Ctrl-C at any moment after the start ends with 130 and no traceback."""
    write_devices(tmp_path / "devices.csv", 100_000)
    for longer in (0.1, 0.3, 0.9, 2.7):
        with start(["upload", "devices.csv"], tmp_path, unmeasured(environment(sandbox))) as process:
            while b"moe_bulk" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                pass
            time.sleep(longer + wait)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=15)
        if process.returncode != -signal.SIGINT or "__main__.py" in err:
            break  # else the interpreter's own start, which is not ours to shield, has taken longer than usual
    assert 130 == process.returncode, err
    assert "Traceback" not in err


def test_nohup_is_obeyed(tmp_path: Path) -> None:
    """A signal that whoever started it has told to ignore is ignored."""
    with running_sandbox(
        SandboxSettings(api_key=KEY, limit=None, faults=Faults.parse("latency=200ms..300ms"))
    ) as sandbox:
        write_devices(tmp_path / "devices.csv", 150)
        text = f"trap '' HUP; {PROGRAM} & sleep 0.8; kill -HUP $!; wait $!; echo code $?"
        ended = in_a_shell(text, tmp_path, sandbox)
        assert ("code 0", 150) == (ended.stdout.strip(), len(sandbox.devices)), ended.stderr


def test_a_hang_up_stops_orderly(tmp_path: Path) -> None:
    """A terminal that goes away stops the run in order: 128 + SIGHUP."""
    with running_sandbox(
        SandboxSettings(api_key=KEY, limit=None, faults=Faults.parse("latency=200ms..300ms"))
    ) as sandbox:
        write_devices(tmp_path / "devices.csv", 2000)
        with start(["upload", "devices.csv"], tmp_path, environment(sandbox)) as process:
            while sandbox.stats.requests < 20:
                time.sleep(0.02)
            process.send_signal(signal.SIGHUP)
            process.communicate(timeout=15)
        assert 129 == process.returncode == summary_of(tmp_path / "devices.csv.run")["exit_code"]


def test_every_option_may_stand_in_a_file(tmp_path: Path, sandbox: Sandbox) -> None:
    """Whatever the command line takes, a named file may say; `sandbox` too, which is a command's name as well."""
    write_devices(tmp_path / "devices.csv", 3)
    (tmp_path / "all.toml").write_text(
        'sandbox = true\nrate = "600/s"\nin-flight = 4\ntimeout = "5s"\ntries = 2\noutage-limit = "1min"\n'
        'max-failures = "50%"\nformat = "csv"\nset = ["model=X", "app_version=1.10"]\nvalidate = "basic"\nlimit = 2\n'
        'where = ["platform=ANDROID"]\ncolumn = ["os_version=device_id"]\ninclude-superseded = true\nout = "here"\n'
        'fresh = true\nprogress = "none"\njson = true\nverbose = true\nquiet = false\n',
        encoding="utf-8",
    )
    ended = moe_bulk(["upload", "devices.csv", "--config", "all.toml"], tmp_path, environment(sandbox))
    assert (0, 2) == (ended.code, json.loads(ended.out)["counts"]["accepted"]), ended.err
    assert 0 == sandbox.stats.requests
    assert "at most 600/s, 4 in flight, 5 s a request, 2 tries a row" in ended.err
    assert (tmp_path / "here" / "results.ndjson").exists()


def test_the_sandbox_cannot_be_slipped_in(tmp_path: Path, sandbox: Sandbox) -> None:
    """A file that merely lies there may not turn a delivery into a rehearsal that looks like a success."""
    write_devices(tmp_path / "devices.csv", 3)
    (tmp_path / "moe-bulk.toml").write_text("sandbox = true\n", encoding="utf-8")
    ended = moe_bulk(["upload", "devices.csv"], tmp_path, environment(sandbox))
    assert 2 == ended.code
    assert "sandbox is taken only from a file that you name" in ended.err


def test_the_destination_comes_from_one_place(tmp_path: Path, sandbox: Sandbox) -> None:
    """The environment's destination beats a file's, a flag's beats both."""
    write_devices(tmp_path / "devices.csv", 3)
    (tmp_path / "named.toml").write_text('data-center = "01"\n', encoding="utf-8")
    ended = moe_bulk(["upload", "devices.csv", "--config", "named.toml"], tmp_path, environment(sandbox))
    assert (0, 3) == (ended.code, len(sandbox.devices)), ended.err
    env = environment(sandbox, MOENGAGE_DATA_CENTER="02")
    refused = moe_bulk(["upload", "devices.csv", "--fresh"], tmp_path, env)
    assert (2, True) == (refused.code, "keep one of them" in refused.err)
    typed = moe_bulk(["upload", "devices.csv", "--fresh", "--base-url", sandbox.url], tmp_path, env)
    assert 0 == typed.code, typed.err
