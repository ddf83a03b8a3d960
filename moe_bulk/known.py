"""What MoEngage is known to have: which devices need not be sent, because exactly this was accepted last.

Plain code that is told the time. What it says it knows is always so, whenever it is killed: what is known of a device,
and of every other one that shares a token or advertising id with it, is forgotten durably before a request leaves, and
noted only after the acceptance.

Others may use the same file at the same time. Whoever sends notes what it sends in `pending` first; where two things
are on their way for one device or token at once, nobody can say which came last, so neither is noted. A request that
got no final answer may still be applied later: its note stays for `UNSURE_SECONDS`.
"""

from __future__ import annotations

import os
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson

from moe_bulk.errors import ConfigError
from moe_bulk.mirror import Mirror
from moe_bulk.statefile import default_state, open_state, refuse_replaced, telling

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from moe_bulk.device import Device

DAY = 86_400.0
UNSURE_SECONDS = 6 * 3600.0
"""How long something that was sent without a final answer counts as still on its way."""
MARK_SECONDS = 3600.0
"""How long a mark is good for sending: well within the time for which others respect it."""
KEPT_SECONDS = 90 * DAY
"""What was accepted longer ago than this, and than `resend_after`, is removed."""
SWEEP_SECONDS = 7 * DAY
SWEPT_AT_ONCE = 50_000
LOOKED_UP_AT_ONCE = 500
_AHEAD_SECONDS = DAY
"""What was noted so long from now was noted under a wrong clock."""

_LOOK_UP = "SELECT id, said FROM devices WHERE at BETWEEN ? AND ? AND id IN (?" + ", ?" * (LOOKED_UP_AT_ONCE - 1) + ")"
_REMOVE = "DELETE FROM devices WHERE id = ?"
_HOLDERS = "SELECT id FROM holders WHERE key IN ({})"
_CONTEST = "UPDATE pending SET contested = 1 WHERE key = :key AND said <> :said AND at > :since"
_MARK = """
    INSERT INTO pending (key, mark, said, at, contested) VALUES (:key, :mark, :said, :at,
        EXISTS (SELECT 1 FROM pending WHERE key = :key AND said <> :said AND at > :since))"""
_UNDISPUTED = "SELECT count(*) FROM pending WHERE mark = ? AND NOT contested AND key IN ({})"
_SWEEPS = (  # devices first: one that is known must have its holders
    (
        "SELECT max(id) FROM (SELECT id FROM devices WHERE id > ? ORDER BY id LIMIT ?)",
        "DELETE FROM devices WHERE id > ? AND id <= ? AND at < ?",
    ),
    (
        "SELECT max(key) FROM (SELECT key FROM holders WHERE key > ? ORDER BY key LIMIT ?)",
        "DELETE FROM holders WHERE key > ? AND key <= ? AND at < ?",
    ),
)


@dataclass(frozen=True, slots=True)
class ChangedOnly:
    """Send only what changed since MoEngage accepted it; what did not settles as `unchanged`.

    `state` is the file that remembers it, by default one for each destination and workspace in the user's state folder.
    What was accepted more than `resend_after` seconds ago is sent again: the device may be gone there.
    """

    state: str | os.PathLike[str] | None = None
    resend_after: float = 30 * DAY

    def __post_init__(self) -> None:
        if not 0 < self.resend_after < float("inf"):
            raise ConfigError(f"resend_after is a number of seconds above 0; got {self.resend_after!r}")

    def path(self, destination: str, workspace_id: str) -> Path:
        """Where it is remembered."""
        if self.state is not None:
            return Path(self.state)
        from platformdirs import user_state_path  # noqa: PLC0415  for those who name no file only

        return default_state(user_state_path("moe-bulk", appauthor=False), destination, workspace_id)


class Mark(NamedTuple):
    """A device that is to be sent: nothing is known of it any more. `keys` begin with its own."""

    number: int
    said: int
    keys: tuple[int, ...]
    at: float


class Settled(NamedTuple):
    """What became of a marked device; `sure` where no request for it can be applied later."""

    mark: Mark
    accepted: bool
    sure: bool


