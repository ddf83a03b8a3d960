"""What a command reads: its sources and how their rows are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from moe_bulk.cli.app import options_of
from moe_bulk.errors import ConfigError
from moe_bulk.settings import read_query
from moe_bulk.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moe_bulk.intake import Files, Query, Reading
    from moe_bulk.options import Input


def named_sources(command: str, sources: Sequence[str], said: Input) -> tuple[str, ...]:
    """What is to be read; a database's URL may come from the environment, for its password's sake."""
    _refuse_unknown_options(command, sources)
    if said.query is None:
        if not sources:
            raise ConfigError(f"{command} what? Name a file, a glob or a URL, or - for standard input")
        return tuple(sources)
    sources = tuple(sources) or tuple(filter(None, [os.environ.get("MOE_BULK_SQL_URL", "").strip()]))
    if len(sources) != 1 or "://" not in sources[0]:
        raise ConfigError("--query goes with one source, a database's URL, or with MOE_BULK_SQL_URL in its place")
    if said.format != "auto":
        raise ConfigError("--format is for files: what a query gives has its types already")
    return sources


def _refuse_unknown_options(command: str, sources: Sequence[str]) -> None:
    # Words that begin with a dash end up among the sources: `-` is one, the others are mistakes.
    for source in sources:
        if source.startswith("-") and source != "-":
            name = source.partition("=")[0]  # never its value: it may be a key
            raise ConfigError(f"there is no option {name}.{did_you_mean(name, options_of(command))}")


def rows_of(sources: Sequence[str], said: Input) -> Files | Query:
    """The named sources, globs expanded, as one input."""
    from moe_bulk.intake import Files, Query  # noqa: PLC0415  the rest of the program, for the commands that need it
    from moe_bulk.naming import expand  # noqa: PLC0415

    if said.query is None:
        return Files(expand(sources, Path.cwd()))
    return Query(sources[0], read_query(said.query))


def reading_of(said: Input) -> Reading:
    """How their rows are read."""
    from moe_bulk.columns import Columns  # noqa: PLC0415
    from moe_bulk.intake import Reading  # noqa: PLC0415

    columns = Columns.parse(
        said.column,
        said.set_,
        said.where,
        validate=said.validate,
        include_superseded=said.include_superseded,
        preset=said.preset,
    )
    return Reading(columns, said.format, said.limit)
