"""The Track Device protocol without I/O: what is sent, and what an answer means.

The facts are MoEngage's (github.com/moengage/moengage-documentation: `api/data/data.yaml`, `data-overview.mdx`). Where
its pages differ in spelling, the HTTP status decides first and `error.type` is compared without case and punctuation.

An answer is strangers' text, written by MoEngage or by anything on the way to it: nothing in it can make `judge` raise,
and everything that an `Outcome` shows has passed `clean`.
"""

from __future__ import annotations

import base64
import re
import zlib
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from html.entities import html5
from http import HTTPStatus
from itertools import groupby
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import orjson

from moe_bulk.outcome import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from moe_bulk.device import Device

ANSWER_KEPT: Final = 64 * 1024
"""Bytes of an answer, after decoding, that are looked at; what is longer is no answer of MoEngage's."""

LONGEST_WAIT: Final = 600.0
"""Seconds: however long a server asks us to wait, nobody waits longer for one answer."""

HEADERS: Final = ("retry-after", "x-request-id", "x-ratelimit-remaining", "x-ratelimit-reset", "location")
"""Those of an answer that `judge` looks at."""

_PLAIN_ACCEPTANCE = Outcome(Verdict.ACCEPTED, http_status=200)
"""What nearly all attempts come to: there is nothing to tell but that."""

_SHORT = 1024
"""Bytes; what is longer is not remembered."""

_EPOCH = 1_000_000.0
"""An x-ratelimit-reset above this is epoch seconds, below it seconds left: MoEngage's pages say both."""

CONNECTION_TEST_PATH: Final = "/v1/integrations/authentication"
"""Where MoEngage tells, below the base URL, whether it knows a workspace and its key."""

WORKSPACE_HEADER: Final = "MOE-APPKEY"
"""Says the workspace's id once more, in a Test connection."""

_DATA_CENTER_HOST = re.compile(r"api-([0-9]+)\.moengage\.com")
_MISDIRECTED = frozenset({404, 405})
_TRANSIENT = frozenset({408, 425})
_THIS_RECORD = frozenset({400, 413, 422})
_WHOLE_RUN = frozenset({"invalidparams", "paramsrequired", "blacklisted"})
"""Types of a 400 whose cause lies outside the record."""

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    r"|(?:\x1b[PX\]^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x9c|\x1b\\)?"  # OSC, DCS …: titles, links
    r"|\x1b[ -/]*[0-~]?"
)
_BASE64_RUN = re.compile(r"[A-Za-z0-9+/_=-]{4,}")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_NOT_ALNUM = re.compile(r"[\W_]+")


def device_path(workspace_id: str) -> str:
    """Where devices of a workspace are posted to, below the base URL."""
    return f"/v1/device/{quote(workspace_id, safe='')}"


def headers(workspace_id: str, api_key: str, user_agent: str) -> dict[str, str]:
    """What every request says besides its body; the first one is a secret."""
    token = base64.b64encode(f"{workspace_id}:{api_key}".encode()).decode()
    return {
        "Authorization": f"Basic {token}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": user_agent,
    }


def encode(device: Device) -> bytes:
    """The body of a device's request, in UTF-8."""
    return orjson.dumps(device.payload())


def encode_connection_test(workspace_id: str, api_key: str, host: str) -> bytes:
    """The body of a Test connection (https://www.moengage.com/docs/api/utilities/test-connection-api): it is a secret.

    `region` is the data center's number; a host that is none of MoEngage's is asked as the first.
    """
    number = _DATA_CENTER_HOST.fullmatch(host)
    region = number[1] if number else "01"
    return orjson.dumps({"app_id": workspace_id, "app_secret": api_key, "source": "moe-bulk", "region": region})


def trouble(error: str, reason: str | None = None) -> Outcome:
    """The outcome of an attempt that brought no usable answer: `timeout`, `connection refused` …."""
    return Outcome(Verdict.TROUBLE, error=error, reason=reason)


def judge(status: int, headers: Mapping[str, str], body: bytes, *, now: float, secret: str) -> Outcome:
    """Say what an answer means for the record and for the run.

    `headers` is looked at by lower-case names: give httpx's or aiohttp's, or a mapping whose names are. `now` is epoch
    seconds (for dates and for limits that reset at a moment), `secret` the API key, which no outcome shows. Never
    raises.
    """
    if status == HTTPStatus.OK and _says_success_alone(body) and not any(map(headers.get, HEADERS)):
        return _PLAIN_ACCEPTANCE
    answer = _json(body)
    verdict = _verdict(status, answer)
    error = answer.get("error") if answer else None
    told = error if isinstance(error, dict) else {}
    accepted = verdict is Verdict.ACCEPTED
    request_id = _first(told.get("request_id"), (answer or {}).get("request_id"), headers.get("x-request-id"))
    return Outcome(
        verdict,
        http_status=status,
        error_type=None if accepted else _shown(told.get("type"), secret, 100),
        reason=None if accepted else clean(_reason(status, headers, body, answer), secret) or _name(status),
        request_id=_shown(request_id, secret, 200),
        retry_after=_retry_after(headers.get("retry-after"), now),
        remaining=_remaining(headers.get("x-ratelimit-remaining")),
        reset_after=_reset_after(headers.get("x-ratelimit-reset"), now),
    )


