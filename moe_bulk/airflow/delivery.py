"""One upload on an event loop and a thread of its own, while the task's main thread waits for it.

Airflow speaks to a task by signals: SIGTERM calls `on_kill`, and a timeout raises where the main thread is. Within a
running event loop that exception would end in whichever callback was under way, where asyncio keeps it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import signal
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from moe_bulk.chronicle import tell
from moe_bulk.errors import Interrupted
from moe_bulk.meter import Meter
from moe_bulk.progress import ASCII_JOINT, line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from moe_bulk.airflow.plan import Plan
    from moe_bulk.config import Credentials
    from moe_bulk.tally import Summary
    from moe_bulk.uploader import Uploader
    from moe_bulk.view import RunView

STOP_SECONDS = 3.0
"""How long a stop takes in what is on its way: Airflow kills a task 5 s after it asked it to end."""
LEAVE_SECONDS = 10.0
"""How long a timeout waits for the stop before it goes on without it."""
LOOK_SECONDS = 1.0
TELL_SECONDS = 60


class Delivery:
    """Carries out a plan into a run folder; `stop` may be called at any time, by a signal handler too."""

    def __init__(self, credentials: Credentials, plan: Plan, out: Path) -> None:
        self._credentials = credentials
        self._plan = plan
        self._out = out
        self._asked = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._halt: Callable[[], None] | None = None
        """Stops the upload while it is under way."""
        self._view: RunView | None = None
        self._outcome: Summary | BaseException | None = None
        self._over = threading.Event()

    @property
    def summary(self) -> Summary | None:
        """The run's summary, once it has ended one way or the other; None where it could not begin."""
        return None if self._view is None else self._view.summary

    def result(self) -> Summary:
        """Deliver it all and return the summary; raises what the upload does.

        Whatever else is raised here meanwhile stops the upload in an orderly way, and leaves when that is done.
        """
        self._loop = asyncio.new_event_loop()
        context = contextvars.copy_context()  # Airflow's loggers look into it
        thread = threading.Thread(target=context.run, args=(self._carry_out,), name="moe_bulk upload", daemon=True)
        thread.start()
        try:
            # not `join`: interrupted by an exception, it takes a running thread for one that has ended
            while not self._over.wait(LOOK_SECONDS):
                pass
        except BaseException:
            self.stop()
            self._over.wait(LEAVE_SECONDS)
            raise
        thread.join()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        assert self._outcome is not None  # noqa: S101  the thread ends with one or the other
        return self._outcome

    def stop(self) -> None:
        """Send no more, take in what is on its way for 3 s at most, and leave a run that the next try goes on with."""
        self._asked = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it is over
                self._loop.call_soon_threadsafe(self._stop)

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _carry_out(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._own_loop) as runner:
                if self._plan.check_first:
                    self._check_first()
                self._outcome = runner.run(self._deliver())
        except BaseException as error:  # noqa: BLE001  the main thread raises it
            self._outcome = _interrupted() if isinstance(error, asyncio.CancelledError) else error
        finally:
            self._over.set()

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None  # noqa: S101  made before the thread was
        return self._loop

    def _check_first(self) -> None:
        from moe_bulk.checking import check, refuse_above  # noqa: PLC0415  brings DuckDB

        plan = self._plan
        findings = check(plan.rows, reading=plan.reading, rate=plan.means.rate, watch=lambda *_: self._leave_if_asked())
        refuse_above(plan.max_failures, findings)

    def _leave_if_asked(self) -> None:
        if self._asked:
            raise _interrupted()

    async def _deliver(self) -> Summary:
        plan = self._plan
        async with plan.means.uploader(self._credentials) as uploader:
            self._leave_if_asked()
            self._halt = partial(_halt, uploader, _this_task())
            telling = asyncio.create_task(self._tell())
            try:
                return await uploader.run(
                    plan.rows,
                    out=self._out,
                    if_changed=plan.if_changed,
                    keep_runs=plan.keep_runs,
                    reading=plan.reading,
                    max_failures=plan.max_failures,
                    changed_only=plan.changed_only,
                    watch=self._watch,
                )
            finally:
                telling.cancel()
                self._halt = None  # what is done is done

    def _watch(self, view: RunView) -> None:
        self._view = view

    async def _tell(self) -> None:
        """Log a line about the run once a minute."""
        meter: Meter | None = None
        loop = asyncio.get_running_loop()
        while True:
            for _ in range(TELL_SECONDS):
                if self._view is not None:
                    meter = meter or Meter(self._view)
                    meter.look(loop.time())
                await asyncio.sleep(1)
            if meter is not None:
                tell(logging.INFO, "progress", line(meter, ASCII_JOINT), {}, meter.view.run_id)

    def _stop(self) -> None:
        if self._halt is not None:
            self._halt()


def _halt(uploader: Uploader, task: asyncio.Task[Summary]) -> None:
    uploader.stop(_interrupted())
    asyncio.get_running_loop().call_later(STOP_SECONDS, task.cancel)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  a coroutine of a running loop is in one
    return task


def _interrupted() -> Interrupted:
    return Interrupted("Airflow asked the task to end", signal.SIGTERM)
