"""One task's work: its partition's rows to MoEngage, its results to a folder, its numbers to the driver."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import anyio
import orjson

from moe_bulk.errors import ConfigError, JournalError, RunRefused, RunStopped
from moe_bulk.intake import Reading
from moe_bulk.journal import RESULTS
from moe_bulk.outcome import hashes_told
from moe_bulk.pacing.host import ALONE
from moe_bulk.spark.access import Workspace, Workspaces
from moe_bulk.spark.attempts import run_name
from moe_bulk.spark.claims import GIVEN_UP_SECONDS, Claim
from moe_bulk.spark.dividing import divide
from moe_bulk.spark.merging import Delivered, PartitionReport
from moe_bulk.spark.order import OrderWatch
from moe_bulk.spark.places import is_locked, take_place
from moe_bulk.spark.rows import Once, batches
from moe_bulk.spark.rules import is_shared, refuse
from moe_bulk.spark.sampling import Sampler
from moe_bulk.spark.shelf import open_shelf, refuse_other
from moe_bulk.uploader import Uploader

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from moe_bulk.causes import Failures
    from moe_bulk.spark.merging import Cause
    from moe_bulk.spark.places import Place
    from moe_bulk.spark.rows import Fields
    from moe_bulk.spark.rules import Task
    from moe_bulk.spark.sampling import Sample
    from moe_bulk.spark.settings import Settings
    from moe_bulk.spark.shelf import Shelf
    from moe_bulk.tally import Summary
    from moe_bulk.view import RunView

    MakeUploader = Callable[[Workspace, Settings], Uploader]

T = TypeVar("T")

KEEP_SECONDS = 10.0
"""How often what was written is copied where it belongs, where that is an object store."""

LOOK_SECONDS = 1.0
"""How often it is looked whether the pace is still shared: an upload that goes on alone is silent for longer before."""

CLAIM_SECONDS = 5.0
"""How often a partition at its own pace looks whether another attempt, or another job, has taken its place."""

IN_FLIGHT_EACH = 64
"""Requests on their way for each of many workspaces, which share one task's open files: 167 a second at 380 ms."""


def make_uploader(workspace: Workspace, settings: Settings) -> Uploader:
    """The Uploader that every other program uses, too."""
    network = settings.network
    if settings.access.column is not None and network.in_flight is None:
        network = replace(network, in_flight=IN_FLIGHT_EACH)
    rate = workspace.rate or settings.rate
    pace = settings.shared_pace() if settings.over_network else settings.pace
    return Uploader(workspace.credentials, rate=rate, retry=settings.retry, network=network, pace=pace)


@dataclass(frozen=True, slots=True)
class Desk:
    """What all that a task does has in common."""

    settings: Settings
    task: Task
    shelf: Shelf
    run: str
    make: MakeUploader = make_uploader
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)


def deliver(rows: Iterator[Mapping[str, object]], settings: Settings, task: Task, mark: str) -> PartitionReport:
    """Deliver a partition, and tell what came of it; to be called in a task. `mark` is what the driver's folder has.

    Raises what the upload raises: then Spark tries again, and the next attempt goes on where this one stopped.
    """
    refuse(settings, task)
    run = run_name(settings.run_id, task)
    first = next(rows, None)
    if first is None:  # nothing to do, and nothing to leave
        return PartitionReport(task.partition, run)
    shelf = open_shelf(settings.out)
    refuse_other(shelf, mark)
    return asyncio.run(carry_out(chain([first], rows), Desk(settings, task, shelf, run)))


