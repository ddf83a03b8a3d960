"""Devices by column: what is asked of hundreds together costs a fraction of asking each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from moe_bulk.device import Device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moe_bulk.record import Position, Record


@dataclass(frozen=True, slots=True)
class Portion:
    """Devices that would be sent, in the order of the input; a value that a device does not have is empty.

    `rest` has the attributes of each, at least those that have no column of their own; devices that are alike there
    may share it.
    """

    positions: Sequence[Position]
    customer_ids: Sequence[str]
    device_ids: Sequence[str]
    push_ids: Sequence[str]
    gaids: Sequence[str]
    idfvs: Sequence[str]
    rest: Sequence[dict[str, str]]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.positions)

    @classmethod
    def of(cls, records: Sequence[Record]) -> Self:
        """The devices of records."""
        devices = [record.device for record in records]
        rest = [device.attributes for device in devices]
        return cls(
            [record.row.position for record in records],
            [device.customer_id for device in devices],
            [device.device_id for device in devices],
            [attributes.get("push_id", "") for attributes in rest],
            [attributes.get("moe_gaid", "") for attributes in rest],
            [attributes.get("idfv", "") for attributes in rest],
            rest,
        )

    def devices(self, first: int | None = None) -> list[Device]:
        """Each of them by itself, or the `first` ones; without what travels as a header."""
        return [self._device(number) for number in range(len(self))[:first]]

    def _device(self, number: int) -> Device:
        attributes = self.rest[number].copy()
        for name, column in (("push_id", self.push_ids), ("moe_gaid", self.gaids), ("idfv", self.idfvs)):
            if value := column[number]:
                attributes[name] = value
        return Device(self.customer_ids[number], self.device_ids[number], attributes)
