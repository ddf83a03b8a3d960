"""The library as an application meets it: streams, sends and runs, left in every way one can leave them."""

from __future__ import annotations

import asyncio
import gc
import gzip
import itertools
import os
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

import moe_bulk
from moe_bulk import Credentials, Rate, Status, Uploader
from moe_bulk.engine import ROOM
from moe_bulk.errors import ConfigError, CredentialsRejected, Interrupted, SourceError
from moe_bulk.intake import Files
from moe_bulk.sandbox import Sandbox, SandboxSettings
from tests.fake_service import CREDENTIALS, KEY, FakeService, answer, device, devices, sandbox_in_a_thread
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from moe_bulk.intake import Rows
    from moe_bulk.uploader import Results

WAYS_TO_LEAVE = ("cancel", "timeout", "anyio", "group")


def open_files() -> int:
    """Count this process's descriptors."""
    return len(list(Path("/dev/fd").iterdir()))


async def statuses(results: Results, so_far: list[Status] | None = None) -> list[Status]:
    """Read all results; `so_far` keeps those that came before an error."""
    found: list[Status] = [] if so_far is None else so_far
    async for result in results:
        found += [result.status]
    return found


def alone() -> bool:
    """Tell whether no task but this one is left."""
    return asyncio.all_tasks() == {asyncio.current_task()}


# -- a stream ----------------------------------------------------------------------------------------------------------


async def as_they_come(rows: list[dict[str, object]]) -> AsyncIterator[Mapping[str, object]]:
    """Give rows as an application does."""
    for row in rows:
        await asyncio.sleep(0.01)
        yield row


def test_a_stream_delivers_any_form_of_rows(tmp_path: Path) -> None:
    """A list, a generator, an async generator and a path all give one result a row."""
    path = tmp_path / "devices.csv"
    path.write_text("customer_id,device_id,platform,push_id\n" + "".join(f"user-{n},d{n},iOS,t{n}\n" for n in range(9)))

    async def main() -> None:
        service = FakeService()
        async with service.uploader(rate=Rate(8_000, per=60)) as uploader:
            forms: list[Rows] = [devices(9), iter(devices(9)), map(device, range(9)), as_they_come(devices(9)), path]
            for rows in forms:
                async with uploader.stream(rows) as results:
                    found = {result.customer_id: result.status async for result in results}
                assert {f"user-{n}": Status.ACCEPTED for n in range(9)} == found
        assert 45 == len(service.seen)
        assert alone()

    run_virtually(main)


def test_results_tell_bad_rows_without_stopping() -> None:
    """A refused device and an invalid row are results like any other."""

    def decide(said: dict[str, Any]) -> httpx.Response:
        return answer(400, "ValueError") if said["customer_id"] == "user-1" else answer(200)

    async def main() -> None:
        async with FakeService(decide).uploader() as uploader:
            rows: list[dict[str, object]] = [device(0), device(1), {"customer_id": "user-2"}]
            async with uploader.stream(rows) as results:
                found = {result.position.line: result async for result in results}
        assert {1: "accepted", 2: "rejected", 3: "invalid"} == {line: str(found[line].status) for line in sorted(found)}
        assert (400, "ValueError", "R1", 1) == (
            found[2].http_status,
            found[2].error_type,
            found[2].request_id,
            found[2].tries,
        )
        assert found[3].settled_at > 0

    run_virtually(main)


def test_a_reader_that_stops_reading_stops_the_requests() -> None:
    """Back-pressure: an endless input is read and sent no further than the numbers that are set."""
    drawn = itertools.count()

    def endless() -> Iterator[Mapping[str, object]]:
        for number in drawn:
            yield device(number)

    async def main() -> None:
        service = FakeService()
        uploader = service.uploader(network=moe_bulk.Network(in_flight=10))
        async with uploader, uploader.stream(endless()) as results:
            await anext(results)
            await asyncio.sleep(3600)
            sent = len(service.seen)
            await asyncio.sleep(3600)
            assert sent == len(service.seen)
            assert sent < 2 * (ROOM + 2 * 10) + 10
            assert next(drawn) < 2 * (ROOM + 2 * 10) + 20
            for _ in range(sent):
                await anext(results)
            await asyncio.sleep(3600)
            assert len(service.seen) > sent + ROOM  # it goes on where there is room again

    run_virtually(main)


