"""A run that was stopped, however and whenever, and taken up again: nothing is lost, nothing is settled twice."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_bulk.columns import Columns
from moe_bulk.config import FailureLimit, Network, Rate, Retry
from moe_bulk.errors import (
    ConfigError,
    CredentialsRejected,
    Interrupted,
    JournalError,
    RunRefused,
    TooManyFailures,
)
from moe_bulk.intake import Files, Reading
from moe_bulk.journal import AppendOnlyFile
from moe_bulk.pacing import Pace
from moe_bulk.recovery import ReadBack, recent_attempts
from moe_bulk.rundir import RunFolder
from moe_bulk.superseding import STOPPED
from moe_bulk.uploader import Uploader
from tests.effort import examples
from tests.fake_service import CREDENTIALS, FakeService, answer, device, devices
from tests.runs import EPOCH, HEADER, Cut, Ended, Way, Written, deliver, written
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from moe_bulk.intake import Rows
    from moe_bulk.outcome import Attempt, Result
    from moe_bulk.view import RunView

Fed: TypeAlias = "Callable[[], Rows]"
"""Gives the rows, as a command does that is given again."""

COUNT = 30
FEW = Network(in_flight=4)
TWICE = Retry(tries=2, first_wait=0.5, longest_wait=0.5)
WAYS: tuple[Way, ...] = ("cancel", "signal", "401", "crash")
TEN = {"accepted": 6, "rejected": 2, "invalid": 1, "exhausted": 1}
"""What ten rows come to."""


def decide(said: dict[str, Any]) -> httpx.Response:
    """Answer by the number of the user: some are refused, some never answered well."""
    number = int(said["customer_id"].removeprefix("user-"))
    return {3: answer(400, "ValueError"), 4: answer(400, "ValueError"), 7: answer(503, "Oops")}.get(
        number % 10, answer(200)
    )


def row(number: int) -> dict[str, object]:
    """Make a row; some are not valid."""
    return {**device(number), "platform": "fridge" if number % 10 == 5 else "iOS"}


def csv_of(numbers: range) -> bytes:
    """Write rows as CSV."""
    return HEADER + b"".join(",".join(map(str, row(number).values())).encode() + b"\n" for number in numbers)


class Again:
    """An async iterable that can be gone through many times."""

    async def __aiter__(self) -> AsyncIterator[Mapping[str, object]]:
        for number in range(COUNT):
            await asyncio.sleep(0.01)
            yield row(number)


async def as_they_come() -> AsyncIterator[Mapping[str, object]]:
    """Give the rows once."""
    for number in range(COUNT):
        yield row(number)


def piped(path: Path, data: bytes) -> str:
    """Give a FIFO into which somebody writes these bytes."""
    if not path.exists():
        os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(data,), daemon=True).start()
    return str(path)


def on_standard_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> str:
    """Put these bytes on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return "-"


def files_of(folder: Path, **contents: bytes) -> tuple[str, ...]:
    """Write files, where they are not there yet."""
    for name, content in contents.items():
        path = folder / name.replace("_", ".")
        if not path.exists():
            path.write_bytes(content)
    return tuple(str(folder / name.replace("_", ".")) for name in contents)


def inputs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Fed]:
    """Every form in which the rows may come."""
    whole, first, rest = csv_of(range(COUNT)), csv_of(range(13)), csv_of(range(13, COUNT))
    return {
        "file": lambda: files_of(folder, a_csv=whole)[0],
        "gzip": lambda: files_of(folder, a_csv_gz=gzip.compress(whole, mtime=0))[0],
        "files": lambda: Files(files_of(folder, a_csv=first, b_csv=csv_of(range(0)), c_csv=rest)),
        "fifo": lambda: piped(folder / "pipe", whole),
        "stdin": lambda: on_standard_input(monkeypatch, gzip.compress(whole, mtime=0)),
        "stdin and a file": lambda: Files((on_standard_input(monkeypatch, first), *files_of(folder, b_csv=rest))),
        "list": lambda: [row(number) for number in range(COUNT)],
        "generator": lambda: (row(number) for number in range(COUNT)),
        "async iterable": Again,
        "async generator": as_they_come,
    }


KINDS = list(inputs(Path(), pytest.MonkeyPatch()))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Name a run folder."""
    return tmp_path / "devices.run"


def go(rows: Rows, out: Path, number: int = 0, **more: Any) -> Ended:
    """Make session `number` of a run: later ones begin later on the boot clock."""
    said = {"network": FEW, "retry": TWICE, "clock": (1000.0 * number, EPOCH), **more}
    return deliver(rows, out, said.pop("decide", decide), **said)


def whole(out: Path, sessions: int | None = None, count: int = COUNT) -> Written:
    """Read a finished run of so many (tens of) rows, of those that all these tests have in common."""
    found = written(out)
    assert found.checkpoint.finished
    expected = {status: each * count // 10 for status, each in TEN.items()}
    assert expected == Counter(each["status"] for each in found.results)
    assert count == found.summary["counts"]["read"] == len({(each["source"], each["line"]) for each in found.results})
    assert 1 == found.summary["exit_code"]
    assert sessions is None or sessions == found.summary["sessions"]
    assert expected == {"accepted": expected["accepted"], **causes(found)}
    return found


def causes(found: Written) -> dict[str, int]:
    """Count the summary's failures by their status."""
    counts: Counter[str] = Counter()
    for failure in found.summary["failures"]:
        counts[failure["status"]] += failure["count"]
    return dict(counts)


