"""With whom a limit is shared: with nobody, with this user's processes on this machine, or with any through Redis."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from moe_bulk.errors import ConfigError
from moe_bulk.pacing.address import SCHEMES, RedisPace
from moe_bulk.pacing.pace import Pace

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from moe_bulk.clock import Clock
    from moe_bulk.config import Credentials, Network, Rate, Retry
    from moe_bulk.pacing.courier import Courier
    from moe_bulk.pacing.remote import RemoteWindow

PaceOf: TypeAlias = "str | RedisPace"
"""Whose requests the limit is kept for: `process`, those of this one; `host`, all of this user's on this machine; the
URL of a Redis server or a `RedisPace`, those of all who name that server."""

MARGIN = 30.0
"""Seconds for which a part of the limit is kept free on top of the time that somebody may send without being heard."""


def checked(pace: PaceOf) -> PaceOf:
    """The same, a URL as a `RedisPace`; raises ConfigError for what is neither."""
    if isinstance(pace, RedisPace):
        return pace
    if pace.startswith(SCHEMES):
        return RedisPace(pace)
    if pace not in ("process", "host"):
        said = pace.partition(":")[0][:20]
        raise ConfigError(
            f"there is no pace {said!r}: it is process or host, whose limit it keeps, or the URL of a Redis server "
            "(redis://…), which keeps it for several hosts"
        )
    return pace


@dataclass(frozen=True, slots=True)
class Party:
    """Who sends: to where, how fast, how patiently, by which clock."""

    credentials: Credentials
    rate: Rate
    network: Network
    retry: Retry
    clock: Clock


@dataclass(frozen=True, slots=True)
class Shared:
    """A pace, what people should know about it, and where it is kept when Redis keeps it."""

    pace: Pace
    notes: list[str] = field(default_factory=list)
    window: RemoteWindow | None = None
    courier: Courier | None = None

    def waits(self, now: float) -> bool:
        """Whether nothing can be sent because of Redis."""
        return self.window is not None and self.window.waits(now)


async def share(pace: PaceOf, party: Party, stack: AsyncExitStack) -> Shared:
    """The pace that is shared so, until the stack is closed; raises ConfigError where Redis refuses."""
    if isinstance(pace, RedisPace):
        return await _through_redis(pace, party, stack)
    timeout, now = party.network.timeout, party.clock.now()
    if pace == "process":
        return Shared(Pace(party.rate, timeout))
    from moe_bulk.pacing.host import open_window  # noqa: PLC0415  for those who share only

    window, notes = open_window(party.credentials.address, party.credentials.workspace_id, party.rate, timeout, now)
    if window is not None:
        stack.callback(lambda: window.close(party.clock.now()))
    return Shared(Pace(party.rate, timeout, window), notes)


async def _through_redis(pace: RedisPace, party: Party, stack: AsyncExitStack) -> Shared:
    from moe_bulk.pacing.courier import Courier, RedisStore  # noqa: PLC0415  for those who share through Redis only
    from moe_bulk.pacing.remote import RemoteWindow  # noqa: PLC0415
    from moe_bulk.pacing.reservations import Terms, key_of  # noqa: PLC0415

    timeout, patience = party.network.timeout, party.retry.outage_limit
    terms = Terms(os.urandom(8).hex(), party.rate, timeout, pace.share, patience + MARGIN)
    window = RemoteWindow(terms, pace.place, patience, party.clock.now())
    key = key_of(party.credentials.address, party.credentials.workspace_id)
    courier = Courier(window, RedisStore(pace, key, terms, party.network.ca_bundle), party.clock)
    stack.push_async_callback(courier.leave)
    await courier.join()
    return Shared(Pace(party.rate, timeout, window), window.notes, window, courier)
