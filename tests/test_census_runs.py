"""Runs with users of too many devices: the same rows are invalid, whatever the run was stopped by and however often."""

from __future__ import annotations

import errno
import os
import random
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_bulk.census import Sizes
from moe_bulk.columns import Columns
from moe_bulk.config import Network, Retry
from moe_bulk.errors import JournalError, RunRefused
from moe_bulk.intake import Reading
from tests.fake_service import FakeService, answer
from tests.runs import HEADER, Cut, Ended, Way, deliver, written
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

MOST = 3
FEW = Network(in_flight=4)
TWICE = Retry(tries=2, first_wait=0.5, longest_wait=0.5)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Name a run folder."""
    return tmp_path / "devices.run"


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three devices a user, a file whose parts are all in use, and few rows that are read before they can be sent."""
    monkeypatch.setattr("moe_bulk.engine.ROOM", 1)
    monkeypatch.setattr("moe_bulk.census.Sizes", partial(Sizes, most=MOST, first=4, cells=2, kept=40))


small = pytest.mark.usefixtures("_small")


def row(user: int, device: int, **more: object) -> dict[str, object]:
    """Make a valid row; each device has a token of its own."""
    who: dict[str, object] = {"customer_id": f"user-{user}", "device_id": f"device-{device}"}
    return {**who, "platform": "iOS", "push_id": f"token-{user}-{device}", **more}


def mixed(count: int, seed: int) -> list[dict[str, object]]:
    """Make rows of few users, who have more devices than they may, each several times; some are not valid."""
    rng = random.Random(seed)
    rows = [row(rng.randrange(4), rng.randrange(6)) for _ in range(count)]
    return [{**each, "platform": "fridge"} if rng.random() < 0.1 else each for each in rows]


def too_many(rows: Sequence[Mapping[str, object]], most: int = MOST) -> list[int]:
    """Tell which rows, by their number, are one device too many: the rule, as one says it."""
    users: dict[object, set[object]] = {}
    found = []
    for number, each in enumerate(rows):
        devices = users.setdefault(each["customer_id"], set())
        if each["platform"] == "fridge":
            continue
        if each["device_id"] not in devices and len(devices) >= most:
            found.append(number)
        else:
            devices.add(each["device_id"])
    return found


def found_too_many(out: Path) -> list[int]:
    """Tell which rows the run called that."""
    results = written(out).results
    assert all(
        each["status"] == "invalid" and not each["tries"] for each in results if "blocks" in (each["reason"] or "")
    )
    return sorted(each["offset"] for each in results if "blocks a user" in (each["reason"] or ""))


def go(rows: Any, out: Path, cut: Cut | None = None, **more: Any) -> Ended:
    """Deliver with few requests on their way, some of which are refused or come to nothing."""

    def decide(said: dict[str, Any]) -> httpx.Response:
        return {"device-1": answer(400, "ValueError"), "device-4": answer(503, "Oops")}.get(
            said["device_id"], answer(200)
        )

    return deliver(rows, out, decide, network=FEW, retry=TWICE, cut=cut, **more)


# -- the rule ----------------------------------------------------------------------------------------------------------


def test_a_user_with_more_than_a_thousand_devices(out: Path) -> None:
    """The first thousand go on being sent; every further one is invalid, told why, and has a dead letter."""
    rows = [row(1, number) for number in (*range(1_000), *range(990, 1_010))]
    ended = deliver([*rows, row(2, 1_009)], out)
    assert ended.summary is not None
    found = ended.written
    assert (1, 1_011, 10) == (ended.summary["exit_code"], ended.summary["counts"]["accepted"], len(found.letters))
    assert 1_011 == len(ended.service.seen)
    assert [f"device-{number}" for number in range(1_000, 1_010)] == [each["device_id"] for each in found.letters]
    note = found.letters[0]["_moe_bulk"]
    assert ("invalid", 0) == (note["status"], note["attempts"])
    assert note["reason"].startswith(
        "customer_id has 1,000 devices in this run already; MoEngage blocks a user with more"
    )
    (cause,) = ended.summary["failures"]
    assert "customer_id has … devices in this run already" == cause["cause"]
    assert cause["remedy"].startswith("leave these rows out, or correct customer_id in dead-letter.ndjson")


