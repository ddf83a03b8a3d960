"""Answer questions about the sandbox itself: `/_sandbox/stats`, `/_sandbox/devices`, `/_sandbox/requests`. Pure.

They ask for no key: the sandbox listens on the loopback address only, and what it holds was sent to a rehearsal.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import orjson

from . import answers
from .answers import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .service import Service

PREFIX = "/_sandbox/"


def answer(service: Service, path: str, query: Mapping[str, str], now: float) -> Answer:
    """Answer a GET. `devices` may be narrowed by customer_id and device_id, `requests` by after=NUMBER."""
    if path == PREFIX + "stats":
        return _json(_stats(service, now))
    if path == PREFIX + "devices":
        return _json(_devices(service, query))
    if path == PREFIX + "requests":
        after = query.get("after", "0")
        number = int(after) if after.isascii() and after.isdigit() else 0
        return _json([exchange.as_dict() for exchange in service.requests if exchange.number > number])
    return answers.with_status(404, "SBCONTROL")


def _stats(service: Service, now: float) -> dict[str, object]:
    return {
        **service.stats.as_dict(),
        "devices": len(service.devices),
        "applied": service.devices.applied,
        "deleted": service.devices.deleted,
        # both clocks at this moment, so that an outsider can tell when `at` was
        "clock": {"now": now, "epoch": time.time()},
    }


def _devices(service: Service, query: Mapping[str, str]) -> list[dict[str, object]]:
    wanted = {name: query[name] for name in ("customer_id", "device_id") if name in query}
    found = (device.as_dict() for device in service.devices.values())
    return [device for device in found if all(device[name] == value for name, value in wanted.items())]


def _json(content: object) -> Answer:
    return Answer(200, orjson.dumps(content))
