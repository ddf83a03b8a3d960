"""`moe-bulk presets`."""

from __future__ import annotations

import sys

from moe_bulk.cli.app import app, examples
from moe_bulk.streams import Unbreakable


@app.command(help_epilogue=examples("moe-bulk presets", "moe-bulk upload onesignal.csv --preset onesignal --sandbox"))
def presets() -> int:
    """List the exports that upload --preset NAME knows.

    What each is, the columns that it expects, and what it has to be told.
    """
    from moe_bulk.presets import listing  # noqa: PLC0415

    Unbreakable(sys.stdout).say(listing())
    return 0
