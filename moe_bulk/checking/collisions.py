"""Which rows share a device, a push token, an advertising id or a user: found on disk, so that memory stays bounded.

Each row's keys go as 64-bit hashes into a database of DuckDB's, which groups and spills. Two keys of ten million have
the same hash with a chance of three in a million.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Literal, NamedTuple

import duckdb

from moe_bulk.deadletter import clean
from moe_bulk.errors import JournalError
from moe_bulk.ids import token_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from moe_bulk.columns import Portion

SharedKey = Literal["push_id", "moe_gaid", "idfv"]
SHARED_KEYS: tuple[SharedKey, ...] = ("push_id", "moe_gaid", "idfv")
"""What MoEngage knows only one device by: accepting one deletes another that has the same."""

MEMORY = "160MB"
"""What DuckDB may hold; the interpreter and its libraries come to as much again."""
WRITTEN_AT_ONCE = 1 << 18
LOADED_AT_ONCE = 64 << 20
"""Bytes of rows that are written down before DuckDB takes them in."""
WORST = 10
PLACES = 5
_ROWS_AT_ONCE = 10_000
_KEYS = "SELECT key FROM groups"

_COLUMNS = {"source": "INTEGER"} | dict.fromkeys(
    ("line", "start", "customer", "device", "push_id", "moe_gaid", "idfv"), "BIGINT"
)


class Spot(NamedTuple):
    """Where a row stands: a source by its index, a line and an offset as in `Position`."""

    source: int
    line: int
    offset: int


class Group(NamedTuple):
    """Rows that have something in common: its hash, how many rows and devices there are, and where some of them are."""

    key: int
    rows: int
    devices: int
    spots: tuple[Spot, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """All groups of one kind: how many there are, with how many rows and devices, and the largest of them."""

    groups: int
    rows: int
    devices: int
    worst: tuple[Group, ...]


def _hashes(kind: str, values: Sequence[str]) -> Iterable[int | str]:
    """The hash of each value's key; nothing where there is no value."""
    if all(values):
        return map(hash, zip(repeat(kind), values, strict=False))
    return [hash((kind, value)) if value else "" for value in values] if any(values) else values


def _compared(tokens: Sequence[str]) -> Sequence[str]:
    """Push tokens as they are compared; of most kinds they are no hex."""
    return list(map(token_key, tokens)) if any(map(str.isalnum, tokens)) else tokens


