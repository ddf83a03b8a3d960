"""`--help` of every command reads well in a terminal of 80 columns."""

from __future__ import annotations

import pytest

from moe_bulk import cli
from moe_bulk.cli.app import app, options_of

COMMANDS = [name for name in app if not name.startswith("-")]


def told(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What its help says at 80 columns; none is asked for where the command has no name."""
    monkeypatch.setenv("COLUMNS", "80")
    assert 0 == cli.run([*command.split(), "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_no_line_is_broken(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wider than the terminal, and what stands above and below the tables is not broken within a line."""
    lines = told(command, capsys, monkeypatch).splitlines()
    assert 80 >= max(map(len, lines))
    about = (app[command] if command else app).help.splitlines() if command else []
    assert [] == [line for line in map(str.strip, about) if line and line not in map(str.strip, lines)]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_examples_stand_at_the_end(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each help ends with commands to copy, of that command."""
    said = told(command, capsys, monkeypatch)
    _, _, examples = said.rpartition("\nExamples:\n")
    assert f"moe-bulk {command}".strip() in examples


@pytest.mark.parametrize("command", COMMANDS)
def test_each_parameter_is_explained(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every option stands there, each with a sentence; nothing of Python's is told as a default."""
    arguments = [each for each in app[command].assemble_argument_collection() if each.parameter.parse is not False]
    leaves = [each for each in arguments if each.name != "*"]
    assert [] == [each.name for each in leaves if not (each.parameter.help or "").strip()]
    said = told(command, capsys, monkeypatch)
    assert [] == [name for name in options_of(command) if name not in said]
    assert [] == [wince for wince in ("default: None", "default: False", "default: ()", "Parameters") if wince in said]


def test_long_helps_have_headings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload's options stand in groups, in the order of a device's way; environment and defaults are told."""
    said = told("upload", capsys, monkeypatch)
    headings = ["Where to", "How fast, how patiently", "How rows become devices", "What need not be sent again"]
    places = [said.index(f"─ {each} ─") for each in [*headings, "What is written and shown", "Other options"]]
    assert sorted(places) == places
    words = " ".join(said.replace("│", " ").split())
    for expected in ("[env var: MOENGAGE_WORKSPACE_ID]", "[env var: MOE_BULK_RATE] [default: 10000/min]"):
        assert expected in words


def test_commands_stand_in_the_order_in_which_they_are_needed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upload first; the alphabet would put it last."""
    said = told("", capsys, monkeypatch)
    places = [said.index(f"│ {name} ") for name in ("upload", "check", "report", "audit", "doctor", "completion")]
    assert sorted(places) == places


@pytest.mark.parametrize("command", COMMANDS)
def test_what_an_option_takes_is_said(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, a time, a number: not Python's name of its type; and an argument by its own name."""
    said = told(command, capsys, monkeypatch)
    assert [] == [wince for wince in (" STR", " INT", "[ARGS") if wince in said]
