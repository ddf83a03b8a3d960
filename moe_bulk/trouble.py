"""What went wrong on the way, in words that stay the same whichever library said it."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import aiohttp
import httpx

from moe_bulk import wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from moe_bulk.config import Secret
    from moe_bulk.outcome import Outcome


def judge_error(error: Exception, secrets: Sequence[Secret]) -> Outcome:
    """The outcome of an attempt in which a transport raised this; its words hold none of the secrets."""
    chain = list(_causes(error))
    name = _name(chain)
    said = _said(chain, name)
    for secret in secrets:
        said = wire.clean(said, secret.reveal())
    return wire.trouble(name, f"{name}; {said}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error as it was raised, and what each was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _name(chain: Sequence[BaseException]) -> str:
    for kind, name in _NAMES:
        if any(isinstance(error, kind) for error in chain):
            return name
    return "unexpected error"


def _said(chain: Sequence[BaseException], name: str) -> str:
    for error in chain:
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return f"the proxy answered {error.status}"
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return "the server closed the connection without a whole answer"
    texts = [error.message if isinstance(error, _SAYING) else str(error) for error in chain]
    said = next(filter(None, texts), type(chain[-1]).__name__)
    # Behind the colon the libraries quote what the server sent, and cut it: half a key would not be known for one.
    return said.partition(":")[0] if name == "broken answer" else said


_SAYING = (aiohttp.ClientResponseError, aiohttp.http_exceptions.HttpProcessingError)
"""These put what they are about around what they say."""

_NAMES: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLCertVerificationError, "certificate refused"),
    (aiohttp.ClientProxyConnectionError, "proxy failure"),
    (aiohttp.ClientHttpProxyError, "proxy failure"),
    (httpx.ProxyError, "proxy failure"),
    (ssl.SSLError, "TLS failure"),
    (socket.gaierror, "name not resolved"),
    (aiohttp.ClientConnectorDNSError, "name not resolved"),
    (ConnectionRefusedError, "connection refused"),
    (aiohttp.ClientPayloadError, "broken answer"),
    (aiohttp.ClientResponseError, "broken answer"),
    (aiohttp.http_exceptions.HttpProcessingError, "broken answer"),
    (httpx.ProtocolError, "broken answer"),
    (httpx.DecodingError, "broken answer"),
    (TimeoutError, "timeout"),
    (aiohttp.ClientConnectorError, "no connection"),
    # httpx-aiohttp says ConnectTimeout for any of these, also where the request had arrived.
    (aiohttp.ClientConnectionError, "connection lost"),
    (httpx.TimeoutException, "timeout"),
    (httpx.ConnectError, "no connection"),
    (httpx.NetworkError, "connection lost"),
    (OSError, "connection lost"),
)
"""The first that fits any error of the chain."""