async def carry_out(rows: Iterator[Mapping[str, object]], desk: Desk) -> PartitionReport:
    """Deliver all rows, to the one workspace or to those that they name."""
    access, watch = desk.settings.access, _order_watch(desk.settings)
    see: Callable[[Mapping[str, object]], None] = watch.see if watch is not None else lambda _: None
    async with aclosing(_one_by_one(rows, see)) as one_by_one:
        if access.column is None or access.file is None:
            workspace = Workspace(access.credentials(desk.environ))
            delivered = [await deliver_to(workspace, None, one_by_one, desk)]
        else:
            known = Workspaces(access.file, desk.environ)
            delivered = await divide(
                one_by_one, access.column, lambda name, own: deliver_to(known.find(name), name, own, desk)
            )
    told = watch.told() if watch is not None else None
    return PartitionReport(desk.task.partition, desk.run, delivered, (told,) if told else ())


def _order_watch(settings: Settings) -> OrderWatch | None:
    if settings.order_by is None:
        return None
    workspace = (settings.access.column,) if settings.access.column is not None else ()
    return OrderWatch(*workspace, settings.customer_columns, settings.order_by)


async def _in_thread(work: Callable[[], T], *, abandon: bool = False) -> T:
    """Do what waits for disks, stores and other processes, while answers are read."""
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=abandon)


async def _one_by_one(
    rows: Iterator[Mapping[str, object]], see: Callable[[Mapping[str, object]], None]
) -> AsyncGenerator[Fields]:
    async with aclosing(batches(rows, see)) as found:
        async for batch in found:
            for row in batch:
                yield row


async def deliver_to(workspace: Workspace, name: str | None, rows: AsyncGenerator[Fields], desk: Desk) -> Delivered:
    """Deliver rows to one workspace, into the next attempt's folder; `name` is that of one among several."""
    folder = desk.run if name is None else f"{desk.run}/{name}"
    async with _claimed(folder, desk) as claim:
        place = await _in_thread(partial(take_place, desk.shelf, folder, desk.task.partition))
        try:
            summary, view = await _upload(workspace, rows, _Ground(place, claim), desk)
            return await _in_thread(partial(_told, place, summary, view, name, desk.settings))
        finally:
            await _in_thread(place.close)


@asynccontextmanager
async def _claimed(folder: str, desk: Desk) -> AsyncGenerator[Claim | None]:
    """Claim a workspace whose pace nobody shares, and wait until those who had it send no more."""
    if is_shared(desk.settings, desk.task):
        yield None
        return
    take = partial(Claim.take, desk.shelf, folder, desk.settings, desk.task, locked=is_locked(desk.shelf))
    claim = await _in_thread(take)
    if claim.succeeds:
        await asyncio.sleep(GIVEN_UP_SECONDS + desk.settings.network.timeout)
    try:
        yield claim
    finally:
        await _in_thread(claim.end)


@dataclass(frozen=True, slots=True)
class _Ground:
    """Where an attempt writes, and by which claim it sends; None where its pace is shared."""

    place: Place
    claim: Claim | None


async def _upload(
    workspace: Workspace, rows: AsyncGenerator[Fields], ground: _Ground, desk: Desk
) -> tuple[Summary, RunView | None]:
    views: list[RunView] = []
    settings, place = desk.settings, ground.place

    def begun(view: RunView) -> None:
        views.append(view)
        place.begun()

    async with desk.make(workspace, settings) as uploader:
        shares = settings.pace == "host" and is_shared(settings, desk.task)
        if shares:
            refuse_alone(uploader.notes)
        seen = await _look(ground.claim) if ground.claim is not None else 0.0
        beside = [asyncio.create_task(_keep(place, uploader))]
        if ground.claim is not None:
            beside.append(asyncio.create_task(_hold(ground.claim, uploader, seen)))
        if shares:
            beside.append(asyncio.create_task(_stay_together(uploader)))
        try:
            summary = await uploader.run(
                Once(rows),
                out=place.folder,
                if_changed="fresh",
                reading=Reading(settings.columns),
                max_failures=settings.max_failures,
                watch=begun,
            )
        except RunRefused as error:
            raise RunRefused(f"{error}. In Spark another run_id starts over") from None
        finally:
            for each in beside:
                each.cancel()
            await asyncio.wait(beside)
    return summary, (views[0] if views else None)