def test_an_application_goes_on_working() -> None:
    """A foreign event loop: other tasks get their turn all the time while rows are delivered."""

    async def main() -> None:
        longest = 0.0

        async def other_work() -> None:
            nonlocal longest
            last = loop.time()
            while True:
                await asyncio.sleep(0.01)
                longest, last = max(longest, loop.time() - last), loop.time()

        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            worker = group.create_task(other_work())
            async with FakeService().uploader() as uploader, uploader.stream(as_they_come(devices(500))) as results:
                assert 500 == len(await statuses(results))
            worker.cancel()
        assert longest < 0.05

    run_virtually(main)


def test_streams_and_sends_share_one_pace_and_one_order() -> None:
    """Several streams and single sends at once keep the limit together, and rows of one device in order."""

    async def main() -> None:
        service = FakeService()

        async def one_stream(uploader: Uploader, first: int) -> int:
            async with uploader.stream([device(first + n) for n in range(100)]) as results:
                return len(await statuses(results))

        async with service.uploader(rate=Rate(60, per=60)) as uploader, asyncio.TaskGroup() as group:
            streams = [group.create_task(one_stream(uploader, first)) for first in (0, 1000, 2000)]
            sends = [group.create_task(uploader.send(device(7000, model=str(n)))) for n in range(5)]
        assert [100, 100, 100] == [stream.result() for stream in streams]
        done = [send.result() for send in sends]
        assert [Status.ACCEPTED] * 5 == [result.status for result in done]
        assert sorted(result.attempts[0].at for result in done) == [result.attempts[0].at for result in done]
        assert 5 == service.seen[:60].count("user-7000")  # single rows do not wait behind the streams' backlog
        assert all(later - earlier > 60 for earlier, later in zip(service.times, service.times[60:], strict=False))

    run_virtually(main)


def test_send_returns_the_result_of_one_device() -> None:
    """One device in, its result out; a bad one is a result, too."""

    async def main() -> None:
        async with FakeService().uploader() as uploader:
            fields = {"customer_id": "u-1", "device_id": "d-1", "platform": "iOS", "push_id": "tok"}
            assert Status.ACCEPTED is (await uploader.send(fields)).status
            assert Status.INVALID is (await uploader.send({})).status
            assert Status.INVALID is (await uploader.send("u-1")).status  # type: ignore[arg-type]  # a mistake
        assert alone()

    run_virtually(main)


# -- what goes wrong with the rows -------------------------------------------------------------------------------------


class OutOfRowsError(Exception):
    """The caller's own."""


def failing_list() -> Iterator[Mapping[str, object]]:
    """Give three rows, then fail."""
    yield from devices(3)
    raise OutOfRowsError


async def failing_stream() -> AsyncIterator[Mapping[str, object]]:
    """Give three rows, then fail."""
    for row in devices(3):
        yield row
    raise OutOfRowsError


@pytest.mark.parametrize("make", [failing_list, failing_stream])
def test_the_callers_own_exception_comes_out_as_itself(make: Callable[[], Any]) -> None:
    """First the results of the rows before, then the exception: not wrapped, not in a group."""

    async def main() -> None:
        found: list[Status] = []
        with pytest.raises(OutOfRowsError):
            async with FakeService().uploader() as uploader, uploader.stream(make()) as results:
                await statuses(results, found)
        assert [Status.ACCEPTED] * 3 == found
        assert alone()

    run_virtually(main)


