"""What a valid device is, in MoEngage's words, and the folding of values that mean the same.

The rules are MoEngage's own (github.com/moengage/moengage-documentation: `api/data/data.yaml`, `data-overview.mdx`).
Text stays text: `1.10` never becomes `1.1`. Nothing (`None`, an empty cell, white space only) means "say nothing about
this" and is left out. ASCII white space around ids, tokens, platforms and flags is removed; other attributes are sent
as they are.

A device whose push token, GAID or IDFV equals another device's deletes that other device at MoEngage. So what thousands
share, `NA` or an all-zero advertising id, is never sent, and what two rows share puts them in one lane: `Device.keys`.
"""

from __future__ import annotations

import ipaddress
import re
import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson

from moe_bulk.ids import EDGES, EDGES_AND_ZERO, FORBIDDEN, PLACEHOLDERS, plain_ids, token_key, words

if TYPE_CHECKING:
    from collections.abc import Mapping

Validation = Literal["strict", "basic"]

FIELDS: Final[tuple[str, ...]] = (
    "customer_id",
    "device_id",
    "platform",
    "push_id",
    "model",
    "app_version",
    "os_version",
    "moe_push_opted",
    "moe_push_provisional_opted",
    "moe_gaid",
    "idfv",
    "forwarded_for",
)
"""The names that a row may use; anything else in it is ignored here, but for `type`."""

MAX_BODY = 128_000
"""Bytes of one request's body: the 128 KB of MoEngage's data overview, read narrowly."""

ID_KEPT = 512
"""Characters of an id that a result line shows of an invalid row."""

_ADDRESSES_KEPT = 100
"""Addresses in one header: a line of 4 KiB, half of what servers commonly take."""


PLATFORM_NAMES = {
    "ANDROID": ("android", "androidos", "googleandroid"),
    "iOS": ("ios", "ipados", "iphoneos", "iphone", "ipad", "ipod", "ipodtouch", "appleios", "iosapp"),
    "web": ("web", "website", "webpush", "browser", "mobileweb", "mweb", "desktopweb", "webapp"),
    "TV": ("tv", "smarttv", "connectedtv", "ctv", "television"),
}
_PLATFORMS = {name: spelling for spelling, names in PLATFORM_NAMES.items() for name in names}
# The spellings that rows really have, as they stand there: one look-up in the common case.
_PLATFORMS_AS_GIVEN = {"iPadOS": "iOS", "iPhone": "iOS", "iPhone OS": "iOS", "iPad": "iOS"} | {
    given: spelling for name, spelling in _PLATFORMS.items() for given in (name, name.upper(), name.title(), spelling)
}

_FLAGS = dict.fromkeys(words("true 1 t yes y on"), "True") | dict.fromkeys(words("false 0 f no n off"), "False")
_FLAGS_AS_GIVEN = {given: said for name, said in _FLAGS.items() for given in (name, name.upper(), name.capitalize())}

_BLANKS = " \t\n\r\v\f"
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_SQUEEZED = re.compile(r"[\W_]+")
_SPACED_HEX = re.compile(r"<[0-9A-Fa-f\s]+>|[0-9A-Fa-f\s]+")

_ONLY_ON = {"moe_gaid": "ANDROID", "idfv": "iOS"}
ADVERTISING_IDS = {platform: name for name, platform in _ONLY_ON.items()}
_TEXTS = ("model", "app_version", "os_version")
_SWITCHES = ("moe_push_opted", "moe_push_provisional_opted")
NOTHING = (None, "")
_TYPES = (None, "", "device")

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80


