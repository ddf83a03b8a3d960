"""Which devices each user of a run has: MoEngage blocks a user at the 1,001st, so that one is not sent.

`devices.census` in the run folder tells it to the next session: a log, and within it, behind its first records, a table
of cells. Short runs have no table.

- Each row that is to be sent appends one record to the log: the record before it in the same cell, and hashes of its
  user and of its device. The user's hash names the cell.
- A cell is the number of its last record, and how many there are: as long as these are fewer than a user may have
  devices, nobody needs to look at them. From then on the records are followed back for one user's exact devices, by a
  thousand small reads; these devices are kept in memory while there is room, and are not written again.

The records of rows that were read together are written together, before any of these rows goes its way, so a killed
process leaves none out; a row that is taken in twice is the same device. The log is the truth. The table on disk lags
behind it by a few syncs, so that after a power cut it speaks of nothing that is lost: the rest is read from the log's
end. What a power cut takes from the log was behind the last sync, and is counted again: from the results that are read
back, or when its rows are taken in again.

Two users who share all 64 bits of their hashes would count as one, two devices likewise: nobody will see it happen.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from io import FileIO
from itertools import islice
from mmap import mmap
from typing import TYPE_CHECKING, NamedTuple, Self

from moe_bulk.columns import Unsent
from moe_bulk.crowds import Crowds
from moe_bulk.deadletter import clean
from moe_bulk.errors import AGAIN, JournalError, RunRefused
from moe_bulk.journal import sync_to_disk, telling, trouble
from moe_bulk.naming import CENSUS
from moe_bulk.outcome import Status
from moe_bulk.record import Record
from moe_bulk.recovery import open_to_mend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from moe_bulk.record import Position

_FORMAT = 1
_MAGIC = b"moe_bulk census\n"
# the order of bytes is this machine's, as the table's is: on another kind the header makes no sense, and is refused
_HEADER = struct.Struct("=16sIIQ")
_RECORD = struct.Struct("=IQQ")
_LOG_AT = 4096
_CELL = 8
_pack = _RECORD.pack
_new_hash = blake2b(digest_size=8).copy
"""To copy one takes less time than to make one."""

_COUNT_BITS = 16
_COUNT = (1 << _COUNT_BITS) - 1
_BLOCK = 512
"""Cells that are written at once: a page, which is what a disk takes anyway."""

_READ = 1 << 16
"""Records of the log's end that are read at once."""

MOST_RECORDS = (1 << 32) - 1
"""Rows behind these are not counted: a year's, at the usual limit."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much there is of everything."""

    most: int = 1_000
    """Devices that a user may have; fewer than a cell counts."""
    first: int = 1 << 14
    """Records before the table: so many are read again rather than told by it."""
    cells: int = 1 << 20
    """Of the table, a power of two: with 50 million rows each has some fifty records.

    From a billion rows on all cells are full, and every user who is not kept in memory costs milliseconds.
    """
    kept: int = 1 << 20
    """Devices, of users who may have too many, that are kept in memory, at eight bytes each."""
    blocks: int = 256
    """Of the table that are written together, at 4 KB each. There are 2,048: from some two hundred rows a second on
    the table on disk lags behind by up to eight syncs, and a later session reads so much more of the log."""


class _Snapshot(NamedTuple):
    """What is to be written at one time: some blocks of the table, as they were when there were so many records.

    Once it is written, the table on disk knows at least the first `known` records.
    """

    records: int
    known: int
    blocks: Sequence[tuple[int, bytes]]


