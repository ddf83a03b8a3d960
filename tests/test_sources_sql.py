"""SQL: what a query gives is a stream of rows, taken as it is needed, compared when it is asked again, and discreet."""

from __future__ import annotations

import sqlite3
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from moe_bulk.errors import ConfigError, MoeBulkError, RunRefused, SourceError
from moe_bulk.intake import Files, Query
from moe_bulk.sources import QueryRows, Spool, is_database, open_source
from moe_bulk.uploader import _out
from tests.fake_service import device
from tests.runs import Cut, Ended, Way, deliver, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

sa = pytest.importorskip("sqlalchemy")

DEVICES = "select customer_id, device_id, platform, push_id from devices order by number"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Make a database of some devices."""
    path = tmp_path / "crm.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table devices (number integer, customer_id, device_id, platform, push_id)")
        rows = [(number, *device(number).values()) for number in range(30)]
        connection.executemany("insert into devices values (?, ?, ?, ?, ?)", rows)
        connection.commit()
    return path


def rows_of(query: Query) -> list[dict[str, object] | None]:
    """Read what a query gives."""
    spool = Spool(QueryRows(query))
    with closing(spool), closing(open_source("query", "ndjson", spool)) as source:
        return [row.fields for batch in source.batches() for row in batch]


def failure(query: Query) -> str:
    """Say why it cannot be read."""
    with pytest.raises(MoeBulkError) as raised:
        rows_of(query)
    assert 2 == raised.value.exit_code
    assert None is raised.value.__cause__
    return str(raised.value)


def sqlite(path: Path, sql: str = DEVICES) -> Query:
    """Ask this file."""
    return Query(f"sqlite:///{path}", sql)


# -- rows --------------------------------------------------------------------------------------------------------------


def test_a_query_gives_rows(database: Path) -> None:
    """With the names that the query gives them, and types as they are."""
    sql = "select number, customer_id as id, null as none, 1.5 as real, x'ff' as bytes, 'é' as text from devices;\n"
    first, *rest = rows_of(sqlite(database, sql))
    assert {
        "number": 0,
        "id": "user-0",
        "none": None,
        "bytes": {"base64": "/w=="},
        "text": "é",
        "real": 1.5,
    } == first
    assert 29 == len(rest)


def test_a_query_is_sent_as_it_stands(database: Path) -> None:
    """Percent signs, colons and question marks in text are no parameters."""
    assert [{"a": "12:30 :x", "b": "100 %s", "c": "?"}] == rows_of(
        sqlite(database, "select '12:30 :x' as a, '100 %s' as b, '?' as c where 'abc' like 'a%'")
    )


def test_columns_are_known_with_the_first_row(database: Path) -> None:
    """Or without any; not where values are nested, whose rows bring their own names."""

    def columns(sql: str) -> tuple[str, ...] | None:
        with closing(QueryRows(sqlite(database, sql))) as rows:
            while rows.read(100) is None:
                pass
            return rows.columns

    assert ("a", "b") == columns("select 1 as a, 2 as b")
    assert ("a",) == columns("select 1 as a where false")
    assert None is columns("select x'ff' as a")


def test_rows_are_taken_as_they_are_needed(database: Path) -> None:
    """A table without an end: no more than some blocks are read ahead, and closing leaves it."""
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n"
    rows = QueryRows(sqlite(database, endless))
    while (block := rows.read(30)) is None:
        pass
    rows.close()

    assert b'{"i":1}\n{"i":2}\n' == block[:16]
    assert not [thread for thread in threading.enumerate() if thread.name == "moe_bulk query"]


def test_a_query_that_takes_its_time_can_be_left(database: Path) -> None:
    """Nothing is there yet, which is not the end."""
    slow = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n"
    rows = QueryRows(sqlite(database, slow))
    assert (False, None) == (rows.ready(0.01), rows.read(10))
    rows.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "moe_bulk query"]


def test_text_with_half_a_character_is_a_bad_row() -> None:
    """No JSON can hold it; the rows beside it are read."""
    from moe_bulk.sources.sql import _line  # noqa: PLC0415  one of its own

    assert b'{"a": "\\udc80", "b": 1}\n' == _line(["a", "b"], ["\udc80", 1])


# -- what is told ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", 'the query cannot be carried out: near "selec": syntax error'),
        ("select 1 as a, 2 as a", "the query names the column 'a' twice"),
        ("create table x (a)", "the query gives no rows: write a select"),
    ],
)
def test_a_query_that_is_wrong_is_told(database: Path, sql: str, message: str) -> None:
    """In the database's words, or ours."""
    assert message in failure(sqlite(database, sql))


