"""What there is to see of a run while it goes on: for displays, metrics and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from moe_bulk.waiting import Standstill, Waits, waits_for

if TYPE_CHECKING:
    from pathlib import Path

    from moe_bulk.config import Rate
    from moe_bulk.engine import Engine
    from moe_bulk.intake import Intake
    from moe_bulk.run import Run
    from moe_bulk.tally import Summary, Tally


class PaceView(Protocol):
    """What there is to see of the pace."""

    @property
    def rate(self) -> Rate:
        """The limit."""

    @property
    def paused(self) -> bool:
        """True while everybody waits because the service asked for it."""

    @property
    def pace_share(self) -> float:
        """How much of the limit the pace makes use of: less than 1 for a while after the service said 429."""

    @property
    def waits_for_redis(self) -> bool:
        """True while nothing is sent because of the Redis server that keeps the pace."""

    @property
    def notes(self) -> list[str]:
        """What people should know about the pace that is shared with other processes."""


class RunView:
    """One run while it goes on, for those who show it; nothing here can be changed."""

    def __init__(self, run: Run, intake: Intake, engine: Engine, pace: PaceView) -> None:
        self.folder: Path = run.folder
        self.moved_to = run.moved_to
        """Where an earlier run in this folder went, if there was one."""
        self.run_id = run.id
        """What tells the run from others, the same in all its sessions: twelve hexadecimal digits."""
        self.started_at = run.started_at
        """When the run's first session began, epoch seconds."""
        self._run = run
        self._intake = intake
        self._engine = engine
        self._pace = pace

    @property
    def tally(self) -> Tally:
        """The run's numbers, up to this moment."""
        return self._run.tally

    @property
    def summary(self) -> Summary | None:
        """The summary, once the run has ended one way or the other."""
        return self._run.summary

    @property
    def sessions(self) -> int:
        """How often the run was begun or taken up again."""
        return self._run.tally.sessions

    @property
    def warnings(self) -> list[str]:
        """What people should know about the input, the disk and the pace, so far."""
        return [*self._pace.notes, *self._intake.warnings, *self._run.warnings]

    @property
    def rate(self) -> Rate:
        """The limit."""
        return self._pace.rate

    @property
    def pace_share(self) -> float:
        """How much of the limit the pace makes use of: less than 1 for a while after MoEngage said 429."""
        return self._pace.pace_share

    @property
    def bytes_read(self) -> tuple[int, int | None]:
        """Bytes of the input read so far and in all, where that is known."""
        return self._intake.progress

    @property
    def rows_expected(self) -> float | None:
        """How many rows there are in all, about, where somebody can know."""
        return self._intake.rows_expected

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return self._engine.in_flight

    @property
    def retrying(self) -> int:
        """Rows that wait to be tried again."""
        return self._engine.agenda.retrying

    @property
    def parked(self) -> int:
        """Rows that wait behind earlier ones of their device, or for their users' limits."""
        return self._engine.agenda.lanes.parked

    @property
    def pauses(self) -> int:
        """How often everybody had to wait because the service asked for it, in all sessions so far."""
        return self._run.pauses

    @property
    def settled_at(self) -> float | None:
        """When this session last settled a row, epoch seconds."""
        return self._run.settled_at

    @property
    def seconds_writing(self) -> float:
        """How long writing results has kept this session from everything else."""
        return self._run.seconds_writing

    @property
    def outage(self) -> bool:
        """True while the service counts as gone."""
        return self._engine.outage

    @property
    def paused(self) -> bool:
        """True while everybody waits because the service asked for it."""
        return self._pace.paused

    @property
    def waits_for_redis(self) -> bool:
        """True while nothing is sent because of the Redis server that keeps the pace."""
        return self._pace.waits_for_redis

    @property
    def stopping(self) -> bool:
        """True once no more is sent although rows are left."""
        return self._engine.stopped_by is not None or self._run.too_many() is not None

    @property
    def waits_for(self) -> Waits | None:
        """What keeps the run from going faster at this moment; None where that is nothing but this machine."""
        if self.summary is not None:
            return None
        settled = self.tally.counts["unsettled"] == 0
        known = Standstill(self.stopping, self.paused, self.waits_for_redis, self._intake.ended, settled)
        return waits_for(self._engine, known)
