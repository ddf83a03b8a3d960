"""Deliver device records: the one place where sources, engine, pace, client and run folder meet.

`upload` ⊃ `Uploader.run` ⊃ `Uploader.stream`: each is a few lines over the next.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio

from moe_bulk import wire
from moe_bulk.chronicle import Chronicle, finished_before
from moe_bulk.clock import Clock
from moe_bulk.config import Credentials, Network, Rate, Retry
from moe_bulk.engine import Engine
from moe_bulk.errors import ConfigError, Interrupted, JournalError, MoeBulkError, SourceError
from moe_bulk.feeding import feed
from moe_bulk.intake import Files, Intake, Query, Reading, Rows
from moe_bulk.naming import default_out
from moe_bulk.pacing import Pace
from moe_bulk.pacing.sharing import Party, Shared, checked, share
from moe_bulk.retry import Policy
from moe_bulk.reuse import settings_that_matter
from moe_bulk.run import Run
from moe_bulk.rundir import RunFolder, refuse_unfinished_letters
from moe_bulk.sources import QUERY
from moe_bulk.standing import Job, Standing, Terms, take_up, version
from moe_bulk.users import Users
from moe_bulk.view import RunView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from types import TracebackType

    import httpx

    from moe_bulk.channel import Channel
    from moe_bulk.config import FailureLimit
    from moe_bulk.errors import RunStopped
    from moe_bulk.known import ChangedOnly
    from moe_bulk.outcome import Result
    from moe_bulk.pacing.sharing import PaceOf
    from moe_bulk.reuse import IfChanged
    from moe_bulk.screening import Screen
    from moe_bulk.tally import Summary

INTERRUPTED = 130
"""The exit code of a run that was cancelled: 128 + SIGINT."""


class Results:
    """The results of one stream, as they settle: `async for result in results`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._taken: list[Result] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        if not self._taken:
            self._taken = (await self._channel.receive())[::-1]
        if not self._taken:
            raise StopAsyncIteration
        return self._taken.pop()


