"""What ended a command, for machines."""

from __future__ import annotations

import sys
import time
import traceback
from typing import TYPE_CHECKING

from moe_bulk.errors import MoeBulkError, RunStopped
from moe_bulk.page import visible
from moe_bulk.streams import Unbreakable

if TYPE_CHECKING:
    from collections.abc import Callable


def exit_code_of(error: Exception) -> int:
    """The code with which it ends; a bug of ours leaves a run that goes on."""
    return error.exit_code if isinstance(error, MoeBulkError) else RunStopped.exit_code


def told_of(error: Exception) -> dict[str, object]:
    """Its class, the exit code, and where it is where it is a bug of ours."""
    places = [] if isinstance(error, MoeBulkError) else traceback.extract_tb(error.__traceback__)
    where = [f"{each.filename}:{each.lineno}" for each in places]
    return {"error": type(error).__name__, "exit_code": exit_code_of(error), "traceback": where}


def as_last_line(command: Callable[[], int], run_id: Callable[[], str | None]) -> int:
    """Carry out a command whose progress is read by machines: what ends it is a JSON line, too."""
    import orjson  # noqa: PLC0415

    from moe_bulk.meter import FORMAT  # noqa: PLC0415

    try:
        return command()
    except Exception as error:  # noqa: BLE001  whatever it is, it is no text between JSON lines
        said = str(error) if isinstance(error, MoeBulkError) else type(error).__name__
        line = {"format": FORMAT, "run_id": run_id(), "at": round(time.time(), 3), "message": visible(said)} | told_of(
            error
        )
        Unbreakable(sys.stderr).say_json(orjson.dumps(line, default=str))
        return exit_code_of(error)