def test_what_a_query_changes_is_undone(database: Path) -> None:
    """It is never committed."""
    failure(sqlite(database, "delete from devices"))
    assert 30 == len(rows_of(sqlite(database)))


def test_rows_before_a_failure_are_given(database: Path) -> None:
    """As from a file that is damaged."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("update devices set push_id = cast(x'ff' as text) where number = 9")
        connection.commit()
    rows = QueryRows(sqlite(database, DEVICES))
    found, told = b"", ""
    while not told:
        try:
            found += rows.read(1000) or b""
        except SourceError as error:
            told = str(error)
    rows.close()
    assert told.startswith("the query cannot be ")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///nowhere.db", "there is no SQLite file 'nowhere.db'"),
        (
            "nosuch+thing://me:s3cr3t@host/db",
            "SQLAlchemy knows no database 'nosuch+thing': write the URL like postgresql://user@host/database, or",
        ),
        (
            "postgresql://me:s3cr3t@host:port/db",
            "the database's URL cannot be read: write it like postgresql://user@host",
        ),
        (
            "oracle+oracledb://me:s3cr3t@host/db",
            "oracle+oracledb needs Python's module oracledb, which is not there: install the package that brings it",
        ),
        ("postgres://me:s3cr3t@127.0.0.1:1/db?sslpassword=s3cr3t", "the query cannot be carried out: "),
    ],
)
def test_a_database_that_is_not_there_is_told(url: str, message: str) -> None:
    """Without its password."""
    if url.startswith("postgres:"):
        pytest.importorskip("psycopg")
    said = failure(Query(url, "select 1"))
    assert message in said
    assert "s3cr3t" not in said
    assert "s3cr3t" not in repr(Query(url, "select 1"))


def test_a_password_that_a_driver_repeats_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spelt as in the URL or as it is."""
    rows = QueryRows(Query("sqlite://", "select 1"))
    rows.close()
    rows._count = 0
    rows._query = Query("postgresql://me:p%2Fw@host/db?password=other", "select 1")
    said = str(rows._failure(RuntimeError("not with p/w,\n p%2Fw or other at postgresql://me:p%2Fw@host/db")))
    assert "the query cannot be carried out: not with ***, *** or *** at postgresql://***@host/db" == said


@pytest.mark.parametrize(("missing", "message"), [("sqlalchemy", "moe-bulk[sql]"), ("psycopg", "moe-bulk[sql]")])
def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch, missing: str, message: str) -> None:
    """With what to type."""
    monkeypatch.setitem(sys.modules, missing, None)
    assert f"install it with pip install '{message}'" in failure(Query("postgresql+psycopg://host/db", "select 1"))


@pytest.mark.parametrize(("url", "sql"), [("crm.db", "select 1"), ("sqlite:///x", " ;\n")])
def test_a_query_needs_a_url_and_a_text(url: str, sql: str) -> None:
    """Said at once."""
    with pytest.raises(ConfigError):
        Query(url, sql)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://host/db", True),
        ("mysql+pymysql://host/db", True),
        ("SQLITE:///x", True),
        ("s3://bucket/key", False),
        ("https://host/a+b.csv", False),
        ("sqlite.csv", False),
    ],
)
def test_databases_are_told_from_files(url: str, expected: bool) -> None:  # noqa: FBT001  a table
    """By the scheme."""
    assert expected == is_database(url)
    if expected:
        with pytest.raises(ConfigError, match="is asked with --query"):
            Files((url,))


# -- runs --------------------------------------------------------------------------------------------------------------


def go(query: Query, out: Path, number: int = 0, cut: Cut | None = None, **more: Any) -> Ended:
    """Make session `number` of a run."""
    return deliver(query, out, cut=cut, clock=(1000.0 * number, 1_700_000_000.0), **more)


