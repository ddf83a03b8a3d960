"""Who is at work in a window that processes share, each with its own limit: a list of seats beside the book."""

from __future__ import annotations

import errno
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moe_bulk.config import LONGEST_TIMEOUT, Rate
from moe_bulk.errors import ConfigError
from moe_bulk.pacing.book import BINS_AT, Torn

if TYPE_CHECKING:
    from collections.abc import Collection

    from moe_bulk.pacing.book import Pages

STALE = 15.0
"""Seconds without a sign of a process, which gives one each second: it is stopped, or was killed in a container."""

HIGHEST_PID = 2**31 - 1
SEATS_AT = 4096
SEATS = 256
_SEAT = struct.Struct("<QQQqddd")
assert SEATS_AT + SEATS * _SEAT.size <= BINS_AT  # noqa: S101  the layout itself


@dataclass(frozen=True, slots=True)
class Seat:
    """One process at work, as the others see it."""

    number: int
    pid: int
    namespace: int
    rate: Rate
    timeout: float
    seen: float

    def lives(self, now: float, namespace: int) -> bool:
        """Whether its limit holds: it is there, and has been seen lately."""
        if now - self.seen > STALE:
            return False
        if self.namespace != namespace:
            return True  # its process id means nothing here
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True


def read_seats(pages: Pages) -> dict[int, Seat]:
    """The seats that are taken, by their place; raises Torn."""
    raw = pages.read(SEATS_AT, SEATS * _SEAT.size)
    if len(raw) != SEATS * _SEAT.size:
        raise Torn("it is cut off")
    found: dict[int, Seat] = {}
    for at, (number, pid, namespace, limit, per, timeout, seen) in enumerate(_SEAT.iter_unpack(raw)):
        if number:
            try:
                rate: Rate | None = Rate(limit, per)
            except ConfigError:
                rate = None
            if rate is None or pid > HIGHEST_PID or not (math.isfinite(seen) and 0 < timeout <= LONGEST_TIMEOUT):
                raise Torn("its list of processes is damaged")
            found[at] = Seat(number, pid, namespace, rate, timeout, seen)
    return found


def write_seat(pages: Pages, at: int, seat: Seat | None) -> None:
    """Take the seat at that place, or leave it free."""
    data = bytes(_SEAT.size)
    if seat is not None:
        rate = seat.rate
        data = _SEAT.pack(seat.number, seat.pid, seat.namespace, rate.limit, rate.per, seat.timeout, seat.seen)
    pages.write(SEATS_AT + at * _SEAT.size, data)


def free_seat(taken: Collection[int]) -> int:
    """The first place that is free; OSError where there is none."""
    free = next((at for at in range(SEATS) if at not in taken), None)
    if free is None:
        raise OSError(errno.EUSERS, f"{SEATS} processes are uploading at once")
    return free


def pid_namespace() -> int:
    """In which world of process ids we are (Linux: pid_namespaces(7)); the same for all where there are no worlds."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0
