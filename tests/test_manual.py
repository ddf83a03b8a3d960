"""Help that is shown at once: the same that the command line says."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest

from moe_bulk.manual import PAGES, WIDTH, page, shown
from tests.manual_pages import COMMANDS, said

REWRITE = "what a command says of itself has changed: python -m tests.manual_pages"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """As wide as a terminal is at first."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_a_page_is_what_the_command_line_says(command: str) -> None:
    """To the letter, whichever way help is asked for."""
    assert said(command) == page([*command.split(), "--help"]) == page([*command.split(), "-h"]), REWRITE


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_a_page_has_no_needless_spaces(command: str) -> None:
    """None at a line's end, and no two empty lines."""
    lines = (page([*command.split(), "--help"]) or "").split("\n")
    assert lines == [line.rstrip() for line in lines]
    assert ("", "") not in pairwise(lines[:-1])


def test_no_page_is_left_over() -> None:
    """A command that is gone has none."""
    assert {"moe-bulk", *COMMANDS} == {path.stem for path in PAGES.glob("*.txt")}, REWRITE


@pytest.mark.parametrize(
    "argv",
    [[], ["upload"], ["upload", "a.csv", "--help"], ["--version"], ["nothing", "--help"], ["../x", "-h"], ["", "-h"]],
)
def test_all_else_is_the_command_line_s(argv: list[str]) -> None:
    """It knows what to say of it."""
    assert page(argv) is None


def test_a_narrow_terminal_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines would break."""
    monkeypatch.setenv("COLUMNS", str(WIDTH - 1))
    assert page(["--help"]) is None


def test_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output."""
    assert shown(["--help"])
    assert page(["--help"]) == capsys.readouterr().out
    assert not shown(["upload"])


def run(shell: str) -> subprocess.CompletedProcess[str]:
    """Ask for help as a process; `$0` is the program."""
    command = ["bash", "-c", shell, f"{sys.executable} -m moe_bulk"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_nothing_heavy_is_imported_for_it() -> None:
    """That is what it is for."""
    heavy = "import sys; sys.argv = ['moe-bulk', '--help']; from moe_bulk.__main__ import main; main(); "
    heavy += "sys.exit(sum(name in sys.modules for name in ('cyclopts', 'rich', 'asyncio', 'httpx')))"
    assert 0 == subprocess.run([sys.executable, "-c", heavy], check=False, stdout=subprocess.DEVNULL).returncode


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ("$0 --help | true; exit ${PIPESTATUS[0]}", ""),
        ("$0 --help >&-", ""),
        ("$0 --help > /dev/full", ""),
        ("PYTHONIOENCODING=ascii $0 --help | grep -c Usage", "1\n"),
    ],
)
def test_streams_of_all_kinds(shell: str, said: str) -> None:
    """A reader that goes away, none at all, a full disk, or one that knows no boxes: no traceback."""
    ended = run(shell)
    assert (0, said, "") == (ended.returncode, ended.stdout, ended.stderr)
