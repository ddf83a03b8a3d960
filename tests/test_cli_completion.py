"""`moe-bulk completion`: the scripts are read by the shells themselves, and asked what they would offer."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from moe_bulk import cli
from moe_bulk.cli.app import app, options_of
from moe_bulk.cli.completion import described
from moe_bulk.cli.shells import Command, Option, bash, fish, zsh

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = [name for name in app if not name.startswith("-")]
SHELLS = ["bash", "zsh", "fish"]
ODD = Command(
    "odd", "It's \\ odd: [very] `so` $x", [Option(("--it",), "what's [this]: \\ $(touch owned)", takes_value=True)]
)

IN_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_moe_bulk 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
IN_FISH = "source $argv[1]; complete -C (string join ' ' -- $argv[2..])"
IN_ZSH = """
_describe() { print -rl -- "${(@P)4}"; }  # zsh's own, which need a terminal, say what they are asked to offer
_arguments() { print -rl -- "${@:3}"; }  # behind `-S :`
compdef() { [[ "$*" == "_moe_bulk moe-bulk" ]] || print "compdef $*"; }
source "$1"; shift
words=("$@"); CURRENT=$#
_moe_bulk
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts of all shells, and with two files to complete."""
    folder = tmp_path_factory.mktemp("completion")
    for shell, make in (("bash", bash), ("zsh", zsh), ("fish", fish)):
        (folder / f"script.{shell}").write_text(make([*map(described, COMMANDS), ODD]) + "\n", encoding="utf-8")
    (folder / "devices.csv").touch()
    (folder / "moe-bulk").write_text("#!/bin/sh\n", encoding="utf-8")  # fish completes what is a command
    (folder / "moe-bulk").chmod(0o700)
    return folder


def offered(shell: str, folder: Path, *words: str) -> set[str]:
    """What the shell offers for the last of these words."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine")
    script = str(folder / f"script.{shell}")
    command = {
        "bash": ["bash", "--norc", "-c", IN_BASH, "bash", script, *words],
        "fish": ["fish", "--no-config", "-c", IN_FISH, script, *words],
        "zsh": ["zsh", "-f", "-c", IN_ZSH, "zsh", script, *words],
    }[shell]
    env = {"PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder), "TERM": "dumb"}
    ended = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=18)
    return {line.partition("\t")[0] for line in ended.stdout.splitlines() if line}


def offered_by_zsh(folder: Path, *words: str) -> dict[str, str]:
    """What zsh's completion system is asked to offer: names without `=` and `*`, each with what is said of it."""
    specs = offered("zsh", folder, *words)
    return {re.split(r"[=\[:]", spec.lstrip("*"), maxsplit=1)[0]: spec for spec in specs}


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_commands(shell: str, scripts: Path) -> None:
    """All commands are offered, and those that begin so."""
    assert set(COMMANDS) <= offered(shell, scripts, "moe-bulk", "")
    assert {"doctor"} == offered(shell, scripts, "moe-bulk", "do")


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize("command", COMMANDS)
def test_options(shell: str, command: str, scripts: Path) -> None:
    """Each option of the command is offered after a dash, and none of another one."""
    expected = {name for name in options_of(command) if name.startswith("--")} | {"--help"}
    assert expected == offered(shell, scripts, "moe-bulk", command, "--")


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--pace", ""], {"host", "process"}),
        (["--if-changed", "fr"], {"fresh"}),
        (["--preset", "one"], {"onesignal"}),
        (["--data-center", "10"], {"101"}),
        (["--ca-bundle", "dev"], {"devices.csv"}),
        (["dev"], {"devices.csv"}),
    ],
)
def test_values_and_files(shell: str, words: list[str], expected: set[str], scripts: Path) -> None:
    """Values that are known are offered, and files where a file is meant."""
    found = offered(shell, scripts, "moe-bulk", "upload", *words)
    if shell == "bash" and "devices.csv" in expected:
        assert set() == found  # readline's part: `-o default`
    else:
        assert expected == found


@pytest.mark.parametrize("command", COMMANDS)
def test_zsh(command: str, scripts: Path) -> None:
    """Its own functions are told the commands; of one of them the options, their values, and where files belong."""
    assert {*COMMANDS, "odd"} == offered_by_zsh(scripts, "moe-bulk", "").keys()
    found = offered_by_zsh(scripts, "moe-bulk", command, "")
    names = {name for name in options_of(command) if name.startswith("--")}
    assert names <= found.keys()
    for name, (action, repeatable) in {
        "--pace": ("(host process)", False),
        "--ca-bundle": ("_files", False),
        "--set": (" ", True),
    }.items():
        if name in names:
            assert (action, repeatable) == (found[name].rpartition(":")[2], found[name].startswith("*"))
    assert (command in ("upload", "check", "report", "audit")) is (
        ":file:_files" in {spec.lstrip("*") for spec in found.values()}
    )


def test_a_value_behind_an_equals_sign(scripts: Path) -> None:
    """To bash `--pace=ho` is three words."""
    assert {"host"} == offered("bash", scripts, "moe-bulk", "upload", "--pace", "=", "ho")
    assert {"host", "process"} == offered("bash", scripts, "moe-bulk", "upload", "--pace", "=")


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_read_the_whole_script(shell: str, scripts: Path) -> None:
    """Nothing in a help text is taken for the shell's own; sourcing it says nothing and does nothing else."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine")
    script = scripts / f"script.{shell}"
    prepare = "autoload -Uz compinit; compinit -u -D; " if shell == "zsh" else ""
    for arguments in (["-n", str(script)], ["-c", f"{prepare}source {script}"]):
        ended = subprocess.run([shell, *arguments], cwd=scripts, capture_output=True, text=True, check=False)
        assert (0, "", "") == (ended.returncode, ended.stdout, ended.stderr)
    assert not (scripts / "owned").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`moe-bulk completion SHELL` knows all commands, this one included."""
    assert 0 == cli.run(["completion", shell])
    said = capsys.readouterr().out
    assert [] == [name for name in COMMANDS if name not in said]


def test_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told which there are."""
    assert 2 == cli.run(["completion", "csh"])
    assert "fish" in capsys.readouterr().err
