"""The file of what MoEngage is known to have: opened so that it is ours and whole, or refused with the way out.

An SQLite database, so that several processes may use it at once and a killed one leaves nothing half done. In it are
numbers only, made of ids, tokens and attributes by a hash whose salt is the file's own: whoever finds the file cannot
look anybody up in a list made elsewhere.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, NoReturn

from moe_bulk.deadletter import clean
from moe_bulk.errors import AGAIN, JournalError, StateRefused
from moe_bulk.folders import make_parents, open_folder, sync_folder
from moe_bulk.lock import stranger
from moe_bulk.naming import within_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 2
"""The first one hashed with its salt as a key: what one of the two forgets, the other would still know."""
APPLICATION = 0x4D6F4465
"""`MoDe` in the file's header: how SQLite's files say whose they are."""

BUSY_SECONDS = 10.0
"""How long to wait for another process that writes; each holds the file for milliseconds."""

CACHE_KB = 65_536
"""What is asked of a larger file while its mirror is not filled comes from the system's own cache."""

_SALT_BYTES = 32
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SCHEMA = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, said BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE devices (id INTEGER PRIMARY KEY, said INTEGER NOT NULL, at INTEGER NOT NULL)",
    "CREATE TABLE holders (key INTEGER PRIMARY KEY, id INTEGER NOT NULL, at INTEGER NOT NULL)",
    """
    CREATE TABLE pending (
        key INTEGER NOT NULL, mark INTEGER NOT NULL, said INTEGER NOT NULL, at INTEGER NOT NULL,
        contested INTEGER NOT NULL, PRIMARY KEY (key, mark)
    ) WITHOUT ROWID
    """,
)
"""devices: what was accepted last of each, and when. holders: which device has a token or advertising id.
pending: what is on its way, or may be, and whether something else was at the same time."""

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA})
_START_OVER = "Nothing is guessed: remove it (everything is sent again then), or name another with --state"


def default_state(folder: Path, destination: str, workspace_id: str) -> Path:
    """The state file of a destination and workspace, in the user's state folder."""
    place = re.sub(r"[^A-Za-z0-9.-]", "_", destination)[:120]
    return folder / f"{place}_{workspace_id[:60]}.known"


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Within it, SQLite's errors become a StateRefused where the file is not right, else a JournalError."""
    try:
        yield
    except sqlite3.Error as error:
        _tell(path, error)


def _tell(path: Path, error: sqlite3.Error) -> NoReturn:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _DAMAGED:
        raise _refused(path, f"is damaged, or none of ours ({error}). {_START_OVER}") from error
    if code == sqlite3.SQLITE_FULL:
        way_out = f"Make room on that disk, then {AGAIN}"
    elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        way_out = f"Another process has held it for {BUSY_SECONDS:.0f} s: see which, then {AGAIN}"
    else:
        way_out = f"Check that disk and its permissions, then {AGAIN}"
    name = clean(str(path))
    raise JournalError(f"the state file {name} cannot be read or written ({error}). {way_out}") from error


