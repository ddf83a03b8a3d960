"""The file of what is known: ours and whole, or refused with the way out; for nobody else's eyes."""

from __future__ import annotations

import os
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from moe_bulk.device import Device
from moe_bulk.errors import JournalError, MoeBulkError, StateRefused
from moe_bulk.known import Known, Settled
from moe_bulk.statefile import open_state, telling
from tests.test_known import MONTH, NOW, WHOSE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRETS = ("customer-4711", "device-4711", "push-token-4711", "gaid-4711", "model-4711")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a state file."""
    return tmp_path / "a.known"


def opened(path: Path, whose: tuple[str, str] = WHOSE) -> None:
    """Open and close it."""
    open_state(path, *whose)[0].close()


def refusal(path: Path, whose: tuple[str, str] = WHOSE) -> str:
    """Give what is said where it is refused; the file stays as it is."""
    before = path.read_bytes()
    with pytest.raises(StateRefused) as raised:
        opened(path, whose)
    assert before == path.read_bytes()
    assert 2 == raised.value.exit_code
    return str(raised.value)


def test_nobody_is_named_in_it(path: Path) -> None:
    """Ids, tokens and attributes are there as numbers only, in all its files, and only for their owner."""
    customer_id, device_id, push_id, gaid, model = SECRETS
    one = Device(customer_id, device_id, {"push_id": push_id, "moe_gaid": gaid, "model": model})
    known = Known(path, WHOSE, MONTH, NOW)
    (mark,) = known.decide([one], NOW)
    assert mark is not None
    known.note([Settled(mark, accepted=True, sure=True)], NOW)
    names = sorted(each.name for each in path.parent.iterdir())
    written = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert ["a.known", "a.known-shm", "a.known-wal"] == names
    assert {0o600} == {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert [] == [secret for secret in SECRETS if secret.encode() in written]
    known.close()
    assert ["a.known"] == [each.name for each in path.parent.iterdir()]


def test_two_files_have_nothing_in_common(tmp_path: Path) -> None:
    """Each has a key of its own: what one of them says of a device cannot be looked up in another one."""
    assert 2 == len({open_then_close(tmp_path / name) for name in ("a.known", "b.known")})
    assert open_then_close(tmp_path / "a.known") == open_then_close(tmp_path / "a.known")


def open_then_close(path: Path) -> bytes:
    """Give the key of a file's hashes."""
    db, salt, _ = open_state(path, *WHOSE)
    db.close()
    return salt


def test_many_may_make_it_at_once(path: Path) -> None:
    """One of them does, and all use the same."""
    with ThreadPoolExecutor(8) as many:
        for number in range(10):
            new = path.with_name(f"{number}.known")
            assert 1 == len(set(many.map(open_then_close, [new] * 8)))


def test_folders_are_made_for_nobody_else(tmp_path: Path) -> None:
    """The state folder may be missing."""
    opened(tmp_path / "state" / "moe-bulk" / "a.known")
    assert 0o700 == stat.S_IMODE((tmp_path / "state").stat().st_mode)


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    """Somebody made it, or a killed process did."""
    path.touch(0o600)
    opened(path)
    opened(path)


def write(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read."""
    path.write_bytes(content)
    path.chmod(0o600)


def damage(path: Path) -> None:
    """Overwrite the tables, as a broken disk does."""
    opened(path)
    write(path, path.read_bytes()[:4096] + os.urandom(len(path.read_bytes()) - 4096))


def another_version(path: Path) -> None:
    """Make a file of an earlier program."""
    opened(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 1")


def another_program(path: Path) -> None:
    """Make a database of somebody else."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE devices (id INTEGER PRIMARY KEY, said, at)")
    path.chmod(0o600)


def without_its_salt(path: Path) -> None:
    """Take away what makes its numbers."""
    opened(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM about WHERE name = 'salt'")


def readable_by_others(path: Path) -> None:
    """Let others in."""
    opened(path)
    path.chmod(0o644)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: write(path, b"customer_id,device_id\n" * 500), "is damaged, or none of ours"),
        (damage, "is damaged, or none of ours"),
        (another_version, "is of format 1, and this program knows 2"),
        (another_program, "is a database, but none of ours"),
        (without_its_salt, "is damaged (it has no salt)"),
        (readable_by_others, "may be read by others: chmod 600"),
    ],
)
def test_what_is_not_ours_is_refused(path: Path, make: Callable[[Path], object], said: str) -> None:
    """With a plain message, and never a guess."""
    make(path)
    assert said in refusal(path)


def test_another_workspaces_file_is_refused(path: Path) -> None:
    """What one workspace has accepted says nothing of another one."""
    opened(path)
    assert "is that of WORKSPACE at api-01.moengage.com, and this goes to W-2" in refusal(path, (WHOSE[0], "W-2"))


@pytest.mark.parametrize("name", ["a.known", "a.known-wal", "a.known-shm"])
def test_no_link_is_followed(path: Path, tmp_path: Path, name: str) -> None:
    """Neither as the file nor beside it."""
    other = tmp_path / "other"
    other.touch(0o600)
    if name != path.name:
        opened(path)
    (tmp_path / name).symlink_to(other)
    assert "links are not followed" in refusal(path)
    assert b"" == other.read_bytes()


def test_a_place_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """Before anything is sent."""
    (tmp_path / "file").touch()
    with pytest.raises(StateRefused, match="cannot be used"):
        opened(tmp_path / "file" / "a.known")


def test_a_name_that_no_file_has(tmp_path: Path) -> None:
    """A settings file can hold a NUL."""
    with pytest.raises(StateRefused, match="has a NUL in its name"):
        opened(tmp_path / "a\0b.known")


def test_a_place_in_a_run_folder(tmp_path: Path) -> None:
    """Every new run would move it aside and stop, again and again."""
    folder = tmp_path / "devices.csv.run"
    folder.mkdir(mode=0o700)
    (folder / "results.ndjson").touch()
    with pytest.raises(StateRefused, match="lies in a run folder"):
        opened(folder / "a.known")
    assert not (folder / "a.known").exists()


def test_a_file_that_was_removed_is_noticed(path: Path) -> None:
    """Others would not see what is noted in it."""
    known = Known(path, WHOSE, MONTH, NOW)
    path.unlink()
    with pytest.raises(StateRefused, match="was removed or replaced"):
        known.decide([], NOW)
    known.close()


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (sqlite3.SQLITE_FULL, JournalError, "Make room on that disk"),
        (sqlite3.SQLITE_BUSY, JournalError, "Another process has held it for 10 s"),
        (sqlite3.SQLITE_IOERR, JournalError, "Check that disk"),
        (sqlite3.SQLITE_CORRUPT, StateRefused, "is damaged"),
    ],
)
def test_trouble_on_the_way_is_told(path: Path, code: int, kind: type[MoeBulkError], said: str) -> None:
    """What the disk or another process is to blame for passes; damage does not."""
    error = sqlite3.OperationalError("told by SQLite")
    error.sqlite_errorcode = code
    with pytest.raises(MoeBulkError) as raised, telling(path):
        raise error
    assert kind is type(raised.value)
    assert said in str(raised.value)