def test_a_source_that_breaks_in_the_middle_gives_its_results_first(tmp_path: Path) -> None:
    """A damaged file is SourceError after all results of its readable part."""
    rows = "".join(f"user-{n},d{n},iOS,t{n}\n" for n in range(8000))
    whole = gzip.compress(f"customer_id,device_id,platform,push_id\n{rows}".encode())
    path = tmp_path / "devices.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    before = open_files()

    async def main() -> None:
        found: list[Status] = []
        async with FakeService(latency=0).uploader(rate=Rate(1_000_000)) as uploader:
            with pytest.raises(SourceError, match="cannot be read on"):
                async with uploader.stream(path) as results:
                    await statuses(results, found)
            assert Status.ACCEPTED is (await uploader.send(device(1))).status  # the Uploader itself is unharmed
        assert 1000 < len(found) < 8000

    run_virtually(main)
    assert before == open_files()


def test_rows_that_are_cancelled_from_elsewhere_do_not_hang() -> None:
    """A producer's own task that is cancelled ends the stream with an error, not with silence."""

    async def main() -> None:
        forever = asyncio.create_task(asyncio.sleep(1e9))

        async def rows() -> AsyncIterator[Mapping[str, object]]:
            yield device(1)
            await forever

        async with FakeService().uploader() as uploader, uploader.stream(rows()) as results:
            assert Status.ACCEPTED is (await anext(results)).status
            forever.cancel()
            with pytest.raises(SourceError, match="waiting for was cancelled"):
                await anext(results)
        assert alone()

    run_virtually(main)


def test_a_missing_file_is_told_on_entering() -> None:
    """What cannot be read is known before the first request."""

    async def main() -> None:
        service = FakeService()
        async with service.uploader() as uploader:
            with pytest.raises(SourceError, match=r"there is no file nowhere\.csv"):
                async with uploader.stream("nowhere.csv"):
                    pytest.fail("there is nothing to stream")
        assert [] == service.seen

    run_virtually(main)


def test_a_stop_of_the_service_is_raised_in_every_stream() -> None:
    """A refused key stops all streams, each with the same plain error."""

    async def main() -> None:
        errors = []

        async def one_stream(uploader: Uploader) -> None:
            try:
                async with uploader.stream(devices(50)) as results:
                    await statuses(results)
            except CredentialsRejected as error:
                errors.append(error)

        async with FakeService(lambda _: answer(401, "Authentication required")).uploader() as uploader:
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(one_stream(uploader))
            with pytest.raises(CredentialsRejected):
                await uploader.send(device(1))
        assert 3 == len(errors)
        assert KEY not in repr(errors)

    run_virtually(main)


def test_stop_is_orderly() -> None:
    """What is on its way is taken in, nothing more is sent, and every stream learns why."""

    async def main() -> None:
        service = FakeService(latency=2.0)
        async with service.uploader() as uploader:
            found = []
            with pytest.raises(Interrupted, match="that is enough"):  # noqa: PT012  the reading is what raises
                async with uploader.stream(devices(5000)) as results:
                    async for result in results:
                        found.append(result.status)
                        if len(found) == 1:
                            uploader.stop(Interrupted("that is enough"))
            assert len(service.seen) == len(found) < 5000
            assert 0 == service.in_flight

    run_virtually(main)


# -- leaving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["break", "exception", "return"])
def test_leaving_a_stream_early_leaves_nothing_behind(way: str) -> None:
    """The rest is not sent, the Uploader is as good as new, the caller's exception is itself."""

    async def take_some(uploader: Uploader, closed: list[str]) -> None:
        async def rows() -> AsyncIterator[Mapping[str, object]]:
            try:
                for row in devices(10_000):
                    yield row
            finally:
                await asyncio.sleep(0.1)
                closed.append("rows")

        async with uploader.stream(rows()) as results:
            async for _ in results:
                if way == "exception":
                    raise OutOfRowsError
                if way == "return":
                    return
                break

    async def main() -> None:
        service, closed = FakeService(), list[str]()
        async with service.uploader() as uploader:
            with pytest.raises(OutOfRowsError) if way == "exception" else nullcontext():
                await take_some(uploader, closed)
            assert ["rows"] == closed
            await asyncio.sleep(60)
            assert len(service.seen) < 600
            assert Status.ACCEPTED is (await uploader.send(device(1))).status
        assert alone()

    run_virtually(main)


