"""SQL: the rows that a query gives, as a stream of NDJSON, so that they are compared and read on as any stream is.

SQLAlchemy carries it out with a cursor at the server, where the database has one: rows come as they are needed. It has
a thread of its own, for many drivers' connections belong to the thread that made them, and a database may take its time
before it gives the first row.
"""

from __future__ import annotations

import json
import os
import queue
import re
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import orjson

from moe_bulk.errors import ConfigError, MoeBulkError, SourceError
from moe_bulk.sources.masking import masked
from moe_bulk.sources.opening import BLOCK, POLL_SECONDS
from moe_bulk.sources.values import plain, refuse_twins

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

QUERY = "query"
"""What positions call the rows of a query."""

AT_ONCE = 500
"""Rows that are asked for at a time."""

_BLOCKS_AHEAD = 4
_PATIENCE = 2.0
"""Seconds that a database has to leave a query that nobody waits for any more."""

_DATABASES = frozenset({"postgresql", "postgres", "mysql", "mariadb", "sqlite", "oracle", "mssql"})


@dataclass(frozen=True, slots=True)
class Query:
    """An SQL query as an input: `url` says of which database, as SQLAlchemy writes it; it is shown nowhere.

    Rows come in the order that the query gives them. A run that was stopped asks again and compares, so it needs an
    ORDER BY: `Query("postgresql://host/crm", "select … from devices order by device_id")`.
    """

    url: str = field(repr=False)
    sql: str

    def __post_init__(self) -> None:
        if "://" not in self.url:
            raise ConfigError("a query needs a database's URL, such as postgresql://user@host/database")
        if not self.sql.strip(" \t\r\n;"):
            raise ConfigError("the query is empty: write a select")


def is_database(url: str) -> bool:
    """Whether a URL names a database, to be asked with a query, and not something to be read as it is."""
    scheme, there, _ = url.partition("://")
    return bool(there) and ("+" in scheme or scheme.lower() in _DATABASES)


class QueryRows:
    """What a query gives, one line of JSON a row. `columns` are known as soon as anything was read.

    They are None where values are nested (JSON, arrays): then rows bring their own names, as those of NDJSON do.
    """

    def __init__(self, query: Query) -> None:
        self.columns: tuple[str, ...] | None = None
        self._query = query
        self._blocks: queue.Queue[bytes | MoeBulkError] = queue.Queue(_BLOCKS_AHEAD)
        self._left: bytes | MoeBulkError | None = None
        self._count = 0
        self._closed = Event()
        self._connection: Any = None
        self._thread = Thread(target=self._work, name="moe_bulk query", daemon=True)
        self._thread.start()

    def ready(self, seconds: float) -> bool:
        """True when a read would give something at once, or the end; it waits so long for it."""
        if self._left is None:
            with suppress(queue.Empty):
                self._left = self._blocks.get(timeout=seconds)
        return self._left is not None

    def read(self, size: int, /) -> bytes | None:
        """Up to `size` bytes, nothing at the end, None when nothing is there yet. Raises SourceError."""
        if not self.ready(POLL_SECONDS):
            return None
        if isinstance(self._left, MoeBulkError):
            raise self._left
        data = (self._left or b"")[:size]
        self._left = (self._left or b"")[size:] or (None if data else b"")
        return data

    def close(self) -> None:
        """Leave the query, wherever it is."""
        self._closed.set()
        for way in ("cancel", "interrupt"):  # psycopg's and sqlite3's; other drivers end with the next rows
            with suppress(Exception):
                getattr(self._connection, way)()
        self._thread.join(_PATIENCE)

    # -- in its own thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            for block in self._carry_out():
                self._put(block)
            self._put(b"")
        except MoeBulkError as error:
            self._put(error)
        except Exception as error:  # noqa: BLE001  every driver has exceptions of its own
            self._put(self._failure(error))

    def _put(self, block: bytes | MoeBulkError) -> None:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._blocks.put(block, timeout=POLL_SECONDS)
                return

    def _carry_out(self) -> Iterator[bytes]:
        engine = _engine(self._query.url)
        options = {"stream_results": True, "yield_per": AT_ONCE, "no_parameters": True}
        # It is never committed: what a query changes by mistake is undone at its end.
        with engine.connect() as connection:
            self._connection = connection.connection.driver_connection
            # As it stands, not as SQLAlchemy's text(): there '12:30' would hold a parameter.
            result = connection.execution_options(**options).exec_driver_sql(self._query.sql.rstrip(" \t\r\n;"))
            with closing(result):
                if not result.returns_rows:
                    raise SourceError("the query gives no rows: write a select")
                names = list(result.keys())
                refuse_twins("the query", names)
                yield from self._lines(names, result)

    def _lines(self, names: list[str], result: Any) -> Iterator[bytes]:
        lines, size = list[bytes](), 0
        for row in result:
            if self._closed.is_set():
                return
            values = [plain(value) for value in row]
            if not self._count and not any(isinstance(value, (dict, list)) for value in values):
                self.columns = tuple(names)
            lines.append(_line(names, values))
            size += len(lines[-1])
            self._count += 1
            if size >= BLOCK or self._count % AT_ONCE == 0:
                yield b"".join(lines)
                lines, size = [], 0
        if not self._count:
            self.columns = tuple(names)
        if lines:
            yield b"".join(lines)

    def _failure(self, error: Exception) -> SourceError:
        said = re.sub(r"\s+", " ", _without_secrets(self._query.url, str(getattr(error, "orig", None) or error)))[:300]
        if self._count:
            return SourceError(
                f"the query cannot be read on after row {self._count:,} ({said}). The rows before were read; run again"
            )
        return SourceError(f"the query cannot be carried out: {said}")


