"""Values that are allowed, and that nobody meant: what spreadsheets, wrong columns and other services leave behind."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from operator import eq
from typing import TYPE_CHECKING

from moe_bulk.checking.findings import Oddity, hint

if TYPE_CHECKING:
    from moe_bulk.columns import Portion
    from moe_bulk.device import Device
    from moe_bulk.record import Position

ENOUGH = 100
"""Rows from which on it is worth a word that all have the same platform."""

PLATFORMS_KEPT = 100
"""Different platforms that are counted; `basic` lets any text through, and a wrong column may hold millions."""
OTHER = "(other)"
LONGEST_SHOWN = 12

_ROUNDED = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d+")
_DECIMAL = re.compile(r"\d+\.0+")
_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_NOTHING = frozenset(
    spelling
    for word in ("nan", "null", "none", "nil", "undefined", "n/a", "na", "#n/a", "(null)", "<null>", "nat")
    for spelling in (word, word.upper(), word.capitalize())
) | {"NaN", "NaT", "<NA>"}
_TEXTS = ("model", "app_version", "os_version")
_UUID = 36
_APNS = 64
_NONE_OR_A_UUID = frozenset({0, _UUID})

REMEDIES = {
    "rounded": "a spreadsheet rounded them, and the digits are lost: export the column as text",
    "decimal": "a spreadsheet or data frame took them for numbers: export the column as text",
    "expo": "these are tokens of Expo's push service, which MoEngage cannot send to: export the device's own token",
    "apns": "64 hex digits are an iOS token: see whether platform or push_id is the wrong column",
    "same": "see whether two fields were given the same column",
    "nothing": "they are sent as text: leave these cells empty",
    "uuid": "these are no UUIDs of 36 characters: see whether the column is hashed, or the wrong one",
}
_WHAT = {
    "rounded": "{field} looks like a rounded number",
    "decimal": "{field} looks like a whole number with a decimal point",
    "expo": "push_id is a token of Expo's",
    "apns": "push_id of an ANDROID device looks like an iOS token",
    "same": "{field}",
    "nothing": "{field} is a word for nothing",
    "uuid": "{field} is no UUID",
}
_NOBODYS = frozenset({"rounded", "nothing"})
"""What names nobody is shown whole: a number that lost its digits, and a word for nothing."""


def _are_plain(portion: Portion) -> bool:
    """True for nearly all portions, at little cost: nothing about any of these devices is odd."""
    customer_ids, device_ids, tokens = portion.customer_ids, portion.device_ids, portion.push_ids
    alike = {id(rest): rest for rest in portion.rest}.values()
    ids = "".join(chain(customer_ids, device_ids))
    return not (
        "." in ids
        or "+" in ids
        or any(map(eq, customer_ids, device_ids))
        or any(map(eq, customer_ids, tokens))
        or any(map(eq, device_ids, tokens))
        or _APNS in map(len, tokens)
        or "Expo" in "".join(tokens)
        or not _NOTHING.isdisjoint(chain.from_iterable(map(dict.values, alike)))
        or not _NONE_OR_A_UUID.issuperset(map(len, chain(portion.gaids, portion.idfvs)))
    )


@dataclass(slots=True)
class _Seen:
    count: int
    source: str
    line: int
    example: str


class Oddities:
    """Looks at each device that would be sent, and counts what is odd about it; a bounded number of kinds."""

    def __init__(self) -> None:
        self.platforms: Counter[str] = Counter()
        self._seen: dict[tuple[str, str], _Seen] = {}

    def look(self, portion: Portion) -> None:
        """Count what is odd about devices."""
        platforms = Counter([rest.get("platform", "") for rest in portion.rest])
        for platform, count in platforms.items():
            self._count_platform(platform, count)
        if not _are_plain(portion):
            for position, device in zip(portion.positions, portion.devices(), strict=True):
                self._look(position, device)

    def _look(self, position: Position, device: Device) -> None:
        attributes = device.attributes
        customer_id, device_id, push_id = device.customer_id, device.device_id, attributes.get("push_id", "")
        self._number(position, "customer_id", customer_id)
        self._number(position, "device_id", device_id)
        if customer_id == device_id:
            self._count(position, "same", "customer_id and device_id are the same", customer_id)
        if push_id in (device_id, customer_id):
            self._count(position, "same", "push_id is the same as an id", push_id)
        if push_id.startswith("Expo"):
            self._count(position, "expo", "push_id", push_id)
        elif len(push_id) == _APNS and attributes.get("platform") == "ANDROID" and _HEX.fullmatch(push_id):
            self._count(position, "apns", "push_id", push_id)
        for name in _TEXTS:
            if (text := attributes.get(name, "")) in _NOTHING:
                self._count(position, "nothing", name, text)
        for name in ("moe_gaid", "idfv"):
            if len(found := attributes.get(name, "")) not in (0, _UUID):
                self._count(position, "uuid", name, found)

    def _count_platform(self, platform: str, count: int) -> None:
        if platform not in self.platforms:
            platform = platform if len(platform) <= LONGEST_SHOWN else hint(platform)
            if platform not in self.platforms and len(self.platforms) >= PLATFORMS_KEPT:
                platform = OTHER
        self.platforms[platform] += count

    def _number(self, position: Position, field: str, text: str) -> None:
        if _DECIMAL.fullmatch(text):
            self._count(position, "decimal", field, text)
        elif _ROUNDED.fullmatch(text):
            self._count(position, "rounded", field, text)

    def _count(self, position: Position, kind: str, field: str, example: str) -> None:
        seen = self._seen.get((kind, field))
        if seen is None:
            self._seen[kind, field] = _Seen(1, position.source, position.line, example)
        else:
            seen.count += 1

    def told(self, *, platform_is_constant: bool) -> list[Oddity]:
        """What was found, the most frequent first."""
        found = [
            Oddity(
                what=_WHAT[kind].replace("{field}", field),
                count=seen.count,
                source=seen.source,
                first_line=seen.line,
                example=_shown(kind, seen.example),
                remedy=REMEDIES[kind],
            )
            for (kind, field), seen in self._seen.items()
        ]
        found.sort(key=lambda oddity: -oddity["count"])
        rows = self.platforms.total()
        if len(self.platforms) == 1 and rows >= ENOUGH and not platform_is_constant:
            (platform,) = self.platforms
            found.append(
                Oddity(
                    what=f"every row's platform is {platform or 'missing'}",
                    count=rows,
                    source="",
                    first_line=0,
                    example=platform,
                    remedy="fine for the export of one app; else see whether the column is the right one",
                )
            )
        return found


def _shown(kind: str, text: str) -> str:
    if kind in _NOBODYS:
        return text
    return f"{text[:2]}…{text[-3:]}" if kind == "decimal" else hint(text)  # it is odd by its end
