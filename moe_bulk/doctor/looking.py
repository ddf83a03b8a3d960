"""Making the doctor's observations: each bounded by the timeout, over the same connections as an upload's."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
import threading
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import orjson

from moe_bulk.client import Answer, Client, environment_proxy
from moe_bulk.clock import boot_id, boot_seconds
from moe_bulk.doctor import judging
from moe_bulk.doctor.findings import Certificate, Finding, Plan, Reached, StateFolder, Tried, Worth
from moe_bulk.errors import ConfigError
from moe_bulk.outcome import Verdict
from moe_bulk.pacing.address import RedisPace
from moe_bulk.pacing.host import HostWindow
from moe_bulk.pacing.windowfile import state_folder, window_path
from moe_bulk.wire import clean

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from moe_bulk.config import Credentials, Network, Rate
    from moe_bulk.pacing.sharing import PaceOf

REQUESTS = 10
"""Test connections in all: one with a new connection, the others over that."""

LIMIT_HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after")


async def examine(
    credentials: Credentials,
    rate: Rate,
    network: Network,
    tell: Callable[[Finding], None],
    pace: PaceOf = "host",
) -> list[Finding]:
    """Look at everything that an upload with these settings needs, and `tell` each finding as it is made.

    Raises ConfigError for certificates or a proxy that cannot be used.
    """
    plan = planned(credentials, rate, network)
    findings: list[Finding] = []

    def found(finding: Finding | None) -> None:
        if finding is not None:
            findings.append(finding)
            tell(finding)

    tried: list[Tried] = []
    if await _is_reached(plan, found):
        tried = await _ask(plan, credentials, network.ca_bundle, found)
    if tried and tried[0].outcome.http_status is not None:
        found(judging.judge_clock(tried))
        for judge in _OF_ANSWERS:
            found(judge(plan, tried))
    found(judging.judge_files(plan))
    if isinstance(pace, RedisPace):
        from moe_bulk.doctor.pace import look_at_pace  # noqa: PLC0415  for those who share through Redis only

        found(judging.judge_pace(await look_at_pace(pace, credentials, rate, network)))
    elif pace == "process":
        found(judging.judge_alone())
    else:
        found(judging.judge_state(look_at_state(credentials, rate, plan.timeout)))
    return findings


_OF_ANSWERS = (judging.judge_latency, judging.judge_limits, judging.judge_in_flight)


def planned(credentials: Credentials, rate: Rate, network: Network) -> Plan:
    """What an upload with these settings would do."""
    parts = urlsplit(credentials.base_url)
    proxy = environment_proxy(credentials.base_url)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        in_flight: int | str = network.most_in_flight
    except ConfigError as error:
        in_flight = str(error)
    return Plan(
        workspace_id=credentials.workspace_id,
        host=credentials.host,
        port=parts.port or (443 if parts.scheme == "https" else 80),
        encrypted=parts.scheme == "https",
        rate=rate,
        timeout=network.timeout,
        in_flight=in_flight,
        files=None if files == resource.RLIM_INFINITY else files,
        proxy=None if proxy is None else (proxy.url.host, proxy.url.port or 80),
    )


# --- names and addresses ---------------------------------------------------------------------------------------------


async def _is_reached(plan: Plan, found: Callable[[Finding], None]) -> bool:
    """Look the first host up and connect to it; False where that is the end of the way."""
    host, port = plan.first_stop
    addresses, trouble = await look_up(host, port, plan.timeout)
    found(judging.judge_name(plan, addresses, trouble))
    if not addresses:
        return False
    firsts = [next((each for each in addresses if (":" in each) is six), None) for six in (False, True)]
    reached = await asyncio.gather(*(reach(each, port, plan.timeout) for each in firsts if each is not None))
    network = judging.judge_network(plan, reached)
    found(network)
    return network.worth is not Worth.FAIL


async def look_up(
    host: str, port: int, within: float, resolve: Callable[..., Sequence[tuple[Any, ...]]] = socket.getaddrinfo
) -> tuple[list[str], str]:
    """The host's addresses, or why there are none.

    In a thread that nobody waits for: a name server that does not answer must not hold up the end of the program.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str] | str] = loop.create_future()

    def settle(value: list[str] | str) -> None:
        if not answer.done():
            answer.set_result(value)

    def look() -> None:
        try:
            found = resolve(host, port, type=socket.SOCK_STREAM)
            value: list[str] | str = list(dict.fromkeys(str(each[4][0]) for each in found))
        except (OSError, UnicodeError) as error:
            value = getattr(error, "strerror", None) or str(error)
        with suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(settle, value)

    threading.Thread(target=look, name="look-up", daemon=True).start()
    with anyio.move_on_after(within):
        found = await answer
        return ([], found) if isinstance(found, str) else (found, "")
    return [], f"no answer within {within:g} s"