@pytest.mark.parametrize("way", WAYS_TO_LEAVE)
@pytest.mark.parametrize("idle", [True, False])
def test_a_cancellation_goes_through_and_leaves_nothing_behind(way: str, idle: bool) -> None:  # noqa: FBT001  a table
    """However it is cancelled, and whether it waits for rows or for answers: rows are closed, no task is left."""
    log: list[str] = []

    async def rows() -> AsyncIterator[Mapping[str, object]]:
        try:
            for row in devices(3 if idle else 100_000):
                yield row
            await asyncio.sleep(1e6)
        finally:
            await asyncio.sleep(0.1)  # a clean-up that takes its time is not cancelled again
            log.append("rows closed")

    async def job(service: FakeService) -> None:
        async with service.uploader() as uploader, uploader.stream(rows()) as results:
            await statuses(results)
        log.append("went on")

    async def main() -> None:
        service = FakeService(latency=1.0)
        began = asyncio.get_running_loop().time()
        log.append(await leave(way, job(service)))
        assert ["rows closed", "left"] == log
        assert asyncio.get_running_loop().time() - began < 6
        assert 0 == service.in_flight
        assert alone()

    run_virtually(main)


async def leave(way: str, job: Any) -> str:
    """Run the job for 5 seconds, then cancel it in one of the ways that there are."""
    if way == "anyio":
        with anyio.move_on_after(5) as scope:
            await job
        return "left" if scope.cancelled_caught else "swallowed"
    try:
        if way == "timeout":
            async with asyncio.timeout(5):
                await job
        elif way == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(job)
                await asyncio.sleep(5)
                raise OutOfRowsError  # a sibling's failure cancels the job
        else:
            task = asyncio.create_task(job)
            await asyncio.sleep(5)
            task.cancel()
            await task
    except (TimeoutError, asyncio.CancelledError):
        return "left"
    except ExceptionGroup as failed:
        return "left" if failed.subgroup(OutOfRowsError) else "lost"
    return "swallowed"


def test_rows_that_outlive_their_cancellation_are_not_sent() -> None:
    """An iterable that swallows the cancellation ends nevertheless: nobody takes its rows any more."""

    async def main() -> None:
        async def stubborn() -> AsyncIterator[Mapping[str, object]]:
            for number in itertools.count():
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01 if number < 10 else 1e6)
                yield device(number)

        service = FakeService(latency=0.0)
        async with service.uploader() as uploader, uploader.stream(stubborn()) as results:
            for _ in range(10):
                await anext(results)
        assert 10 == len(service.seen)
        assert alone()

    run_virtually(main)


def test_leaving_the_uploader_takes_in_what_is_on_its_way() -> None:
    """Leaving the block waits for answers on their way; streams in other tasks learn that it was closed."""

    async def main() -> None:
        service, told = FakeService(latency=4.0), list[str]()

        async def other(uploader: Uploader) -> None:
            try:
                async with uploader.stream(devices(100_000)) as results:
                    await statuses(results)
            except Interrupted as error:
                told.append(str(error))

        async with service.uploader() as uploader:
            task = asyncio.create_task(other(uploader))
            await asyncio.sleep(6)
        await task
        assert ["the uploader was closed"] == told
        assert 0 == service.in_flight
        assert alone()

    run_virtually(main)


def test_an_exception_in_the_block_is_itself() -> None:
    """The body's own exception leaves the Uploader at once and unwrapped."""

    async def main() -> None:
        with pytest.raises(OutOfRowsError):  # noqa: PT012  the block is the point
            async with FakeService().uploader() as uploader:
                assert Status.ACCEPTED is (await uploader.send(device(1))).status
                raise OutOfRowsError
        assert alone()

    run_virtually(main)


