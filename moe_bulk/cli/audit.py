"""`moe-bulk audit`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from moe_bulk.cli.app import app, examples
from moe_bulk.options import OUTPUT, option
from moe_bulk.streams import Unbreakable

TELL_SECONDS = 5.0


@app.command(help_epilogue=examples("moe-bulk audit devices.csv.run", "moe-bulk audit devices.csv.run --json"))
def audit(
    run: Annotated[str, Parameter(help="The run folder, or the source that it belongs to.")],
    /,
    *,
    json: Annotated[bool, option("Print what was found as JSON on standard output.", group=OUTPUT)] = False,
) -> int:
    """Count a run's results anew, and hold them against its summary.

    Counts, uniqueness, dead letters and the busiest window are taken from the
    result lines alone. Exit codes:

    0  all of it holds
    1  something contradicts, and is named
    2  there is no such run
    """
    import textwrap  # noqa: PLC0415

    import orjson  # noqa: PLC0415

    from moe_bulk.archive import find  # noqa: PLC0415  not for the other commands
    from moe_bulk.audit import audit as look_into  # noqa: PLC0415

    people = Unbreakable(sys.stderr)
    found = look_into(find(run, Path.cwd()), _Lines(people).watch if people.isatty() else None)
    out = Unbreakable(sys.stdout)
    if json:
        out.say_json(orjson.dumps(found.as_json(), option=orjson.OPT_INDENT_2))
    else:
        for line in found.lines():
            indent = "    " if line.startswith("  - ") else "  "
            out.say(textwrap.fill(line, 80, subsequent_indent=indent, break_on_hyphens=False))
    return 0 if found.hold else 1


class _Lines:
    """Tells people on a terminal, every few seconds, how far it is: a small run is over before the first."""

    def __init__(self, people: Unbreakable) -> None:
        self._people = people
        self._said = time.monotonic()

    def watch(self, read: int, total: int) -> None:
        if (now := time.monotonic()) - self._said >= TELL_SECONDS:
            self._said = now
            self._people.say(f"{read / total:.0%} of the results read")
