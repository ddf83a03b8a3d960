"""Writes what `--help` says to where the program finds it: `python -m tests.manual_pages`."""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stdout

from moe_bulk import cli
from moe_bulk.cli.app import app
from moe_bulk.manual import PAGES, WIDTH

COMMANDS = [name for name in app if not name.startswith("-")]


def said(command: str) -> str:
    """What the command line says of a command, without needless spaces; of itself, where it has no name."""
    with redirect_stdout(io.StringIO()) as out:
        cli.run([*command.split(), "--help"])
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" +$", "", out.getvalue(), flags=re.MULTILINE))


def main() -> None:
    """Write a page for each command, and one for all."""
    os.environ["COLUMNS"] = str(WIDTH)
    for old in PAGES.glob("*.txt"):
        old.unlink()
    for command in ["", *COMMANDS]:
        (PAGES / f"{command or 'moe-bulk'}.txt").write_text(said(command), encoding="utf-8")


if __name__ == "__main__":
    main()
