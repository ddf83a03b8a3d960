"""Runs into a folder: complete files whatever ends them, and one result for every row, always."""

from __future__ import annotations

import asyncio
import csv
import errno
import gzip
import io
import os
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_bulk.clock import Clock
from moe_bulk.config import Credentials, FailureLimit, Rate, Retry
from moe_bulk.errors import (
    CredentialsRejected,
    JournalError,
    MoeBulkError,
    RunHeld,
    RunRefused,
    SourceError,
    TooManyFailures,
)
from moe_bulk.intake import Intake, Reading
from moe_bulk.journal import AppendOnlyFile
from moe_bulk.run import Run
from moe_bulk.rundir import RunFolder
from moe_bulk.standing import Job, begin
from moe_bulk.uploader import Uploader
from tests.effort import examples
from tests.fake_service import KEY, FakeService, accept, answer, device, devices
from tests.runs import HEADER, Written, check_counts, deliver, written
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from moe_bulk.view import RunView


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Name a run folder."""
    return tmp_path / "devices.run"


# -- each ending -------------------------------------------------------------------------------------------------------


def test_all_accepted(out: Path) -> None:
    """Every row accepted: exit code 0, an empty dead letter, a summary that is the one on disk."""
    ended = deliver(devices(250), out)
    assert ended.summary is not None
    found = ended.written
    assert found.summary == ended.summary
    assert (0, 250, 0) == (found.summary["exit_code"], found.summary["counts"]["accepted"], len(found.letters))
    assert "stopped" not in found.summary
    assert {
        "workspace_id": "WORKSPACE",
        "destination": "127.0.0.1",
        "format": "auto",
        "columns": {},
        "constants": {},
        "where": [],
        "validate": "strict",
        "include_superseded": False,
        "changed_only": False,
    } == found.summary["settings"]
    assert found.checkpoint.settings == found.summary["settings"]
    assert 1 == found.summary["sessions"]
    assert 250 == found.summary["requests"]
    assert {1} == {each["tries"] for each in found.results}
    assert 0 < found.summary["started_at"] + 1 <= found.summary["ended_at"] + 1


def test_some_failed(out: Path) -> None:
    """Rejected, invalid and exhausted rows have dead letters; the run is finished, exit code 1."""

    def decide(said: dict[str, Any]) -> httpx.Response:
        return {"user-1": answer(400, "ValueError"), "user-2": answer(500, "Oops")}.get(
            said["customer_id"], answer(200)
        )

    rows: list[dict[str, object]] = [*devices(5), {"customer_id": "guest", "colour": "blue"}]
    ended = deliver(rows, out, decide, retry=Retry(tries=3))
    assert ended.summary is not None
    assert 1 == ended.summary["exit_code"]
    found = ended.written
    assert {"rejected": 1, "exhausted": 1, "invalid": 1, "accepted": 3, "read": 6} == {
        name: count for name, count in found.summary["counts"].items() if count
    }
    assert {2: 1, 3: 3, 6: 0} == {
        letter["_moe_bulk"]["line"]: letter["_moe_bulk"]["attempts"] for letter in found.letters
    }
    assert "blue" == next(letter["colour"] for letter in found.letters if "colour" in letter)
    assert (7, 2) == (found.summary["requests"], found.summary["retries"])


def test_a_dead_letter_is_an_input(out: Path, tmp_path: Path) -> None:
    """It can be uploaded as it is, again and again; what was fixed in it is accepted."""

    def decide(said: dict[str, Any]) -> httpx.Response:
        return answer(400, "ValueError") if said["attributes"].get("model") == "bad" else answer(200)

    path = tmp_path / "devices.csv"
    good = b"".join(b"user-%d,d%d,iOS,t%d,fine\n" % (n, n, n) for n in range(5))
    path.write_bytes(
        HEADER.replace(b"push_id", b"push_id,model") + good + b'user-8,d8,iOS,t8,bad\nuser-9,d9,"iOS\nrag,ged\n'
    )
    first = deliver(path, out, decide)
    assert 1 == first.written.summary["exit_code"]
    again = deliver(out / "dead-letter.ndjson", tmp_path / "again.run", decide)
    assert first.written.summary["counts"]["rejected"] == again.written.summary["counts"]["rejected"] == 1
    assert first.written.summary["counts"]["invalid"] == again.written.summary["counts"]["invalid"]
    letters = tmp_path / "again.run" / "dead-letter.ndjson"
    fixed = tmp_path / "fixed.ndjson"
    fixed.write_bytes(b"".join(line for line in letters.read_bytes().splitlines(keepends=True) if b'"bad"' in line))
    fixed.write_bytes(fixed.read_bytes().replace(b'"bad"', b'"good"'))
    assert 0 == deliver(fixed, tmp_path / "fixed.run", decide).written.summary["exit_code"]


def test_refused_credentials(out: Path) -> None:
    """What settled before stays settled, nothing is dead-lettered, and the folder says why."""
    served = iter(range(10_000))

    def decide(_: dict[str, Any]) -> httpx.Response:
        return answer(200) if next(served) < 100 else answer(401, "Authentication required")

    ended = deliver(devices(3000), out, decide, rate=Rate(6000, per=60))
    assert isinstance(ended.error, CredentialsRejected)
    found = ended.written
    assert (3, 100, []) == (found.summary["exit_code"], found.summary["counts"]["accepted"], found.letters)
    assert found.summary["counts"]["unsettled"] > 0
    assert found.summary["stopped"] == str(ended.error)
    assert "refuses the credentials" in found.summary["stopped"]


@pytest.mark.parametrize("limit", ["5", "10%"])
def test_too_many_failures(limit: str, out: Path) -> None:
    """It stops, resumable, and says how many failed; what was on its way is taken in."""
    ended = deliver(
        devices(5000), out, lambda _: answer(400, "ValueError"), max_failures=FailureLimit.parse(limit), latency=1.0
    )
    assert isinstance(ended.error, TooManyFailures)
    found = ended.written
    assert 3 == found.summary["exit_code"]
    assert f"more than --max-failures {limit} allows" in found.summary["stopped"]
    assert len(ended.service.seen) == len(found.results) == len(found.letters) < 5000


def test_failures_within_the_limit_do_not_stop(out: Path) -> None:
    """As many as allowed are no reason to stop."""
    ended = deliver(devices(5), out, lambda _: answer(400, "ValueError"), max_failures=FailureLimit(count=5))
    assert 1 == ended.written.summary["exit_code"]


def test_a_source_that_breaks_in_the_middle(out: Path, tmp_path: Path) -> None:
    """Rows before the damaged place are delivered and written; the folder says what is wrong."""
    path = tmp_path / "devices.csv.gz"
    whole = gzip.compress(HEADER + b"".join(b"user-%d,d%d,iOS,t%d\n" % (n, n, n) for n in range(8000)))
    path.write_bytes(whole[: len(whole) // 2])
    ended = deliver(path, out)
    assert isinstance(ended.error, SourceError)
    found = ended.written
    assert (2, 0) == (found.summary["exit_code"], found.summary["counts"]["unsettled"])
    assert 1000 < found.summary["counts"]["accepted"] < 8000
    assert "devices.csv.gz cannot be read on" in found.summary["stopped"]


def test_the_callers_own_exception(out: Path) -> None:
    """What the caller's rows raise comes out as itself; the folder tells it, without the key."""

    async def rows() -> AsyncIterator[Mapping[str, object]]:
        yield device(1)
        raise ZeroDivisionError(f"broken {KEY}")

    ended = deliver(rows(), out)
    assert isinstance(ended.error, ZeroDivisionError)
    found = ended.written
    assert (2, 1) == (found.summary["exit_code"], found.summary["counts"]["accepted"])
    assert found.summary["stopped"].startswith("the caller's own code raised ZeroDivisionError: broken")