async def reach(address: str, port: int, within: float) -> Reached:
    """Connect to one address, and say nothing there."""
    started = time.monotonic()
    try:
        with anyio.fail_after(within):
            stream = await anyio.connect_tcp(address, port)
            seconds = time.monotonic() - started
            await stream.aclose()
    except TimeoutError:
        return Reached(address, None, f"no answer within {within:g} s")
    except OSError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        return Reached(address, None, os.strerror(cause.errno) if cause.errno else str(cause))
    return Reached(address, seconds)


# --- MoEngage itself -------------------------------------------------------------------------------------------------


async def _ask(
    plan: Plan, credentials: Credentials, ca_bundle: str | None, found: Callable[[Finding | None], None]
) -> list[Tried]:
    """Try the key once; where it is right, ask some more for the latency, one request after the other."""
    tried: list[Tried] = []
    async with Client(credentials, plan.timeout, time.time, ca_bundle=ca_bundle) as client:
        answer = Answer()
        tried.append(await try_once(client.try_connection, answer, credentials.api_key))
        found(judging.judge_tls(plan, tried[0], _certificate(answer, credentials.api_key), time.time()))
        if tried[0].outcome.error not in ("certificate refused", "TLS failure"):
            found(judging.judge_key(plan, tried[0]))
        while tried[-1].outcome.verdict is Verdict.ACCEPTED and len(tried) < REQUESTS:
            tried.append(await try_once(client.try_connection, Answer(), credentials.api_key))
    return tried


async def try_once(ask: Callable[[Answer], Awaitable[Any]], answer: Answer, secret: str) -> Tried:
    """One Test connection, timed by both clocks."""
    epoch, started = time.time(), time.monotonic()
    outcome = await ask(answer)
    seconds = time.monotonic() - started
    headers = answer.headers
    limits = {name: clean(headers[name], secret, 100) for name in LIMIT_HEADERS if name in headers}
    return Tried(outcome, epoch, seconds, _date(headers.get("date")), limits, _app_name(answer.body, secret))


def _date(said: str | None) -> float | None:
    with suppress(ValueError, TypeError, IndexError, OverflowError):
        return parsedate_to_datetime(said[:100]).timestamp() if said else None
    return None


def _app_name(body: bytes, secret: str) -> str:
    with suppress(ValueError):
        told = orjson.loads(body)
        if isinstance(told, dict) and isinstance(told.get("app_name"), str):
            return clean(told["app_name"], secret, 100)
    return ""


def _certificate(answer: Answer, secret: str) -> Certificate | None:
    """What the upload's own connection was shown; its texts are a stranger's."""
    told = answer.certificate
    if not isinstance(told.get("notAfter"), str):
        return None
    issuer = {name: value for part in told.get("issuer", ()) for name, value in part}
    name = issuer.get("organizationName") or issuer.get("commonName") or "an unnamed authority"
    return Certificate(float(ssl.cert_time_to_seconds(told["notAfter"])), clean(str(name), secret, 100))


# --- this machine ----------------------------------------------------------------------------------------------------


def look_at_state(credentials: Credentials, rate: Rate, timeout: float) -> StateFolder:
    """Do with a window of the doctor's own what an upload does with the shared one, and remove it."""
    folder = state_folder()
    mark = f"{boot_id() or 'unknown'}.{os.urandom(6).hex()}"
    path = window_path(folder, credentials.address, "doctor", mark)
    now = boot_seconds()
    try:
        window = HostWindow(path, rate, timeout, now)
        try:
            window.tick(now)
            notes = tuple(window.notes)
        finally:
            window.close(now)
            path.unlink(missing_ok=True)
    except OSError as error:
        return StateFolder(folder, str(error.strerror or error))
    return StateFolder(folder, notes=notes)
