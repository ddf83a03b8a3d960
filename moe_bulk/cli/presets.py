"""`moe-bulk presets`."""

from __future__ import annotations

from moe_bulk.cli.app import app


@app.command
def presets() -> int:
    """List the exports that `upload --preset NAME` knows: what each is, and the columns that it expects."""
    from moe_bulk.presets import listing  # noqa: PLC0415

    print(listing())
    return 0
