"""Sources other than text, by the command line: Parquet, a database, and what is told where one cannot be read."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from moe_bulk import cli
from moe_bulk.sandbox import Sandbox, SandboxSettings
from tests.acceptance.command import environment, lines, moe_bulk, running_sandbox, summary_of, write_devices
from tests.fake_service import device, devices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """What stands in for MoEngage."""
    with running_sandbox(SandboxSettings(limit=None)) as running:
        yield running


def test_a_glob_and_parquet_in_one_run(tmp_path: Path, sandbox: Sandbox) -> None:
    """Each row's source is named."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    write_devices(tmp_path / "a.csv", 2)
    pq.write_table(pa.Table.from_pylist(devices(3)[2:]), tmp_path / "b.parquet")
    ended = moe_bulk(["upload", "[ab].*"], tmp_path, environment(sandbox))

    assert (0, "") == (ended.code, ended.out), ended.err
    found = lines(tmp_path / "a.csv.run" / "results.ndjson")
    assert [("a.csv", 2), ("a.csv", 3), ("b.parquet", 1)] == sorted((each["source"], each["line"]) for each in found)


def test_a_damaged_parquet_file(tmp_path: Path, sandbox: Sandbox) -> None:
    """Exit 2 with a plain sentence, and nothing is left behind."""
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing more")
    ended = moe_bulk(["upload", "a.parquet"], tmp_path, environment(sandbox))

    assert 2 == ended.code
    assert "a.parquet cannot be read: it is damaged or cut off" in ended.err
    assert not (tmp_path / "a.parquet.run").exists()


def a_database(folder: Path) -> str:
    """Make one, and give the select that reads it."""
    with closing(sqlite3.connect(folder / "crm.db")) as connection:
        connection.execute("create table devices (user, id, platform, token)")
        rows = [tuple(device(number).values()) for number in range(3)]
        connection.executemany("insert into devices values (?, ?, ?, ?)", rows)
        connection.commit()
    return "select user as customer_id, id as device_id, platform, token from devices order by id"


def test_a_query(tmp_path: Path, sandbox: Sandbox) -> None:
    """Into `query.run`; the URL may come from the environment, the query from a file."""
    pytest.importorskip("sqlalchemy")
    sql, options = a_database(tmp_path), ["--column", "push_id=token"]
    ended = moe_bulk(["upload", "sqlite:///crm.db", "--query", sql, *options], tmp_path, environment(sandbox))
    assert 0 == ended.code, ended.err
    assert 3 == summary_of(tmp_path / "query.run")["counts"]["accepted"]

    (tmp_path / "devices.sql").write_text(sql, encoding="utf-8")
    env = environment(sandbox, MOE_BULK_SQL_URL="sqlite:///crm.db")
    again = moe_bulk(["upload", "--query", "@devices.sql", *options], tmp_path, env)
    assert (0, 3) == (again.code, len(sandbox.devices)), again.err
    assert 1 == summary_of(tmp_path / "query.run")["sessions"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["postgresql://me:s3cr3t@host/db"], "is asked with --query"),
        (["devices.csv", "--query", "select 1"], "--query goes with one source, a database's URL"),
        (["--query", "select 1"], "or with MOE_BULK_SQL_URL in its place"),
        (["sqlite:///crm.db", "--query", "select 1", "--format", "csv"], "--format is for files"),
        (["sqlite:///crm.db", "--query", "@nowhere.sql"], "the query's file nowhere.sql cannot be read: No such file"),
        ([], "upload what?"),
    ],
)
def test_what_does_not_go_together(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is said with what to type, and without a password."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOE_BULK_SQL_URL", raising=False)
    assert 2 == cli.run(["upload", *arguments, "--sandbox"])
    said = capsys.readouterr()
    assert "" == said.out
    assert message in said.err
    assert "s3cr3t" not in said.err
