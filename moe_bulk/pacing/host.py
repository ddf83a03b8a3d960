"""One window for all processes of one user on one machine, crashed and restarted ones included.

A small file in the user's state folder, one for each destination and workspace, named by this start of the machine. Who
wants to send locks it for some microseconds, looks whether there is room, and writes down the end of the request at its
latest. Nobody has to tidy up after a killed process: its requests pass. No daemon.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, TypeVar

from moe_bulk.clock import boot_id
from moe_bulk.config import LONGEST_TIMEOUT
from moe_bulk.pacing.book import Book, Torn, exponent_for
from moe_bulk.pacing.guard import CLOCK_MARGIN, GRACE, Slot, WindowGuard
from moe_bulk.pacing.seats import Seat, free_seat, pid_namespace, read_seats, write_seat
from moe_bulk.pacing.windowfile import WindowFile, state_folder, window_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from moe_bulk.config import Rate

T = TypeVar("T")

LOOK_AGAIN = 0.25
"""Seconds until a process looks again at what the others do: who came, who died, who was answered."""
TOLD_SOON = 0.02
"""Seconds that an end may wait, while others are under way, to be told with the next request: until then it counts."""

LATE = 60.0
"""Seconds that may lie between a process's look at the clock and its look at the file, which another made meanwhile."""

BUSY_WAIT, PATIENCE = 0.002, 15.0
"""Seconds of looking at a locked file until it is left to whoever holds the lock and does not go on."""

OPENING_SECONDS, CLOSING_SECONDS = 2.0, 0.05

ALONE = "keeps its pace alone. Let no other run beside it"
"""What a note says of an upload whose pace is not shared although that was asked for."""


class HostSlot(Slot):
    """A place in the window that other processes see, and until when it counts as far as they know."""

    __slots__ = ("end",)

    def __init__(self, taken: float, end: float) -> None:
        super().__init__(taken)
        self.end = end


class Lost(Exception):
    """The file's name has gone, or stands for another file."""


