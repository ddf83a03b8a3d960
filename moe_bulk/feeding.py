"""Rows into a channel, as there is room: those to be sent, and the results of those that are not."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import groupby
from typing import TYPE_CHECKING, cast

from moe_bulk.columns import Unsent
from moe_bulk.errors import JournalError, SourceError
from moe_bulk.outcome import Result
from moe_bulk.record import Position

if TYPE_CHECKING:
    from collections.abc import Callable

    from moe_bulk.channel import Channel
    from moe_bulk.clock import Clock
    from moe_bulk.intake import Intake
    from moe_bulk.intake.reading import Batch
    from moe_bulk.record import Record
    from moe_bulk.run import Run


async def feed(
    intake: Intake, channel: Channel, clock: Clock, run: Run | None, halt: Callable[[JournalError], None]
) -> None:
    """Read rows into the channel while there is room; whatever ends the reading is told to who reads the results.

    `halt` is told of what cannot be written down: then nothing more is sent.
    """
    try:
        async with aclosing(intake.batches()) as batches:
            async for batch in batches:
                rows = batch if run is None else run.judge(batch)
                while rows:
                    if not channel.room and not await channel.wait_for_room():
                        return
                    room = channel.room
                    _take_in(rows[:room], channel, clock, run)
                    rows = rows[room:]
        channel.end()
    except asyncio.CancelledError:
        # Where it was not us, who leave the channel, nobody else would end it.
        channel.end(SourceError("the rows cannot be read on: what they were waiting for was cancelled"))
        raise
    except JournalError as error:  # what cannot be written down is not sent, rows that were taken in before included
        halt(error)
    except Exception as error:  # noqa: BLE001  the caller's own iterable may raise anything: it is the caller's to see
        channel.end(error)


def _take_in(rows: Batch, channel: Channel, clock: Clock, run: Run | None) -> None:
    for kind, alike in groupby(rows, type):
        some = list(alike)
        if kind is Position:
            if run is not None:
                run.skip(*cast("list[Position]", some))
            continue
        if run is not None:
            run.take_in(*[made.row.position for made in cast("list[Record | Unsent]", some)])
        if kind is Unsent:
            channel.pass_on(*[_unsent(made, clock) for made in cast("list[Unsent]", some)])
        else:
            channel.put(*cast("list[Record]", some))


def _unsent(made: Unsent, clock: Clock) -> Result:
    return Result(
        position=made.row.position,
        status=made.status,
        row=made.row,
        customer_id=made.customer_id,
        device_id=made.device_id,
        reason=made.reason,
        settled_at=clock.epoch(),
        mapping=made.mapping,
        keys=made.keys,
    )