@lru_cache(maxsize=8)
def _says_success_alone(body: bytes) -> bool:
    """True for an acceptance without a request id: the same words in all answers, so they are read once."""
    if len(body) > _SHORT:
        return False
    answer = _json(body)
    if answer is None or {"request_id", "error"} & answer.keys():
        return False
    return _verdict(HTTPStatus.OK, answer) is Verdict.ACCEPTED


# --- the verdict -----------------------------------------------------------------------------------------------------


def _verdict(status: int, answer: dict[str, object] | None) -> Verdict:
    """The table of statuses; anything that HTTP has no name for is a broken answer."""
    match status // 100:
        case 2:
            success = answer is not None and _plain(answer.get("status")) == "success"
            return Verdict.ACCEPTED if success else Verdict.TROUBLE
        case 3:
            return Verdict.MISDIRECTED
        case 4:
            return _verdict_on_refusal(status, answer or {})
        case _:
            return Verdict.TROUBLE


def _verdict_on_refusal(status: int, answer: dict[str, object]) -> Verdict:
    if status == HTTPStatus.UNAUTHORIZED:
        return Verdict.UNAUTHORIZED
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Verdict.THROTTLED
    if status in _MISDIRECTED:
        return Verdict.MISDIRECTED
    if status in _TRANSIENT:
        return Verdict.TROUBLE
    if status in _THIS_RECORD:
        error = answer.get("error")
        kind = _plain(error.get("type")) if isinstance(error, dict) else ""
        return Verdict.DOOMED if status == HTTPStatus.BAD_REQUEST and kind in _WHOLE_RUN else Verdict.REJECTED
    # 403, 409, 415, and what MoEngage does not document (402, 406, 410, 451 …): doom is the careful reading, because
    # the record alone is refused until three different ones in a row are.
    return Verdict.DOOMED


def _plain(value: object) -> str:
    """`Missing Attribute Error` and `MissingAttributeError` are one."""
    return _NOT_ALNUM.sub("", value.casefold()) if isinstance(value, str) else ""


