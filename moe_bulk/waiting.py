"""Why a run does not go faster just now: read off what its parts are doing at this moment. Plain code."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from moe_bulk.channel import RETRYING_ASIDE

if TYPE_CHECKING:
    from moe_bulk.engine import Engine


class Waits(StrEnum):
    """What a run waits for; the values are part of what machines read."""

    STOP = "stop"
    """It was asked to stop, and takes in what is on its way."""
    OUTAGE = "outage"
    """The service is gone: one record at a time asks whether it is back."""
    PAUSE = "pause"
    """The service asked everybody to wait (429)."""
    REDIS = "redis"
    """The Redis server that keeps the pace of several hosts: it is away, or does not know what was sent before."""
    LATENCY = "latency"
    """As many requests are on their way as may be: the answers take their time."""
    PACE = "pace"
    """The limit: nothing else is in the way."""
    USER = "user"
    """The rows at hand are of users who were sent nearly all that the service allows them."""
    ORDER = "order"
    """Rows wait behind earlier ones of the same device, token or advertising id."""
    RETRY = "retry"
    """Rows wait to be tried again."""
    ANSWERS = "answers"
    """Everything is sent: the last answers are to come."""
    ROWS = "rows"
    """The source: no row is at hand."""
    END = "end"
    """Every row is settled: the dead letters are put in order."""
    DISK = "disk"
    """Most of the time goes into writing results."""


@dataclass(frozen=True, slots=True)
class Standstill:
    """What only the run itself knows: whether it stops, all pause, Redis is waited for, all is read, all is settled."""

    stopping: bool
    paused: bool
    redis: bool
    read_out: bool
    settled: bool


def waits_for(engine: Engine, known: Standstill) -> Waits | None:
    """The one thing that keeps the run from going faster; None where that is nothing but this machine."""
    if known.stopping:
        return Waits.STOP
    if engine.outage:
        return Waits.OUTAGE
    if known.paused or (known.redis and engine.gate == "slot"):
        return Waits.PAUSE if known.paused else Waits.REDIS
    if engine.in_flight >= engine.most_in_flight:
        return Waits.LATENCY
    if engine.gate in ("pace", "slot"):
        return Waits.PACE
    return _without_an_entry(engine, known) if engine.gate == "entry" else None


def _without_an_entry(engine: Engine, known: Standstill) -> Waits:
    """Why there is no record that could be sent."""
    agenda = engine.agenda
    if known.read_out and known.settled:
        return Waits.END
    if agenda.lanes.full or (known.read_out and agenda.lanes.parked):
        return Waits.USER if agenda.held_back else Waits.ORDER
    # A stream takes in no more rows than it has room for; those that wait to be tried again take it up, but for some.
    room = engine.room + RETRYING_ASIDE
    if agenda.retrying and (known.read_out or agenda.retrying + engine.in_flight >= room):
        return Waits.RETRY
    return Waits.ANSWERS if known.read_out else Waits.ROWS
