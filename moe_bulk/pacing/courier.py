"""Carries questions to the Redis server that keeps the pace, and its answers back; decides nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from moe_bulk.bell import Bell
from moe_bulk.errors import ConfigError
from moe_bulk.pacing.remote import Ask, GiveUp, Knock
from moe_bulk.pacing.reservations import Garbled, script, understood

if TYPE_CHECKING:
    from collections.abc import Callable

    from moe_bulk.clock import Clock
    from moe_bulk.errors import PaceLost
    from moe_bulk.pacing.address import RedisPace
    from moe_bulk.pacing.remote import RemoteWindow, Step
    from moe_bulk.pacing.reservations import Call, Reply, Terms

ANSWER_SECONDS = 3.0
"""How long an answer may take, and a connection."""
LEAVING_SECONDS = 1.0


class Gone(Exception):
    """The server did not answer; the text says why, without its password."""


class Refused(Exception):
    """The server answered that it will not; the text says why, without its password."""


class Store(Protocol):
    """Where reservations are kept."""

    async def knock(self) -> None:
        """See whether it is there; raises Gone or Refused."""

    async def ask(self, call: Call) -> Reply:
        """Put a question; raises Gone or Refused."""

    async def close(self) -> None:
        """Let go of the connection."""


class RedisStore:
    """One Redis server, one hash in it, one connection. Nothing is sent twice by itself: each question counts."""

    def __init__(self, pace: RedisPace, key: str, terms: Terms, ca_bundle: str | None = None) -> None:
        redis = imported()
        from redis.asyncio.retry import Retry  # noqa: PLC0415  for those who share through Redis only
        from redis.backoff import NoBackoff  # noqa: PLC0415

        self._pace = pace
        self._terms = terms
        self._key = key
        tls: dict[str, Any] = {}
        if pace.encrypted:  # redis-py before 6 takes any trusted certificate, whatever host it is for
            tls = {"ssl": True, "ssl_ca_certs": ca_bundle or _authorities(), "ssl_check_hostname": True}
        self._client = redis.asyncio.Redis(
            host=pace.host,
            port=pace.port,
            db=pace.database,
            username=pace.user,
            password=pace.secret,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **tls,
        )
        self._script = self._client.register_script(script())

    async def knock(self) -> None:
        """See whether it is there; raises Gone or Refused."""
        await self._said(self._client.ping)

    async def ask(self, call: Call) -> Reply:
        """Put a question; raises Gone or Refused."""
        answer = await self._said(lambda: self._script(keys=[self._key], args=call.words(self._terms)))
        try:
            return understood(answer)
        except Garbled as error:
            raise Refused(str(error)) from None

    async def info(self, section: str) -> dict[str, Any]:
        """What the server tells of itself; raises Gone or Refused."""
        found = await self._said(lambda: self._client.info(section))
        return dict(found)

    async def knows(self, key: str) -> bool:
        """Whether there is such a hash; raises Gone or Refused."""
        return bool(await self._said(lambda: self._client.exists(key)))

    async def forget(self) -> None:
        """Remove its own hash; raises Gone or Refused."""
        await self._said(lambda: self._client.delete(self._key))

    async def close(self) -> None:
        """Let go of the connection."""
        with suppress(Exception):
            await self._client.aclose()

    async def _said(self, work: Callable[[], Any]) -> Any:
        """What the server says; after any trouble the connection is a new one, so that no late answer is mistaken."""
        try:
            async with asyncio.timeout(2 * ANSWER_SECONDS):
                return await work()
        except Exception as error:  # noqa: BLE001  what answers may be anything: the library trips over it
            trouble = _trouble(error)
        with suppress(Exception):
            await self._client.connection_pool.disconnect()
        raise trouble


def _trouble(error: Exception) -> Gone | Refused:
    """The error in words of ours: what the library and the server say may hold what nobody should see."""
    said = str(error)
    # The library has a class for some refusals, and leaves the first word of the others where it stands.
    known = {*(each.__name__ for each in type(error).__mro__), said.split(" ", 1)[0]}
    if "unauthenticated" in said:  # what comes before the password may not be long
        known.add("AuthenticationError")
    if "out of range" in said or "Invalid Database" in said:
        return Refused("it has no database of that number: the first one is 0, as in redis://HOST:6379/0")
    for words, why in _LASTING.items():
        if known & words:
            return Refused(why)
    for words, why in _PASSING.items():
        if known & words:
            return Gone(why)
    if known & {"ConnectionError", "OSError"}:
        return _no_connection(error)
    return Refused("it does not take the script that keeps the pace: is it Redis 6, or newer, or Valkey?")


def _no_connection(error: BaseException) -> Gone | Refused:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Refused(f"its certificate is not trusted: {cause.verify_message}")
    if isinstance(cause, ssl.SSLError):
        return Refused("it does not speak TLS: its URL may begin with redis:// in place of rediss://")
    if isinstance(cause, socket.gaierror):
        return Gone("its name leads nowhere")
    told = os.strerror(cause.errno).lower() if cause is not None and cause.errno and cause.errno > 0 else ""
    return Gone(told or "the connection was closed")


_PASSING = {
    frozenset({"TimeoutError"}): f"no answer within {ANSWER_SECONDS:g} s",
    frozenset({"OOM", "OutOfMemoryError"}): "its memory is full",
    frozenset({"READONLY", "ReadOnlyError"}): "it is a replica, which takes no changes",
    frozenset({"LOADING", "BusyLoadingError"}): "it is loading its data",
    frozenset({"BUSY"}): "it is busy with another script",
    frozenset({"MISCONF"}): "it takes no changes while it cannot save its data",
    frozenset({"MASTERDOWN", "MasterDownError"}): "it is a replica without its master",
}
"""Refusals that may be over soon."""

_LASTING = {
    frozenset({"AuthenticationError"}): "the user name or the password is wrong, or missing",
    frozenset({"NoPermissionError"}): (
        "this user may not run scripts there, not choose a database, or not use the key moe-bulk:pace:…: the README "
        "lists the rights that are needed"
    ),
    frozenset(
        {"MOVED", "MovedError", "CROSSSLOT", "ClusterCrossSlotError", "CLUSTERDOWN", "ClusterDownError"}
    ): "it belongs to a cluster, which is not supported: name a server of its own",
}


class Courier:
    """Asks for as long as somebody sends."""

    def __init__(self, window: RemoteWindow, store: Store, clock: Clock) -> None:
        self._window = window
        self._store = store
        self._clock = clock
        self._bell = Bell()
        window.wake = self._bell.ring

    async def join(self) -> None:
        """Be known to the server before anything is sent, where it is there; raises ConfigError where it refuses."""
        for _ in range(2):
            if isinstance(step := self._window.step(self._clock.now()), (Knock, Ask)):
                await self._carry(step)
        if self._window.error is not None:
            raise ConfigError(str(self._window.error))

    async def run(self, stop: Callable[[PaceLost], None]) -> None:
        """Carry; when it is over with the server, `stop` is told why."""
        while True:
            step = self._window.step(self._clock.now())
            if isinstance(step, GiveUp):
                stop(step.error)
                return
            await self._carry(step)

    async def leave(self) -> None:
        """Say good-bye: slots that were not used are free for the others, and so is a part of the limit."""
        call = self._window.leave(self._clock.now())
        if call is not None:
            with suppress(Gone, Refused, TimeoutError):
                async with asyncio.timeout(LEAVING_SECONDS):
                    await self._store.ask(call)
        await self._store.close()

    async def _carry(self, step: Step) -> None:
        try:
            if isinstance(step, Knock):
                await self._store.knock()
                self._window.is_there()
            elif isinstance(step, Ask):
                sent = self._clock.now()
                reply = await self._store.ask(step.call)
                self._window.told(reply, sent, self._clock.now())
            elif not isinstance(step, GiveUp):
                await self._bell.wait(max(0.0, step.until - self._clock.now()))
        except Gone as error:
            self._window.failed(str(error), self._clock.now())
        except Refused as error:
            self._window.refused(str(error), self._clock.now())


def imported() -> Any:
    """The package `redis`; raises ConfigError with what to type where it is missing."""
    try:
        import redis.asyncio  # noqa: PLC0415  for those who share through Redis only
    except ImportError:
        raise ConfigError("a pace kept by Redis needs one more package: pip install 'moe-bulk[redis]'") from None
    return redis


def _authorities() -> str:
    import certifi  # noqa: PLC0415  for TLS only

    return certifi.where()
