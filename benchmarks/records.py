"""The same records for every contender: a CSV file of devices, and the body that each row becomes."""

from __future__ import annotations

import csv
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
_ATTRIBUTES = COLUMNS[2:]
_TOKEN = string.ascii_letters + string.digits + "-_"


def write_records(path: Path, count: int, first: int = 0) -> Path:
    """Write `count` Android devices, numbered from `first`, all of them different; the same each time."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        rows.writerows(_row(number) for number in range(first, first + count))
    return path


def _row(number: int) -> tuple[str, ...]:
    chance = random.Random(number)
    token = "".join(chance.choices(_TOKEN, k=22)) + ":" + "".join(chance.choices(_TOKEN, k=140))  # the length of FCM's
    gaid = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    return (f"customer-{number:08}", f"device-{number:08}", "ANDROID", token, "Pixel 9", "1.10", "16", gaid)


def body(row: Mapping[str, str]) -> dict[str, object]:
    """A row in the shape of the Track Device API."""
    attributes = {name: row[name] for name in _ATTRIBUTES}
    return {
        "type": "device",
        "customer_id": row["customer_id"],
        "device_id": row["device_id"],
        "attributes": attributes,
    }


def read_bodies(path: Path) -> list[bytes]:
    """Every row's body, encoded."""
    with path.open(newline="", encoding="utf-8") as file:
        return [orjson.dumps(body(row)) for row in csv.DictReader(file)]
