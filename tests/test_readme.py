"""Every command and block of the README runs, and what it says of options and statuses is true."""

from __future__ import annotations

import ast
import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiolimiter import AsyncLimiter

from moe_bulk import cli, presets
from moe_bulk.cli.app import options_of
from moe_bulk.columns import Columns, Reader, Unsent
from moe_bulk.config import Rate
from moe_bulk.device import Device
from moe_bulk.outcome import Status
from moe_bulk.record import Position, Record, Row
from moe_bulk.sandbox import Sandbox, SandboxSettings
from moe_bulk.spark.access import Workspaces
from tests.acceptance.command import COMMAND, environment, running_sandbox, start, write_devices
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(<!-- [a-z ]+ -->\n)?```(\w+)\n(.*?)```", README, re.DOTALL)
SHELL = [text for marked, language, text in BLOCKS if language == "sh" and not marked]
PYTHON = [text for marked, language, text in BLOCKS if language == "python" and not marked]
TOML = [text for marked, language, text in BLOCKS if language == "toml" and not marked]
MARKED = {marked.strip("<!- >\n"): text for marked, _, text in BLOCKS if marked}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """What stands in for MoEngage while the README is followed."""
    with running_sandbox(SandboxSettings(limit=None)) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the README talks of, and its program on the path."""
    write_devices(tmp_path / "devices.csv", 3)
    rows = "external_user_id,device_id,token\nuser-1,device-1,token-1\n"
    (tmp_path / "export.csv").write_text(rows, encoding="utf-8")
    onesignal = (
        "id,identifier,device_type,external_user_id\ndevice-2,token-2,1,user-2\ndevice-3,a@example.com,11,user-3\n"
    )
    (tmp_path / "onesignal.csv").write_text(onesignal, encoding="utf-8")
    (tmp_path / "tokens.csv").write_text("push_token;custom_id\ntoken-4;user-4\n", encoding="utf-8")
    letter = tmp_path / "devices.csv.run"
    letter.mkdir()
    (letter / "dead-letter.ndjson").write_text("", encoding="utf-8")
    subprocess.run(["gzip", "--keep", "devices.csv"], cwd=tmp_path, check=True)
    program = tmp_path / "bin" / "moe-bulk"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m moe_bulk "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    return tmp_path


def with_program(folder: Path, sandbox: Sandbox) -> dict[str, str]:
    """An environment in which `moe-bulk` is on the path and the sandbox is the destination."""
    env = environment(sandbox)
    return env | {"PATH": f"{folder / 'bin'}:{env['PATH']}"}


@pytest.mark.parametrize("text", [block for block in SHELL if "export" not in block.split() and "sandbox" not in block])
def test_a_command_runs(text: str, folder: Path, sandbox: Sandbox) -> None:
    """A command of the README ends well."""
    ended = subprocess.run(
        ["sh", "-ec", text], cwd=folder, env=with_program(folder, sandbox), capture_output=True, text=True, check=False
    )
    assert 0 == ended.returncode, ended.stderr


def test_the_real_thing_with_another_destination(folder: Path, sandbox: Sandbox) -> None:
    """The exports and the command after them work; only the destination is the sandbox's."""
    text = next(block for block in SHELL if "MOENGAGE_DATA_CENTER" in block)
    text = (
        text.replace("YOUR_WORKSPACE", sandbox.workspace_id)
        .replace("YOUR_DATA_API_KEY", sandbox.api_key)
        .replace("MOENGAGE_DATA_CENTER=01", f"MOENGAGE_BASE_URL={sandbox.url}")
        .replace("devices.csv", "devices.csv --out another.run")
    )
    ended = subprocess.run(
        ["sh", "-ec", text], cwd=folder, env=with_program(folder, sandbox), capture_output=True, text=True, check=False
    )
    assert (0, 3) == (ended.returncode, len(sandbox.devices)), ended.stderr


def test_the_sandbox_s_faults_are_known(tmp_path: Path) -> None:
    """The sandbox's command of the README starts, on a free port."""
    text = next(block for block in SHELL if block.startswith("moe-bulk sandbox"))
    arguments = text.replace("'", "").replace("8080", "0").split()[1:]
    with start(arguments, tmp_path, environment()) as process:
        assert process.stdout is not None
        assert "127.0.0.1" in process.stdout.readline() + process.stdout.readline()


@pytest.mark.parametrize("text", PYTHON)
def test_a_python_block_runs(text: str, folder: Path, sandbox: Sandbox) -> None:
    """A Python block of the README runs as it stands."""
    ended = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, env=environment(sandbox), capture_output=True, text=True, check=False
    )
    assert 0 == ended.returncode, ended.stderr
    assert "accepted" in ended.stdout


