"""What all commands belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclopts import App

from moe_bulk.options import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415  40 ms that only --version needs

    return version("moe-bulk")


def examples(*lines: str) -> str:
    """What stands at the end of a command's help."""
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])


app = App(
    name="moe-bulk",
    help="Deliver device records in bulk to MoEngage's Track Device API: a result for every row, never over the limit.",
    help_format="plaintext",
    version=_version,
    result_action="return_value",
    help_flags=["--help", "-h"],
    help_epilogue=examples("moe-bulk upload samples/devices.csv --sandbox", "moe-bulk upload --help"),
)
app["--help"].group = SETTINGS
app["--help"].help = "Show this, or a command's own help, and exit."
app["--version"].group = SETTINGS
app["--version"].help = "Show the version and exit."


def options_of(command: str) -> Iterator[str]:
    """The names of a command's options, with their dashes."""
    for argument in app[command].assemble_argument_collection():
        yield from (name for name in argument.names if name.startswith("-"))
