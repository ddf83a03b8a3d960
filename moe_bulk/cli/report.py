"""`moe-bulk report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from moe_bulk.cli.app import app, examples
from moe_bulk.errors import JournalError, RunHeld
from moe_bulk.options import OUTPUT, option
from moe_bulk.streams import Unbreakable

if TYPE_CHECKING:
    from moe_bulk.archive import Past


@app.command(help_epilogue=examples("moe-bulk report devices.csv.run", "moe-bulk report devices.csv --open"))
def report(
    run: Annotated[str, Parameter(help="The run folder, or the source that it belongs to.")],
    /,
    *,
    open_: Annotated[bool, option("Open its page, report.html, in a browser.", name="--open", group=OUTPUT)] = False,
) -> int:
    """Show a run's summary again, and where its page is.

    The page is written where it is missing. Exit codes:

    0  shown, whatever became of the run
    2  there is no such run, or nothing of it can be read
    """
    from moe_bulk.archive import find, look  # noqa: PLC0415  not for the other commands
    from moe_bulk.page import visible  # noqa: PLC0415
    from moe_bulk.recap import told  # noqa: PLC0415

    folder = find(run, Path.cwd())
    past = look(folder)
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    out = Unbreakable(sys.stdout)
    for line in told(past.told.summary, shown, past.told.timeline.bins(), past.notes):
        out.say(visible(line))
    out.say("")
    page, trouble = _page(past)
    out.say(visible(trouble or f"Page: {page}"))
    if open_ and not trouble:
        _open(page)
    return 0


def _page(past: Past) -> tuple[Path, str]:
    """Where the page is, written where it was missing; and what stood in the way, if anything did."""
    from moe_bulk.naming import REPORT  # noqa: PLC0415
    from moe_bulk.rundir import RunFolder  # noqa: PLC0415

    folder = past.told.folder
    if not past.has_page:
        try:
            with RunFolder.claim(folder, fresh=True) as held:
                held.write_report(past.page.encode())
        except RunHeld:
            return folder, "Another process is at work in this run: there is a page once it has ended."
        except JournalError as error:
            return folder, f"No page could be written: {error}"
    return (folder / REPORT).absolute(), ""


def _open(page: Path) -> None:
    import webbrowser  # noqa: PLC0415

    if not webbrowser.open(page.as_uri()):
        Unbreakable(sys.stderr).say(f"No browser could be started here: open {page.as_uri()} in one")
