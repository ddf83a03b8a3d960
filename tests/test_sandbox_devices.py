"""The sandbox holds devices as MoEngage does: one owner for each token and advertising id."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.sandbox.devices import UNIQUE, Devices
from moe_bulk.sandbox.rules import Record


def record(customer_id: str, device_id: str, **attributes: str) -> Record:
    """Make an accepted device."""
    return Record(customer_id, device_id, attributes, {"device_id": device_id, "attributes": attributes})


def applied(*records: Record) -> Devices:
    """Apply records in their order."""
    devices = Devices()
    for each in records:
        devices.apply(each)
    return devices


def test_a_new_device_is_remembered_with_its_body() -> None:
    """A device can be asked for by customer and device id."""
    devices = applied(record("u-1", "d-1", push_id="tok"))

    device = devices["u-1", "d-1"]
    assert device.attributes == {"push_id": "tok"}
    assert device.body == {"device_id": "d-1", "attributes": {"push_id": "tok"}}
    expected = {"customer_id": "u-1", "device_id": "d-1", "sequence": 1, "attributes": {"push_id": "tok"}}
    assert expected == device.as_dict()


def test_an_update_keeps_what_it_does_not_mention() -> None:
    """An attribute that a later request leaves out stays; one that it gives is replaced."""
    devices = applied(
        record("u-1", "d-1", push_id="old", model="Pixel 9"), record("u-1", "d-1", push_id="new", app_version="1.10")
    )

    assert devices["u-1", "d-1"].attributes == {"push_id": "new", "model": "Pixel 9", "app_version": "1.10"}
    assert devices["u-1", "d-1"].sequence == 2


def test_a_device_that_takes_an_identity_deletes_the_other() -> None:
    """Each of push_id, moe_gaid and idfv belongs to the device that gave it last."""
    for name in UNIQUE:
        devices = applied(record("u-1", "d-1", **{name: "same"}), record("u-2", "d-2", **{name: "same"}))

        assert list(devices) == [("u-2", "d-2")], name
        assert devices.deleted == 1


def test_one_device_can_delete_two() -> None:
    """Two identities of two owners go to one device."""
    devices = applied(
        record("u-1", "d-1", push_id="a", idfv="x"),
        record("u-2", "d-2", push_id="b", moe_gaid="g"),
        record("u-3", "d-3", push_id="a", moe_gaid="g"),
    )

    assert list(devices) == [("u-3", "d-3")]
    assert devices.deleted == 2


def test_an_identity_that_was_given_up_is_free() -> None:
    """A device that changed its token does not suffer from the old one's new owner."""
    devices = applied(
        record("u-1", "d-1", push_id="old"), record("u-1", "d-1", push_id="new"), record("u-2", "d-2", push_id="old")
    )

    assert list(devices) == [("u-1", "d-1"), ("u-2", "d-2")]


def test_empty_values_identify_nobody() -> None:
    """An empty advertising id is shared by many and deletes none."""
    devices = applied(record("u-1", "d-1", moe_gaid=""), record("u-2", "d-2", moe_gaid=""))

    assert len(devices) == 2


values = st.sampled_from("abc")
records = st.builds(
    lambda customer, device, attributes: Record(customer, device, attributes, {}),
    values,
    values,
    st.dictionaries(st.sampled_from([*UNIQUE, "model"]), values),
)


@given(st.lists(records, max_size=30))
def test_no_two_devices_ever_share_an_identity(many: list[Record]) -> None:
    """Whatever comes in whatever order, the last record's device is there and every identity has one owner."""
    devices = applied(*many)

    owned = [
        (name, device.attributes[name]) for device in devices.values() for name in UNIQUE if name in device.attributes
    ]
    assert len(set(owned)) == len(owned)
    assert len(many) == devices.applied
    assert not many or (many[-1].customer_id, many[-1].device_id) in devices
