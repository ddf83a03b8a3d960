"""What the settings file says to the command that is typed: read before the arguments, which may come from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts.config import Dict

from moe_bulk.cli.app import app, options_of
from moe_bulk.settings import DEFAULT_FILE, FileSettings, config_argument, outranked, read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence


def file_settings(command: str, argv: Sequence[str]) -> FileSettings:
    """What the file that `--config` names, or else `./moe-bulk.toml`, says to a command, as far as it counts.

    Any command that has the option `--config` reads settings, and its options are their names.
    """
    named, folder = config_argument(argv), Path.cwd()
    if named is None and not (folder / DEFAULT_FILE).is_file():
        return FileSettings(str(folder / DEFAULT_FILE))
    known = {each: _names(each) - {"config"} for each in app if reads_settings(each)}
    return read_settings(named, command, known, folder).without(outranked(argv, os.environ))


def reads_settings(command: str) -> bool:
    """Whether a command takes settings from files; `config` itself only shows them."""
    return command in app and not command.startswith("-") and command != "config" and "config" in _names(command)


def _names(command: str) -> set[str]:
    return {name.lstrip("-") for name in options_of(command) if name.startswith("--")}


def configured(argv: Sequence[str]) -> tuple[Dict, ...]:
    """The file's part in a command line, for the app."""
    command = next(iter(argv), "")
    if not reads_settings(command):
        return ()
    found = file_settings(command, argv)
    # Beneath the command's name: at the top, `sandbox` would be taken for the command and dropped.
    return (Dict({command: dict(found.said)}, source=found.path),) if found.said else ()
