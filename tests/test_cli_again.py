"""What is said to type after an upload: it can be pasted, and does what is promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_bulk.cli.again import next_steps
from moe_bulk.display import NextSteps

LETTERS = Path("/runs/my file.run/dead-letter.ndjson")


@pytest.mark.parametrize(
    ("typed", "go_on", "resend"),
    [
        ("upload a.csv", "PROGRAM upload a.csv", "PROGRAM upload LETTERS"),
        ("upload a.csv --sandbox --fresh", "PROGRAM upload a.csv --sandbox", "PROGRAM upload LETTERS --sandbox"),
        (
            "upload a.csv --rate 5/s --data-center 01 --config=x.toml --workspace-id W --set platform=iOS",
            "PROGRAM upload a.csv --rate 5/s --data-center 01 --config=x.toml --workspace-id W --set platform=iOS",
            "PROGRAM upload LETTERS --data-center 01 --config=x.toml --workspace-id W",
        ),
        ("upload - --format csv", "", "PROGRAM upload LETTERS"),
        ("upload a.csv --sandbox=true", "PROGRAM upload a.csv --sandbox=true", "PROGRAM upload LETTERS --sandbox=true"),
        ("upload - --pace redis://:secret@h --base-url=https://me:secret@h", "", "PROGRAM upload LETTERS"),
        ("upload https://me:secret@example.org/a.csv", "", "PROGRAM upload LETTERS"),
    ],
)
def test_commands_are_made_from_the_one_that_ran(typed: str, go_on: str, resend: str) -> None:
    """It goes on without --fresh; dead letters need the destination again; no password is repeated."""
    steps = next_steps(["./bin/moe-bulk", *typed.split()])
    assert go_on.replace("PROGRAM", "./bin/moe-bulk") == steps.go_on
    expected = resend.replace("PROGRAM", "./bin/moe-bulk").replace("LETTERS", "'/runs/my file.run/dead-letter.ndjson'")
    assert expected == steps.resending(LETTERS)


def test_the_program_is_called_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name where it is on the path, as a module where it was run as one."""
    program = tmp_path / "moe-bulk"
    program.write_text("#!/bin/sh\n", encoding="ascii")
    program.chmod(0o700)
    assert f"{program} upload a.csv" == next_steps([str(program), "upload", "a.csv"]).go_on
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "moe-bulk upload a.csv" == next_steps([str(program), "upload", "a.csv"]).go_on
    monkeypatch.setattr("sys.executable", "/usr/bin/python3.12")
    assert "python3.12 -m moe_bulk upload 'a b'" == next_steps(["/x/moe_bulk/__main__.py", "upload", "a b"]).go_on


def test_the_default_is_the_program_s_name() -> None:
    """Who shows a run without a command line behind it gets the plain command."""
    assert "moe-bulk upload x.ndjson" == NextSteps().resending(Path("x.ndjson"))