def test_an_uploader_is_entered_once_and_used_while_it_is_open() -> None:
    """Mistakes in its use are told in words."""

    async def main() -> None:
        uploader = FakeService().uploader()
        with pytest.raises(RuntimeError, match=r"not open: use it within `async with Uploader"):
            await uploader.send(device(1))
        async with uploader:
            with pytest.raises(RuntimeError, match="entered before: make a new one"):
                await uploader.__aenter__()
        with pytest.raises(RuntimeError, match="not open"):
            await uploader.run(devices(1), out="nowhere.run")

    run_virtually(main)
    assert not Path("nowhere.run").exists()


@pytest.mark.anyio
async def test_an_uploader_belongs_to_the_event_loop_that_it_was_entered_in(tmp_path: Path) -> None:
    """In another one nothing would ever wake who waits for a result: that is told at once, and nothing is sent."""
    service = FakeService(latency=0.0)

    async def elsewhere(uploader: Uploader) -> None:
        for using in (uploader.send(device(1)), uploader.run(devices(1), out=tmp_path / "a.run")):
            with pytest.raises(RuntimeError, match="entered in another event loop"):
                await asyncio.wait_for(using, 5)

    async with Uploader(CREDENTIALS, transport=httpx.MockTransport(service.handle)) as uploader:
        await asyncio.to_thread(asyncio.run, elsewhere(uploader))
        assert Status.ACCEPTED is (await uploader.send(device(1))).status
    assert 1 == len(service.seen)


def test_a_client_and_a_transport_exclude_each_other() -> None:
    """The client has a transport of its own."""
    with pytest.raises(ConfigError, match="either a client or a transport"):
        Uploader(CREDENTIALS, client=httpx.AsyncClient(), transport=httpx.MockTransport(lambda _: answer(200)))
    gc.collect()


def test_the_callers_client_is_used_and_stays_open() -> None:
    """An application's own httpx client carries the requests and is not closed."""

    async def main() -> None:
        service = FakeService()
        async with httpx.AsyncClient(transport=httpx.MockTransport(service.handle)) as client:
            async with Uploader(CREDENTIALS, client=client) as uploader:
                assert Status.ACCEPTED is (await uploader.send(device(1))).status
            assert not client.is_closed
        assert ["user-1"] == service.seen

    run_virtually(main)


def test_a_callers_transport_may_answer_all_at_once() -> None:
    """A transport whose answers come whole, as in an application's own tests, is as good as any."""

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"status": "success"})

    async def main() -> None:
        async with Uploader(CREDENTIALS, transport=httpx.MockTransport(handle)) as uploader:
            assert Status.ACCEPTED is (await uploader.send(device(1))).status

    asyncio.run(main())


def test_paused_tells_that_everybody_waits() -> None:
    """After many 429s the Uploader says that it pauses, and that it goes on."""
    left = iter(range(30))

    def decide(_: dict[str, Any]) -> httpx.Response:
        return answer(429, "Rate Limits Exceeded", **{"Retry-After": "20"}) if next(left, None) else answer(200)

    async def main() -> None:
        async with FakeService(decide).uploader() as uploader, uploader.stream(devices(60)) as results:
            told = [uploader.paused]
            await asyncio.sleep(3)
            told += [uploader.paused]
            assert {Status.ACCEPTED} == set(await statuses(results))
            assert [False, True, False] == [*told, uploader.paused]

    run_virtually(main)


# -- against the sandbox, on a real socket -----------------------------------------------------------------------------


def sandbox_credentials(sandbox: Sandbox) -> Credentials:
    """Give what a client needs."""
    return Credentials(sandbox.workspace_id, sandbox.api_key, base_url=sandbox.url)