class Uploader:
    """Delivers device records to one workspace; all its streams share one pace and one order.

    >>> async with Uploader(credentials, rate=Rate(8_000, per=60)) as uploader:
    ...     async with uploader.stream(rows) as results:
    ...         async for result in results:
    ...             print(result.position, result.status)

    Without `credentials` they come from the environment (`MOENGAGE_WORKSPACE_ID`, `MOENGAGE_API_KEY`,
    `MOENGAGE_DATA_CENTER`). `transport` or `client` are the caller's own httpx objects: they are used and not closed.
    With `pace="host"` the limit holds for all of this user's processes here that send to the workspace that way; with
    the URL of a Redis server, or a `RedisPace`, for all that name that server; otherwise for this Uploader alone.
    """

    def __init__(  # noqa: PLR0913  what an upload needs, each of it optional
        self,
        credentials: Credentials | None = None,
        *,
        rate: Rate | None = None,
        retry: Retry | None = None,
        network: Network | None = None,
        client: httpx.AsyncClient | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
        pace: PaceOf = "process",
    ) -> None:
        if client is not None and transport is not None:
            raise ConfigError("pass either a client or a transport: the client has a transport of its own")
        self._credentials = credentials or Credentials.from_environment(os.environ)
        self.rate = rate or Rate()
        self._clock = clock or Clock.system()
        self._party = Party(self._credentials, self.rate, network or Network(), retry or Retry(), self._clock)
        self._pace_of = checked(pace)
        self._shared = Shared(Pace(self.rate, self._party.network.timeout))
        self._policy = Policy(self._party.retry)
        self._users = Users(self._party.network.timeout)
        self._client = client
        self._transport = transport
        self._stack = AsyncExitStack()
        self._entered = False
        self._engine: Engine | None = None

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("this Uploader was entered before: make a new one")
        self._entered = True
        from moe_bulk.client import Client  # noqa: PLC0415  the HTTP stack takes 150 ms to import

        network = self._party.network
        client = Client(
            self._credentials,
            network.timeout,
            self._clock.epoch,
            transport=self._transport,
            http=self._client,
            ca_bundle=network.ca_bundle,
            user_agent=f"moe-bulk/{version()}",
        )
        async with AsyncExitStack() as stack:
            shared = self._shared = await share(self._pace_of, self._party, stack)
            await stack.enter_async_context(client)
            engine = Engine(client.attempt, shared.pace, self._policy, self._users, self._clock, network.most_in_flight)
            self._engine = await stack.enter_async_context(engine)
            if shared.courier is not None:
                await stack.enter_async_context(engine.beside(partial(shared.courier.run, engine.stop)))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._engine = None
        return await self._stack.__aexit__(kind, error, traceback)

    @property
    def notes(self) -> list[str]:
        """What people should know about the pace that is shared with other processes."""
        return self._shared.notes

    @property
    def waits_for_redis(self) -> bool:
        """True while nothing is sent because of the Redis server that keeps the pace."""
        return self._shared.waits(self._clock.now())

    @property
    def engine(self) -> Engine:
        """What delivers; it is there while the Uploader is open."""
        if self._engine is None:
            raise RuntimeError("this Uploader is not open: use it within `async with Uploader(…) as uploader`")
        return self._engine

    @property
    def paused(self) -> bool:
        """True while everybody waits because the service asked for it."""
        return self._clock.now() < self._shared.pace.throttle.paused_until

    def epoch(self) -> float:
        """The time of day by the Uploader's clock, epoch seconds."""
        return self._clock.epoch()

    @property
    def pace_share(self) -> float:
        """How much of the limit the pace makes use of: less than 1 for a while after the service said 429."""
        return self._shared.pace.throttle.share(self._clock.now())

    def stop(self, error: RunStopped) -> None:
        """Stop orderly: send no more, take in what is on its way (at most 8 s), then raise `error` in every stream."""
        self.engine.stop(error)

    @asynccontextmanager
    async def stream(self, rows: Rows, *, reading: Reading | None = None) -> AsyncIterator[Results]:
        """Deliver `rows` and yield their results as they settle; whoever reads them slowly slows the delivery.

        `rows` is a path, a table (pandas, polars, Arrow) or any (async) iterable of mappings. Leaving the block early
        sends no more of them, and closes them if they are a generator. Raises SourceError where a file cannot be read
        and what the iterable itself raises, each after the results of the rows before, and RunStopped where the run
        cannot go on.
        """
        engine = self.engine
        _refuse_unfinished(rows)
        intake = Intake(rows, reading or Reading())
        try:
            await intake.open()
            async with self._delivering(engine, intake) as channel:
                yield Results(channel)
        finally:
            await intake.close()

    async def send(self, fields: Mapping[str, object]) -> Result:
        """Deliver one device and return its result; waits its turn behind others of the same device or token."""
        async with self.stream([fields]) as results:
            return await anext(results)

    async def run(  # noqa: PLR0913  one for each option of the command line
        self,
        rows: Rows,
        *,
        out: str | os.PathLike[str] | None = None,
        fresh: bool = False,
        if_changed: IfChanged = "refuse",
        keep_runs: int | None = None,
        reading: Reading | None = None,
        max_failures: FailureLimit | None = None,
        changed_only: ChangedOnly | None = None,
        watch: Callable[[RunView], None] | None = None,
        also: Mapping[str, object] | None = None,
    ) -> Summary:
        """Deliver `rows` into a run folder: results, dead letters and a summary, which is returned.

        `out` is the folder (for a path, `<path>.run` beside it when missing). An unfinished run in it goes on where it
        stopped, a finished one of the same is not sent again: its summary is returned. A finished run of other data is
        moved aside, and all but `keep_runs` of those are removed; an unfinished one raises RunRefused, unless
        `if_changed` is `fresh`, and so does a run with other settings; `fresh` moves any aside. With `changed_only` no
        device is sent that MoEngage accepted before just as it is; what streams and sends deliver is not seen by that.
        `watch` is given a view of the run as it starts, `also` stands with the settings in the summary; a stop raises
        RunStopped and leaves the summary there and in the folder.
        """
        engine, reading = self.engine, reading or Reading()
        terms = Terms(fresh, if_changed, keep_runs)
        folder_path = _out(rows, out)
        _refuse_unfinished(rows)
        intake = Intake(rows, reading, keep_in=folder_path.absolute().parent)
        settings = settings_that_matter(
            self._credentials, reading.columns, reading.format, changed_only=changed_only is not None
        )
        job = Job(
            intake,
            self.rate,
            self._clock,
            settings,
            max_failures,
            pauses=lambda: self._shared.pace.throttle.pauses,
            busy=self._users.busy,
            catch_up=engine.catch_up,
            waits_for=lambda: "outage" if engine.outage else "pause" if self.paused else "",
            also={**(also or {}), **({"pace": window.place} if (window := self._shared.window) else {})},
        )
        try:
            await intake.open()
            async with AsyncExitStack() as stack:
                screen = await self._screen(engine, changed_only, stack)
                folder = stack.enter_context(RunFolder.claim(folder_path, fresh=fresh))
                standing = await take_up(folder, job, terms)
                if not isinstance(standing, Standing):
                    finished_before(standing, job.run_id(standing["started_at"]))
                    return standing
                self._shared.pace.remember(standing.recent)
                standing.recent.clear()
                self._users.remember(standing.busy, standing.busy_until, self._clock.now())
                run = Run(folder, job, standing)
                with Chronicle(RunView(run, intake, engine, self), watch) as chronicle:
                    return await self._carry_out(engine, intake, run, screen, chronicle)
        finally:
            await intake.close()

    async def _screen(self, engine: Engine, changed_only: ChangedOnly | None, stack: AsyncExitStack) -> Screen | None:
        """What knows which devices need not be sent, where it was asked for, until the stack is closed."""
        if changed_only is None:
            return None
        from moe_bulk.screening import screening  # noqa: PLC0415  brings SQLite

        return await stack.enter_async_context(screening(engine, changed_only, self._credentials, self._clock))

    async def _carry_out(
        self, engine: Engine, intake: Intake, run: Run, screen: Screen | None, chronicle: Chronicle
    ) -> Summary:
        try:
            run.save()
            chronicle.begin()
            async with (
                self._delivering(engine, intake, run, screen) as channel,
                engine.beside(chronicle.follow),
                engine.beside(lambda: run.keep_synced(partial(engine.halt, channel))),
                engine.beside(lambda: intake.take_digests(lambda: engine.stopped_by is not None)),
            ):
                while batch := await channel.receive():
                    try:
                        run.record(batch)
                    except JournalError as error:  # send no more; what is on its way ends unwritten
                        engine.halt(channel, error)
                    if (too_many := run.too_many()) is not None:
                        engine.halt(channel, too_many)
            if not intake.cut:
                await self._complete(engine, intake, run)
        except MoeBulkError as error:
            run.close(exit_code=error.exit_code, stopped=str(error), service_said=error.service_said)
            raise
        except BaseException as error:
            exit_code, why = self._said(engine.bug or error)
            run.close(exit_code=exit_code, stopped=why)
            raise
        cut = "--limit was reached: without it the same command goes on" if intake.cut else None
        return run.close(exit_code=1 if run.tally.failed_rows else 0, stopped=cut)

    async def _complete(self, engine: Engine, intake: Intake, run: Run) -> None:
        """All rows are settled: do what is done once, at a run's end."""
        await intake.take_digests(lambda: engine.stopped_by is not None)
        if not await run.complete(lambda: engine.stopped_by is not None):
            raise engine.stopped_by or Interrupted("the run was left at its end")

    def _said(self, error: BaseException) -> tuple[int, str]:
        """The exit code of a run that ended in an exception not of ours, and why it ended."""
        if not isinstance(error, Exception):
            return INTERRUPTED, f"interrupted ({type(error).__name__})"
        # Raised by the rows, by `watch`, or by what the caller handed in: a closed client, a transport.
        said = wire.clean(f"{type(error).__name__}: {error}", self._credentials.api_key)
        return SourceError.exit_code, f"the caller's own code raised {said}"

    @asynccontextmanager
    async def _delivering(
        self, engine: Engine, intake: Intake, run: Run | None = None, screen: Screen | None = None
    ) -> AsyncIterator[Channel]:
        channel = engine.open(run, screen)
        # A task of asyncio's own, which is cancelled once: in an anyio scope each `await` would be cancelled again, and
        # the caller's rows could not clean up (https://anyio.readthedocs.io/en/stable/cancellation.html).
        feeding = asyncio.create_task(
            feed(intake, channel, self._clock, run, partial(engine.halt, channel)), name="moe_bulk rows"
        )
        try:
            async with AsyncExitStack() as stack:
                if screen is not None:
                    await stack.enter_async_context(engine.beside(partial(screen.work, partial(engine.halt, channel))))
                yield channel
        finally:
            feeding.cancel()
            engine.leave(channel)  # before the rows have ended: those that outlive the cancellation go nowhere
            with anyio.CancelScope(shield=True):
                await asyncio.wait([feeding])


