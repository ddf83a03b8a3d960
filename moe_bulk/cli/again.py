"""What to type after an upload, made from what was typed."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moe_bulk.display import LETTERS, NextSteps
from moe_bulk.sources.masking import masked

if TYPE_CHECKING:
    from collections.abc import Sequence

_DESTINATION = (
    *("--workspace-id", "--api-key-file", "--data-center", "--base-url", "--ca-bundle", "--config"),
    *("--pace", "--pace-fallback"),
)
"""Options with a value that dead letters need again, since they do not hold it, and with whom the limit is shared."""


def next_steps(argv: Sequence[str]) -> NextSteps:
    """The commands that go on and that send dead letters again, from the words of the command that ran."""
    program = _program(argv[0])
    # With --fresh again it would begin once more; a stream has to be given again, by whom only the shell knows.
    words = [word for word in argv[1:] if word not in ("--fresh", "--fresh=true")]
    repeatable = "-" not in words and all(masked(word) == word for word in words)
    go_on = shlex.join([*program, *words]) if repeatable else ""
    return NextSteps(go_on, (*program, "upload", LETTERS, *destination_words(words)))


def _program(name: str) -> tuple[str, ...]:
    """How it was called, as people would."""
    if Path(name).name == "__main__.py":
        return (Path(sys.executable).name, "-m", "moe_bulk")
    found = shutil.which("moe-bulk")
    return ("moe-bulk",) if found is not None and Path(found).resolve() == Path(name).resolve() else (name,)


def destination_words(words: Sequence[str]) -> list[str]:
    """The words of a command that say where the rows go and with whose key; none that holds a password."""
    kept: list[list[str]] = []
    for index, word in enumerate(words):
        name, given, _ = word.partition("=")
        if name == "--sandbox" or (name in _DESTINATION and given):
            kept.append([word])
        elif word in _DESTINATION:
            kept.append(list(words[index : index + 2]))
    return [word for each in kept for word in each if all(masked(one) == one for one in each)]
