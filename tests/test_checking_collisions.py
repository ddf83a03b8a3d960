"""What rows share is what counting them one by one says, however many there are."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_bulk.checking import collisions
from moe_bulk.checking.collisions import SHARED_KEYS, Collisions, Spot
from moe_bulk.columns import Portion
from moe_bulk.device import Device
from moe_bulk.errors import JournalError
from moe_bulk.record import Position, Record, Row
from tests.effort import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

MOST = 2
FEW = st.integers(0, 3).map(str)
DEVICES = st.builds(
    lambda user, device, attributes: Device(f"user-{user}", f"device-{device}", attributes),
    FEW,
    st.integers(0, 5),
    st.fixed_dictionaries(
        {}, optional={"push_id": st.sampled_from(["aB", "Ab", "token", "0f"]), "moe_gaid": FEW, "idfv": FEW}
    ),
)


def taken_in(folder: Path, devices: Iterable[Device]) -> Collisions:
    """Devices as the rows 1, 2, 3 … of two sources in turn."""
    found = Collisions(folder)
    for number, device in enumerate(devices):
        row = Row(Position("ab"[number % 2], number + 1, number * 100), {})
        found.add(Portion.of([Record(row, device)]), {"a": 0, "b": 1})
    return found


def grouped(devices: Sequence[Device], key: Callable[[Device], object]) -> dict[object, list[int]]:
    """Numbers of rows by what they have in common."""
    groups = defaultdict(list)
    for number, device in enumerate(devices):
        if (value := key(device)) is not None:
            groups[value].append(number)
    return groups


def identity(device: Device) -> tuple[str, str]:
    """By what MoEngage knows it."""
    return device.customer_id, device.device_id


def key_named(name: str) -> Callable[[Device], object]:
    """A key of a device by its kind, as lanes compare it."""
    return lambda device: next((key for key in device.keys() if key[0] == name), None)  # noqa: SIM118  no dict


def spot(number: int) -> Spot:
    """Where `taken_in` puts a row."""
    return Spot(number % 2, number + 1, number * 100)


@settings(max_examples=examples(40))
@given(devices=st.lists(DEVICES, max_size=40), loaded_at_once=st.integers(1, 5000))
def test_it_is_what_counting_says(
    devices: list[Device], loaded_at_once: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Repeated devices, shared keys and crowded users, in any number of portions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collisions, "LOADED_AT_ONCE", loaded_at_once)
        found = taken_in(tmp_path_factory.mktemp("check"), devices)
    try:
        repeated = [rows for rows in grouped(devices, identity).values() if len(rows) > 1]
        said = found.repeated()
        assert (len(repeated), sum(map(len, repeated))) == (said.groups, said.rows)
        assert sorted(map(len, repeated), reverse=True)[:10] == [group.rows for group in said.worst]
        assert all(len(group.spots) == min(group.rows, 5) for group in said.worst)

        for name in SHARED_KEYS:
            groups = [
                (rows, {identity(devices[row]) for row in rows}) for rows in grouped(devices, key_named(name)).values()
            ]
            shared = [(rows, who) for rows, who in groups if len(who) > 1]
            told = found.shared(name)
            assert len(shared) == told.groups
            assert sum(len(rows) for rows, _ in shared) == told.rows
            assert sum(len(who) for _, who in shared) == told.devices
            expected = sorted((len(who), len(rows), spot(rows[0])) for rows, who in shared)
            assert expected == sorted((group.devices, group.rows, group.spots[0]) for group in told.worst)

        users = grouped(devices, lambda device: device.customer_id)
        crowded = {}
        beyond = set[int]()
        for user, rows in users.items():
            order = list(dict.fromkeys(identity(devices[row]) for row in rows))
            if len(order) > MOST:
                crowded[user] = len(rows)
                beyond.update(row for row in rows if identity(devices[row]) in order[MOST:])
        said, left_out = found.crowded(MOST)
        assert (len(crowded), sum(crowded.values()), len(beyond)) == (said.groups, said.rows, left_out)

        busy = {(number + 1, spot(number)) for rows in users.values() if len(rows) > 3 for number in rows}
        busy -= {(number + 1, spot(number)) for number in beyond}
        assert busy == {(place.line, place) for _, place, _ in found.busy_users(3)}
    finally:
        found.close()


def test_the_places_are_those_of_the_first_rows(tmp_path: Path) -> None:
    """Five of a repeated device, and one for each of the first five devices that share a token."""
    devices = [Device("user", f"device-{number // 2}", {"push_id": "token"}) for number in range(20)]
    found = taken_in(tmp_path, devices)
    assert tuple(map(spot, (0, 2, 4, 6, 8))) == found.shared("push_id").worst[0].spots
    assert tuple(map(spot, (0, 1))) == found.repeated().worst[0].spots
    found.close()


def test_a_disk_without_room_is_named(tmp_path: Path) -> None:
    """With what to do about it."""
    found = taken_in(tmp_path, [Device("user", "device", {})])
    found._file.close()
    found._file = open("/dev/full", "w", encoding="ascii")  # noqa: PTH123, SIM115  a disk that is full
    with pytest.raises(JournalError, match=r"cannot be compared in .*Set TMPDIR to a folder with room"):
        found.repeated()
    found.close()
