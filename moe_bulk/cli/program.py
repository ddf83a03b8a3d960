"""The program: one command line from its words to its exit code."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, NoReturn

from cyclopts import CycloptsError

from moe_bulk.cli import audit, check, completion, config, doctor, presets, report, sandbox, upload
from moe_bulk.cli.app import app
from moe_bulk.cli.complaint import told_of
from moe_bulk.cli.configuration import configured
from moe_bulk.errors import AGAIN, MoeBulkError, RunStopped
from moe_bulk.jsonlog import installed
from moe_bulk.page import visible
from moe_bulk.streams import Unbreakable, let_go_of, open_standard_streams

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (upload, check, report, audit, doctor, config, presets, sandbox, completion)
"""Each registers with the app when it is imported, under its own name."""

for _place, _room in enumerate(COMMANDS):  # in the order in which they are needed, not by the alphabet
    app[_room.__name__.rpartition(".")[2]].sort_key = _place


def _complain(error: Exception) -> None:
    """Say what ended the command: in a line for people, or in one of the log; a bug of ours with where it is."""
    foreseen = isinstance(error, MoeBulkError)
    if installed():
        from moe_bulk.chronicle import said_of, tell  # noqa: PLC0415

        tell(logging.ERROR, "error" if foreseen else "bug", said_of(error), told_of(error))
    elif foreseen:
        Unbreakable(sys.stderr).say(f"moe-bulk: {visible(str(error))}")
        if isinstance(error, MoeBulkError) and error.service_said:
            Unbreakable(sys.stderr).say("What MoEngage said of it stands in the run's summary.json and page")
    else:
        import traceback  # noqa: PLC0415

        Unbreakable(sys.stderr).say(visible("".join(traceback.format_exception(error)).rstrip()))
        Unbreakable(sys.stderr).say(f"moe-bulk: this should not happen, please report it. To go on, {AGAIN}")


def run(argv: Sequence[str]) -> int:
    """Carry out one command line and return its exit code."""
    try:
        app.config = configured(argv)
        code = app(argv, exit_on_error=False, print_error=True)
    except MoeBulkError as error:
        _complain(error)
        return error.exit_code
    except CycloptsError:
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001  a bug of ours: Python's own code for it, 1, would say that all is settled
        _complain(error)
        return RunStopped.exit_code
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """The program `moe-bulk`."""
    open_standard_streams()
    code = run(sys.argv[1:])
    let_go_of(sys.stdout)
    let_go_of(sys.stderr)
    sys.exit(code)