class Known:
    """What is known, in its file; for one thread at a time.

    Raises StateRefused where the file is damaged or not the one that belongs here, JournalError where the disk does not
    take what is written. All times are epoch seconds, which other processes and other starts of the machine share.
    """

    def __init__(self, path: Path, whose: tuple[str, str], resend_after: float, now: float) -> None:
        self._path = path.absolute()
        self._resend_after = resend_after
        self._numbers = count(_number(os.urandom(8)) >> 1)
        self._db, salt, self._file = open_state(path, *whose)
        # As parameters it costs nothing; as a key it would be hashed again with each text.
        self._hash = blake2b(digest_size=8, salt=salt[: blake2b.SALT_SIZE], person=salt[blake2b.SALT_SIZE :])
        self._mirror = Mirror(self._db)
        try:
            with telling(path):
                self._sweep(now)
        except BaseException:
            self._db.close()
            raise

    def decide(self, devices: Sequence[Device], now: float) -> list[Mark | None]:
        """For each device None where MoEngage has exactly this; the others are forgotten when this returns, durably.

        None of them may share a key with another one, nor with one whose fate was not noted yet.
        """
        with telling(self._path):
            refuse_replaced(self._path, self._file)
            said = self._hashed(list(map(_all_of, devices)))
            ids = self._hashed([orjson.dumps(("device", one.customer_id, one.device_id)) for one in devices])
            found = self._look_up(ids, now)
            marks = [
                None if found.get(own) == fingerprint else self._mark(device, fingerprint, now)
                for device, own, fingerprint in zip(devices, ids, said, strict=True)
            ]
            if any(marks):
                self._forget([mark for mark in marks if mark is not None], now)
            return marks

    def note(self, settled: Sequence[Settled], now: float) -> None:
        """Remember what was accepted; it need not be durable, since to know less is always right."""
        with telling(self._path), self._writing("NORMAL"):
            self._mirror.forget(mark.keys[0] for mark, _, _ in settled)
            had, lost = list[Mark](), list[Mark]()
            for mark, accepted, _ in settled:
                sure_of_it = accepted and now - mark.at < UNSURE_SECONDS / 2 and self._is_undisputed(mark)
                (had if sure_of_it else lost).append(mark)
            at = int(now)
            write = self._db.executemany
            write("INSERT OR REPLACE INTO devices VALUES (?, ?, ?)", [(mark.keys[0], mark.said, at) for mark in had])
            held = [(key, mark.keys[0], at) for mark in had for key in mark.keys[1:]]
            write("INSERT OR REPLACE INTO holders VALUES (?, ?, ?)", held)
            write(_REMOVE, [mark.keys[:1] for mark in lost])
            over = [(key, mark.number) for mark, _, sure in settled if sure for key in mark.keys]
            write("DELETE FROM pending WHERE key = ? AND mark = ?", over)

    def close(self) -> None:
        """Close the file; twice does no harm."""
        self._db.close()

    # -- fingerprints --------------------------------------------------------------------------------------------------

    def _hashed(self, texts: Sequence[bytes]) -> tuple[int, ...]:
        """64 bits for each, different in each file; many at once, because a call for each takes as long as the hash."""
        digests, begun = [], self._hash.copy
        for text in texts:
            hasher = begun()
            hasher.update(text)
            digests.append(hasher.digest())
        return struct.unpack(f"<{len(digests)}q", b"".join(digests))

    def _mark(self, device: Device, said: int, now: float) -> Mark:
        return Mark(next(self._numbers), said, self._hashed(list(map(_key, device.keys()))), now)

    # -- the file ------------------------------------------------------------------------------------------------------

    def _look_up(self, ids: Sequence[int], now: float) -> dict[int, int]:
        """What is known of these devices, and not for too long."""
        between = now - self._resend_after, now + _AHEAD_SECONDS
        self._mirror.refresh(len(ids))
        found = self._mirror.find(ids, *between)
        left = [one for one in ids if one not in found]
        for start in range(0, len(left), LOOKED_UP_AT_ONCE):
            asked = left[start : start + LOOKED_UP_AT_ONCE]
            asked += asked[:1] * (LOOKED_UP_AT_ONCE - len(asked))  # one statement, prepared once
            found.update(self._db.execute(_LOOK_UP, (*between, *asked)))
        return found

    def _forget(self, marks: list[Mark], now: float) -> None:
        since = int(now - UNSURE_SECONDS)
        noted = [
            {"key": key, "mark": mark.number, "said": mark.said, "at": int(now), "since": since}
            for mark in marks
            for key in mark.keys
        ]
        with self._writing("FULL"):
            gone = [mark.keys[:1] for mark in marks]
            shared = [key for mark in marks for key in mark.keys[1:]]
            for start in range(0, len(shared), LOOKED_UP_AT_ONCE):
                asked = shared[start : start + LOOKED_UP_AT_ONCE]
                gone += self._db.execute(_HOLDERS.format(_places(asked)), asked)
            self._db.executemany(_REMOVE, gone)
            self._mirror.forget(one for (one,) in gone)
            self._db.executemany(_CONTEST, noted)
            self._db.executemany(_MARK, noted)

    def _is_undisputed(self, mark: Mark) -> bool:
        """Whether nothing else of this device, or with one of its keys, was on its way since it was marked.

        Others stop to respect a mark after `UNSURE_SECONDS`: an older one says nothing.
        """
        keys = set(mark.keys)
        found = self._db.execute(_UNDISPUTED.format(_places(keys)), (mark.number, *keys))
        (mine,) = found.fetchone()
        return bool(mine == len(keys))

    @contextmanager
    def _writing(self, synchronous: str) -> Iterator[None]:
        """One transaction; with FULL it is safe from a power cut when it is over."""
        self._db.execute(f"PRAGMA synchronous = {synchronous}")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _sweep(self, now: float) -> None:
        """Remove what is too old to be of use, a portion at a time: others wait meanwhile."""
        with self._writing("NORMAL"):
            self._db.execute("DELETE FROM pending WHERE at < ?", (int(now - 2 * UNSURE_SECONDS),))
        (swept,) = self._db.execute("SELECT said FROM about WHERE name = 'swept'").fetchone() or (0,)
        if isinstance(swept, int) and 0 <= now - swept < SWEEP_SECONDS:
            return
        oldest = int(now - max(KEPT_SECONDS, self._resend_after))
        for next_end, remove in _SWEEPS:
            last = -(2**63)
            while (end := self._db.execute(next_end, (last, SWEPT_AT_ONCE)).fetchone()[0]) is not None:
                with self._writing("NORMAL"):
                    self._db.execute(remove, (last, end, oldest))
                last = end
        with self._writing("NORMAL"):
            self._db.execute("INSERT OR REPLACE INTO about VALUES ('swept', ?)", (int(now),))


def _number(eight_bytes: bytes) -> int:
    return int.from_bytes(eight_bytes, "little", signed=True)


def _places(values: Collection[int]) -> str:
    return ", ".join("?" * len(values))


def _key(key: tuple[str, ...]) -> bytes:
    return orjson.dumps(key)


def _all_of(device: Device) -> bytes:
    """All that is sent of a device; its attributes stand in one order, whatever that of the row's columns was."""
    return orjson.dumps((device.customer_id, device.device_id, device.attributes, device.forwarded_for))
