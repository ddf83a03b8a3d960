"""The exact devices of users who have about as many as they may, in memory, as long as there is room."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from array import array

_ENTRY = 32
"""What a user costs in memory beside the devices, in devices."""


class Crowds:
    """Users and their devices, both by their hashes: room for so many devices, and those who came last stay."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._users: OrderedDict[int, array[int]] = OrderedDict()

    def get(self, user: int) -> array[int] | None:
        """The user's devices, in ascending order, where they are known."""
        devices = self._users.get(user)
        if devices is not None:
            self._users.move_to_end(user)
        return devices

    def add(self, user: int, devices: array[int]) -> array[int]:
        """Keep what was found out."""
        self._users[user] = devices
        self._take(len(devices) + _ENTRY)
        return devices

    def insert(self, devices: array[int], index: int, device: int) -> None:
        """One more of the user who was asked for last."""
        devices.insert(index, device)
        self._take(1)

    def _take(self, room: int) -> None:
        self._room -= room
        while self._room < 0 and len(self._users) > 1:
            self._room += len(self._users.popitem(last=False)[1]) + _ENTRY