def _line(names: Sequence[str], values: Sequence[object]) -> bytes:
    fields = dict(zip(names, values, strict=True))
    try:
        return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half characters: the line says so, and becomes a bad row
        return json.dumps(fields, default=str).encode() + b"\n"


def _engine(url: str) -> Any:
    """What SQLAlchemy makes of a URL; it says nothing of it that could hold a password."""
    try:
        import sqlalchemy as sa  # noqa: PLC0415  0.2 s, for those who have a query
    except ImportError:
        raise SourceError("SQL is read with SQLAlchemy: install it with pip install 'moe-bulk[sql]'") from None
    try:
        where = sa.make_url(url)
    except Exception:  # noqa: BLE001  what it says may hold the URL
        raise ConfigError(
            "the database's URL cannot be read: write it like postgresql://user@host:5432/database, with special "
            "characters of a password as %XX"
        ) from None
    if where.drivername in ("postgres", "postgresql"):
        newer = find_spec("psycopg") is not None or find_spec("psycopg2") is None
        where = where.set(drivername="postgresql+psycopg" if newer else "postgresql+psycopg2")
    if where.get_backend_name() == "sqlite" and not _is_there(where.database):
        raise SourceError(f"there is no SQLite file {where.database!r}: sqlite:////a/path has four slashes")
    try:
        return sa.create_engine(where, poolclass=sa.pool.NullPool)
    except sa.exc.NoSuchModuleError:
        raise ConfigError(
            f"SQLAlchemy knows no database {where.drivername!r}: write the URL like postgresql://user@host/database, "
            "or install the package that adds it"
        ) from None
    except ImportError as error:
        raise SourceError(_without_driver(where.drivername, error)) from None


def _without_driver(drivername: str, error: ImportError) -> str:
    if "psycopg" in drivername:
        return f"{drivername} needs a driver: install it with pip install 'moe-bulk[sql]'"
    return (
        f"{drivername} needs Python's module {error.name}, which is not there: install the package that brings it, or "
        "name another driver in the URL, as in mysql+pymysql://"
    )


def _is_there(path: str | None) -> bool:
    """Whether there is such a file: SQLite would make an empty one of any name."""
    return not path or path == ":memory:" or path.startswith("file:") or os.path.exists(path)  # noqa: PTH110


def _without_secrets(url: str, text: str) -> str:
    """The text without the URL's password, in any place where a URL has one."""
    import sqlalchemy as sa  # noqa: PLC0415  whoever comes here has it

    with suppress(Exception):
        where = sa.make_url(url)
        spelt = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
        hidden = [str(where.password or ""), spelt]
        hidden += [str(value) for name, value in where.query.items() if masked(f"?{name}=x") != f"?{name}=x"]
        for secret in filter(None, hidden):
            text = text.replace(secret, "***")
    return masked(text)
