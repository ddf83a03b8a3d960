"""Users who would get more at once than MoEngage lets one user have."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from moe_bulk.checking.collisions import WORST, Group, Shared
from moe_bulk.users import UserLimits

if TYPE_CHECKING:
    from moe_bulk.checking.collisions import Spot
    from moe_bulk.config import Rate


class Hurried:
    """Finds users with more rows than a limit within what goes out in its window; told of rows user by user."""

    def __init__(self, rate: Rate) -> None:
        limits = UserLimits().ours
        self.least = min(limit.limit for limit in limits)
        self.users: dict[int, tuple[int, Spot]] = {}
        """Of those who pass a limit: how many rows they have, and the first one that is too much."""
        self.busiest = 0
        """The most rows of any user who has more than the least limit."""
        # At full pace a window holds so many rows of all users.
        self._windows = [(limit.limit, limit.per * rate.per_second, deque[int]()) for limit in limits]
        self._user: int | None = None
        self._rows = 0

    def add(self, user: int, spot: Spot, number: int) -> None:
        """One more row: its user, and the how manieth of all rows it is."""
        if user != self._user:
            self._user, self._rows = user, 0
            for _, _, earlier in self._windows:
                earlier.clear()
        self._rows += 1
        self.busiest = max(self.busiest, self._rows)
        if user in self.users:
            self.users[user] = self._rows, self.users[user][1]
            return
        for limit, length, earlier in self._windows:
            earlier.append(number)
            if len(earlier) > limit and number - earlier.popleft() < length:
                self.users[user] = self._rows, spot
                return

    def shared(self) -> Shared:
        """Those users, in the form of everything that rows have in common; nothing is said of their devices."""
        rows = sum(count for count, _ in self.users.values())
        worst = sorted(self.users.items(), key=lambda user: -user[1][0])[:WORST]
        groups = tuple(Group(user, count, 0, (spot,)) for user, (count, spot) in worst)
        return Shared(len(self.users), rows, 0, groups)
