"""What follows from attempts that are over, where many are taken in at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from moe_bulk.agenda import Agenda, Entry
from moe_bulk.clock import Clock
from moe_bulk.config import Retry
from moe_bulk.landing import Landing
from moe_bulk.pacing.guard import Slot
from moe_bulk.retry import Policy
from moe_bulk.users import Users
from tests.builders import ACCEPTED, TIMEOUT, numbers, record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moe_bulk.agenda import Screen, Watcher
    from moe_bulk.outcome import Result


class Stream:
    """A sender that notes what becomes of its rows, each time by itself."""

    def __init__(self) -> None:
        self.halted = False
        self.watcher: Watcher | None = None
        self.screen: Screen | None = None
        self.parked = self.retrying = self.on_their_way = self.cleared = 0
        self.ready: Any = []
        self.told: list[list[int]] = []

    def settled(self, *results: Result) -> None:
        """Take in last words."""
        self.told.append(numbers(results))

    def wake(self) -> None:
        """Is of no interest."""


class Counting(Users):
    """Notes up to when answers came."""

    def __init__(self) -> None:
        super().__init__(TIMEOUT, cells=16)
        self.until: list[float] = []

    def answered(self, cells: Iterable[int], now: float) -> None:
        """Count them as ever."""
        super().answered(cells, now)
        self.until.append(now)


def take_in(*rows: tuple[int, Stream]) -> Counting:
    """Take in acceptances of these rows, one each second from 100 on; give who counted them."""
    users = Counting()
    pace: Any = SimpleNamespace(accepted=list)
    landing = Landing(pace, Policy(Retry()), users, Agenda(users), Clock.system())
    landed = []
    for after, (number, stream) in enumerate(rows):
        entry = Entry(record(number), stream)
        users.sent(entry.cell)
        landed.append((entry, Slot(50.0), ACCEPTED, 100.0 + after))
    landing.take_in(landed)
    return users


def test_users_count_them_until_the_last_one_came() -> None:
    """No earlier, or a window would forget it too soon."""
    stream = Stream()
    assert [102.0] == take_in(*((number, stream) for number in range(3))).until


def test_each_stream_hears_of_its_own_in_their_order() -> None:
    """All at once where they are of one; where streams take turns, as they came."""
    one, other = Stream(), Stream()
    take_in((0, one), (1, one), (2, other), (3, one))
    assert ([[0, 1], [3]], [[2]]) == (one.told, other.told)
    take_in((4, other), (5, other))
    assert [[2], [4, 5]] == other.told