def refuse_alone(notes: Sequence[str]) -> None:
    """Raise ConfigError where the pace is not shared although others may send, too."""
    for note in notes:
        if ALONE in note:
            raise ConfigError(
                f"partitions may send at the same time only where their pace is shared, and {note}. For one partition, "
                "df.coalesce(1), give the option pace the value process"
            )


async def _keep(place: Place, uploader: Uploader) -> None:
    while True:
        await asyncio.sleep(KEEP_SECONDS)
        try:
            await _in_thread(place.keep)
        except Exception as error:  # noqa: BLE001  whatever it is: what cannot be written is not sent
            said = str(error) if isinstance(error, JournalError) else f"{place.where}: {type(error).__name__}: {error}"
            uploader.stop(RunStopped(said))
            return


async def _look(claim: Claim) -> float:
    """See that the claim stands, or raise RunStopped; the time of the loop when that was asked."""
    now = asyncio.get_running_loop().time()
    if not await _in_thread(claim.stands, abandon=True):
        raise RunStopped("a later attempt, or another job of the same run, has taken over: this one sends no more")
    return now


async def _hold(claim: Claim, uploader: Uploader, seen: float) -> None:
    """Stop where the claim is somebody else's, or where nobody could tell for too long."""
    try:
        async with asyncio.timeout_at(seen + GIVEN_UP_SECONDS) as patience:
            while True:
                await asyncio.sleep(CLAIM_SECONDS)
                try:
                    seen = await _look(claim)
                except RunStopped:
                    raise
                except Exception:  # noqa: BLE001, S112  whatever it is: the next look may tell
                    continue
                patience.reschedule(seen + GIVEN_UP_SECONDS)
    except RunStopped as error:
        uploader.stop(error)
    except TimeoutError:
        told = f"for {GIVEN_UP_SECONDS:.0f} seconds nobody could tell whether another attempt sends beside this one"
        uploader.stop(RunStopped(f"{told}, and two would exceed the limit: this one sends no more"))


async def _stay_together(uploader: Uploader) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            refuse_alone(uploader.notes)
        except ConfigError as error:
            uploader.stop(RunStopped(str(error)))
            return


def _told(place: Place, summary: Summary, view: RunView | None, name: str | None, settings: Settings) -> Delivered:
    customers, keys = _samples(place.folder / RESULTS)
    return Delivered(
        folder=place.where,
        attempt=place.attempt,
        exit_code=summary["exit_code"],
        started_at=summary["started_at"],
        ended_at=summary["ended_at"],
        counts=summary["counts"],
        requests=summary["requests"],
        retries=summary["retries"],
        pauses=summary["pauses"],
        busiest_window=summary["rate"]["busiest_window"],
        failures=[_cause(each) for each in summary["failures"]],
        workspace=name,
        started_over=view is not None and view.moved_to is not None,
        customers=customers,
        keys=keys,
        warnings=_worth_telling(view.warnings, settings) if view is not None else (),
    )


def _worth_telling(warnings: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """All but that the columns which tell the order and the workspace are not sent: nobody meant them to be."""
    ours = tuple(f"field {column!r} is not sent" for column in (settings.order_by, settings.access.column) if column)
    return tuple(each for each in warnings if not each.startswith(ours))


def _cause(failures: Failures) -> Cause:
    return {
        "cause": failures["cause"],
        "status": failures["status"],
        "count": failures["count"],
        "remedy": failures["remedy"],
    }


def _samples(results: Path) -> tuple[Sample, Sample]:
    """What the partition has in rows that were sent: its customers, and its devices, tokens and advertising ids.

    It is read from the results, because rows that an earlier attempt settled stand nowhere else.
    """
    customers, keys = Sampler(), Sampler()
    with results.open("rb") as lines:
        for line in lines:
            said = orjson.loads(line)
            if found := hashes_told(said):
                customers.add(str(said["customer_id"]))
                for key in found:
                    keys.add(key)
    return customers.sample(), keys.sample()