@pytest.mark.parametrize("way", ["signal", "crash"])
def test_a_stopped_run_of_a_query_goes_on(way: Way, database: Path, tmp_path: Path) -> None:
    """It is asked again, and what it gives is compared."""
    out = tmp_path / "query.run"
    assert go(sqlite(database), out, cut=Cut(way, 11)).error is not None
    second = go(sqlite(database), out, 1)
    third = go(sqlite(database), out, 2)

    found = written(out)
    assert (None, None, []) == (second.error, third.error, third.service.seen)
    assert (30, 0) == (found.summary["counts"]["accepted"], found.summary["exit_code"])
    assert {("query", line) for line in range(1, 31)} == {(each["source"], each["line"]) for each in found.results}
    assert ("query", "stream") == (found.checkpoint.sources[0].name, found.checkpoint.sources[0].kind)


def test_other_rows_are_another_input(database: Path, tmp_path: Path) -> None:
    """An unfinished run is not gone on with by them."""
    out = tmp_path / "query.run"
    go(sqlite(database), out, cut=Cut("signal", 11))
    assert isinstance(go(sqlite(database, f"{DEVICES} desc"), out, 1).error, RunRefused)


def test_a_missing_column_is_told_before_the_first_request(database: Path, tmp_path: Path) -> None:
    """Its names are known, as a CSV's are."""
    ended = go(sqlite(database, "select customer_id from devices"), tmp_path / "query.run")
    assert "query: there is no column device_id: name one with --column" in str(ended.error)
    assert [] == ended.service.seen


def test_its_run_is_called_query(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the current folder."""
    monkeypatch.chdir(tmp_path)
    assert tmp_path / "query.run" == _out(Query("sqlite://", "select 1"), None)


# -- PostgreSQL, where it is installed ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Give the URL of a server."""
    pytest.importorskip("psycopg")
    from tests.postgres import running_postgres  # noqa: PLC0415  it needs psycopg

    with running_postgres() as url:
        yield url


SERIES = "select 'u-' || n as customer_id, 'd' as device_id, 'iOS' as platform, 't-' || n as push_id"


def test_postgresql_gives_its_types(server: str) -> None:
    """Digits stay exact, JSON and arrays stay nested."""
    sql = """select 12345678901234567890::numeric as n, 1.10::numeric(5, 2) as d, timestamp '2026-11-25 14:41:56' as at,
        '5b8a4f5e-0d3f-4c39-9b1d-7b8f3f0a3c11'::uuid as id, '{"a": [1]}'::jsonb as j, array[1, 2] as l, null as x,
        '\\x74'::bytea as b, 'NaN'::float8 as f, 'a%' as p"""
    assert [
        {"n": "12345678901234567890", "d": "1.10", "at": "2026-11-25 14:41:56",
         "id": "5b8a4f5e-0d3f-4c39-9b1d-7b8f3f0a3c11", "j": {"a": [1]}, "l": [1, 2], "x": None, "b": "t", "f": None,
         "p": "a%"}
    ] == rows_of(Query(server, sql))  # fmt: skip


def test_postgresql_keeps_the_rows_until_they_are_needed(server: str) -> None:
    """A table without an end is not waited for, and let go of."""
    endless = "with recursive n(n) as (select 1 union all select n + 1 from n)"
    rows = QueryRows(Query(server, f"{endless} {SERIES} from n"))
    while (block := rows.read(1000)) is None:
        pass
    rows.close()
    assert block.startswith(b'{"customer_id":"u-1","device_id":"d"')
    assert not [thread for thread in threading.enumerate() if thread.name == "moe_bulk query"]


def test_a_run_of_postgresql_goes_on_and_tells_no_password(server: str, tmp_path: Path) -> None:
    """Neither the folder's files nor what is said hold it."""
    query, out = Query(server, f"{SERIES} from generate_series(1, 700) as n order by n"), tmp_path / "query.run"
    go(query, out, cut=Cut("signal", 300))
    assert None is go(query, out, 1).error
    assert 700 == written(out).summary["counts"]["accepted"]
    assert not [path for path in out.iterdir() if b"s3cr3t" in path.read_bytes()]
    wrong = failure(Query(server.replace("s3cr3t", "s3cr3ts"), "select 1"))
    assert "password authentication failed" in wrong
    assert "s3cr3t" not in wrong
