"""What MoEngage answers, as bytes: success, refusals in its shape, and what its gateways say on a bad day. Pure."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    from .rules import Refusal

JSON = "application/json"
HTML = "text/html; charset=utf-8"


class Answer(NamedTuple):
    """One answer: status, body, its type, further headers, and MoEngage's `error.type` where it is a failure."""

    status: int
    body: bytes
    media_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    error_type: str | None = None

    def with_headers(self, *headers: tuple[str, str]) -> Answer:
        """Give the same answer with more headers."""
        return self._replace(headers=self.headers + headers)


SUCCESS = Answer(
    200,
    orjson.dumps({"status": "success", "message": "Your request has been accepted and will be processed soon."}),
)
CONNECTED = Answer(200, orjson.dumps({"status": "success", "app_name": "Sandbox"}))
BROKEN = Answer(200, b"<html><body><h1>Please sign in to this network</h1></body></html>", HTML)

# error.type and message: https://www.moengage.com/docs/api/device/track-device; spellings differ between its pages.
_FAILURES = {
    400: ("ValueError", "the request was refused by a fault of the sandbox"),
    401: ("Authentication required", "App Secret key mismatch. Please login to the dashboard to verify key"),
    403: ("BlockedClient", "Your account is blocked. Please contact MoEngage team."),
    404: ("NotFound", "The requested URL was not found"),
    405: ("MethodNotAllowed", "The method is not allowed for the requested URL"),
    408: ("RequestTimeout", "The request took too long to arrive"),
    409: ("Authentication Mismatch", "The credentials belong to another workspace"),
    413: ("PayloadTooLarge", "Payload size exceeds 128 KB"),
    415: ("MediaTypeError", "Unsupported Media Type"),
    425: ("TooEarly", "The request came too early"),
    429: ("Rate Limits Exceeded", "You have exceeded the rate limit of this workspace"),
}
_REDIRECTS = (301, 302, 303, 307, 308)
_GATEWAY = (502, 503, 504)
FAULT_STATUSES = frozenset({*_FAILURES, *_REDIRECTS, *_GATEWAY, 500})


def refused(refusal: Refusal, request_id: str) -> Answer:
    """Put a refusal into MoEngage's shape."""
    error = {"type": refusal.type, "message": refusal.message, "request_id": request_id}
    if refusal.attribute is not None:
        error["attribute"] = refusal.attribute
    return _failed(refusal.status, error)


def not_a_success(request_id: str) -> Answer:
    """Answer 200 with a status other than success."""
    return _failed(200, {"type": "Internal Error", "message": "Please try again later.", "request_id": request_id})


def with_status(status: int, request_id: str) -> Answer:
    """Answer with any of FAULT_STATUSES, as MoEngage or a gateway before it would."""
    if status in _FAILURES:
        kind, message = _FAILURES[status]
        return _failed(status, {"type": kind, "message": message, "request_id": request_id})
    if status in _REDIRECTS:
        return Answer(status, b"", HTML, (("Location", "/elsewhere"),))
    if status == 500:
        body = {"status": "fail", "title": "Internal Error", "description": "Please contact the MoEngage team."}
        return Answer(500, orjson.dumps(body))
    phrase = HTTPStatus(status).phrase
    return Answer(status, f"<html><body><h1>{status} {phrase}</h1></body></html>".encode(), HTML)


def too_many(request_id: str, retry_after: float | None) -> Answer:
    """Answer 429, with Retry-After in whole seconds (rounded up, at least 1) or without it."""
    answer = with_status(429, request_id)
    if retry_after is None:
        return answer
    return answer.with_headers(("Retry-After", str(max(1, math.ceil(retry_after)))))


def encode(answer: Answer, *, keep_alive: bool = True) -> bytes:
    """Write an answer as HTTP/1.1."""
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        f"Content-Type: {answer.media_type}",
        f"Content-Length: {len(answer.body)}",
        *(f"{name}: {value}" for name, value in answer.headers),
    ]
    if not keep_alive:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "\r\n"]).encode() + answer.body


def encode_half(answer: Answer) -> bytes:
    """Write an answer that breaks off in the middle of its body."""
    whole = encode(answer)
    return whole[: len(whole) - len(answer.body) // 2 - 1]


def _failed(status: int, error: dict[str, str]) -> Answer:
    return Answer(status, orjson.dumps({"status": "fail", "error": error}), error_type=error["type"])