def open_state(
    path: Path, destination: str, workspace_id: str
) -> tuple[sqlite3.Connection, bytes, os.stat_result | None]:
    """Open or create the file: the connection, for one thread at a time, the key of its hashes, and which file it is.

    Raises StateRefused where the file is damaged, foreign, of another version or of another workspace: it stays as it
    is then.
    """
    path = path.absolute()
    if "\0" in str(path):
        raise _refused(path, "has a NUL in its name, which no file has: name another with --state")
    if within_run(path):
        raise _refused(path, "lies in a run folder, which is moved aside in time: name another with --state")
    try:
        seen = _look(path) or _create(path) or _look(path)
    except OSError as error:
        why = error.strerror or error
        raise _refused(path, f"cannot be used ({why}): name another with --state") from error
    with telling(path), ExitStack() as stack:
        db = sqlite3.connect(
            f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        stack.callback(db.close)
        salt = _settle_in(db, path, f"{workspace_id} at {destination}")
        refuse_replaced(path, seen)
        stack.pop_all()
        return db, salt, seen


def refuse_replaced(path: Path, seen: os.stat_result | None) -> None:
    """Raise StateRefused where the name has gone, or stands for another file: others would not see what is noted."""
    try:
        same = seen is not None and os.path.samestat(seen, path.lstat())
    except OSError:
        same = False
    if not same:
        raise _refused(path, f"was removed or replaced while it was in use: {AGAIN}")


def _refused(path: Path, why: str) -> StateRefused:
    return StateRefused(f"the state file {clean(str(path))} {why}")


def _look(path: Path) -> os.stat_result | None:
    """What stands there, None where nothing does; StateRefused where it is no plain file of ours.

    By its name only: to close a file that SQLite has open elsewhere in this process would give up its locks
    (https://www.sqlite.org/howtocorrupt.html).
    """
    seen = None
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        try:
            about = name.lstat()
        except FileNotFoundError:
            continue
        reason = stranger(about, os.geteuid())
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
            reason = "is no plain file of its own: links are not followed"
        elif stat.S_IMODE(about.st_mode) & 0o077:
            reason = "may be read by others: chmod 600 it, if it is yours"
        if reason:
            raise _refused(name, reason)
        seen = seen or (about if name is path else None)
    return seen


def _create(path: Path) -> os.stat_result | None:
    """Make the file; None where another process was quicker."""
    make_parents(path.parent)
    with ExitStack() as stack:
        folder = open_folder(stack, str(path.parent))
        try:
            fd = os.open(path.name, _NEW, 0o600, dir_fd=folder)
        except FileExistsError:
            return None
        stack.callback(os.close, fd)
        sync_folder(folder)
        return os.fstat(fd)


def _settle_in(db: sqlite3.Connection, path: Path, whose: str) -> bytes:
    _one(db, "PRAGMA trusted_schema = OFF")
    if not _one(db, "SELECT count(*) FROM sqlite_master") and not _one(db, "PRAGMA application_id"):
        _begin(db, path, whose)
    application, version = _one(db, "PRAGMA application_id"), _one(db, "PRAGMA user_version")
    if application != APPLICATION:
        raise _refused(path, f"is a database, but none of ours. {_START_OVER}")
    if version != FORMAT:
        raise _refused(path, f"is of format {version}, and this program knows {FORMAT}. {_START_OVER}")
    with closing(db.execute("SELECT name, said FROM about")) as found:
        about = dict(found)
    salt = about.get("salt")
    if not isinstance(salt, bytes) or len(salt) != _SALT_BYTES:
        raise _refused(path, f"is damaged (it has no salt). {_START_OVER}")
    if about.get("whose") != whose:
        told = clean(str(about.get("whose")))
        raise _refused(path, f"is that of {told}, and this goes to {whose}: name another with --state")
    _use_wal(db, path)
    return salt


def _begin(db: sqlite3.Connection, path: Path, whose: str) -> None:
    """Make the tables; all of it at once, however it is killed, and only one process."""
    _use_wal(db, path)
    db.execute("BEGIN IMMEDIATE")
    try:
        if not _one(db, "SELECT count(*) FROM sqlite_master"):  # another process may have been quicker
            for table in _SCHEMA:
                db.execute(table)
            said = {"salt": os.urandom(_SALT_BYTES), "whose": whose, "swept": 0}
            db.executemany("INSERT INTO about VALUES (?, ?)", said.items())
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _use_wal(db: sqlite3.Connection, path: Path) -> None:
    if _one(db, "PRAGMA journal_mode = WAL") != "wal":
        raise _refused(path, "lies where SQLite cannot share it: name one on a local disk with --state")
    _one(db, "PRAGMA synchronous = FULL")
    _one(db, f"PRAGMA cache_size = -{CACHE_KB}")


def _one(db: sqlite3.Connection, statement: str) -> object:
    """The first value that a statement answers with, if there is any."""
    row = db.execute(statement).fetchone()
    return row[0] if row else None