# -- every way, every input, many moments ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cuts", [("cancel 17", "signal 0", "401 4"), ("crash 17", "cancel 0", "crash 4")])
def test_a_stopped_run_goes_on(
    kind: str, cuts: Sequence[str], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle, then before its first request, then again: the fourth session finishes it."""
    fed = inputs(tmp_path, monkeypatch)[kind]
    sent = 0
    for number, cut in enumerate(cuts):
        way, after = cut.split()
        ended = go(fed(), out, number, cut=Cut(cast("Way", way), int(after)))
        assert isinstance(ended.error, STOPPED_BY[way])
        sent += len(ended.service.seen)
        if way != "crash":
            assert {"cancel": 130, "signal": 143, "401": 3}[way] == written(out).summary["exit_code"]
    sent += len(go(fed(), out, 3).service.seen)
    requests = whole(out, sessions=4).summary["requests"]
    # a crash leaves no word of what was on its way then
    assert (requests == sent) if "crash" not in cuts[0] else (30 <= requests <= sent)


STOPPED_BY: dict[str, type[BaseException]] = {
    "cancel": asyncio.CancelledError,
    "signal": Interrupted,
    "401": CredentialsRejected,
    "crash": asyncio.CancelledError,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("after", [1, 2, 6, 9, 10])
def test_at_any_moment(way: Way, after: int, out: Path, tmp_path: Path) -> None:
    """The first and the last request are moments as good as any."""
    (path,) = files_of(tmp_path, a_csv=csv_of(range(10)))
    go(path, out, cut=Cut(way, after))
    go(path, out, 1)
    whole(out, sessions=2, count=10)


OUTCOMES: dict[str, Callable[[], httpx.Response]] = {
    "accepted": lambda: answer(200),
    "rejected": lambda: answer(400, "ValueError"),
    "exhausted": lambda: answer(503, "Oops"),
}


@settings(max_examples=examples(40), deadline=None)
@given(
    statuses=st.lists(st.sampled_from(["accepted", "accepted", *OUTCOMES, "invalid"]), max_size=30),
    keys=st.integers(1, 30),
    cuts=st.lists(st.builds(Cut, st.sampled_from(WAYS), st.integers(0, 12)), max_size=4),
    limits=st.lists(st.one_of(st.none(), st.integers(1, 30)), min_size=4, max_size=4),
)
def test_each_row_has_one_result_always(
    statuses: list[str], keys: int, cuts: list[Cut], limits: list[int | None]
) -> None:
    """Whatever the rows come to, wherever sessions end: one result a row, one dead letter a failure, law 1 holds."""
    rows = [
        {**device(n % keys), "model": str(n), "platform": "iOS" if each in OUTCOMES else "fridge"}
        for n, each in enumerate(statuses)
    ]

    def decide_it(said: dict[str, Any]) -> httpx.Response:
        return OUTCOMES[statuses[int(said["attributes"]["model"])]]()

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "x.run"
        for number, cut in enumerate(cuts):
            go(rows, out, number, decide=decide_it, cut=cut, reading=Reading(limit=limits[number]))
        go(rows, out, 9, decide=decide_it)
        found = written(out)
    assert found.checkpoint.finished
    assert dict(enumerate(statuses)) == {each["offset"]: each["status"] for each in found.results}
    failed = [n for n, status in enumerate(statuses) if status != "accepted"]
    assert failed == [letter["_moe_bulk"]["line"] - 1 for letter in found.letters]
    assert Counter(statuses) + Counter(read=len(rows)) == +Counter(found.summary["counts"])


def test_the_order_within_a_device_outlives_a_stop(out: Path) -> None:
    """Each session sends a device's rows in order, from the first one that has no result: its last row comes last."""
    rows = [device(1, model=str(number)) for number in range(20)]
    settled = 0
    for number, after in enumerate((3, 5, 7, 99)):
        words: list[int] = []

        def decide_it(said: dict[str, Any], words: list[int] = words) -> httpx.Response:
            words.append(int(said["attributes"]["model"]))
            return answer(200)

        go(rows, out, number, decide=decide_it, cut=Cut("cancel", after))
        assert list(range(settled, settled + len(words))) == words
        settled = len(written(out).results)
    assert (20, 19) == (settled, words[-1])


# -- what a run counts over its sessions -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "stdin", "generator"])
def test_a_limit_is_a_total(kind: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many rows over all sessions: the same limit again reads nothing, a higher one the difference."""
    fed = inputs(tmp_path, monkeypatch)[kind]
    counts = []
    for number, limit in enumerate((10, 10, 4, 14)):
        go(fed(), out, number, reading=Reading(limit=limit))
        counts.append(written(out).summary["counts"]["read"])
    assert [10, 10, 10, 14] == counts
    go(fed(), out, 5)
    whole(out, sessions=5)


def test_a_limit_counts_what_a_stop_left_unsettled_once(out: Path) -> None:
    """Rows that were read and not settled are read again within the same limit."""
    rows = devices(COUNT)
    go(rows, out, cut=Cut("cancel", 5), reading=Reading(limit=12))
    go(rows, out, 1, reading=Reading(limit=12))
    assert [f"user-{n}" for n in range(12)] == sorted(
        (each["customer_id"] for each in written(out).results), key=lambda who: int(who[5:])
    )


def test_what_was_sent_before_a_stop_counts_in_the_window(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace is told of the requests of the session before, though that was another process."""
    told: list[Attempt] = []
    monkeypatch.setattr(Pace, "remember", lambda _, attempts: told.extend(attempts))
    rows = [device(number) for number in range(COUNT)]
    before = go(rows, out, rate=Rate(60, per=60), cut=Cut("signal", 9), decide=lambda _: answer(200))
    assert [] == told
    go(rows, out, rate=Rate(60, per=60), clock=(50.0, EPOCH))
    assert pytest.approx(sorted(before.service.times), abs=0.01) == sorted(each.at for each in told)


def test_failures_are_allowed_anew_in_each_session(out: Path) -> None:
    """What failed before was looked at before the run was begun again."""
    rows = devices(40)
    seen: list[int] = []
    for number in range(20):
        ended = go(rows, out, number, decide=lambda _: answer(400, "E"), max_failures=FailureLimit(count=3))
        seen.append(len(ended.service.seen))
        if ended.error is None:
            break
        assert isinstance(ended.error, TooManyFailures)
    assert 40 == sum(seen) == written(out).summary["counts"]["rejected"]
    assert min(seen[:-1]) >= 4


def test_the_summary_is_the_whole_job_s(out: Path) -> None:
    """Its beginning is the first session's, its requests, retries and latencies are all sessions'."""
    rows = [row(n) for n in range(COUNT)]
    ends = [go(rows, out, cut=Cut("signal", 5))]
    first = written(out).summary
    ends.append(go(rows, out, 1))
    summary = whole(out, sessions=2).summary
    assert EPOCH <= first["started_at"] == summary["started_at"] < EPOCH + 1
    assert summary["ended_at"] > EPOCH + 1000
    assert sum(len(each.service.seen) for each in ends) == summary["requests"] >= 30
    assert 3 == summary["retries"]
    assert 290 < summary["latency_ms"]["p50"] < 310


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_wall_clock_that_was_set_between_sessions(step: float, out: Path) -> None:
    """An hour forward or back: no row is lost, no window is counted twice, and the run ends as any other."""
    rows = [row(n) for n in range(COUNT)]
    go(rows, out, cut=Cut("cancel", 9))
    go(rows, out, 1, clock=(20.0, EPOCH + step), cut=Cut("crash", 9))
    go(rows, out, 2, clock=(40.0, EPOCH))
    found = whole(out, sessions=3)
    assert found.summary["rate"]["busiest_window"]["count"] <= found.summary["requests"]


def test_a_wall_clock_that_is_set_within_a_session(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was read once: what is written stays in order."""
    real = time.time

    def watch(_: RunView) -> None:
        monkeypatch.setattr("time.time", lambda: real() - 3600)

    async def main() -> None:
        transport = httpx.MockTransport(FakeService(latency=0.0).handle)
        async with Uploader(CREDENTIALS, transport=transport, rate=Rate(60_000, per=60)) as uploader:
            await uploader.run(devices(20), out=out, watch=watch)

    asyncio.run(main())
    found = written(out)
    times = [each["settled_at"] for each in found.results]
    assert sorted(times) == times
    assert found.summary["started_at"] <= times[0] <= times[-1] <= found.summary["ended_at"]


async def at_once(work: Callable[..., Any], *args: object, **_: object) -> object:
    """Do a thread's work here and now: the virtual clock would not wait for it."""
    return work(*args)


def test_a_window_that_spans_a_stop_is_counted_whole(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof that the limit was kept holds over sessions, after a reboot too."""
    monkeypatch.setattr("anyio.to_thread.run_sync", at_once)
    rows = devices(COUNT)
    go(rows, out, cut=Cut("cancel", 10))
    go(rows, out, clock=(20.0, EPOCH), cut=Cut("cancel", 10))
    monkeypatch.setattr("moe_bulk.standing.boot_id", lambda: "another boot")
    go(rows, out, clock=(2.0, EPOCH + 40))
    found = written(out)
    told = sum(len(each["attempts"]) for each in found.results)
    last = found.summary["requests"] - told  # those on their way at a stop, of which no result tells
    assert 33 == told <= found.summary["rate"]["busiest_window"]["count"] <= told + last


# -- the same command again: the table of design.md --------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_of_the_same_is_not_sent_again(
    kind: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its summary is returned as it is, nothing is written, and nobody shows a run."""
    fed = inputs(tmp_path, monkeypatch)[kind]
    first = go(fed(), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = go(fed(), out, 1, watch=lambda _: pytest.fail("there is nothing to watch"))
    assert (first.summary, []) == (again.summary, again.service.seen)
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"exit_code": 0}', b"[]", None])
def test_a_finished_run_whose_summary_is_gone(damage: bytes | None, out: Path) -> None:
    """It is summed up again from what is on disk; nothing is sent."""
    rows = [row(n) for n in range(COUNT)]
    go(rows, out)
    letters = (out / "dead-letter.ndjson").read_bytes()
    if damage is None:
        (out / "summary.json").unlink()
    else:
        (out / "summary.json").write_bytes(damage)
    ended = go(rows, out, 1)
    assert [] == ended.service.seen
    assert ended.summary == whole(out, sessions=1).summary
    assert letters == (out / "dead-letter.ndjson").read_bytes()


OTHER: dict[str, Callable[[Path, pytest.MonkeyPatch], Rows]] = {
    "file": lambda folder, _: files_of(folder, b_csv=csv_of(range(40)))[0],
    "stdin": lambda _, patch: on_standard_input(patch, csv_of(range(40))),
    "a stream cut short": lambda _, patch: on_standard_input(patch, csv_of(range(3))),
    "list": lambda *_: [row(n) for n in range(40, 70)],
    "more in the list": lambda *_: [row(n) for n in range(COUNT + 1)],
    "fewer in the list": lambda *_: [row(n) for n in range(3)],
    "nothing": lambda *_: [],
    "generator": lambda *_: (row(n) for n in range(40, 70)),
}


@pytest.mark.parametrize("kind", OTHER)
def test_a_finished_run_of_other_data_is_moved_aside(
    kind: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes room for the new one, and stays as it was; not a row of the new one is missing."""
    before = go([row(n) for n in range(COUNT)] if "file" != kind else csv_file(tmp_path), out)
    if kind in ("stdin", "a stream cut short"):
        out = tmp_path / "stdin.run"
        before = go(on_standard_input(monkeypatch, csv_of(range(COUNT))), out)
    views: list[RunView] = []
    rows = OTHER[kind](tmp_path, monkeypatch)
    ended = go(rows, out, 1, watch=views.append)
    assert ended.error is None
    found = written(out)
    assert {"a stream cut short": 3, "fewer in the list": 3, "nothing": 0, "more in the list": 31}.get(
        kind, 40 if kind in ("file", "stdin") else 30
    ) == found.summary["counts"]["read"]
    assert 1 == found.summary["sessions"]
    assert views[0].moved_to is not None
    assert before.summary == written(views[0].moved_to).summary


def csv_file(folder: Path) -> str:
    """Write the file that most of these tests begin with."""
    return files_of(folder, a_csv=csv_of(range(COUNT)))[0]


@pytest.mark.parametrize("kind", [kind for kind in OTHER if kind != "more in the list"])
def test_an_unfinished_run_of_other_data_is_refused(
    kind: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent and nothing changed; with if_changed="fresh" it is moved aside."""
    first = csv_file(tmp_path) if kind == "file" else [row(n) for n in range(COUNT)]
    if kind in ("stdin", "a stream cut short"):
        first = on_standard_input(monkeypatch, csv_of(range(COUNT)))
    go(first, out, cut=Cut("signal", 12))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    refused = go(OTHER[kind](tmp_path, monkeypatch), out, 1)
    assert isinstance(refused.error, RunRefused)
    assert "holds an unfinished run of other data" in str(refused.error)
    assert (2, []) == (refused.error.exit_code, refused.service.seen)
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    ended = go(OTHER[kind](tmp_path, monkeypatch), out, 2, if_changed="fresh")
    assert ended.error is None
    assert 1 == written(out).summary["sessions"]
    (aside,) = (path for path in tmp_path.iterdir() if path.name.startswith("devices.run-"))
    assert before == {path.name: path.read_bytes() for path in aside.iterdir()}


def test_more_rows_behind_those_of_an_unfinished_run_go_on(out: Path) -> None:
    """As far as the run had read, the rows are the same: that is what it can tell."""
    go((row(n) for n in range(COUNT)), out, reading=Reading(limit=COUNT))
    ended = go([row(n) for n in range(40)], out, 1)
    assert ended.error is None
    assert (40, 2) == (written(out).summary["counts"]["read"], written(out).summary["sessions"])


def test_a_touched_file_is_the_same(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy with another modification time is known by its content, in each further session, too."""
    monkeypatch.setattr("anyio.to_thread.run_sync", at_once)
    path = csv_file(tmp_path)
    go(path, out, cut=Cut("signal", 9))
    for number, after in enumerate((5, 5), 1):
        os.utime(path, (number, number))
        go(path, out, number, cut=Cut("signal", after))
    os.utime(path, (9, 9))
    go(path, out, 3)
    whole(out, sessions=4)
    os.utime(path, (10, 10))
    assert [] == go(path, out, 4).service.seen


def test_a_file_that_was_changed_in_place(out: Path, tmp_path: Path) -> None:
    """Of the same size, but other bytes: it is another file."""
    path = csv_file(tmp_path)
    go(path, out, cut=Cut("signal", 9))
    Path(path).write_bytes(csv_of(range(COUNT)).replace(b"user-29", b"user-92"))
    os.utime(path, (1, 1))
    assert isinstance(go(path, out, 1).error, RunRefused)


def test_a_renamed_file_is_the_same(out: Path, tmp_path: Path) -> None:
    """The results go on to call it as they did."""
    path = csv_file(tmp_path)
    go(path, out, cut=Cut("signal", 9))
    renamed = Path(path).rename(tmp_path / "renamed.csv")
    go(renamed, out, 1)
    assert {path} == {each["source"] for each in whole(out, sessions=2).results}


def test_another_number_of_sources_is_other_data(out: Path, tmp_path: Path) -> None:
    """The message names those that were added."""
    first, second = files_of(tmp_path, a_csv=csv_of(range(9)), b_csv=csv_of(range(9, 20)))
    go(first, out, cut=Cut("signal", 3))
    refused = go(Files((first, second)), out, 1)
    assert f"(changed: {second})" in str(refused.error)
    swapped = Files((second, first))
    go(Files((first, second)), out, 2, fresh=True, cut=Cut("signal", 3))
    assert isinstance(go(swapped, out, 3).error, RunRefused)


CHANGED = [
    {"reading": Reading(Columns.parse(set_=["model=x"]))},
    {"reading": Reading(Columns.parse(column=["model=push_id"]))},
    {"reading": Reading(Columns.parse(where=["platform=iOS"]))},
    {"reading": Reading(format="ndjson")},
]


@pytest.mark.parametrize("more", CHANGED[:3])
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused(more: dict[str, Any], finished: bool, out: Path, tmp_path: Path) -> None:  # noqa: FBT001  a table
    """The message names what differs, and nothing is sent; with fresh=True the run makes room."""
    path = csv_file(tmp_path)
    go(path, out, cut=None if finished else Cut("signal", 9))
    refused = go(path, out, 1, **more)
    assert isinstance(refused.error, RunRefused)
    assert "begun with no --" in str(refused.error)
    assert ("a finished run" if finished else "an unfinished run") in str(refused.error)
    assert [] == refused.service.seen
    assert go(path, out, 2, fresh=True, **more).error is None


def test_settings_that_do_not_matter_may_change(out: Path) -> None:
    """Pace, patience and limits are another session's own affair."""
    rows = [row(n) for n in range(COUNT)]
    go(rows, out, cut=Cut("signal", 9))
    go(rows, out, 1, rate=Rate(100, per=1), network=Network(in_flight=2, timeout=5.0), reading=Reading(limit=200))
    whole(out, sessions=2)


def test_fresh_and_the_runs_that_are_kept(out: Path, tmp_path: Path) -> None:
    """With fresh, any run is moved aside; so many of those are kept as asked for, the newest."""
    for number in range(5):
        go(devices(number + 1), out, number, fresh=True, clock=(0.0, EPOCH + 1e6 * number))
    aside = sorted(path for path in tmp_path.iterdir() if path.name.startswith("devices.run-"))
    assert [1, 2, 3, 4] == [written(path).summary["counts"]["read"] for path in aside]
    go(devices(9), out, 5, keep_runs=2, clock=(0.0, EPOCH + 1e7))
    left = sorted(path for path in tmp_path.iterdir() if path.name.startswith("devices.run-"))
    assert [4, 5] == [written(path).summary["counts"]["read"] for path in left]


@pytest.mark.parametrize(("more", "said"), [({"if_changed": "maybe"}, "'maybe'"), ({"keep_runs": -1}, "at least 0")])
def test_terms_that_make_no_sense(more: dict[str, Any], said: str, out: Path) -> None:
    """They are refused before anything is opened."""
    error = go(devices(1), out, **more).error
    assert isinstance(error, ConfigError)
    assert said in str(error)
    assert not out.exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: b"{", "torn, or no JSON"),
        (lambda text: text.replace(b'"sessions":1', b'"sessions":"x"'), "'sessions' is no number"),
        (lambda text: text.replace(b'"source":0', b'"source":7'), "there is no source 7"),
        (lambda text: text.replace(b'"requests":', b'"requests":-'), "the tally is damaged"),
    ],
)
def test_a_damaged_checkpoint_is_refused(damage: Callable[[bytes], bytes], said: str, out: Path) -> None:
    """What cannot be trusted is not gone on with: exit 2, with the way out, which works."""
    go(devices(COUNT), out, cut=Cut("signal", 9))
    path = out / "checkpoint.json"
    path.write_bytes(damage(path.read_bytes()))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    refused = go(devices(COUNT), out, 1)
    assert isinstance(refused.error, RunRefused)
    assert said in str(refused.error)
    assert "add --fresh" in str(refused.error)
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    assert go(devices(COUNT), out, 2, fresh=True).error is None


def test_a_missing_checkpoint_is_refused(out: Path) -> None:
    """Without it nobody knows what the results belong to."""
    go(devices(3), out)
    (out / "checkpoint.json").unlink()
    assert "checkpoint.json is missing" in str(go(devices(3), out, 1).error)


@pytest.mark.parametrize("way", ["signal", "crash"])
@pytest.mark.parametrize("held", [3, 100_000])
def test_results_that_were_cut_short_are_read_back(
    way: Way, held: int, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the files do not hold what the checkpoint says, they are the truth: what is missing is sent again.

    That holds for rows in memory, too, of which only some are kept while they are compared.
    """
    monkeypatch.setattr("moe_bulk.intake.memory.HELD", held)
    rows = [row(n) for n in range(COUNT)]
    go(rows, out, cut=Cut(way, 25))
    path = out / "results.ndjson"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    go(rows, out, 1)
    whole(out, sessions=2)


def test_a_finished_run_whose_results_were_changed_is_refused(out: Path) -> None:
    """Nobody knows what became of its rows: nothing is sent, and the way out is told."""
    go(devices(3), out)
    with (out / "results.ndjson").open("ab") as file:
        file.write(b"x")
    refused = go(devices(3), out, 1)
    assert isinstance(refused.error, RunRefused)
    assert "somebody changed it" in str(refused.error)
    assert [] == refused.service.seen


def test_the_dead_letter_of_an_unfinished_run_is_refused_as_rows(out: Path, tmp_path: Path) -> None:
    """As a path, and among others; it is none of the uploader's rows in memory."""
    go([row(n) for n in range(COUNT)], out, cut=Cut("signal", 20))
    letters = out / "dead-letter.ndjson"
    for rows in (letters, Files((csv_file(tmp_path), str(letters)))):
        ended = go(rows, tmp_path / "again.run")
        assert "belongs to a run that is not finished" in str(ended.error)
    go([row(n) for n in range(COUNT)], out, 1)
    assert go(letters, tmp_path / "again.run", 2).error is None


def test_dead_letters_sent_ten_times_end_in_the_right_state(out: Path, tmp_path: Path) -> None:
    """Each generation's failures are the next one's input; whatever fails, the last valid row of a device wins."""
    rng = random.Random(7)
    rows = [{**device(rng.randrange(12)), "model": f"row {number}"} for number in range(60)]
    for number in rng.sample(range(60), 8):
        rows[number]["platform"] = "fridge"
    state: dict[str, str] = {}

    def now_and_then(said: dict[str, Any]) -> httpx.Response:
        if rng.random() < 0.5:
            return answer(400, "ValueError")
        state[said["device_id"]] = said["attributes"]["model"]
        return answer(200)

    source: Rows = rows
    for generation in range(10):
        folder = out.with_name(f"generation-{generation}.run")
        assert go(source, folder, generation, decide=now_and_then).error is None
        source = folder / "dead-letter.ndjson"
    last = {str(each["device_id"]): str(each["model"]) for each in rows if each["platform"] == "iOS"}
    assert last == state
    left = written(folder).letters
    assert {"invalid"} == {each["_moe_bulk"]["status"] for each in left}
    assert [9] * len(left) == [len(each["_moe_bulk"]["history"]) for each in left]


# -- rows that can be had once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [3, 100_000])
def test_rows_that_were_compared_are_not_lost(held: int, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are kept while they are compared, each unsettled one of a generator is sent."""
    monkeypatch.setattr("moe_bulk.intake.memory.HELD", held)
    fed = inputs(Path(), monkeypatch)["generator"]
    for number, after in enumerate((12, 2, 5)):
        go(fed(), out, number, cut=Cut("crash", after))
    go(fed(), out, 3)
    whole(out, sessions=4)
    assert [] == go(fed(), out, 4).service.seen


def test_a_generator_that_differs_late_is_not_sent_in_part(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of it and not kept cannot be asked for again; a list can."""
    monkeypatch.setattr("moe_bulk.intake.memory.HELD", 3)
    go([row(n) for n in range(COUNT)], out)
    other = [*(row(n) for n in range(COUNT - 1)), row(99)]
    refused = go(iter(other), out, 1)
    assert isinstance(refused.error, RunRefused)
    assert "or fresh=True" in str(refused.error)
    assert [] == refused.service.seen
    assert go(other, out, 2).error is None
    assert (COUNT, 1) == (written(out).summary["counts"]["read"], written(out).summary["sessions"])


# -- the disk ----------------------------------------------------------------------------------------------------------


def test_people_are_warned_of_a_disk_that_is_too_small(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, by what the results took so far; where nobody can tell, nothing is said."""
    monkeypatch.setattr(RunFolder, "free_bytes", lambda _: 2_000)
    path = tmp_path / "a.csv"
    path.write_bytes(csv_of(range(20_000)))
    views: list[RunView] = []
    go(path, out, watch=views.append, rate=Rate(60, per=60), reading=Reading(limit=50))
    (warning,) = [each for each in views[0].warnings if "room" in each]
    assert f"MB more in {out}, and 2.0 kB are free: make room there" in warning
    go(devices(50), tmp_path / "other.run", watch=views.append, rate=Rate(60, per=60))
    assert [] == views[1].warnings


def test_a_disk_that_cannot_be_asked_stops_the_run_in_order(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is trouble with the run folder as any other, not a bug."""

    def vanish(_: int) -> os.statvfs_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = csv_file(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("os.fstatvfs", vanish)
        ended = go(path, out, rate=Rate(60, per=60))
    assert isinstance(ended.error, JournalError)
    assert 3 == written(out).summary["exit_code"]
    go(path, out, 1)
    whole(out, sessions=2)


def test_a_full_disk_ends_the_sending_and_tells_how_much_room_is_needed(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a request is sent after the write that failed; the message speaks of all that is still to come."""
    path = tmp_path / "a.csv"
    path.write_bytes(csv_of(range(20_000)))
    failed: list[tuple[float, int]] = []
    take = AppendOnlyFile._take

    def full(file: AppendOnlyFile, left: memoryview) -> int:
        if file.written < 20_000 or not file.expected:  # it is known within a second
            return take(file, left)
        failed.append((asyncio.get_running_loop().time(), file.expected))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(AppendOnlyFile, "_take", full)
        ended = go(path, out, rate=Rate(600, per=60), network=Network(in_flight=64), latency=2.0)
    failed_at, expected = failed[0]
    assert 5_000_000 < expected < 50_000_000
    assert f"Free at least {expected // 1_000_000 + 1} MB there" in str(ended.error)
    assert max(ended.service.times, default=0.0) <= failed_at
    assert 20_000 > len(ended.service.seen)


def test_waiting_for_a_writer_ends_with_a_cancellation(tmp_path: Path) -> None:
    """A pipe into which nobody ever writes keeps nobody from leaving."""
    os.mkfifo(tmp_path / "pipe.csv")

    async def main() -> None:
        async with Uploader(CREDENTIALS, transport=httpx.MockTransport(FakeService().handle)) as uploader:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await uploader.run(tmp_path / "pipe.csv", out=tmp_path / "out.run")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3), uploader.stream(tmp_path / "pipe.csv"):
                    pass

    asyncio.run(main())


class Disk:
    """A disk that works for so many operations, and fails from then on; a write may be taken in half before."""

    def __init__(self, patch: pytest.MonkeyPatch, works: int, error: int) -> None:
        self.asked = 0
        self._works = works
        self._error = error
        self._take = AppendOnlyFile._take

        def take(file: AppendOnlyFile, left: memoryview) -> int:
            return self.take(file, left)

        patch.setattr(AppendOnlyFile, "_take", take)
        for name in ("journal", "rundir", "recovery", "census", "superseding"):
            patch.setattr(f"moe_bulk.{name}.sync_to_disk", self.work)
        patch.setattr("moe_bulk.rundir.sync_folder", self.work)

    def work(self, _: object) -> None:
        """Do something, if it still works."""
        self.asked += 1
        if self.asked > self._works:
            raise OSError(self._error, os.strerror(self._error))

    def take(self, file: AppendOnlyFile, left: memoryview) -> int:
        """Write; the last bytes that it takes are half of what it should."""
        if self.asked == self._works:
            self.asked += 1
            return self._take(file, left[: len(left) // 2 + 1])
        self.work(None)
        return self._take(file, left)


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize(("error", "session"), [(errno.ENOSPC, 1), (errno.EIO, 2)])
def test_a_disk_that_fails_at_any_moment(
    error: int, session: int, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever write or sync it is, in the first session or while going on: the next one finishes the run.

    Each test looks at every fourth of them, from the `first` on.
    """
    rows = [row(n) for n in range(10)]
    for works in range(first, 200, 4):
        out = tmp_path / f"{works}.run"
        if session == 2:
            go(rows, out, cut=Cut("crash", 6))
        with monkeypatch.context() as patched:
            Disk(patched, works, error)
            ended = go(rows, out, session, network=None)
        if ended.error is None:
            break
        assert isinstance(ended.error, JournalError), works
        assert ended.error.exit_code in (2, 3)
        go(rows, out, 3, network=None)
        whole(out, count=10)
    assert works > 15


# -- cancelled at its edges --------------------------------------------------------------------------------------------


@dataclass
class Pause:
    """Something in a thread that lasts until somebody lets it go on."""

    began: threading.Event = field(default_factory=threading.Event)
    may_go_on: threading.Event = field(default_factory=threading.Event)
    ended: bool = False

    def take(self) -> None:
        """Last."""
        self.began.set()
        assert self.may_go_on.wait(10)

    async def cancel(self, rows: Rows, out: Path, *, native: bool) -> None:
        """Cancel a run while it is there, in one of two ways; the run is over only when it is."""

        async def job() -> None:
            with scope:
                async with FakeService(decide).uploader(retry=TWICE, network=FEW) as uploader:
                    await uploader.run(rows, out=out)

        scope = anyio.CancelScope()
        task = asyncio.create_task(job())
        await asyncio.to_thread(self.began.wait, 10)
        threading.Timer(0.1, self.may_go_on.set).start()
        if native:
            task.cancel()
        else:
            scope.cancel()
        await asyncio.wait([task])
        assert self.may_go_on.is_set()
        assert task.cancelled() or scope.cancelled_caught


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("place", ["reading back", "at its end"])
def test_cancelled_while_the_files_are_mended(
    place: str,
    native: bool,  # noqa: FBT001  a table
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folder is let go of when the thread that mends it has ended, which it does soon; nothing is lost."""
    rows, pause, read = [row(n) for n in range(COUNT)], Pause(), []
    go(rows, out, cut=Cut("crash", 20))
    results, recent = ReadBack.results, recent_attempts

    def slow_results(self: ReadBack) -> Iterator[Result]:
        for result in results(self):
            pause.take()
            read.append(result)
            yield result

    def slow_recent(*args: Any) -> list[Attempt]:
        pause.take()
        assert (out / "results.ndjson").exists()
        return recent(*args)

    with monkeypatch.context() as patched:
        if place == "reading back":
            patched.setattr(ReadBack, "results", slow_results)
        else:
            patched.setattr("moe_bulk.standing.recent_attempts", slow_recent)
        run_virtually(lambda: pause.cancel(rows, out, native=native))
    assert len(read) <= 1
    go(rows, out, 1)
    whole(out)


@pytest.mark.parametrize("native", [True, False])
def test_cancelled_while_the_dead_letters_are_filled_in(
    native: bool,  # noqa: FBT001  a table
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pass over the results is told to end, and waited for; the next session makes it again."""
    rows, pause = [row(n) for n in range(COUNT)], Pause()

    def slow(_results: Path, _letters: Path, _labels: object, stopping: Callable[[], bool], *, dir_fd: int) -> int:
        pause.take()
        assert os.fstat(dir_fd)
        return STOPPED if stopping() else -100

    with monkeypatch.context() as patched:
        patched.setattr("moe_bulk.run.supersede", slow)
        run_virtually(lambda: pause.cancel(rows, out, native=native))
    found = written(out)
    assert (130, 0) == (found.summary["exit_code"], found.summary["counts"]["unsettled"])
    assert [] == go(rows, out, 1).service.seen
    whole(out, sessions=2)


def test_stopped_while_the_dead_letters_are_filled_in(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal ends the pass, too, and the exit code is the signal's."""
    rows, uploaders = [row(n) for n in range(COUNT)], list[Uploader]()

    def interrupted(*_: object, **__: object) -> int:
        uploaders[0].stop(Interrupted("interrupted by SIGTERM", 15))
        return STOPPED

    async def main() -> None:
        async with FakeService(decide).uploader(retry=TWICE, network=FEW) as uploader:
            uploaders.append(uploader)
            await uploader.run(rows, out=out)

    with monkeypatch.context() as patched, pytest.raises(Interrupted, match="SIGTERM"):  # noqa: PT012  one run
        patched.setattr("moe_bulk.run.supersede", interrupted)
        run_virtually(main)
    assert 143 == written(out).summary["exit_code"]
    go(rows, out, 1)
    whole(out, sessions=2)


def test_a_crash_between_the_last_steps(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each moment between a run's last row and its end is one from which it can be finished."""
    rows, images = [row(n) for n in range(10)], list[Path]()

    def picturing(work: Callable[..., Any]) -> Callable[..., Any]:
        def pictured(*args: Any, **more: Any) -> Any:
            for _ in range(2):
                images.append(tmp_path / f"{len(images)}.run")
                shutil.copytree(out, images[-1])
                if len(images) % 2:
                    done = work(*args, **more)
            return done

        return pictured

    with monkeypatch.context() as patched:
        for name in ("write_checkpoint", "write_summary", "replace_dead_letter"):
            patched.setattr(RunFolder, name, picturing(getattr(RunFolder, name)))
        go(rows, out, latency=0.01)
    assert len(images) >= 12
    for image in images:
        ended = go(rows, image, 1)
        assert ended.error is None
        whole(image, count=10)
