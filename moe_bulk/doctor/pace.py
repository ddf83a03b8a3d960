"""Looking at the Redis server that keeps the pace of several hosts: in a hash of the doctor's own, removed again."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

from moe_bulk.doctor.findings import PaceServer
from moe_bulk.errors import ConfigError
from moe_bulk.pacing.courier import Gone, RedisStore, Refused
from moe_bulk.pacing.reservations import Call, Granted, Terms, key_of

if TYPE_CHECKING:
    from moe_bulk.config import Credentials, Network, Rate
    from moe_bulk.pacing.address import RedisPace

QUESTIONS = 10
"""How often it is asked, for the time that an answer takes."""


async def look_at_pace(pace: RedisPace, credentials: Credentials, rate: Rate, network: Network) -> PaceServer:
    """Do there what an upload does, under another name."""
    terms = Terms("doctor", rate, network.timeout)
    try:
        store = RedisStore(pace, f"moe-bulk:pace:doctor-{os.urandom(6).hex()}", terms, network.ca_bundle)
    except ConfigError as error:
        return PaceServer(pace.place, str(error), missing=True)
    try:
        return await _ask(store, pace.place, key_of(credentials.address, credentials.workspace_id), terms)
    except (Gone, Refused) as error:
        return PaceServer(pace.place, str(error))
    finally:
        await store.close()


async def _ask(store: RedisStore, place: str, key: str, terms: Terms) -> PaceServer:
    await store.knock()
    seconds: list[float] = []
    generation, turn = "", 0
    try:
        for _ in range(QUESTIONS):
            started = time.monotonic()
            reply = await store.ask(Call(generation, turn))
            seconds.append(time.monotonic() - started)
            if isinstance(reply, Granted):
                generation, turn = reply.generation, reply.turn
    finally:
        await store.forget()
    wait = 0.0 if await store.knows(key) else terms.whole
    try:
        told = {**await store.info("server"), **await store.info("memory")}
    except (Gone, Refused):
        told = {}
    version, policy = (str(told.get(name, "")) for name in ("redis_version", "maxmemory_policy"))
    version = version if re.fullmatch(r"[0-9.]{1,20}", version) else ""
    return PaceServer(place, seconds=tuple(seconds[1:]), version=version, policy=policy, told=bool(told), wait=wait)