def _json(body: bytes) -> dict[str, object] | None:
    """The answer as an object; None where it is none, or too long to be one of MoEngage's."""
    if not body or len(body) > ANSWER_KEPT:
        return None
    try:
        answer = orjson.loads(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


# --- what people read ------------------------------------------------------------------------------------------------


def _reason(status: int, headers: Mapping[str, str], body: bytes, answer: dict[str, object] | None) -> str:
    """What the server said, or in a few words what it sent instead."""
    name = _name(status)
    if status // 100 == 3 and (location := _first(headers.get("location"))) is not None:
        return f"{name}, to {location}"
    if answer is None:
        return f"{name}, no JSON" if body else f"{name}, empty answer"
    message = _message(answer)
    if status // 100 == 2:
        name = f"{name}, but status {_first(answer.get('status')) or 'missing'}"
        return name if message is None else f"{name}: {message}"
    return message or f"{name}, without a message"


def _message(answer: dict[str, object]) -> str | None:
    """`error.message` with the attribute that it is about, or whatever else comes near it."""
    error = answer.get("error")
    told = error if isinstance(error, dict) else {"message": error}
    message = _first(told.get("message"), answer.get("message"))
    attribute = _first(told.get("attribute"))
    if message is None:
        return None
    return str(message) if attribute is None else f"attribute {attribute}: {message}"


def _name(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _first(*values: object) -> str | int | None:
    """The first that is text with something in it, or a whole number."""
    for value in values:
        if isinstance(value, bool):
            continue
        if isinstance(value, int) or (isinstance(value, str) and value.strip()):
            return value
    return None


def _shown(value: object, secret: str, limit: int) -> str | None:
    found = _first(value)
    return None if found is None else clean(str(found), secret, limit) or None


def clean(text: str, secret: str, limit: int = 1000) -> str:
    """A stranger's text as one harmless line of at most `limit` characters, without the key in any form.

    Terminal escapes, control characters, bidirectional overrides and everything else that does not print is taken out;
    line breaks become spaces. The key is looked for with any of its characters escaped for JSON, URLs or HTML, and
    within Base64.
    """
    text = _ESCAPES.sub("", _without(text, secret))
    text = " ".join("".join(_printable(character) for character in text).split()) if not text.isprintable() else text
    text = _without(text, secret).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _printable(character: str) -> str:
    return character if character.isprintable() else " " if character.isspace() else ""


def _without(text: str, secret: str) -> str:
    """The text with *** for the key, before and after escapes are taken out: either can hide the other."""
    if not secret:
        return text
    written, cores = _forms(secret)
    if cores:
        text = _BASE64_RUN.sub(lambda run: "***" if any(core in run[0] for core in cores) else run[0], text)
    return written.sub("***", text)


@lru_cache(maxsize=8)
def _forms(secret: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """The key as it may be written out, and as it shows through Base64 at each of three alignments."""
    cores = []
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + secret.encode()).decode()
        # Whatever stands before and after the key decides the characters at the edges: only those between are its own.
        core = coded[(0, 2, 3)[shift] : (shift + len(secret.encode())) * 8 // 6]
        if len(core) >= 4:
            cores += [core, core.translate({ord("+"): "-", ord("/"): "_"})]
    return re.compile(_written(secret), re.IGNORECASE), tuple(dict.fromkeys(cores))


def _written(secret: str) -> str:
    """A pattern for the key in which each character may be escaped on its own, up to four times over.

    Every repetition has a bound, and of neighbours only one takes backslashes in: no text is searched at length.
    """
    parts, room = [], ""
    for character, group in groupby(secret):
        count, spellings = len(list(group)), "|".join(_spellings(character))
        if character == "\\":
            # Escaping doubles them and puts more in front of whatever follows.
            parts.append(f"(?:{spellings}){{{count},{16 * count + 15}}}")
            room = ""
        else:
            parts += [f"{room}(?:{spellings})", rf"\\{{0,15}}(?:{spellings})" * (count - 1)]
            room = r"\\{0,15}"
    return "".join(parts)


def _spellings(character: str) -> list[str]:
    """Patterns for one character: in URLs, JSON and HTML, and as it is."""
    percent = "".join(f"%(?:25){{0,3}}{byte:02x}" for byte in character.encode())
    pairs = character.encode("utf-16-be").hex()
    units = r"\\{1,16}".join(f"u{pairs[at : at + 4]}" for at in range(0, len(pairs), 4))
    number = ord(character)
    names = [name for name, meant in html5.items() if meant == character and name.endswith(";")]
    entity = "|".join([f"#0{{0,6}}{number};", f"#x0{{0,6}}{number:x};", *names])
    plus = [r"\+"] if character == " " else []
    return [percent, rf"\\{units}", rf"&(?:amp;){{0,3}}(?:{entity})", *plus, re.escape(character)]


# --- headers ---------------------------------------------------------------------------------------------------------


def _number(value: object) -> float | None:
    """A plain decimal number that is not negative."""
    match = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    return float(match[0]) if match else None


def _capped(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _retry_after(value: object, now: float) -> float | None:
    """Seconds from now: RFC 9110 has seconds or a date, some servers send decimals."""
    if (seconds := _number(value)) is not None:
        return _capped(seconds)
    if not isinstance(value, str) or len(value) > 100:
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # A date without a zone is in UTC: the old form that RFC 9110 still asks clients to read.
    return _capped((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now)


def _reset_after(value: object, now: float) -> float | None:
    number = _number(value)
    if number is None:
        return None
    return _capped(number - now if number > _EPOCH else number)


def _remaining(value: object) -> int | None:
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


# --- bodies that were compressed all the same ------------------------------------------------------------------------


def decode_body(body: bytes, content_encoding: str) -> bytes:
    """The first `ANSWER_KEPT` bytes of an answer as they were meant.

    `identity` was asked for; gzip and deflate are undone all the same, anything else is left as it is. A body that is
    damaged or endless costs no more than what is kept. Never raises.
    """
    match content_encoding.strip().lower():
        case "gzip" | "x-gzip":
            return _inflate(body, zlib.MAX_WBITS | 16)
        case "deflate":
            # RFC 9110 means zlib's format; some servers leave its two bytes of header out.
            zlib_format = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0
            return _inflate(body, zlib.MAX_WBITS if zlib_format else -zlib.MAX_WBITS)
        case _:
            return body[:ANSWER_KEPT]


def _inflate(body: bytes, wbits: int) -> bytes:
    try:
        return zlib.decompressobj(wbits).decompress(body, ANSWER_KEPT)
    except zlib.error:
        return body[:ANSWER_KEPT]
