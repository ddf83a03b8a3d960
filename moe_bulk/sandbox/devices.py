"""Remember every device as MoEngage would hold it, so that a test can ask for the final state of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .rules import Record

DeviceKey = tuple[str, str]

UNIQUE = ("push_id", "moe_gaid", "idfv")


@dataclass(slots=True)
class Device:
    """One device: what it is now (`attributes`), what was said last (`body`), and when (`sequence`)."""

    customer_id: str
    device_id: str
    attributes: dict[str, str]
    body: dict[str, object]
    sequence: int

    def as_dict(self) -> dict[str, object]:
        """Give the device in the form of the control endpoint."""
        return {
            "customer_id": self.customer_id,
            "device_id": self.device_id,
            "sequence": self.sequence,
            "attributes": self.attributes,
        }


class Devices(Mapping[DeviceKey, Device]):
    """All devices by (customer_id, device_id).

    An attribute that a later request leaves out stays. A device that takes another's push_id, moe_gaid or idfv deletes
    that other device, as MoEngage does; `deleted` counts them.
    """

    def __init__(self) -> None:
        self.applied = 0
        self.deleted = 0
        self._devices: dict[DeviceKey, Device] = {}
        self._owners: dict[tuple[str, str], DeviceKey] = {}

    def __getitem__(self, key: DeviceKey) -> Device:
        return self._devices[key]

    def __iter__(self) -> Iterator[DeviceKey]:
        return iter(self._devices)

    def __len__(self) -> int:
        return len(self._devices)

    def apply(self, record: Record) -> None:
        """Create or update the record's device, and delete those whose identity it takes over."""
        self.applied += 1
        key = (record.customer_id, record.device_id)
        known = self._devices.get(key)
        if known is None:
            self._devices[key] = Device(*key, record.attributes, record.body, self.applied)
        else:
            self._disown(known)
            known.attributes = known.attributes | record.attributes
            known.body = record.body
            known.sequence = self.applied
        self._own(key)

    def _own(self, key: DeviceKey) -> None:
        for identity in _identities(self._devices[key]):
            owner = self._owners.get(identity)
            if owner is not None:
                self._disown(self._devices.pop(owner))
                self.deleted += 1
            self._owners[identity] = key

    def _disown(self, device: Device) -> None:
        for identity in _identities(device):
            del self._owners[identity]


def _identities(device: Device) -> list[tuple[str, str]]:
    return [(name, device.attributes[name]) for name in UNIQUE if device.attributes.get(name)]