@small
def test_rows_that_are_not_sent_do_not_count(out: Path) -> None:
    """Neither those that are invalid for other reasons, nor those that a filter leaves out."""
    rows = [row(1, 1, model="a", platform="fridge"), row(1, 2, model="b"), *(row(1, n, model="a") for n in range(3, 7))]
    ended = deliver(rows, out, reading=Reading(Columns.parse(where=["model=a"])))
    assert ["invalid", "skipped", "accepted", "accepted", "accepted", "invalid"] == [
        each["status"] for each in sorted(ended.written.results, key=lambda each: each["offset"])
    ]
    assert [5] == found_too_many(out)


@small
def test_a_later_row_makes_it_obsolete(out: Path) -> None:
    """Its dead letter is told of a later row with its push token that was accepted, as those of others are."""
    rows = [*(row(1, number) for number in range(4)), row(2, 9, push_id="token-1-3")]
    letters = deliver(rows, out).written.letters
    assert [4] == [each["_moe_bulk"]["line"] for each in letters]
    assert 5 == letters[0]["_moe_bulk"]["superseded_by"]


@small
def test_it_is_a_rule_of_runs() -> None:
    """Streams have no end and no folder: whoever sends rows of their own watches them."""

    async def main() -> list[str]:
        async with FakeService().uploader() as uploader, uploader.stream([row(1, n) for n in range(9)]) as results:
            return [result.status async for result in results]

    assert ["accepted"] * 9 == run_virtually(main)


# -- stopped and taken up again ----------------------------------------------------------------------------------------


def in_two(rows: list[dict[str, object]], out: Path, way: Way, after: int) -> bool:
    """Stop a run and finish it; False where it was over before."""
    if go(rows, out, Cut(way, after)).error is None:
        return False
    if way != "crash":
        assert (out / "devices.census").exists()
    return True


@small
@pytest.mark.parametrize("way", ["cancel", "signal", "401", "crash"])
def test_stopped_anywhere(way: Way, tmp_path: Path) -> None:
    """Wherever it is stopped, the same rows are too many in the end as if it had not been."""
    rows = mixed(60, seed=1)
    expected = too_many(rows)
    assert 10 < len(expected) < 40
    for after in range(0, 40, 9):
        out = tmp_path / f"{after}.run"
        if in_two(rows, out, way, after):
            go(rows, out)
        assert expected == found_too_many(out)
        assert not (out / "devices.census").exists()


@small
@settings(deadline=None, max_examples=10)
@given(
    st.integers(0, 1 << 32), st.lists(st.tuples(st.sampled_from(["signal", "crash"]), st.integers(1, 15)), max_size=5)
)
def test_stopped_many_times(seed: int, cuts: list[tuple[Way, int]]) -> None:
    """A file, session after session, as if in one."""
    with tempfile.TemporaryDirectory() as name:
        rows, path, out = mixed(60, seed), Path(name) / "devices.csv", Path(name) / "out.run"
        path.write_bytes(HEADER + b"".join(",".join(map(str, each.values())).encode() + b"\n" for each in rows))
        for cut in cuts:
            go(path, out, Cut(*cut))
        go(path, out)
        assert [number + 2 for number in too_many(rows)] == sorted(
            each["line"] for each in written(out).results if "blocks a user" in (each["reason"] or "")
        )