class HostWindow:
    """The window that all processes of this user share; to `Pace` it is what `WindowGuard` is for one process alone.

    Each of them applies its own rate; where they differ, the strictest of those at work holds for all. All times are
    boot-clock seconds. Raises OSError where the file cannot be had. `notes` tells what people should know.
    """

    def __init__(self, path: Path, rate: Rate, timeout: float, now: float) -> None:
        self.path = path
        self.notes: list[str] = []
        self._rate = rate
        self._timeout = timeout
        self._number = int.from_bytes(os.urandom(8), "little") | 1
        self._namespace = pid_namespace()
        self._seat: int | None = None
        self._rates: list[Rate] = [rate]
        self._longest_timeout = timeout
        self._generation = -1
        self._looked = float("-inf")
        self._born: float | None = None
        """When the book was begun that this process's requests stand in."""
        self._last_taken = float("-inf")
        self._locked_out = 0.0
        """For how long this process has found the file locked, its own standing still not counted."""
        self._found_locked = now
        self._turn: float | None = None
        self._again = now
        self._unwritten: list[tuple[HostSlot | None, float]] = []
        self._under_way, self._written = 0, now
        self._alone: WindowGuard | None = None
        self._is_new = False
        self._not_before = _whole_window(rate, timeout)
        """What an earlier start of the machine sent has passed by then: the boot clock began at 0."""
        self._open(now)
        if now < self._not_before:
            self.notes.append(
                f"this machine started {now:.0f} s ago, and nobody knows what was sent just before: the first request "
                f"waits for {self._not_before - now:.0f} s"
            )

    # -- what Pace asks -----------------------------------------------------------------------------------------------

    def take(self, now: float, cost: float = 1.0) -> Slot | None:
        """Take a slot for a request that is sent this very moment; None where it is not this process's turn, or full.

        A `cost` above 1 takes as many turns of the even pace.
        """
        if self._alone is None:
            return self._try(now, lambda book: self._ask(book, now, cost))
        return self._alone.take(now) if now >= self._not_before else None

    def free_at(self, now: float) -> float | None:
        """When it is worth asking again: `now`, or later."""
        if self._alone is None:
            return max(now, min(self._again, now + LOOK_AGAIN))
        return self._alone.free_at(now) if now >= self._not_before else self._not_before

    def answered(self, slot: Slot, now: float) -> None:
        """The answer came: the server received the request before `now`."""
        self._close(slot, now, now, WindowGuard.answered)

    def given_up(self, slot: Slot, now: float) -> None:
        """No answer came, and the connection was aborted: the server may still have received the request."""
        self._close(slot, max(slot.taken + self._timeout, now) + GRACE, now, WindowGuard.given_up)

    def tick(self, now: float) -> None:
        """A second has passed: be seen by the others, and tell them what could not be told before."""
        if self._alone is None:
            self._try(now, lambda _: None)

    def remember(self, taken: float, over: float, *, answered: bool) -> None:
        """Count a request of an earlier process, unless the file has seen it itself."""
        if self._is_new:
            self._unwritten.append((None, over if answered else max(taken + self._timeout, over) + GRACE))

    def close(self, now: float) -> None:
        """Leave: the others' limits hold from now on. Twice does no harm."""
        if self._file.closed:
            return
        until = time.monotonic() + CLOSING_SECONDS
        while self._alone is None and time.monotonic() < until:
            if self._try(now, self._leave):
                break
            time.sleep(BUSY_WAIT)  # somebody is writing; whoever is not heard is missed before long
        self._file.close()

    # -- one look at the book -----------------------------------------------------------------------------------------

    def _try(self, now: float, work: Callable[[Book], T]) -> T | None:
        """Do something while nobody else writes; None where somebody does, or the file is of no use any more."""
        try:
            return self._locked(now, work)
        except BlockingIOError:
            self._find_locked(now)
        except Lost:
            self._open_again(now)
        except OSError as error:
            self._go_alone(error, now)
        return None

    def _find_locked(self, now: float) -> None:
        """Come back soon; a file whose lock is never let go is left behind, as if somebody had removed it."""
        self._again = now + BUSY_WAIT
        self._locked_out += min(now - self._found_locked, LOOK_AGAIN)
        self._found_locked = now
        if self._locked_out > PATIENCE:
            self._locked_out = 0.0
            try:
                if not self._file.is_lost():
                    self.path.unlink(missing_ok=True)
            except OSError as error:
                self._go_alone(error, now)
            else:
                self._open_again(now, "its lock was held by a process that does not go on")

    def _locked(self, now: float, work: Callable[[Book], T]) -> T:
        with self._file.locked():
            self._locked_out = 0.0
            try:
                self._book.load()
                self._check_times(now)
                self._look_around(now)
                self._write_down()
                self._written = now
                return self._done(work(self._book))
            except Torn as error:
                self._begin_again(error, now)
                return self._done(work(self._book))

    def _done(self, value: T) -> T:
        self._book.save()
        return value

    def _check_times(self, now: float) -> None:
        """See whether the book is of this start of the machine, and still the one that this process wrote in."""
        book = self._book
        if book.born > now + LATE or book.front * book.width > now + LATE + LONGEST_TIMEOUT + GRACE + book.width:
            raise Torn("it is of another start of the machine")
        if self._born is not None and self._born != book.born:
            until = self._last_taken + self._whole_window
            book.blocked_until = max(book.blocked_until, until)
            if book.blocked_until > now:
                self.notes.append(
                    f"the window that this workspace's uploads share was begun again by another of them ({self.path}): "
                    f"nothing is sent for {book.blocked_until - now:.0f} s, since it does not know what was"
                )
        self._born = book.born

    def _write_down(self) -> None:
        """Note the ends of requests that nobody was told of yet."""
        while self._unwritten:
            slot, end = self._unwritten.pop()
            if slot is None or slot.taken < self._book.born:
                self._book.add(end)
            else:
                self._book.move(slot.end, end)

    def _begin_again(self, error: Torn, now: float) -> None:
        """A damaged book counts as full for one window: what the others have sent is not known."""
        until = now + self._whole_window
        self._unwritten.clear()
        self._book = Book.blank(self._file, now, exponent_for(self._rate, self._timeout), blocked_until=until)
        self._generation, self._born = -1, now
        self._look_around(now)
        self.notes.append(
            f"the window that this workspace's uploads share was damaged ({error}; {self.path}): nothing is sent for "
            f"{until - now:.0f} s, since nobody knows what was"
        )

    def _ask(self, book: Book, now: float, cost: float) -> Slot | None:
        self._again = self._when(book, now, cost)
        if self._again > now:
            return None
        self._turn, self._last_taken = None, now
        self._under_way += 1
        slot = HostSlot(now, now + self._timeout + GRACE)
        book.add(slot.end)
        return slot

    def _when(self, book: Book, now: float, cost: float) -> float:
        """When this process may send next: `now`, or a later time."""
        blocked = max(self._not_before, book.blocked_until)
        if blocked > now:
            return blocked
        if self._turn is None:
            self._turn = book.turn(now, cost * _interval(self._rates))
        if self._turn > now:
            return self._turn
        free = max(book.free_at(rate, now) for rate in self._rates)
        if free > now:
            book.no_turn_before(free)
        return free

    def _close(self, slot: Slot, end: float, now: float, close: Callable[[WindowGuard, Slot, float], None]) -> None:
        if not isinstance(slot, HostSlot):
            assert self._alone is not None  # noqa: S101  nobody else gives such slots
            close(self._alone, slot, now)
            return
        if slot.closed:
            raise RuntimeError(f"{slot!r} was closed before")
        slot.closed = True
        if self._alone is None:
            self._unwritten.append((slot, end))
            self._under_way -= 1
            if not self._under_way or now - self._written >= TOLD_SOON:
                self._try(now, lambda _: None)

    # -- the others ---------------------------------------------------------------------------------------------------

    def _look_around(self, now: float) -> None:
        """See who is at work, and be seen; often enough, or at once where somebody has come or gone."""
        if self._generation == self._book.generation and now - self._looked < LOOK_AGAIN:
            return
        if self._file.is_lost():
            raise Lost
        seats = read_seats(self._file)
        mine = next((at for at, seat in seats.items() if seat.number == self._number), None)
        others = {at: seat for at, seat in seats.items() if at != mine}
        gone = [at for at, seat in others.items() if not seat.lives(now, self._namespace)]
        for at in gone:
            write_seat(self._file, at, None)
            del others[at]
        came = mine is None
        if mine is None:
            mine = free_seat(others)
            if not others:
                self._book = self._book.renewed(self._rate, self._timeout, now)
                self._born = self._book.born
        seat = Seat(self._number, os.getpid(), self._namespace, self._rate, self._timeout, now)
        write_seat(self._file, mine, seat)
        before = _interval(self._rates)
        self._rates = [self._rate, *({seat.rate for seat in others.values()} - {self._rate})]
        self._longest_timeout = max(seat.timeout for seat in (seat, *others.values()))
        if came:
            for rate in self._rates:
                self._book.suit(rate, self._longest_timeout)
        if gone or came:
            self._book.generation = (self._book.generation + 1) % 2**32
        if _interval(self._rates) < before:  # whoever was slower has gone, and with it its pace, turns in hand included
            self._turn = None
            self._book.next_turn = min(self._book.next_turn, now)
        self._seat, self._looked, self._generation = mine, now, self._book.generation
        self._tell_of_slower_ones()

    @property
    def _whole_window(self) -> float:
        """Seconds after which whatever anybody at work has sent has passed."""
        return max(_whole_window(rate, self._longest_timeout) for rate in self._rates)

    def _tell_of_slower_ones(self) -> None:
        for rate in self._rates[1:]:
            note = f"another upload of this workspace keeps to {rate}: while it is at work, that holds for this one too"
            if rate.per_second < self._rate.per_second and note not in self.notes:
                self.notes.append(note)

    def _leave(self, book: Book) -> bool:
        if self._seat is not None:
            write_seat(self._file, self._seat, None)
            book.generation = (book.generation + 1) % 2**32
        return True

    # -- coming to the file, and losing it ----------------------------------------------------------------------------

    def _open(self, now: float, begin: Callable[[Book], None] = lambda _: None) -> None:
        """Open the file, or make it, take a seat, and `begin`; raises OSError."""
        until = time.monotonic() + OPENING_SECONDS
        while True:
            self._file, made = WindowFile.open(self.path, lambda pages: self._blank(pages, now))
            self._book, self._generation, self._is_new = Book(self._file), -1, made or self._is_new
            try:
                self._locked(now, begin)
            except (BlockingIOError, Lost):
                self._file.close()
                if time.monotonic() > until:
                    raise OSError(errno.EBUSY, "another process holds its lock and does not let go") from None
                time.sleep(BUSY_WAIT)
            except BaseException:
                self._file.close()
                raise
            else:
                return

    def _blank(self, pages: WindowFile, now: float) -> None:
        Book.blank(pages, now, exponent_for(self._rate, self._timeout))

    def _open_again(self, now: float, why: str = "somebody removed it") -> None:
        """The file has gone: what was sent stood in it, so a new one begins as if full."""
        until = now

        def block(book: Book) -> None:
            nonlocal until  # the others may have found out long ago, while this process stood still
            gone = max(book.born + LOOK_AGAIN, self._last_taken)
            until = max(book.blocked_until, gone + self._whole_window)
            book.blocked_until = until

        self._file.close()
        self._again, self._born = now + BUSY_WAIT, None
        try:
            self._open(now, block)
        except OSError as error:
            self._go_alone(error, now)
            return
        if until > now:
            self.notes.append(
                f"the file of the window that this workspace's uploads share is a new one ({why}; {self.path}): "
                f"nothing is sent for {until - now:.0f} s, since nobody knows what was"
            )

    def _go_alone(self, error: OSError, now: float) -> None:
        """The file is of no use any more: keep the pace of this process alone, after a window of silence."""
        self._alone = WindowGuard(self._rate, self._timeout)
        self._not_before = now + _whole_window(self._rate, self._timeout)
        self.notes.append(
            f"the window that this workspace's uploads share cannot be used any more ({error.strerror or error}; "
            f"{self.path}): from {self._not_before - now:.0f} s on this upload {ALONE}"
        )


def open_window(
    address: str, workspace_id: str, rate: Rate, timeout: float, now: float
) -> tuple[HostWindow | None, list[str]]:
    """The window for a destination (`host:port`) and a workspace, or None where none can be had, and what to know."""
    path = window_path(state_folder(), address, workspace_id, boot_id())
    try:
        window = HostWindow(path, rate, timeout, now)
    except OSError as error:
        reason = error.strerror or error
        said = f"the window that this workspace's uploads share cannot be used ({reason}; {path})"
        return None, [f"{said}: this upload {ALONE}"]
    return window, window.notes


def _interval(rates: Iterable[Rate]) -> float:
    """Seconds from one request to the next at the even pace that keeps all these limits."""
    return max(rate.per / rate.limit for rate in rates)


def _whole_window(rate: Rate, timeout: float) -> float:
    """Seconds after which whatever was sent before has passed."""
    return rate.per * (1 + CLOCK_MARGIN) + timeout + GRACE
