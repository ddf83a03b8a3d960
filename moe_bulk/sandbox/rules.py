"""Judge a request to the Track Device API as MoEngage documents it; pure, and strict where the documentation is silent.

https://www.moengage.com/docs/api/device/track-device (fields, `type`),
https://www.moengage.com/docs/api/data/data-overview (forbidden customer ids, size). What becomes of an answer on the
wire is `answers`' business.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BODY = 128_000
PLATFORMS = frozenset({"ANDROID", "iOS", "web", "TV"})
ATTRIBUTES = (
    "platform",
    "push_id",
    "model",
    "app_version",
    "os_version",
    "moe_push_opted",
    "moe_push_provisional_opted",
    "moe_gaid",
    "idfv",
)
FORBIDDEN_CUSTOMER_IDS = frozenset(
    {
        "unknown",
        "guest",
        "null",
        "0",
        "1",
        "true",
        "false",
        "user_attribute_unique_id",
        "(empty)",
        "na",
        "n/a",
        "dummy_seller_code",
        "user_id",
        "id",
        "customer_id",
        "uid",
        "userid",
        "none",
        "-2",
        "-1",
        "2",
    }
)


class Refusal(NamedTuple):
    """Why a request is turned down: status, MoEngage's `error.type` and message, and the field that is to blame."""

    status: int
    type: str
    message: str
    attribute: str | None = None


class Record(NamedTuple):
    """A device as it was accepted: the ids, the attributes that MoEngage keeps, and the whole body as it came."""

    customer_id: str
    device_id: str
    attributes: dict[str, str]
    body: dict[str, object]


MALFORMED = Refusal(
    400, "Malformed JSON", "Could not decode the request body. The JSON was incorrect or not encoded as UTF-8."
)
TOO_LARGE = Refusal(413, "PayloadTooLarge", "Payload size exceeds 128 KB")
UNSUPPORTED = Refusal(415, "MediaTypeError", "Unsupported Media Type")
NO_CREDENTIALS = Refusal(401, "Authentication required", "Authentication Header Required")
WRONG_KEY = Refusal(
    401, "Authentication required", "App Secret key mismatch. Please login to the dashboard to verify key"
)


def parse_object(body: bytes) -> dict[str, object] | Refusal:
    """Read a body as one JSON object, or say why it is none."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return MALFORMED
    if not isinstance(parsed, dict):
        return Refusal(400, "TypeError", "the payload should be a JSON object")
    return parsed


def judge_envelope(headers: Mapping[str, str], workspace_id: str, api_key: str) -> Refusal | None:
    """Check who asks and in which format, before anybody looks at the body."""
    authorization = headers.get("Authorization")
    if authorization is None:
        return NO_CREDENTIALS
    if not credentials_match(authorization, workspace_id, api_key):
        return WRONG_KEY
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return None if media_type == "application/json" else UNSUPPORTED


def credentials_match(authorization: str, workspace_id: str, api_key: str) -> bool:
    """Tell whether an Authorization header is HTTP Basic with these two."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return decoded == f"{workspace_id}:{api_key}".encode()


def judge_device(body: dict[str, object]) -> Record | Refusal:
    """Check one device, field by field, in the order of the documentation; the first fault is named."""
    refusal = (
        _text(body, "type") or _kind(body) or _text(body, "customer_id") or _customer(body) or _text(body, "device_id")
    )
    if refusal is not None:
        return refusal
    attributes = body.get("attributes")
    if attributes is None:
        return _missing("attributes")
    if not isinstance(attributes, dict):
        return Refusal(400, "TypeError", "attributes should be a JSON object", "attributes")
    refusal = _judge_attributes(attributes)
    if refusal is not None:
        return refusal
    kept = {name: attributes[name] for name in ATTRIBUTES if name in attributes}
    return Record(str(body["customer_id"]), str(body["device_id"]), kept, body)


def _judge_attributes(attributes: dict[str, object]) -> Refusal | None:
    refusal = _text(attributes, "platform") or _platform(attributes) or _text(attributes, "push_id")
    if refusal is not None:
        return refusal
    for name in ATTRIBUTES[2:]:
        if name not in attributes:
            continue
        value = attributes[name]
        if not isinstance(value, str):
            return _no_text(name)
        # Only the first is documented as "True" or "False"; a provisional "yes" would be accepted and mean nothing.
        if name.startswith("moe_push_") and value not in {"True", "False"}:
            return Refusal(400, "ValueError", f'{name} should be "True" or "False", not {value!r}', name)
    return None


def _text(fields: dict[str, object], name: str) -> Refusal | None:
    value = fields.get(name)
    if isinstance(value, str):
        return (
            None
            if value.strip()
            else Refusal(400, "MissingAttributeError", f"{name} can not be empty Unicode String", name)
        )
    return _missing(name) if value is None and name not in fields else _no_text(name)


def _missing(name: str) -> Refusal:
    return Refusal(400, "MissingAttributeError", f"{name} is not found in the payload", name)


def _no_text(name: str) -> Refusal:
    return Refusal(400, "TypeError", f"{name} should be a String", name)


def _kind(body: dict[str, object]) -> Refusal | None:
    if body["type"] == "device":
        return None
    return Refusal(400, "ValueError", f'type should be "device", not {body["type"]!r}', "type")


def _customer(body: dict[str, object]) -> Refusal | None:
    customer_id = str(body["customer_id"])
    if len(customer_id) == 1 or customer_id.strip().lower() in FORBIDDEN_CUSTOMER_IDS:
        return Refusal(400, "ValueError", f"{customer_id!r} is not allowed as customer_id", "customer_id")
    return None


def _platform(attributes: dict[str, object]) -> Refusal | None:
    platform = attributes["platform"]
    if platform in PLATFORMS:
        return None
    return Refusal(400, "ValueError", f"platform should be one of ANDROID, iOS, web, TV, not {platform!r}", "platform")


def judge_connection_test(
    headers: Mapping[str, str], body: bytes | None, workspace_id: str, api_key: str
) -> Refusal | None:
    """Check a "Test connection": https://www.moengage.com/docs/api/utilities/test-connection-api."""
    refusal = judge_envelope(headers, workspace_id, api_key)
    if refusal is not None:
        return refusal
    fields = TOO_LARGE if body is None else parse_object(body)
    if isinstance(fields, Refusal):
        return fields
    for name in ("app_id", "app_secret", "source", "region"):
        if not fields.get(name):
            return Refusal(400, "ParamsRequired", f"{name} is required", name)
    right = headers.get("MOE-APPKEY") == fields["app_id"] == workspace_id and fields["app_secret"] == api_key
    return None if right else WRONG_KEY
