"""The same records for every contender: a CSV file of devices, and the body that each row becomes."""

from __future__ import annotations

import csv
import gzip
import random
import string
import uuid
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WORKSPACE = "BENCHMARK"
API_KEY = "benchmark-key"
PATH = f"/v1/device/{WORKSPACE}"

COLUMNS = ("customer_id", "device_id", "platform", "push_id", "model", "app_version", "os_version", "moe_gaid")
ATTRIBUTES = COLUMNS[2:]
_TOKEN = string.ascii_letters + string.digits + "-_"


def write_records(path: Path, count: int, first: int = 0) -> Path:
    """Write `count` Android devices, numbered from `first`, all of them different; the same each time."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        rows.writerows(_row(number) for number in range(first, first + count))
    return path


REFUSED = "refused"
"""What stands at the end of a device id that `parts` refuses."""

_SHORT = ("customer_id", "device_id", "platform", "push_id", "os_version")


def write_many(path: Path, count: int) -> Path:
    """Write `count` shorter rows: `.csv`, `.csv.gz` or `.ndjson`; one in a hundred is refused, one in five repeats.

    A repeated device is that of the row before, which still is on its way, or that of a thousand rows before.
    """
    is_csv = ".csv" in path.suffixes
    with gzip.open(path, "wb", compresslevel=1) if path.suffix == ".gz" else path.open("wb") as file:
        if is_csv:
            file.write(",".join(_SHORT).encode() + b"\n")
        for number in range(count):
            values = _short(number)
            line = ",".join(values).encode() if is_csv else orjson.dumps(dict(zip(_SHORT, values, strict=True)))
            file.write(line + b"\n")
    return path


def _short(number: int) -> tuple[str, ...]:
    place = number % 10
    one = max(number - {1: 1, 6: 1000}.get(place, 0), 0)
    end = f"-{REFUSED}" if one % 100 == 7 else ""
    token = f"{one * 2_654_435_761 % 2**64:016x}:APA91b{one:064x}"
    return (f"customer-{one:08}", f"device-{one:08}{end}", "ANDROID", token, f"16.{number % 7}")


def _row(number: int) -> tuple[str, ...]:
    chance = random.Random(number)
    token = "".join(chance.choices(_TOKEN, k=22)) + ":" + "".join(chance.choices(_TOKEN, k=140))  # the length of FCM's
    gaid = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    return (f"customer-{number:08}", f"device-{number:08}", "ANDROID", token, "Pixel 9", "1.10", "16", gaid)


def body(row: Mapping[str, str]) -> dict[str, object]:
    """A row in the shape of the Track Device API."""
    attributes = {name: row[name] for name in ATTRIBUTES}
    return {
        "type": "device",
        "customer_id": row["customer_id"],
        "device_id": row["device_id"],
        "attributes": attributes,
    }