@dataclass(slots=True)
class Device:
    """A device as MoEngage takes it: every value already folded, every attribute worth sending.

    `attributes` holds the API's own names. `forwarded_for` travels as a header, not in the body.
    """

    customer_id: str
    device_id: str
    attributes: dict[str, str]
    forwarded_for: str | None = None

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """What this device must not overtake another one in: rows that share a key arrive in the order of the input.

        Advertising ids and hex tokens are compared without case, because MoEngage may; they are sent as they are.
        """
        found: list[tuple[str, ...]] = [("device", self.customer_id, self.device_id)]
        attributes = self.attributes
        if push_id := attributes.get("push_id"):
            found.append(("push_id", token_key(push_id)))
        if gaid := attributes.get("moe_gaid"):
            found.append(("moe_gaid", gaid.casefold()))
        if idfv := attributes.get("idfv"):
            found.append(("idfv", idfv.casefold()))
        return tuple(found)

    def payload(self) -> dict[str, object]:
        """What the JSON body says."""
        return {
            "type": "device",
            "customer_id": self.customer_id,
            "device_id": self.device_id,
            "attributes": self.attributes,
        }


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row is no valid device: every reason, each with its field and value.

    The ids are there where they could be read, cut to `ID_KEPT` characters, so that a result line can name the row.
    `keys` are those of `Device.keys` that nothing is wrong with.
    """

    reasons: tuple[str, ...]
    customer_id: str | None
    device_id: str | None
    keys: tuple[tuple[str, ...], ...] = ()

    @property
    def reason(self) -> str:
        """All reasons in one line."""
        return "; ".join(self.reasons)


def fold(fields: Mapping[str, object], validate: Validation = "strict") -> Device | Problem:
    """Make a device of a row, or say everything that is wrong with it.

    `strict` asks for all that MoEngage documents. `basic` asks for the two ids only: values that cannot be folded are
    sent as they are, and what the API would refuse it will refuse. Neither sends what would delete other devices
    (placeholder tokens, all-zero advertising ids), what is no text, or a body that is too large.

    >>> fold({"customer_id": "u-1", "device_id": "d-1", "platform": "ipados", "push_id": "<ab 12>"})
    Device(customer_id='u-1', device_id='d-1', attributes={'platform': 'iOS', 'push_id': 'ab12'}, forwarded_for=None)
    """
    return _fold_common(fields) or _Reading(fields, strict=validate == "strict").device()


def problems(fields: Mapping[str, object], validate: Validation = "strict") -> tuple[str, ...]:
    """Everything that is wrong with a row; nothing, if it is a valid device."""
    folded = fold(fields, validate)
    return folded.reasons if isinstance(folded, Problem) else ()


def _fold_common(fields: Mapping[str, Any]) -> Device | None:
    """Fold a row as nearly all rows are, in under 2 µs; None for one that needs a closer look.

    It may only ever take what `_Reading` takes, with the same result: a property test holds it to that.
    """
    get = fields.get
    try:
        customer_id, device_id, push_id = fields["customer_id"], fields["device_id"], fields["push_id"]
        platform = _PLATFORMS_AS_GIVEN[fields["platform"]]
        tight, other = customer_id + device_id + push_id, ""
        attributes: dict[str, str] = {"platform": platform, "push_id": push_id}
        for name in _TEXTS:
            if (text := get(name)) is not None and text != "":
                if not text.isprintable() or text[0] == " " or len(text) > 1000:
                    return None
                attributes[name] = text
        for name in _SWITCHES:
            if (flag := get(name)) is not None and flag != "":
                attributes[name] = _FLAGS_AS_GIVEN[flag]
        if (own := ADVERTISING_IDS.get(platform)) and (value := get(own)) is not None and value != "":
            attributes[own] = other = value
            tight += value
        plain = (
            get("forwarded_for") in NOTHING and get("type") in _TYPES and plain_ids(customer_id, push_id, other, tight)
        )
    except (KeyError, TypeError, AttributeError, ValueError):  # a value is no text, or no common one
        return None
    return Device(customer_id, device_id, attributes) if plain and device_id else None


class _Reading:
    """One row under a closer look: folds field by field and collects what is wrong."""

    def __init__(self, fields: Mapping[str, object], *, strict: bool) -> None:
        self.fields = fields
        self.strict = strict
        self.reasons: list[str] = []

    def device(self) -> Device | Problem:
        """The device, or all reasons why there is none."""
        self.type()
        customer_id, device_id = self.customer_id(), self.required("device_id", self.id("device_id"))
        platform = self.required("platform", self.platform()) if self.strict else self.platform()
        push_id = self.push_id()
        said = {"platform": platform, "push_id": push_id}
        said |= {name: self.text(name) for name in _TEXTS}
        said |= {name: self.flag(name) for name in _SWITCHES}
        said |= {name: self.advertising_id(name, platform) for name in _ONLY_ON}
        attributes = {name: text for name, text in said.items() if text}
        device = Device(customer_id, device_id, attributes, self.forwarded_for() or None)
        if not self.reasons:
            self.size(device)
        if not self.reasons:
            return device
        known = tuple(filter(all, device.keys()))  # whatever is wrong is empty in it
        shown = _shown_id(self.fields, "customer_id"), _shown_id(self.fields, "device_id")
        return Problem(tuple(self.reasons), *shown, known)

    def wrong(self, name: str, why: str) -> str:
        """Note a reason; the empty text that comes back keeps the value out."""
        self.reasons.append(f"{name} {_shown(self.fields.get(name))} {why}")
        return ""

    def text(self, name: str) -> str:
        """The value as text; empty where it says nothing or cannot be text."""
        value = self.fields.get(name)
        if value is None:
            return ""
        if why := _no_text(value):
            return self.wrong(name, why)
        text = _as_text(value)
        if _SURROGATES.search(text):
            return self.wrong(name, "holds half a character (a lone surrogate), which no JSON can carry")
        return text if text.strip() else ""

    def id(self, name: str) -> str:
        """An id without the white space around it."""
        return self.printable(name, self.text(name).strip(_BLANKS))

    def printable(self, name: str, text: str) -> str:
        if self.strict and _CONTROLS.search(text):
            return self.wrong(name, "holds a control character")
        return text

    def required(self, name: str, text: str) -> str:
        """The text; a reason, unless there is one already, where there is none."""
        if text or any(reason.startswith(f"{name} ") for reason in self.reasons):
            return text
        if self.fields.get(name) is None:
            self.reasons.append(f"{name} is missing")
            return ""
        return self.wrong(name, "is empty")

    def type(self) -> None:
        # In basic only the two ids are asked for; what is sent says "device" anyway.
        if self.strict and (text := self.text("type")) and text.strip().casefold() != "device":
            self.wrong("type", "is no device: leave it out, or write 'device'")

    def customer_id(self) -> str:
        text = self.required("customer_id", self.id("customer_id"))
        if not self.strict or not text:
            return text
        if text.strip().casefold() in FORBIDDEN:
            return self.wrong("customer_id", "is on MoEngage's list of values that are no customer id")
        if len(text) < 2:
            return self.wrong("customer_id", "is too short: MoEngage asks for more than one character")
        return text

    def platform(self) -> str:
        text = self.text("platform").strip(_BLANKS)
        spelling = _PLATFORMS.get(_SQUEEZED.sub("", text.casefold()))
        if spelling or not text or not self.strict:
            return spelling or text
        return self.wrong("platform", f"is unknown: write {', '.join(PLATFORM_NAMES)}")

    def push_id(self) -> str:
        token = self.text("push_id").strip(_BLANKS)
        if _SPACED_HEX.fullmatch(token):
            token = re.sub(r"[<>\s]+", "", token)
        token = self.printable("push_id", token)
        if not self.strict:
            return "" if _is_placeholder(token) else token
        if token and _is_placeholder(token):
            return self.wrong("push_id", "is a placeholder, not a push token: sent, it would delete other devices")
        return self.required("push_id", token)

    def flag(self, name: str) -> str:
        value = self.fields.get(name)
        if isinstance(value, bool):
            return str(value)
        text = self.text(name)
        said = _FLAGS.get(text.strip(_BLANKS).casefold())
        if said or not text or not self.strict:
            return said or text
        return self.wrong(name, "is neither true nor false")

    def advertising_id(self, name: str, platform: str) -> str:
        """GAID on Android, IDFV on iOS; elsewhere it is left out, as is one that says nothing."""
        if platform in PLATFORM_NAMES and platform != _ONLY_ON[name]:
            return ""
        text = self.id(name)
        return "" if _is_placeholder(text) else text

    def forwarded_for(self) -> str:
        """Addresses only, written anew: nothing else can get into the header."""
        text = self.text("forwarded_for")
        parts = text.split(",") if text else []
        # A zone ("fe80::1%…") may hold anything at all in Python's eyes, line breaks included.
        if "%" in text or len(parts) > _ADDRESSES_KEPT:
            return self.wrong("forwarded_for", f"must be at most {_ADDRESSES_KEPT} IP addresses without zones")
        try:
            return ", ".join(str(ipaddress.ip_address(part.strip(_BLANKS))) for part in parts)
        except ValueError:
            return self.wrong("forwarded_for", "is no list of IP addresses, separated by commas")

    def size(self, device: Device) -> None:
        texts = {"customer_id": device.customer_id, "device_id": device.device_id, **device.attributes}
        # JSON needs six bytes for a character at worst (\u0000), so that common rows are not encoded twice.
        if 6 * sum(map(len, texts.values())) + 1000 <= MAX_BODY:
            return
        if (size := len(orjson.dumps(device.payload()))) > MAX_BODY:
            longest, text = max(texts.items(), key=lambda said: len(said[1]))
            why = f"has {len(text):,} characters: the body would be {size:,} bytes, MoEngage takes {MAX_BODY:,}"
            self.wrong(longest, why)


def _no_text(value: object) -> str:
    """Why a value cannot become text without a guess; empty where it can."""
    if isinstance(value, str):
        return ""
    if isinstance(value, bool):
        return "is a JSON boolean, no text: quote it"
    if isinstance(value, int):
        return "" if -(2**63) <= value < 2**64 else "is a JSON number of more than 64 bits: quote it"
    if isinstance(value, float):
        odd = str(value) in ("nan", "inf", "-inf")  # not by its value: 1e400 is JSON, although it is infinite here
        return "is no text: use null" if odd else "is a JSON number that loses its spelling: quote it"
    return f"is no text but {type(value).__name__}: give one value"


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else str(value)


def _is_placeholder(text: str) -> bool:
    """True for what stands where nothing is: `NA`, `(null)`, `-`, `[]`, any number of zeros and dashes."""
    return not text.strip(EDGES_AND_ZERO) or text.strip(EDGES).casefold() in PLACEHOLDERS


def _shown(value: object) -> str:
    """A value as a reason shows it: escaped, and never longer than a line."""
    if isinstance(value, str):
        shown = repr(value[:80])
        return shown if len(value) <= 80 and len(shown) <= 82 else f"{shown[:80]}…"
    try:
        shown = _BRIEF.repr(value)
    except ValueError:  # Python refuses to spell out an integer of more than 4,300 digits
        return f"({type(value).__name__})"
    return shown if len(shown) <= 80 else f"{shown[:80]}…"


def _shown_id(fields: Mapping[str, object], name: str) -> str | None:
    value = fields.get(name)
    if value is None or _no_text(value):
        return None
    text = _as_text(value).strip(_BLANKS)[:ID_KEPT]
    return text.encode(errors="backslashreplace").decode()[:ID_KEPT] or None