@small
@pytest.mark.parametrize("after", [5, 12, 20])
def test_a_power_cut_that_takes_what_was_not_synced(after: int, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the census lost is counted again, from the results that were read back and the rows that are sent again."""
    rows = mixed(60, seed=2)
    with monkeypatch.context() as patched:
        patched.setattr("moe_bulk.run.SYNC_SECONDS", 1e6)
        go(rows, out, Cut("crash", after))
    os.truncate(out / "devices.census", 4096)  # it was synced when the run began, and not yet again
    go(rows, out)
    assert too_many(rows) == found_too_many(out)


@small
def test_the_limit_of_rows_is_no_end(out: Path) -> None:
    """A run with --limit stays unfinished, and goes on counting where it stopped."""
    rows = mixed(60, seed=3)
    for limit in (20, 40, None):
        go(rows, out, reading=Reading(limit=limit))
    assert too_many(rows) == found_too_many(out)


def test_a_run_without_a_census_goes_on(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was begun by a version that kept none, or somebody took it: rows count from now on."""
    rows = [row(1, number) for number in range(12)]
    deliver(rows, out, network=FEW, cut=Cut("signal", 4))
    sent = {each["offset"] for each in written(out).results}
    assert 4 <= len(sent) < 9
    (out / "devices.census").unlink()
    monkeypatch.setattr("moe_bulk.census.Sizes", partial(Sizes, most=MOST))
    deliver(rows, out)
    assert sorted({*range(12)} - sent)[MOST:] == found_too_many(out)


@small
def test_a_damaged_census_is_refused(out: Path) -> None:
    """Nothing is sent, and nothing in the folder is changed but by --fresh, which moves it aside as it is."""
    rows = mixed(30, seed=4)
    go(rows, out, Cut("signal", 5))
    (out / "devices.census").write_bytes(b"no census")
    ended = go(rows, out)
    assert isinstance(ended.error, RunRefused)
    assert "devices.census is damaged" in str(ended.error)
    assert [] == ended.service.seen
    assert b"no census" == (out / "devices.census").read_bytes()
    go(rows, out, fresh=True)
    assert too_many(rows) == found_too_many(out)
    (aside,) = out.parent.glob("devices.run-*")
    assert b"no census" == (aside / "devices.census").read_bytes()


@small
def test_older_runs_are_removed_with_it(out: Path) -> None:
    """An unfinished run that was moved aside is ours with all its files."""
    for _ in range(2):
        go(mixed(30, seed=5), out, Cut("signal", 5), fresh=True)
    assert ["devices.census"] == [path.name for path in out.parent.glob("devices.run-*/*.census")]
    go(mixed(30, seed=6), out, fresh=True, keep_runs=0)
    assert [] == list(out.parent.glob("devices.run-*"))


# -- a disk that fails -------------------------------------------------------------------------------------------------


@small
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails(error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever writing or syncing of the census it is, the next session finishes the run, and counts exactly."""
    rows, failed = mixed(40, seed=7), 0
    pwrite = os.pwrite
    for works in range(0, 60, 7):
        out, done = tmp_path / f"{works}.run", 0

        def writing(fd: int, said: bytes, at: int) -> int:
            nonlocal done
            done += 1
            if done > works:  # noqa: B023  it is called within this turn
                raise OSError(error, os.strerror(error))
            return pwrite(fd, said, at)

        with monkeypatch.context() as patched:
            patched.setattr("os.pwrite", writing)
            ended = go(rows, out)
        if ended.error is not None:
            failed += 1
            assert isinstance(ended.error, JournalError)
            assert "cannot be used" in str(ended.error)
            go(rows, out)
        assert too_many(rows) == found_too_many(out)
    assert failed > 3


def test_nothing_more_is_sent_after_it(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that cannot be counted stops the run, rows that were read before it included."""
    seen, pwrite, left = [], os.pwrite, [100]

    def writing(fd: int, said: bytes, at: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, said, at)

    def decide(said: dict[str, Any]) -> httpx.Response:
        seen.append(said["customer_id"])
        return answer(200)

    monkeypatch.setattr("os.pwrite", writing)
    ended = deliver([row(number, 1) for number in range(200)], out, decide, network=FEW)
    assert isinstance(ended.error, JournalError)
    assert len(seen) <= 4


@small
def test_a_census_that_cannot_be_removed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is not finished then, and says so; the next session does it."""
    rows, unlink = mixed(10, seed=8), os.unlink

    def refuse(path: Any, **folder: Any) -> None:
        if path == "devices.census":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        unlink(path, **folder)

    with monkeypatch.context() as patched:
        patched.setattr("os.unlink", refuse)
        assert isinstance(go(rows, out).error, JournalError)
    assert 3 == orjson.loads((out / "summary.json").read_bytes())["exit_code"]
    assert [] == go(rows, out).service.seen
    assert too_many(rows) == found_too_many(out)
