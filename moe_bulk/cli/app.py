"""What all commands belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclopts import App

if TYPE_CHECKING:
    from collections.abc import Iterator


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415  40 ms that only --version needs

    return version("moe-bulk")


app = App(
    name="moe-bulk",
    help="Deliver device records in bulk to MoEngage's Track Device API: a result for every row, never over the limit.",
    help_format="plaintext",
    version=_version,
    result_action="return_value",
)


def options_of(command: str) -> Iterator[str]:
    """The names of a command's options, with their dashes."""
    for argument in app[command].assemble_argument_collection():
        yield from (name for name in argument.names if name.startswith("-"))
