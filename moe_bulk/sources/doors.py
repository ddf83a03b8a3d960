"""The door to all sources: find out the format, open it."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import TYPE_CHECKING, BinaryIO

from moe_bulk.errors import ConfigError, SourceError
from moe_bulk.sources.delimited import CsvSource
from moe_bulk.sources.lines import Lines
from moe_bulk.sources.ndjson import NdjsonSource
from moe_bulk.sources.opening import open_bytes

if TYPE_CHECKING:
    from moe_bulk.sources.base import Source

_FORMATS = ("csv", "ndjson")
_ENDINGS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson"}
_COMPRESSED = {".gz", ".zst", ".bz2", ".xz"}


def open_source(name: str | os.PathLike[str], format: str = "auto", stdin: BinaryIO | None = None) -> Source:  # noqa: A002  the option's name
    """Open a path, a URL or standard input (`-`); `format` is `csv`, `ndjson`, or `auto`: by ending, then by content.

    Raises SourceError where it cannot be read or is in no format of ours, ConfigError for an unknown format.
    """
    if format not in ("auto", *_FORMATS):
        raise ConfigError(f"there is no format {format!r}: use {', '.join(_FORMATS)} or auto")
    given = os.fspath(name)
    stream = open_bytes(given, stdin)
    shown = "stdin" if given == "-" else given
    try:
        lines = Lines(shown, stream)
        head = lines.head().lstrip()
        found = format if format != "auto" else _by_ending(given) or _by_content(head)
        if found == "csv":
            return CsvSource(shown, stream, lines)
        _refuse_array(shown, head)
        return NdjsonSource(shown, stream, lines)
    except BaseException:
        stream.close()
        raise


def _by_ending(name: str) -> str | None:
    path = PurePath(name.lower())
    if path.suffix in _COMPRESSED:
        path = path.with_suffix("")
    return _ENDINGS.get(path.suffix)


def _by_content(head: bytes) -> str:
    return "ndjson" if head.startswith((b"{", b"[")) else "csv"


def _refuse_array(shown: str, head: bytes) -> None:
    if head.startswith(b"["):
        raise SourceError(
            f"{shown} is one JSON array, not one object a line: convert it with `jq -c '.[]' {shown} > rows.ndjson`"
        )