def test_the_contract_block_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stream, run and send of one Uploader against a real server; nothing is left open."""
    monkeypatch.chdir(tmp_path)
    text = "customer_id,device_id,platform,push_id\n" + "".join(f"user-{n},f{n},iOS,f{n}\n" for n in range(50))
    Path("devices.csv").write_text(text)
    before = open_files()

    async def main() -> None:
        async with Sandbox(SandboxSettings(keep=1000)) as sandbox:
            credentials = sandbox_credentials(sandbox)
            async with Uploader(credentials, rate=Rate(8_000, per=60)) as uploader:
                async with uploader.stream(devices(50)) as results:
                    assert {Status.ACCEPTED} == set(await statuses(results))
                summary = await uploader.run("devices.csv", out="devices.csv.run")
                result = await uploader.send(
                    {"customer_id": "u-1", "device_id": "d-1", "platform": "iOS", "push_id": "tok"}
                )
            assert (50, 50) == (summary["counts"]["read"], summary["counts"]["accepted"])
            assert Status.ACCEPTED is result.status
            assert 101 == len(sandbox.devices)
            assert "tok" == sandbox.devices["u-1", "d-1"].attributes["push_id"]
        assert alone()

    asyncio.run(main())
    gc.collect()
    assert before == open_files()


def test_leaving_early_closes_connections(tmp_path: Path) -> None:
    """A cancellation in the middle of real requests leaves no socket open."""
    before = open_files()

    async def main() -> None:
        async with Sandbox(SandboxSettings(keep=0)) as sandbox:
            uploader = Uploader(sandbox_credentials(sandbox))
            with anyio.move_on_after(0.3) as scope:
                async with uploader, uploader.stream(map(device, itertools.count())) as results:
                    await statuses(results)
            assert scope.cancelled_caught
        assert alone()

    asyncio.run(main())
    gc.collect()
    assert before == open_files()


def environment(sandbox: Sandbox) -> dict[str, str]:
    """Give what a program finds in its environment."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MOENGAGE_", "MOE_BULK"))}
    said = {"WORKSPACE_ID": sandbox.workspace_id, "API_KEY": sandbox.api_key, "BASE_URL": sandbox.url}
    return {**inherited, **{f"MOENGAGE_{name}": value for name, value in said.items()}}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Run a sandbox while the test runs."""
    with sandbox_in_a_thread() as running:
        yield running


def test_upload_from_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> None:
    """`moe_bulk.upload("devices.csv.gz")` with credentials from the environment returns the summary."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment(sandbox).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MOENGAGE_DATA_CENTER", raising=False)
    text = "customer_id,device_id,platform,push_id\n" + "".join(f"user-{n},f{n},iOS,f{n}\n" for n in range(50))
    Path("devices.csv.gz").write_bytes(gzip.compress(text.encode()))
    summary = moe_bulk.upload("devices.csv.gz")
    assert (0, 50) == (summary["exit_code"], summary["counts"]["accepted"])
    assert Path("devices.csv.gz.run/results.ndjson").exists()
    assert 50 == len(sandbox.devices)


def test_upload_inside_a_running_loop_is_refused() -> None:
    """It would block the loop: the message says what to use instead."""

    async def main() -> None:
        with pytest.raises(ConfigError, match="async with Uploader"):
            moe_bulk.upload([device(1)], credentials=CREDENTIALS, out="nowhere.run")

    asyncio.run(main())
    assert not Path("nowhere.run").exists()


def test_without_credentials_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named."""
    monkeypatch.delenv("MOENGAGE_WORKSPACE_ID", raising=False)
    with pytest.raises(ConfigError, match="MOENGAGE_WORKSPACE_ID is not set"):
        Uploader()


def test_rows_in_memory_need_a_place_for_their_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path has a run folder of its own, several have the first one's name; rows in memory have none."""
    monkeypatch.chdir(tmp_path)
    row = "customer_id,device_id,platform,push_id\nuser-1,d1,iOS,t1\n"
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(row)

    async def main() -> None:
        async with FakeService().uploader() as uploader:
            with pytest.raises(ConfigError, match="no place of their own"):
                await uploader.run(devices(1))
            assert 2 == (await uploader.run(Files(("a.csv", "b.csv"))))["counts"]["accepted"]
            assert 1 == (await uploader.run(tmp_path / "b.csv"))["counts"]["accepted"]

    run_virtually(main)
    assert ["a.csv", "a.csv.run", "b.csv", "b.csv.run"] == sorted(path.name for path in tmp_path.iterdir())
