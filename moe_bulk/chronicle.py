"""What happens in a run, as records of the logger `moe_bulk`: for programs that log, and for `--log-json`.

Nothing is configured here. Records hold no value of any row and nothing that the service has said: no id, token or key.
Each has the attributes `event` (one of those below), `run_id` and `fields` beside its message.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

import anyio

from moe_bulk.causes import without_values
from moe_bulk.errors import AccountRefused, CredentialsRejected, DestinationWrong, MoeBulkError
from moe_bulk.standing import version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from moe_bulk.tally import Summary
    from moe_bulk.view import RunView

LOOK_SECONDS = 1.0

LOG = logging.getLogger("moe_bulk")
LOG.addHandler(logging.NullHandler())

_SERVICE_SPEAKS = (AccountRefused, CredentialsRejected, DestinationWrong)
"""Errors whose message repeats what the service said, which may repeat a row."""


def tell(level: int, event: str, message: str, fields: Mapping[str, object], run_id: str | None = None) -> None:
    """Log one event."""
    LOG.log(level, "%s", message, extra={"event": event, "run_id": run_id, "fields": fields})


def said_of(error: BaseException) -> str:
    """What a log may hold of an error: its own words where they are ours, and no value that stands in them."""
    if isinstance(error, _SERVICE_SPEAKS):
        return (type(error).__doc__ or "").partition("\n")[0]
    return without_values(str(error)) if isinstance(error, MoeBulkError) else type(error).__name__


def finished_before(summary: Summary, run_id: str) -> None:
    """There was a finished run of the same: nothing is sent."""
    tell(logging.INFO, "finished_before", "finished before: nothing is sent", _numbers(summary), run_id)


def _numbers(summary: Summary) -> dict[str, object]:
    names = ("exit_code", "sessions", "counts", "requests", "retries", "pauses", "latency_ms")
    return {name: value for name, value in summary.items() if name in names}


class Chronicle:
    """Follows one run from its beginning to its end: enter it around the run, and let it `follow` meanwhile.

    `watch` is who else wants to see the run, and is given it when it begins.
    """

    def __init__(self, view: RunView, watch: Callable[[RunView], None] | None = None) -> None:
        self._view = view
        self._watch = watch
        self._told: set[str] = set()
        self._pauses = view.pauses
        self._since: dict[str, float] = {}
        """Since when there is a pause or an outage."""
        self._stopping = False
        self._looked = 0.0

    def __enter__(self) -> Self:
        view = self._view
        event, message = ("run_begun", "begun") if view.sessions == 1 else ("run_resumed", "taken up again")
        self._tell(
            logging.INFO,
            event,
            f"{message}: at most {view.rate}, into {view.folder.name}",
            folder=str(view.folder),
            moved_to=None if view.moved_to is None else str(view.moved_to),
            session=view.sessions,
            settled=view.tally.settled_rows,
            bytes=view.bytes_read[1],
            limit=view.rate.limit,
            per_seconds=view.rate.per,
            version=version(),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.look(self._looked)
        summary = self._view.summary
        if summary is None:  # what could not even begin is told by what it raised
            return
        level = logging.ERROR if error is not None else logging.WARNING if summary["exit_code"] else logging.INFO
        ended = "ended" if error is None else "stopped, to be gone on with"
        self._tell(
            level,
            "run_ended",
            f"{ended}: exit code {summary['exit_code']}",
            finished="stopped" not in summary,
            error=None if error is None else type(error).__name__,
            reason=without_values(summary.get("stopped", "")) or None if error is None else said_of(error),
            seconds=round(summary["ended_at"] - summary["started_at"], 3),
            **_numbers(summary),
        )

    def begin(self) -> None:
        """Show the run to who else wants to see it."""
        if self._watch is not None:
            self._watch(self._view)

    async def follow(self) -> None:
        """Look once a second until cancelled."""
        while True:
            await anyio.sleep(LOOK_SECONDS)
            self.look(anyio.current_time())

    def look(self, now: float) -> None:
        """Tell what has changed since the last look; `now` is seconds of any clock that never goes back."""
        view, self._looked = self._view, now
        for note in view.warnings:
            if note not in self._told:
                self._told.add(note)
                self._tell(logging.WARNING, "note", without_values(note))
        if view.pauses > self._pauses:
            self._pauses = view.pauses
            self._tell(logging.WARNING, "pause", "MoEngage asked everybody to wait (429)", pauses=view.pauses)
            self._since.setdefault("pause", now)
        if view.outage and "outage" not in self._since:
            self._tell(logging.WARNING, "outage", "MoEngage does not answer: one row at a time asks whether it is back")
            self._since["outage"] = now
        self._over("pause", "sending again, more slowly", now, over=not view.paused)
        self._over("outage", "MoEngage answers again", now, over=not view.outage)
        if view.stopping and not self._stopping and view.summary is None:
            self._stopping = True
            self._tell(logging.WARNING, "stopping", "no more is sent; taking in what is on its way")

    def _over(self, event: str, message: str, now: float, *, over: bool) -> None:
        if over and event in self._since:
            seconds = round(now - self._since.pop(event), 3)
            self._tell(logging.INFO, f"{event}_over", message, seconds=seconds)

    def _tell(self, level: int, event: str, message: str, **fields: object) -> None:
        tell(level, event, message, fields, self._view.run_id)