class Collisions:
    """Takes in rows with their devices, then tells what they share. `folder` is empty, and removed by whoever made it.

    Raises JournalError where the folder cannot take it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = duckdb.connect(
            str(folder / "rows.duckdb"),
            config={"threads": 1, "memory_limit": MEMORY, "temp_directory": str(folder / "spilt")},
        )
        self._database.execute(f"CREATE TABLE rows ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())})")
        self._database.execute("CREATE TEMP TABLE beyond (key BIGINT, device BIGINT, n BIGINT)")
        self._waiting = 0
        """Bytes that were written down and not taken in yet."""
        self._spill = folder / "rows.csv"
        self._file = self._spill.open("w", buffering=WRITTEN_AT_ONCE, encoding="ascii")

    def add(self, portion: Portion, sources: Mapping[str, int]) -> None:
        """More devices, in the order of the input; `sources` numbers what positions call sources."""
        if not portion:
            return
        names, lines, offsets, _ = zip(*portion.positions, strict=True)
        # hashes of the keys of `Device.keys`, kind by kind
        hashes = (
            map(hash, portion.customer_ids),
            map(hash, zip(repeat("device"), portion.customer_ids, portion.device_ids, strict=False)),
            _hashes("push_id", _compared(portion.push_ids)),
            _hashes("moe_gaid", list(map(str.casefold, portion.gaids))),
            _hashes("idfv", list(map(str.casefold, portion.idfvs))),
        )
        columns = zip(map(sources.__getitem__, names), lines, offsets, *hashes, strict=True)
        # by far the fastest way to write numbers
        rows = [f"{a},{b},{c},{d},{e},{f},{g},{h}\n" for a, b, c, d, e, f, g, h in columns]
        with self._telling():
            self._waiting += self._file.write("".join(rows))
        if self._waiting >= LOADED_AT_ONCE:
            self._load()

    def close(self) -> None:
        """Let go of the files."""
        with suppress(OSError):  # what does not reach a full disk is not needed any more
            self._file.close()
        self._database.close()

    # -- what they share -------------------------------------------------------------------------------------------

    def repeated(self) -> Shared:
        """Devices that stand in more than one row."""
        with self._groups_of("device", "count(*) > 1", devices=1):
            groups, rows, _ = self._totals()
            spots = self._spots(
                "SELECT device AS key, rowid AS first, source, line, start FROM rows "
                "WHERE device IN (SELECT key FROM worst) "
                f"QUALIFY row_number() OVER (PARTITION BY device ORDER BY rowid) <= {PLACES}"
            )
            return Shared(groups, rows, groups, self._worst(spots))

    def shared(self, name: SharedKey) -> Shared:
        """Push tokens or advertising ids that several devices have; the places are those of the first devices."""
        with self._groups_of(name, "min(device) <> max(device)"):
            if not self._totals()[0]:  # as in most inputs: then their rows are not read once more
                return Shared(0, 0, 0, ())
            self._count_devices(f"(SELECT DISTINCT {name} AS key, device FROM rows WHERE {name} IN ({_KEYS}))")
            groups, rows, devices = self._totals()
            return Shared(groups, rows, devices, self._worst(self._first_of_each_device(name)))

    def crowded(self, most: int) -> tuple[Shared, int]:
        """Users with more than `most` devices, and how many rows belong to devices beyond those, by their first row."""
        with self._groups_of("customer", f"count(*) > {most}"):
            self._do(
                "CREATE TEMP TABLE ranked AS SELECT customer AS key, device, count(*) AS n, "
                "row_number() OVER (PARTITION BY customer ORDER BY min(rowid)) AS rank "
                f"FROM rows WHERE customer IN ({_KEYS}) GROUP BY customer, device"
            )
            try:
                self._do(f"DELETE FROM groups WHERE key NOT IN (SELECT key FROM ranked WHERE rank > {most})")
                self._count_devices("ranked")
                self._do(f"INSERT INTO beyond SELECT key, device, n FROM ranked WHERE rank > {most}")
                (beyond,) = self._one("SELECT coalesce(sum(n), 0) FROM beyond")
            finally:
                self._do("DROP TABLE ranked")
            groups, rows, devices = self._totals()
            return Shared(groups, rows, devices, self._worst(self._first_of_each_device("customer"))), beyond

    def busy_users(self, least: int) -> Iterator[tuple[int, Spot, int]]:
        """The rows of all users who have more than `least`: user, place, and which row of all it is; user by user.

        Rows that would be left out are none of theirs, once `crowded` has found them.
        """
        self._load()
        found = self._do(
            "SELECT customer, source, line, start, rowid FROM rows "
            f"WHERE customer IN (SELECT customer FROM rows GROUP BY customer HAVING count(*) > {least}) AND NOT EXISTS "
            "(SELECT 1 FROM beyond WHERE beyond.key = rows.customer AND beyond.device = rows.device) "
            "ORDER BY customer, rowid"
        )
        while rows := found.fetchmany(_ROWS_AT_ONCE):
            for user, source, line, start, number in rows:
                yield user, Spot(source, line, start), number

    # -- how -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _groups_of(self, column: str, which: str, *, devices: int = 0) -> Iterator[None]:
        """Within it, the table `groups` has those of a column's values that fulfil a condition.

        A group has as many `devices` as is said, or as `_count_devices` counts then; `worst` are the largest groups.
        """
        self._load()
        self._do(
            f"CREATE TEMP TABLE groups AS SELECT {column} AS key, count(*) AS n, {devices} AS devices, "
            f"min(rowid) AS first FROM rows WHERE {column} IS NOT NULL GROUP BY {column} HAVING {which}"
        )
        try:
            self._choose_worst()
            yield
        finally:
            self._do("DROP TABLE groups")
            self._do("DROP TABLE worst")

    def _count_devices(self, source: str) -> None:
        """Let each group have as many devices as `source` has rows with its key."""
        self._do(
            "UPDATE groups SET devices = counted.devices FROM "
            f"(SELECT key, count(*) AS devices FROM {source} GROUP BY key) AS counted WHERE groups.key = counted.key"
        )
        self._choose_worst()

    def _totals(self) -> tuple[int, ...]:
        """How many groups there are, with how many rows and devices."""
        return self._one("SELECT count(*), coalesce(sum(n), 0), coalesce(sum(devices), 0) FROM groups")

    def _choose_worst(self) -> None:
        self._do(
            "CREATE OR REPLACE TEMP TABLE worst AS SELECT key, n, devices, first FROM groups "
            f"ORDER BY devices DESC, n DESC, first LIMIT {WORST}"
        )

    def _first_of_each_device(self, column: str) -> dict[int, list[Spot]]:
        return self._spots(
            "SELECT key, first, source, line, start FROM ("
            f"SELECT {column} AS key, min(rowid) AS first, arg_min(source, rowid) AS source, "
            "arg_min(line, rowid) AS line, arg_min(start, rowid) AS start "
            f"FROM rows WHERE {column} IN (SELECT key FROM worst) GROUP BY {column}, device) "
            f"QUALIFY row_number() OVER (PARTITION BY key ORDER BY first) <= {PLACES}"
        )

    def _spots(self, query: str) -> dict[int, list[Spot]]:
        spots: dict[int, list[Spot]] = {}
        for key, _, source, line, start in self._do(f"SELECT * FROM ({query}) ORDER BY key, first").fetchall():
            spots.setdefault(key, []).append(Spot(source, line, start))
        return spots

    def _worst(self, spots: dict[int, list[Spot]]) -> tuple[Group, ...]:
        found = self._do("SELECT key, n, devices FROM worst ORDER BY devices DESC, n DESC, first").fetchall()
        return tuple(Group(key, n, devices, tuple(spots[key])) for key, n, devices in found)

    def _one(self, query: str) -> tuple[int, ...]:
        return tuple(int(number) for number in self._do(query).fetchall()[0])

    def _do(self, query: str) -> duckdb.DuckDBPyConnection:
        with self._telling():
            return self._database.execute(query)

    def _load(self) -> None:
        """Have DuckDB take in what was written down."""
        with self._telling():
            self._file.flush()
            if not self._waiting:
                return
            self._database.execute(
                f"INSERT INTO rows SELECT * FROM read_csv(?, header = false, delim = ',', quote = '', escape = '', "
                f"auto_detect = false, columns = {_COLUMNS})",
                [str(self._spill)],
            )
            self._file.seek(0)
            self._file.truncate()
            self._waiting = 0

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (OSError, duckdb.Error) as error:
            said = getattr(error, "strerror", None) or str(error).partition("\n")[0][:200]
            where = clean(os.fspath(self._folder.parent))
            raise JournalError(
                f"the rows cannot be compared in {where}: {said}. Set TMPDIR to a folder with room for about 100 bytes "
                "a row"
            ) from None
