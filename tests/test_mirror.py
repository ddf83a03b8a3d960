"""What is copied of a state file: it says what the file says, or nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk import mirror
from moe_bulk.mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

EVER = (0, 1 << 32)
IDS = (
    st.integers(-(2**63) + 1, 2**63 - 1)
    | st.integers(-5, 5)
    | st.sampled_from([-(2**63) + 1, 2**63 - 1, -(2**48), 2**48])
)
AT = st.integers(1, 200)


def database(path: Path | None, rows: Iterable[tuple[object, object, object]]) -> sqlite3.Connection:
    """Make a file of devices, or one in memory."""
    db = sqlite3.connect(path or ":memory:", isolation_level=None)
    db.execute("CREATE TABLE devices (id INTEGER PRIMARY KEY, said INTEGER NOT NULL, at INTEGER NOT NULL)")
    db.executemany("INSERT INTO devices VALUES (?, ?, ?)", rows)
    return db


def whole(db: sqlite3.Connection) -> Mirror:
    """Copy all of it."""
    made = Mirror(db)
    made.refresh(1_000_000)
    return made


@given(st.dictionaries(IDS, st.tuples(IDS, AT)), st.lists(IDS), AT, AT, st.lists(IDS))
def test_it_finds_what_the_file_holds(
    held: dict[int, tuple[int, int]], asked: list[int], since: int, until: int, gone: list[int]
) -> None:
    """Exactly that, within the times, and nothing of what was forgotten."""
    with closing(database(None, ((one, *about) for one, about in held.items()))) as db:
        copy = whole(db)
        copy.forget(gone)
        expected = {one: said for one, (said, at) in held.items() if since <= at <= until and one not in gone}
        assert expected == copy.find([*held, *asked], since, until)


def test_it_is_filled_as_it_is_asked_and_answers_when_it_is_whole() -> None:
    """Nobody waits for it: twenty for each that is asked about."""
    with closing(database(None, ((one, one, 1) for one in range(100)))) as db:
        copy, found = Mirror(db), list[int]()
        for _ in range(7):
            copy.refresh(1)
            found.append(len(copy.find(range(100), *EVER)))
        assert [0] * 5 + [100, 100] == found


def test_what_this_connection_writes_is_no_disturbance() -> None:
    """It says itself what it changes; what is new is looked up in the file."""
    with closing(database(None, [(1, 10, 1), (2, 20, 1)])) as db:
        copy = whole(db)
        db.execute("DELETE FROM devices WHERE id = 1")
        db.execute("INSERT INTO devices VALUES (3, 30, 1)")
        copy.forget([1])
        copy.refresh(1)
        assert {2: 20} == copy.find([1, 2, 3], *EVER)


def test_what_others_write_takes_effect_at_once(tmp_path: Path) -> None:
    """All that was copied before may be wrong: it is copied again, until that happened too often to pay."""
    path, found = tmp_path / "a.known", list[dict[int, int]]()
    with closing(database(path, [(1, 10, 1), (2, 20, 1)])) as db, closing(sqlite3.connect(path)) as other:
        copy = whole(db)
        for said in (11, 12, 13, 14):
            with other:
                other.execute("UPDATE devices SET said = ? WHERE id = 1", (said,))
            copy.refresh(1)
            found.append(copy.find([1, 2], *EVER))
            copy.refresh(1)
        assert [{1: 11, 2: 20}, {1: 12, 2: 20}, {}, {}] == found


@pytest.mark.parametrize("odd", [(1, "text", 1), (1, 1, "text"), (1, 1, None), (1, 1.5, 1), (1, b"1", 1)])
def test_what_is_no_number_is_left_to_the_file(odd: tuple[object, object, object]) -> None:
    """A damaged file, or somebody's own work: nothing is answered from memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute("CREATE TABLE devices (id INTEGER PRIMARY KEY, said, at)")
        db.executemany("INSERT INTO devices VALUES (?, ?, ?)", [odd, (2, 20, 1)])
        assert {} == whole(db).find([1, 2], *EVER)


def test_a_time_that_is_none_is_left_to_the_file() -> None:
    """Before 1970, or after 2106."""
    with closing(database(None, [(1, 10, -5), (2, 20, 1 << 32), (3, 30, 7)])) as db:
        assert {3: 30} == whole(db).find([1, 2, 3], 1, 1 << 40)


def test_there_is_memory_for_so_many_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that, all is looked up in the file."""
    monkeypatch.setattr(mirror, "MOST_MIRRORED", 9)
    with closing(database(None, ((one, one, 1) for one in range(10)))) as db:
        assert {} == whole(db).find(range(10), *EVER)


def test_an_sqlite_without_json_answers_from_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was left out of some before 3.38: slower, and right."""
    monkeypatch.setattr(mirror, "_COPY", "SELECT json_group_nothing(id) FROM devices WHERE id > ? LIMIT ?")
    with closing(database(None, [(1, 10, 1)])) as db:
        assert {} == whole(db).find([1], *EVER)