def test_the_preset_of_one_s_own(tmp_path: Path) -> None:
    """It is read as it stands, and does what is said beside it."""
    (text,) = TOML
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    reader = Reader(Columns.parse(set_=["model=Phone"], preset=str(tmp_path / "mine.toml")))
    phone = {"id": "d-1", "os": "Android", "token": "token-1", "muted": "No"}
    phones = [phone, {**phone, "os": "Landline"}, {**phone, "token": "n.a."}]
    row = Row(Position("crm.ndjson", 1, 0), {"crm_id": "-", "user": {"id": "u-1"}, "last_seen": "", "phones": phones})

    first, *rest = [reader.read(each) for each in reader.spread([row])]
    assert isinstance(first, Record)
    attributes = {"platform": "ANDROID", "push_id": "token-1", "moe_push_opted": "True", "app_version": "7.0"}
    assert Device("u-1", "d-1", {**attributes, "model": "Phone"}) == first.device
    assert ["phones.os is Landline: a landline takes no pushes", "the phone was never registered"] == [
        each.reason for each in rest if isinstance(each, Unsent)
    ]
    assert [] == reader.warnings()


def test_the_settings_file(folder: Path, sandbox: Sandbox) -> None:
    """Each command takes from it what is said to be for it."""
    (folder / "moe-bulk.toml").write_text(MARKED["settings"], encoding="utf-8")
    shown = dict[str, str]()
    for command in ("upload", "doctor"):
        asked = [*COMMAND, "config", command]
        done = subprocess.run(asked, cwd=folder, env=environment(sandbox), capture_output=True, text=True, check=True)
        shown[command] = done.stdout
    assert all('rate = "8000/min"' in each for each in shown.values())
    assert 'set = ["platform=iOS"]' in shown["upload"]
    assert "keep-runs = 14" in shown["upload"]
    assert 'timeout = "5s"' in shown["doctor"]
    assert 'timeout = "5s"' not in shown["upload"]


def test_the_workspaces_of_a_spark_job(tmp_path: Path) -> None:
    """The file is read as it stands; only the key's own file lies elsewhere."""
    (tmp_path / "acme").write_text("acme-key\n", encoding="utf-8")
    text = MARKED["workspaces"].replace("/run/secrets/acme", str(tmp_path / "acme"))
    (tmp_path / "workspaces.toml").write_text(text, encoding="utf-8")
    found = Workspaces(str(tmp_path / "workspaces.toml"), {"BETA_KEY": "beta-key"})
    acme, beta = found.find("ACME"), found.find("BETA")
    assert ("acme-key", Rate(20_000)) == (acme.credentials.api_key, acme.rate)
    assert ("beta-key", None) == (beta.credentials.api_key, beta.rate)
    assert ("https://api-01.moengage.com", "https://api-101.moengage.com") == (
        acme.credentials.base_url,
        beta.credentials.base_url,
    )


def test_all_presets_are_told_of() -> None:
    """Each has its line in the table."""
    assert [] == [name for name in presets.names() if f"| `{name}` | " not in README]


def test_the_two_commands_of_a_newcomer() -> None:
    """Both stand in the README, marked for `.ci/run`, which runs them to the letter."""
    marked = {marked.strip(): text for marked, _, text in BLOCKS if marked}
    assert "moe-bulk upload samples/devices.csv --sandbox" in marked["<!-- first command -->"]
    assert "pip install --quiet '.[test]' && python -m pytest" in marked["<!-- test command -->"]


def test_options_that_the_readme_names_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """No option is promised that is not there."""
    for command in ("upload", "check", "sandbox", "report", "audit"):
        cli.run([command, "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) | {"--help", "--quiet"}
    usage = re.sub(r"(pip install|python3 -m venv|benchmarks/)[^&`]*", "", README)
    assert set() == set(re.findall(r"(?<![\w<!-])--[a-z][a-z-]+", usage)) - known


def test_all_options_of_upload_are_told_of() -> None:
    """Whoever reads the README misses none."""
    assert [] == [name for name in options_of("upload") if name.startswith("--") and f"`{name}" not in README]


def test_all_statuses_are_explained() -> None:
    """Each status has its explanation."""
    assert [] == [status.value for status in Status if status.value not in README]


PROMISES = [line for line in README.splitlines() if "`tests/" in line and line.startswith("| **")]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda line: line.split("**")[1])
def test_each_promise_has_its_tests_and_its_bounds(promise: str) -> None:
    """Every test that is named beside it is there, and what it does not cover is said."""
    _, _, tests, bounds, _ = promise.split("|")
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
    assert tests.count("tests/") == len(named) > 0
    assert bounds.strip()
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
        assert test in defined, f"{file} has no {test}"


def test_there_are_promises() -> None:
    """Their table was found."""
    assert 8 == len(PROMISES)


def test_links_within_the_readme_lead_somewhere() -> None:
    """Each to a heading, by the name that it has on a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", README, flags=re.DOTALL), re.MULTILINE)
    places = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set() == set(re.findall(r"\]\(#([^)]+)\)", README)) - places


def test_what_is_said_of_another_limiter() -> None:
    """A full bucket, and what refills meanwhile: nearly 200 in the first minute where 100 were meant."""

    async def count() -> int:
        loop, limiter, passed = asyncio.get_running_loop(), AsyncLimiter(100, 60), 0
        end = loop.time() + 60
        while loop.time() < end:
            await limiter.acquire()
            passed += loop.time() < end
        return passed

    assert 195 < run_virtually(count) < 200