def test_a_watcher_that_raises(out: Path) -> None:
    """Whoever shows the run may fail: the folder is closed and says so."""

    def watch(_: RunView) -> None:
        raise ZeroDivisionError

    ended = deliver(devices(5), out, watch=watch)
    assert isinstance(ended.error, ZeroDivisionError)
    assert "ZeroDivisionError" in ended.written.summary["stopped"]
    assert [] == ended.service.seen


def test_a_bug_on_the_way_out(out: Path) -> None:
    """What the caller handed in may break, such as a client that was closed: that is no interruption."""

    async def main() -> None:
        async with httpx.AsyncClient() as client:
            pass
        async with Uploader(Credentials("WORKSPACE", KEY, data_center="01"), client=client) as uploader:
            await uploader.run(devices(5), out=out)

    with pytest.raises(RuntimeError, match="the httpx client that was handed in is closed"):
        run_virtually(main)
    summary = written(out).summary
    assert 2 == summary["exit_code"]
    assert summary["stopped"].startswith("the caller's own code raised RuntimeError: the httpx client")
    assert 5 == summary["counts"]["unsettled"]


def test_the_version_is_read_once(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the end of a run, when there may be no file left to open."""

    def watch(_: RunView) -> None:
        monkeypatch.setattr("importlib.metadata.distribution", None)

    assert deliver(devices(1), out, watch=watch).written.summary["version"]


def test_cancelled(out: Path) -> None:
    """A cancellation leaves complete files: what settled is written, the rest is unsettled, exit code 130."""

    async def main() -> FakeService:
        service = FakeService(latency=1.0)
        async with service.uploader() as uploader:
            task = asyncio.create_task(uploader.run(devices(100_000), out=out))
            await asyncio.sleep(5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return service

    run_virtually(main)
    found = written(out)
    assert 130 == found.summary["exit_code"]
    assert "interrupted (CancelledError)" == found.summary["stopped"]
    assert found.summary["counts"]["accepted"] > 100
    assert found.summary["counts"]["unsettled"] > 0
    RunFolder.claim(out, fresh=True).release()  # nobody holds it any more


def test_a_limit_leaves_the_run_unfinished(out: Path) -> None:
    """So many rows and no more, all of them settled; the summary says that there may be more, and they come later."""
    found = deliver(devices(50), out, reading=Reading(limit=7)).written
    assert (0, 7, 7) == (found.summary["exit_code"], found.summary["counts"]["read"], len(found.results))
    assert "--limit was reached: without it the same command goes on" == found.summary["stopped"]
    ended = deliver(devices(50), out)
    assert [f"user-{number}" for number in range(7, 50)] == ended.service.seen
    found = ended.written
    assert (0, 50, 2) == (found.summary["exit_code"], found.summary["counts"]["accepted"], found.summary["sessions"])


# -- the disk ----------------------------------------------------------------------------------------------------------


def test_a_full_disk(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run stops with the way out; what was written stays, and the summary is tried nevertheless."""
    take = AppendOnlyFile._take

    def take_some(self: AppendOnlyFile, left: memoryview) -> int:
        if self.written > 20_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return take(self, left)

    monkeypatch.setattr(AppendOnlyFile, "_take", take_some)
    ended = deliver(devices(5000), out, rate=Rate(6000, per=60))
    assert isinstance(ended.error, JournalError)
    found = ended.written
    assert (3, str(ended.error)) == (found.summary["exit_code"], found.summary["stopped"])
    assert "No space left on device. Free at least 1 MB" in found.summary["stopped"]
    assert 10 < found.summary["counts"]["accepted"] < 1000
    assert found.summary["counts"]["unsettled"] > 0


def refuse(*_: object) -> None:
    """Fail as a broken disk does."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def breaking(monkeypatch: pytest.MonkeyPatch, *names: str) -> Callable[[RunView], None]:
    """Give a watcher: as soon as the run has begun, the disk breaks."""

    def watch(_: RunView) -> None:
        for name in names:
            monkeypatch.setattr(name, refuse)

    return watch


JOURNAL_SYNC, FOLDER_SYNC = "moe_bulk.journal.sync_to_disk", "moe_bulk.rundir.sync_to_disk"


@pytest.mark.parametrize("name", [JOURNAL_SYNC, FOLDER_SYNC])
def test_a_disk_that_is_broken_from_the_beginning(name: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent before a later session could know of it; when the disk is mended, the same command begins."""
    with monkeypatch.context() as patched:
        patched.setattr(name, refuse)
        ended = deliver(devices(5), out)
    assert isinstance(ended.error, JournalError)
    assert [] == ended.service.seen
    assert (0, 5, 1) == summed_up(deliver(devices(5), out).written)


def summed_up(found: Written) -> tuple[int, int, int]:
    """Give the exit code, the accepted rows and the sessions."""
    return found.summary["exit_code"], found.summary["counts"]["accepted"], found.summary["sessions"]


def test_a_disk_that_cannot_be_synced_stops_the_run(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second it is made sure that the bytes are safe; where they are not, nothing more is sent."""
    ended = deliver(devices(100_000), out, rate=Rate(600, per=60), watch=breaking(monkeypatch, JOURNAL_SYNC))
    assert isinstance(ended.error, JournalError)
    assert len(ended.service.seen) < 1000
    assert "Input/output error" in ended.written.summary["stopped"]
    assert 3 == ended.written.summary["exit_code"]


def test_a_broken_disk_waits_eight_seconds_for_what_is_on_its_way(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any other stop does: what takes longer is aborted, and its row stays unsettled."""

    async def at_once(work: Callable[..., None], *args: object, **_: object) -> None:
        work(*args)  # a thread would take its time, and the virtual clock does not wait for it

    monkeypatch.setattr("anyio.to_thread.run_sync", at_once)

    async def rows() -> AsyncIterator[Mapping[str, object]]:
        yield device(1)
        await asyncio.sleep(20.5)  # the first is written in second 20, and the disk is found broken in second 21
        yield device(2)

    ended = deliver(rows(), out, latency=20.0, watch=breaking(monkeypatch, JOURNAL_SYNC))
    assert isinstance(ended.error, JournalError)
    summary = ended.written.summary
    assert (1, 1) == (summary["counts"]["accepted"], summary["counts"]["unsettled"])
    assert 29 < summary["ended_at"] - summary["started_at"] < 30


def test_a_disk_that_fails_at_the_very_end_is_told(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows are accepted, but nobody can say that the results are safe: that is no success."""
    ended = deliver(devices(5), out, watch=breaking(monkeypatch, JOURNAL_SYNC))
    assert isinstance(ended.error, JournalError)
    found = ended.written
    assert (3, 5, str(ended.error)) == (
        found.summary["exit_code"],
        found.summary["counts"]["accepted"],
        found.summary["stopped"],
    )


@pytest.mark.parametrize("also_stopped", [True, False])
def test_a_summary_that_cannot_be_written(
    also_stopped: bool,  # noqa: FBT001  a table
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is an error of its own, but for a run that was stopped by something else before: that is what people need."""
    views: list[RunView] = []
    break_down = breaking(monkeypatch, FOLDER_SYNC)

    def watch(view: RunView) -> None:
        views.append(view)
        break_down(view)

    response = {True: lambda _: answer(401, "Authentication required"), False: accept}[also_stopped]
    ended = deliver(devices(5), out, response, watch=watch)
    assert (CredentialsRejected if also_stopped else JournalError) is type(ended.error)
    assert not (out / "summary.json").exists()
    assert views[0].summary is not None
    assert (3, str(ended.error)) == (views[0].summary["exit_code"], views[0].summary["stopped"])


def test_what_is_written_is_synced_once_a_second(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where there is something new, and both files each time; besides, at the beginning and twice at the end."""
    synced: list[int] = []
    monkeypatch.setattr("moe_bulk.journal.sync_to_disk", synced.append)

    async def rows() -> AsyncIterator[Mapping[str, object]]:
        for number in range(3):
            yield device(number)
            await asyncio.sleep(3600)

    assert 0 == deliver(rows(), out).written.summary["exit_code"]
    assert 2 * (1 + 3 + 2) == len(synced)


# -- the folder --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"user,device\nuser-1,d1\n", '{"a": 1}'.encode("utf-16")])
def test_a_source_that_cannot_be_used_leaves_no_folder(content: bytes | None, out: Path, tmp_path: Path) -> None:
    """The folder is claimed when the input could be opened, not before."""
    if content is not None:
        (tmp_path / "devices.csv").write_bytes(content)
    ended = deliver(tmp_path / "devices.csv", out)
    assert isinstance(ended.error, MoeBulkError)
    assert 2 == ended.error.exit_code
    assert ([] if content is None else ["devices.csv"]) == [path.name for path in tmp_path.iterdir()]


def test_an_unfinished_run_of_other_rows_is_refused_and_moved_aside_with_fresh(out: Path, tmp_path: Path) -> None:
    """Nothing is sent and nothing overwritten without being told to."""
    deliver(devices(2), out, reading=Reading(limit=1))
    before = (out / "results.ndjson").read_bytes()
    refused = deliver([device(7)], out)
    assert isinstance(refused.error, RunRefused)
    assert [] == refused.service.seen
    assert before == (out / "results.ndjson").read_bytes()
    assert 1 == deliver([device(7)], out, fresh=True).written.summary["counts"]["accepted"]
    aside = next(path for path in tmp_path.iterdir() if path.name.startswith("devices.run-"))
    assert before == (aside / "results.ndjson").read_bytes()


def test_two_runs_into_one_folder(out: Path) -> None:
    """The second is refused while the first is at work; two runs of one Uploader into two folders are fine."""

    async def main() -> None:
        async with FakeService().uploader() as uploader:
            first = asyncio.create_task(uploader.run(devices(100), out=out))
            other = asyncio.create_task(uploader.run(devices(50), out=out.with_name("other.run")))
            await asyncio.sleep(0.1)
            with pytest.raises(RunHeld):
                await uploader.run(devices(2), out=out, fresh=True)
            assert 100 == (await first)["counts"]["accepted"]
            assert 50 == (await other)["counts"]["accepted"]

    run_virtually(main)
    assert (100, 50) == (len(written(out).results), len(written(out.with_name("other.run")).results))


def test_folder_and_files_are_private(out: Path) -> None:
    """Tokens and ids are for nobody else's eyes."""
    deliver(devices(1), out)
    assert 0o700 == out.stat().st_mode & 0o777
    assert {0o600} == {path.stat().st_mode & 0o777 for path in out.iterdir()}


# -- watching ----------------------------------------------------------------------------------------------------------


def test_a_view_works_before_during_and_after(out: Path) -> None:
    """Whoever shows a run can ask at any time."""
    views: list[RunView] = []
    looks: list[tuple[int, int, str | None]] = []

    def decide(said: dict[str, Any]) -> httpx.Response:
        view = views[0]
        check_counts(view.tally.counts)
        looks.append((view.in_flight, view.retrying, view.waits_for))
        assert view.summary is None
        return answer(500, "Oops") if said["customer_id"] == "user-3" else answer(200)

    def begin(view: RunView) -> None:
        views.append(view)
        assert (0, 0, None, None, []) == (
            view.in_flight,
            view.retrying,
            view.waits_for,
            view.summary,
            view.warnings,
        )
        assert (0, None) == view.bytes_read
        assert 0 == view.tally.counts["read"]

    rows = [device(number, colour="blue") for number in range(200)]
    ended = deliver(rows, out, decide, rate=Rate(600, per=60), watch=begin)
    view = views[0]
    assert view.summary == ended.summary
    assert view.folder == out
    assert ["field 'colour' is not sent: it is none of the API's."] == view.warnings
    assert (0, 0, None) == (view.in_flight, view.retrying, view.waits_for)
    assert max(look[0] for look in looks) > 1
    assert max(look[1] for look in looks) == 1
    assert {"pace", "answers"} <= {look[2] for look in looks} <= {"pace", "answers", "retry"}  # waits are drawn


@pytest.mark.parametrize(
    ("response", "waits_for"),
    [
        (lambda: answer(503, "Maintenance"), "outage"),
        (lambda: answer(429, "Rate Limits Exceeded", **{"Retry-After": "30"}), "pause"),
    ],
)
def test_a_view_tells_what_the_run_waits_for(response: Callable[[], httpx.Response], waits_for: str, out: Path) -> None:
    """An outage and a pause have names, as long as they last."""
    views: list[RunView] = []
    seen: set[str | None] = set()
    until = 100.0

    def decide(_: dict[str, Any]) -> httpx.Response:
        seen.add(views[0].waits_for)
        return response() if asyncio.get_running_loop().time() < until else answer(200)

    ended = deliver(devices(100), out, decide, rate=Rate(6000, per=60), watch=views.append)
    assert {waits_for, "answers"} < seen
    assert (0, 100) == (ended.written.summary["exit_code"], ended.written.summary["counts"]["accepted"])
    assert views[0].waits_for is None
    assert (waits_for == "pause") == (ended.written.summary["pauses"] > 0)


# -- always ------------------------------------------------------------------------------------------------------------

ANSWERS: dict[str, Callable[[], httpx.Response]] = {
    "accepted": lambda: answer(200),
    "no success": lambda: httpx.Response(200, stream=httpx.ByteStream(b"<html>")),
    "rejected": lambda: answer(400, "ValueError"),
    "too large": lambda: answer(413, "PayloadTooLarge"),
    "doomed": lambda: answer(403, "Account Suspended"),
    "unauthorized": lambda: answer(401, "Authentication required"),
    "misdirected": lambda: answer(404, "Not Found"),
    "throttled": lambda: answer(429, "Rate Limits Exceeded", **{"Retry-After": "3"}),
    "trouble": lambda: answer(503, "Maintenance"),
}
MOSTLY_HARMLESS = st.sampled_from([*["accepted"] * 8, *ANSWERS, "reset"])


@settings(max_examples=examples(60), deadline=None)
@given(
    scripts=st.lists(st.lists(MOSTLY_HARMLESS, min_size=1, max_size=4), min_size=1, max_size=40),
    keys=st.integers(1, 40),
    most=st.one_of(st.none(), st.integers(0, 5)),
    limit=st.one_of(st.none(), st.integers(1, 40)),
)
def test_the_counts_add_up_whatever_the_service_answers(
    scripts: list[list[str]], keys: int, most: int | None, limit: int | None
) -> None:
    """Law 1 over random answers, shared devices, failure limits and row limits: read = statuses + unsettled."""
    tries: Counter[str] = Counter()

    def decide(said: dict[str, Any]) -> httpx.Response:
        script = scripts[int(said["attributes"]["model"])]
        word = script[min(tries[said["attributes"]["model"]], len(script) - 1)]
        tries[said["attributes"]["model"]] += 1
        if word == "reset":
            raise httpx.ReadError("connection reset")
        return ANSWERS[word]()

    rows = [{**device(n % keys), "model": str(n)} for n in range(len(scripts))]
    rows.append({"customer_id": "guest"})
    with tempfile.TemporaryDirectory() as folder:
        ended = deliver(
            rows,
            Path(folder) / "x.run",
            decide,
            retry=Retry(tries=3, outage_limit=60),
            max_failures=None if most is None else FailureLimit(count=most),
            reading=Reading(limit=limit),
        )
        found = ended.written
    counts = found.summary["counts"]
    assert isinstance(ended.error, MoeBulkError | None)
    assert sum(tries.values()) == found.summary["requests"] == len(ended.service.seen)
    finished = ended.error is None
    if finished:
        assert 0 == counts["unsettled"]
        assert min(len(rows), limit or len(rows)) == counts["read"]
        assert (1 if found.letters else 0) == found.summary["exit_code"]
    else:
        assert 3 == found.summary["exit_code"]
    assert (finished and limit is None) or "stopped" in found.summary or (limit or 0) > len(rows)


def lines_of(data: bytes) -> dict[int, bytes]:
    """Each line of some bytes by its offset."""
    offsets, at = {}, 0
    for line in io.BytesIO(data).readlines():
        offsets[at] = line
        at += len(line)
    return offsets


def results_of(data: bytes, name: str) -> Written | None:
    """Run a file with these bytes; None where it is refused as a whole, and then without a folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        ended = deliver(path, Path(folder) / "x.run", latency=0)
        if isinstance(ended.error, SourceError):
            assert [name] == [each.name for each in Path(folder).iterdir()]
            return None
        assert ended.error is None
        assert 0 == ended.written.summary["counts"]["unsettled"]
        return ended.written


def compressed_or_utf16(data: bytes) -> bool:
    """Tell whether the first bytes announce something that is no text."""
    compressed = (b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"PK\x03\x04", b"PAR1")
    return data.startswith((*compressed, b"\xff\xfe", b"\xfe\xff"))


TEXTURE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"\n", b"\r\n", b'"', b"{}\n", b"[1]\n", b"null\n", b",", b"\xef\xbb\xbf", b"\xff", b"\x00", b" \n", b"\x0c\n"]
    ),
    st.builds(lambda n: orjson.dumps(device(n)) + b"\n", st.integers(0, 5)),
    st.builds(lambda n: b"user-%d,d%d,iOS,t%d\n" % (n, n, n), st.integers(0, 5)),
)
ANY_BYTES = st.lists(TEXTURE, max_size=12).map(b"".join)


@settings(max_examples=examples(80), deadline=None)
@given(data=ANY_BYTES)
def test_every_line_of_any_ndjson_has_one_result(data: bytes) -> None:
    """Arbitrary bytes: each line that is not blank has exactly one result, at its own place."""
    found = results_of(data, "devices.ndjson")
    if found is None:
        assert (
            data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[") or b"\x00" in data or compressed_or_utf16(data)
        )
        return
    bom = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    begun = [each["offset"] - bom for each in found.results]
    assert len(set(begun)) == len(begun)
    by_offset = lines_of(data[bom:]).items()
    assert {at for at, line in by_offset if line.strip()} <= set(begun)
    assert set(begun) <= {at for at, line in by_offset if line.strip(b" \t\r\n")}


@settings(max_examples=examples(80), deadline=None)
@given(data=ANY_BYTES)
def test_every_line_of_any_csv_belongs_to_one_result(data: bytes) -> None:
    """Arbitrary bytes: each line that is not blank begins a result, or continues one that has quotes."""
    found = results_of(HEADER + data, "devices.csv")
    if found is None:
        return
    by_offset = lines_of(HEADER + data)
    begun = {each["offset"] for each in found.results}
    assert begun <= by_offset.keys() - {0}
    quotes = 0
    for at, line in list(by_offset.items())[1:]:
        if at in begun:
            quotes = 0
        elif line.strip(b" \t\r\n"):
            assert quotes % 2 == 1, f"the line at {at} has no result"
        quotes += line.count(b'"')


@settings(max_examples=examples(40), deadline=None)
@given(cells=st.lists(st.lists(st.text(max_size=8), min_size=4, max_size=4), max_size=8))
def test_every_record_of_a_written_csv_has_one_result(cells: list[list[str]]) -> None:
    """Whatever text stands in the cells, quoted newlines included: as many results as records were written."""
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(cells)
    found = results_of(HEADER + text.getvalue().encode("utf-8", "replace"), "devices.csv")
    assert found is not None
    assert len(cells) == len(found.results)


# -- the room by itself ------------------------------------------------------------------------------------------------


def test_a_journal_that_breaks_while_closing_is_told(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing goes on to its end, whatever fails on the way."""
    with RunFolder.claim(out, fresh=False) as folder:
        job = Job(Intake([], Reading(), keep_in=out.parent), Rate(), Clock(lambda: 1.0, 1e9), {})
        run = Run(folder, job, begin(folder, job))
        assert run.too_many() is None
        assert (out, None) == (run.folder, run.moved_to)
        with monkeypatch.context() as patched:
            patched.setattr(JOURNAL_SYNC, refuse)
            patched.setattr(FOLDER_SYNC, refuse)
            with pytest.raises(JournalError, match="Input/output error"):
                run.close(exit_code=0)
    assert run.summary is not None
    assert 3 == run.summary["exit_code"]


def test_the_numbers_are_brought_up_to_date_within_the_loop_s_thread_alone(out: Path) -> None:
    """Others may look at them at any moment, as an exporter of metrics does: two at once would count wrongly."""
    with RunFolder.claim(out, fresh=False) as folder:
        job = Job(Intake([], Reading(), keep_in=out.parent), Rate(), Clock(lambda: 1.0, 1e9), {})
        run = Run(folder, job, begin(folder, job))
        run.sent(1.0, again=False)
        seen: list[int] = []
        other = threading.Thread(target=lambda: seen.append(run.tally.requests))
        other.start()
        other.join()
        run.sent(2.0, again=True)
        seen += [run.tally.requests, run.tally.retries]
        run.close(exit_code=0)
    assert [0, 2, 1] == seen
    assert [(1, 0), (1, 1)] == [(each.requests, each.retries) for each in run.tally.timeline.bins()]
