"""Users with many devices: those who came last are kept, and no more than there is room for."""

from __future__ import annotations

from array import array

from moe_bulk.crowds import Crowds

ENTRY = 32
"""What a user takes beside the devices."""


def test_whoever_came_last_stays() -> None:
    """To be asked for is to come."""
    crowds = Crowds(2 * ENTRY + 2)
    for user in (1, 2):
        crowds.add(user, array("Q", [7]))
    assert array("Q", [7]) == crowds.get(1)
    crowds.add(3, array("Q", [8]))
    assert crowds.get(2) is None
    assert array("Q", [7]) == crowds.get(1)
    assert array("Q", [8]) == crowds.get(3)


def test_devices_that_are_added_take_room() -> None:
    """At the cost of the user who has not come for longest."""
    crowds = Crowds(2 * ENTRY + 3)
    crowds.add(1, array("Q", [7]))
    devices = crowds.add(2, array("Q", [7]))
    crowds.insert(devices, 0, 6)
    assert array("Q", [7]) == crowds.get(1)
    assert array("Q", [6, 7]) == crowds.get(2)
    crowds.insert(devices, 2, 9)
    assert crowds.get(1) is None
    assert array("Q", [6, 7, 9]) == crowds.get(2)


def test_one_may_be_larger_than_the_room() -> None:
    """There is always one."""
    crowds = Crowds(3)
    crowds.add(1, array("Q", range(100)))
    assert array("Q", range(100)) == crowds.get(1)