def _out(rows: Rows, out: str | os.PathLike[str] | None) -> Path:
    if out is not None:
        return Path(out)
    if isinstance(rows, (str, os.PathLike)):
        rows = Files((os.fspath(rows),))
    if isinstance(rows, (Files, Query)):
        return default_out(rows.paths if isinstance(rows, Files) else [QUERY], sandbox=False, cwd=Path.cwd())
    raise ConfigError("rows in memory have no place of their own: say where the results go with out=…")


def _refuse_unfinished(rows: Rows) -> None:
    if isinstance(rows, Files):
        refuse_unfinished_letters(rows.paths)
    elif isinstance(rows, (str, os.PathLike)):
        refuse_unfinished_letters([os.fspath(rows)])


def upload(  # noqa: PLR0913  as `Uploader.run`
    rows: Rows,
    *,
    credentials: Credentials | None = None,
    rate: Rate | None = None,
    out: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    if_changed: IfChanged = "refuse",
    keep_runs: int | None = None,
    reading: Reading | None = None,
    max_failures: FailureLimit | None = None,
    changed_only: ChangedOnly | None = None,
    pace: PaceOf = "process",
) -> Summary:
    """Deliver `rows` from a script, and return the summary when all is settled; the rest is as in `Uploader` and `run`.

    Inside an async application use `Uploader`: this starts an event loop of its own.
    """

    async def deliver() -> Summary:
        async with Uploader(credentials, rate=rate, pace=pace) as uploader:
            return await uploader.run(
                rows,
                out=out,
                fresh=fresh,
                if_changed=if_changed,
                keep_runs=keep_runs,
                reading=reading,
                max_failures=max_failures,
                changed_only=changed_only,
            )

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(deliver())
    raise ConfigError("upload() starts an event loop of its own; inside one use: async with Uploader() as uploader")
