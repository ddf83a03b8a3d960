"""Order per key: a ticket goes when nobody before it shares a key with it. Plain code, no loop, no clock.

Each ticket knows how many tickets it waits for (the one directly before it in each of its lanes) and who waits for it;
a lane is only a pointer to its last ticket. Admitting and releasing cost a few dictionary look-ups, however long the
lanes are, and there is no cycle: a ticket waits only for older ones. Both take many tickets at once, as they come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

MAX_PARKED = 100_000
MAX_PARKED_BYTES = 64_000_000


class Ticket:
    """A place in each of its keys' lanes."""

    __slots__ = ("followers", "keys", "waits")

    def __init__(self, keys: Sequence[Hashable]) -> None:
        self.keys = keys
        self.waits = 0
        self.followers: list[Ticket] | None = None

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about, always as many; it is asked for only where it has to wait."""
        return 0


T = TypeVar("T", bound=Ticket)


class Lanes(Generic[T]):
    """Admits tickets in input order; says which may go, and which may go next when one is done.

    `max_parked` tickets or `max_bytes` of them may wait; `full` says when reading should, and `on_room` is called when
    it may go on: amid a `release`, so that it may wake others and must not touch the lanes.
    """

    def __init__(
        self,
        max_parked: int = MAX_PARKED,
        max_bytes: int = MAX_PARKED_BYTES,
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        self.full = False
        """True when no more tickets should be admitted for now, as of the last one that was parked or unparked."""
        self.parked = 0
        self.parked_bytes = 0
        self.max_parked = max_parked
        self._max_bytes = max_bytes
        self._on_room = on_room
        self._last: dict[Hashable, T] = {}

    @property
    def room(self) -> int:
        """How many more tickets should be admitted for now, at most: by their number alone.

        Of bytes there may be as many more than `max_bytes` as these take.
        """
        return 0 if self.full else self.max_parked - self.parked

    def admit(self, *tickets: T) -> list[T]:
        """Let each join the lanes of all its keys; returns those that are first in all of theirs and may go."""
        join, free = self._last.setdefault, []
        for ticket in tickets:
            for key in ticket.keys:
                before = join(key, ticket)
                if before is not ticket:
                    if before.followers is None:
                        before.followers = []
                    before.followers.append(ticket)
                    ticket.waits += 1
                    self._last[key] = ticket
            if ticket.waits:
                self.park(ticket)
            else:
                free.append(ticket)
        return free

    def park(self, ticket: T) -> None:
        """Count a ticket among those that wait: here for others, or elsewhere although it is first in its lanes."""
        self.parked += 1
        self.parked_bytes += ticket.size
        self.full = self._is_full()

    def unpark(self, ticket: T) -> None:
        """It waits no more."""
        self.parked -= 1
        self.parked_bytes -= ticket.size
        was_full, self.full = self.full, self._is_full()
        if was_full and not self.full:
            self._on_room()

    def _is_full(self) -> bool:
        return self.parked >= self.max_parked or self.parked_bytes >= self._max_bytes

    def release(self, *tickets: T) -> list[T]:
        """Leave the lanes: these are done. Returns those that may go now, the oldest behind each first."""
        last = self._last
        freed: list[T] = []
        for ticket in tickets:
            for key in ticket.keys:
                latest = last.pop(key, ticket)
                if latest is not ticket:  # others are behind it there
                    last[key] = latest
            if ticket.followers is None:
                continue
            for follower in ticket.followers:
                follower.waits -= 1
                if not follower.waits:
                    self.unpark(follower)  # type: ignore[arg-type]  # only T is ever admitted
                    freed.append(follower)  # type: ignore[arg-type]
            ticket.followers = None
        return freed

    def __len__(self) -> int:
        """Lanes in use."""
        return len(self._last)

    def __repr__(self) -> str:
        return f"<Lanes: {len(self._last)} in use, {self.parked} tickets parked>"
