"""What `--help` says, ready to be shown at once: making it takes half a second, nearly all of it for imports.

The pages are those that the command line makes at 80 columns; a test holds them to that, and
`python -m tests.manual_pages` writes them anew.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moe_bulk.streams import let_go_of, open_standard_streams

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 80
"""Columns that the pages have; a narrower terminal gets its own."""

PAGES = Path(__file__).parent
_ASKED = ("--help", "-h")


def page(argv: Sequence[str]) -> str | None:
    """What the help says that is asked for; None for other words, and where the command line has to say it itself."""
    match argv:
        case [asked]:
            command = "moe-bulk"
        case [command, asked] if command.isalpha() and command.isascii():
            pass
        case _:
            return None
    if asked not in _ASKED or shutil.get_terminal_size((WIDTH, 24)).columns < WIDTH:
        return None
    try:
        return (PAGES / f"{command}.txt").read_text(encoding="utf-8")
    except OSError:
        return None


def shown(argv: Sequence[str]) -> bool:
    """Show the help that is asked for, if it is one of these pages."""
    if (text := page(argv)) is None:
        return False
    open_standard_streams()
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:  # nothing was written: the command line knows other characters for its boxes
        return False
    except (AttributeError, OSError, ValueError):  # nobody reads
        pass
    let_go_of(sys.stdout)
    return True
