"""The sample files: made by the script beside them, and what becomes of each row in them."""

from __future__ import annotations

import importlib.util
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moe_bulk.columns import Columns, Reader, Unsent
from moe_bulk.device import FIELDS, Device
from moe_bulk.sources import open_source

if TYPE_CHECKING:
    from types import ModuleType

    from moe_bulk.record import Record

SAMPLES = Path(__file__).parent.parent / "samples"
NAMES = [
    "airship.ndjson",
    "appmetrica.csv",
    "batch.csv",
    "braze.ndjson",
    "devices.csv",
    "devices.ndjson",
    "messy.csv",
    "messy.ndjson",
    "moengage-export.ndjson",
    "onesignal.csv",
    "segment.ndjson",
]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that makes them, as a module."""
    spec = importlib.util.spec_from_file_location("make_samples", SAMPLES / "make_samples.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(name: str) -> tuple[list[Record | Unsent], list[str]]:
    """Read a sample, and give the warnings."""
    source, reader = open_source(SAMPLES / name), Reader(Columns())
    warned = reader.check_header(name, source.columns) if source.columns else []
    made = [reader.read(row) for batch in source.batches() for row in batch]
    source.close()
    return made, warned + reader.warnings()


def test_the_files_are_what_the_script_makes(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte for byte, each time: whoever changes one changes the other."""
    monkeypatch.setattr("sys.argv", ["make_samples.py", str(tmp_path)])
    script.main()

    assert NAMES == sorted(path.name for path in tmp_path.iterdir())
    for name in NAMES:
        assert (SAMPLES / name).read_bytes() == (tmp_path / name).read_bytes(), f"run samples/make_samples.py: {name}"
    assert len(NAMES) == len(capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("name", ["devices.csv", "devices.ndjson"])
def test_clean_rows_are_all_devices_of_their_own(name: str) -> None:
    """300 devices, no key of which is another one's, each way of writing a row, each platform and each field."""
    made, warned = read(name)
    devices = [record.device for record in made if not isinstance(record, Unsent)]

    assert (300, []) == (len(devices), warned)
    keys = list(chain.from_iterable(map(Device.keys, devices)))
    assert len(keys) == len(set(keys))
    assert {"ANDROID", "iOS", "web"} == {device.attributes["platform"] for device in devices}
    assert 10 == len({name for device in devices for name in device.attributes} | {"forwarded_for"})
    assert any(device.forwarded_for for device in devices)
    shaped = sum("attributes" in (record.row.fields or {}) for record in made)
    assert (150 if name.endswith("ndjson") else 0) == shaped


@pytest.mark.parametrize(
    ("name", "devices", "problems"),
    [
        (
            "messy.csv",
            259,
            {
                "customer_id": 9,
                "push_id": 8,
                "platform": 4,
                "device_id": 2,
                "forwarded_for": 2,
                "moe_push_opted": 2,
                "the row": 4,
                "a quote": 1,
                "byte 3": 1,
                "not valid": 1,
            },
        ),
        (
            "messy.ndjson",
            261,
            {
                "customer_id": 11,
                "push_id": 10,
                "platform": 5,
                "device_id": 2,
                "forwarded_for": 2,
                "moe_push_opted": 2,
                "attributes": 1,
                "model": 1,
                "a row": 4,
                "byte 19": 1,
                "not valid": 3,
            },
        ),
    ],
)
def test_messy_rows_come_to_what_they_must(name: str, devices: int, problems: dict[str, int]) -> None:
    """How many are sent, and what is wrong with the others: a field by its name, a line by what it is."""
    made, warned = read(name)
    found = Counter(about(one.reason) for one in made if isinstance(one, Unsent))

    assert devices == len(made) - found.total()
    assert problems == dict(found)
    assert {"messy.csv": 1, "messy.ndjson": 2}[name] == len(warned)


def about(reason: str) -> str:
    """Name the field that a reason is about, or give its first two words."""
    first, second = reason.split()[:2]
    return first if first in (*FIELDS, "attributes") else f"{first} {second}"