class Census:
    """Counts the devices of a run's users, exactly; one task at a time, but for what `snapshot` returns.

    `records` is how many rows were counted, `written` the bytes that these take. After an error it takes nothing more.
    """

    def __init__(self, file: FileIO, path: Path, sizes: Sizes) -> None:
        self.records = 0
        self._file = file
        self._path = path
        self._sizes = sizes
        self._cell_of = sizes.cells - 1
        """What is left of a user's hash by this is the number of the cell."""
        # pages that nobody touches take neither time nor memory: most runs are short
        self._table: memoryview[int] | array[int] = memoryview(mmap(-1, sizes.cells * _CELL)).cast("Q")
        """Of each cell, the number of its last record and, in the lowest bits, how many it has."""
        self._touched: set[int] = set()
        """Blocks of the table that changed since the last snapshot."""
        self._behind: dict[int, int] = {}
        """Blocks that the table on disk lags behind in, in the order of the first record that it may not know there."""
        self._snapshot = _Snapshot(0, 0, ())
        self._saved = self._snapshot
        """The last snapshot that was written, though it may not have outlasted a power cut yet."""
        self._crowds = Crowds(sizes.kept)
        self._unwritten = bytearray()
        """The last records, of rows that are being judged; it is empty whenever somebody else has a turn."""
        self._broken: JournalError | None = None
        # close() waits for a thread that saves: its descriptor may belong to another file afterwards
        self._saving = threading.Lock()

    @classmethod
    def open(cls, folder_fd: int, folder: Path, sizes: Sizes | None = None) -> Self:
        """The census that the run folder holds; where there is none, an empty one.

        Raises RunRefused where it is none that can be used, JournalError where the system does not let us.
        """
        with telling(folder):
            file = FileIO(open_to_mend(folder_fd, folder, CENSUS), "r+")
            try:
                census = cls(file, folder / CENSUS, sizes or Sizes())
                census._take_up()
            except BaseException:
                file.close()
                raise
        return census

    @property
    def written(self) -> int:
        """Bytes that the records take."""
        return self.records * _RECORD.size

    # -- rows ----------------------------------------------------------------------------------------------------------

    def judge(self, rows: Sequence[Record | Unsent | Position]) -> list[Record | Unsent | Position]:
        """The rows, whose devices are counted from now on; or why one is not sent: its user has too many of them.

        Positions are of rows that an earlier session settled. Raises JournalError where it cannot be written or read.
        """
        devices = [row.device for row in rows if isinstance(row, Record)]
        users = _hashes([device.customer_id for device in devices])
        admitted = self._admit_all(users, _hashes([device.device_id for device in devices]))
        self._write_out()
        if all(admitted):
            return list(rows)
        said = iter(admitted)
        return [self._unsent(row) if isinstance(row, Record) and not next(said) else row for row in rows]

    def _unsent(self, record: Record) -> Unsent:
        device = record.device
        reason = (
            f"customer_id has {self._sizes.most:,} devices in this run already; MoEngage blocks a user with more: "
            "see whether many people share this id"
        )
        keys = device.keys()
        return Unsent(record.row, Status.INVALID, reason, device.customer_id, device.device_id, record.mapping, keys)

    def admits(self, customer_id: str, device_id: str) -> bool:
        """Whether the user may have this device, too; then it is one of the user's from now on."""
        (admitted,) = self._admit_all(_hashes([customer_id]), _hashes([device_id]))
        self._write_out()
        return admitted

    def _admit_all(self, users: Sequence[int], devices: Sequence[int]) -> list[bool]:
        """Which devices, by hashes, their users may have; nothing is written out yet. As `_admit`, in few steps."""
        if users and self._broken is not None:
            raise self._broken
        table, cell_of, touch, pack = self._table, self._cell_of, self._touched.add, _pack
        most = min(self._sizes.most, _COUNT)
        unwritten, number, gap, admitted = self._unwritten, self.records, self._next_gap(), list[bool]()
        try:
            for user, device in zip(users, devices, strict=True):
                place = user & cell_of
                cell = table[place]
                if number < gap and (count := cell & _COUNT) < most:
                    number += 1
                    unwritten += pack(cell >> _COUNT_BITS, user, device)
                    table[place] = number << _COUNT_BITS | count + 1
                    touch(place // _BLOCK)
                    admitted.append(True)
                else:
                    self.records = number
                    admitted.append(self._admit(user, device))
                    unwritten, number, gap = self._unwritten, self.records, self._next_gap()
        finally:  # whatever it was ended by
            self.records = max(self.records, number)
        return admitted

    def _next_gap(self) -> int:
        """Behind which record the next gap of the log is: the table, or the end of what can be numbered."""
        return min(self._sizes.first if self.records < self._sizes.first else MOST_RECORDS, MOST_RECORDS)

    def _admit(self, user: int, device: int) -> bool:
        place = user & self._cell_of
        cell = self._table[place]
        if cell & _COUNT < self._sizes.most:
            self._append(place, cell, user, device)
            return True
        devices = self._crowds.get(user)
        if devices is None:
            devices = self._crowds.add(user, self._devices(cell >> _COUNT_BITS, user))
        index = bisect_left(devices, device)
        if index < len(devices) and devices[index] == device:
            return True
        if len(devices) >= self._sizes.most:
            return False
        self._append(place, cell, user, device)
        self._crowds.insert(devices, index, device)
        return True

    def _append(self, place: int, cell: int, user: int, device: int) -> None:
        if (number := self.records + 1) > MOST_RECORDS:
            return
        if number == self._sizes.first + 1:
            self._write_out()  # the table lies between these two
        self._unwritten += _pack(cell >> _COUNT_BITS, user, device)
        self.records = number
        self._point(place, number, cell)

    def _write_out(self) -> None:
        if self._unwritten:
            said, self._unwritten = bytes(self._unwritten), bytearray()
            self._write(said, self._at(self.records + 1 - len(said) // _RECORD.size))

    def _point(self, place: int, number: int, cell: int) -> None:
        """Make the record the last one of its cell, which said `cell` until now."""
        count = cell & _COUNT
        self._table[place] = number << _COUNT_BITS | (count + 1 if count < _COUNT else count)
        self._touched.add(place // _BLOCK)

    def _devices(self, number: int, user: int) -> array[int]:
        """The user's devices in ascending order, by the records from this one back."""
        found: set[int] = set()
        cell_of = self._cell_of
        self._write_out()
        with telling(self._path.parent):
            while number:
                said = os.pread(self._file.fileno(), _RECORD.size, self._at(number))
                before, whose, device = _RECORD.unpack(said) if len(said) == _RECORD.size else (number, 0, 0)
                if before >= number or (whose ^ user) & cell_of:
                    raise JournalError(_damaged(self._path))
                if whose == user:
                    found.add(device)
                number = before
        return array("Q", sorted(found))

    def _at(self, number: int) -> int:
        """Where a record stands; they count from 1."""
        gap = self._sizes.cells * _CELL if number > self._sizes.first else 0
        return _LOG_AT + (number - 1) * _RECORD.size + gap

    @property
    def _table_at(self) -> int:
        return _LOG_AT + self._sizes.first * _RECORD.size

    def _write(self, said: bytes, at: int) -> None:
        try:
            while said:
                taken = os.pwrite(self._file.fileno(), said, at)
                said, at = said[taken:], at + taken
        except OSError as error:
            raise self._break(error, len(said)) from error

    def _break(self, error: OSError, needed: int = 0) -> JournalError:
        self._broken = trouble(self._path.parent, error, needed)
        return self._broken

    # -- what a later session needs ------------------------------------------------------------------------------------

    def snapshot(self) -> Callable[[], None]:
        """Tell what is counted at this moment; calling it, perhaps in a thread, makes that safe from a power cut."""
        if self.records <= self._sizes.first:
            return partial(self._save, _Snapshot(0, 0, ()))
        if self._saved is self._snapshot:
            for block, _ in self._snapshot.blocks:
                self._behind.pop(block, None)
        for block in sorted(self._touched):
            self._behind.setdefault(block, self._snapshot.records + 1)
        self._touched.clear()
        behind = iter(self._behind.items())
        # the oldest only: where rows come fast all blocks change all the time, and a copy of them takes memory
        blocks = [(block, self._block(block)) for block, _ in islice(behind, self._sizes.blocks)]
        _, first_left_out = next(behind, (0, self.records + 1))
        self._snapshot = _Snapshot(self.records, first_left_out - 1, blocks)
        return partial(self._save, self._snapshot)

    def _block(self, block: int) -> bytes:
        return self._table[block * _BLOCK : (block + 1) * _BLOCK].tobytes()

    def _save(self, snapshot: _Snapshot) -> None:
        with self._saving:
            if self._broken is not None:
                raise self._broken
            if snapshot.records < self._saved.records:  # a thread that was left came late
                return
            try:
                sync_to_disk(self._file.fileno())
            except OSError as error:
                raise self._break(error) from error
            # what was written of the table before this sync, and all records that it speaks of, are safe now
            self._write(self._header(self._saved.known), 0)
            for block, said in snapshot.blocks:
                self._write(said, self._table_at + block * _BLOCK * _CELL)
            self._saved = snapshot

    def _header(self, known: int) -> bytes:
        return _HEADER.pack(_MAGIC, _FORMAT, self._sizes.cells, known)

    def _take_up(self) -> None:
        fd = self._file.fileno()
        size = os.fstat(fd).st_size
        if not size:
            self._write(self._header(0), 0)
            return
        said = os.pread(fd, _HEADER.size, 0)
        known = _HEADER.unpack(said)[-1] if len(said) == _HEADER.size else 0
        records = self._records_in(size)
        if known > records or said != self._header(known):
            raise RunRefused(_damaged(self._path))
        if known:
            self._table = array("Q", os.pread(fd, self._sizes.cells * _CELL, self._table_at))
        self.records = known
        self._snapshot = self._saved = _Snapshot(known, known, ())
        self._follow(records)
        if size > self._at(self.records + 1):
            # half a record, or what came behind one that a power cut took: it would pass for what comes next
            os.ftruncate(fd, self._at(self.records + 1))

    def _records_in(self, size: int) -> int:
        """How many records a file of this size has."""
        first = self._sizes.first
        behind = max(0, size - self._at(first + 1)) // _RECORD.size
        return first + behind if size >= self._table_at else max(0, size - _LOG_AT) // _RECORD.size

    def _follow(self, records: int) -> None:
        """Read on in the log, from where the table on disk ends, to its end or to what a power cut left out of it."""
        while self.records < records:
            end = records if self.records >= self._sizes.first else min(records, self._sizes.first)
            count = min(end - self.records, _READ)
            found = os.pread(self._file.fileno(), count * _RECORD.size, self._at(self.records + 1))
            for before, user, device in _RECORD.iter_unpack(found):
                place = user & self._cell_of
                cell = self._table[place]
                head = cell >> _COUNT_BITS  # the table on disk may know more than the header says
                if not (before or user or device) or (before != head and head <= self.records):
                    return
                self.records += 1
                if head < self.records:
                    self._behind.setdefault(place // _BLOCK, self.records)  # the next snapshot goes on with the oldest
                    self._point(place, self.records, cell)

    def close(self) -> None:
        """Close the file, after a thread that saves; a second time changes nothing."""
        with self._saving, telling(self._path.parent):
            self._file.close()


def _hashes(ids: Sequence[str]) -> array[int]:
    """64 bits that stand for each, in any process; valid ids hold no lone surrogates."""
    digests = []
    for each in ids:
        digest = _new_hash()
        digest.update(each.encode())
        digests.append(digest.digest())
    numbers = array("Q", b"".join(digests))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _damaged(path: Path) -> str:
    return (
        f"{clean(str(path))} is damaged, or of another version: by it the run knows which users have 1,000 devices. "
        f"Remove it to go on without what it tells of the rows before, then {AGAIN}; or start over with --fresh"
    )
