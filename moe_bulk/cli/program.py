"""The program: one command line from its words to its exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cyclopts import CycloptsError
from cyclopts.config import Dict

from moe_bulk.cli import check, presets, sandbox, upload
from moe_bulk.cli.app import app, options_of
from moe_bulk.display import Unbreakable, let_go_of, open_standard_streams
from moe_bulk.errors import AGAIN, MoeBulkError, RunStopped
from moe_bulk.settings import DESTINATION_VARIABLES, config_argument, read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (upload, check, presets, sandbox)
"""Each registers with the app when it is imported."""

_WITH_SETTINGS = ("upload", "check")
"""Commands that read the settings file."""


def _config(argv: Sequence[str]) -> tuple[Dict, ...]:
    """What the settings file says, for `upload` and `check`; read before the arguments, which may come from it."""
    if not argv or (command := argv[0]) not in _WITH_SETTINGS:
        return ()
    known = {name.lstrip("-") for name in options_of("upload") if name.startswith("--")} - {"config"}
    path, said = read_settings(config_argument(argv), known, Path.cwd())
    if any(os.environ.get(name) for name in DESTINATION_VARIABLES) or any(
        word.startswith(("--data-center", "--base-url")) for word in argv
    ):
        # One place says where the data goes: a flag, else the environment, else the file.
        said = {name: value for name, value in said.items() if name not in ("data-center", "base-url")}
    if command != "upload":
        # It is the file of an upload: where rows go and how a run is shown says nothing of a check.
        own = {name.lstrip("-") for name in options_of(command)} - {"json", "quiet"}
        said = {name: value for name, value in said.items() if name in own}
    # Beneath the command's name: at the top, `sandbox` would be taken for the command and dropped.
    return (Dict({command: said}, source=path),) if said else ()


def run(argv: Sequence[str]) -> int:
    """Carry out one command line and return its exit code."""
    try:
        app.config = _config(argv)
        code = app(argv, exit_on_error=False, print_error=True)
    except MoeBulkError as error:
        Unbreakable(sys.stderr).say(f"moe-bulk: {error}")
        return error.exit_code
    except CycloptsError:
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001  a bug of ours: Python's own code for it, 1, would say that all is settled
        import traceback  # noqa: PLC0415

        Unbreakable(sys.stderr).say("".join(traceback.format_exception(error)).rstrip())
        Unbreakable(sys.stderr).say(f"moe-bulk: this should not happen, please report it. To go on, {AGAIN}")
        return RunStopped.exit_code
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """The program `moe-bulk`."""
    open_standard_streams()
    code = run(sys.argv[1:])
    let_go_of(sys.stdout)
    let_go_of(sys.stderr)
    sys.exit(code)
