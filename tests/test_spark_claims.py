"""Who sends at a pace of its own: one partition of one job, and whoever comes later waits until it has ended."""

from __future__ import annotations

import asyncio
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from moe_bulk.errors import ConfigError, JournalError, RunStopped
from moe_bulk.spark import delivery
from moe_bulk.spark.claims import GIVEN_UP_SECONDS, Claim
from moe_bulk.spark.delivery import carry_out
from moe_bulk.spark.mirror import MirroredPlace
from moe_bulk.spark.rules import Task
from moe_bulk.spark.settings import read_options
from moe_bulk.spark.shelf import LocalShelf, Shelf
from tests.fake_service import answer, devices
from tests.runs import written
from tests.spark_tasks import Job, virtually

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

SETTINGS = read_options({"out": "/a", "pace": "process"})
WAIT = GIVEN_UP_SECONDS + SETTINGS.network.timeout


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Give an empty one."""
    return LocalShelf(tmp_path / "shelf")


def claimed(shelf: Shelf, partition: int, job: str = "first", *, locked: bool = False) -> Claim:
    """Claim the run's workspace."""
    return Claim.take(shelf, "r", SETTINGS, Task(partition, job=job), locked=locked)


def test_partitions_of_one_job_refuse_each_other(shelf: Shelf) -> None:
    """Even where one of them has ended: which of them runs at the same time is chance."""
    first = claimed(shelf, 3)
    first.end()
    with pytest.raises(ConfigError, match=r"partitions 3, 5 have rows .* Write df\.coalesce\(1\)"):
        claimed(shelf, 5)
    assert ["part-00003.alone"] == shelf.names("r")
    assert (False, True) == (first.succeeds, first.stands())


@pytest.mark.parametrize(("ended", "waits"), [(True, False), (False, True)])
def test_a_later_job_takes_their_place(shelf: Shelf, ended: bool, waits: bool) -> None:  # noqa: FBT001
    """Whoever had it sees that, and what it has to say in the end replaces nothing."""
    first = claimed(shelf, 3)
    if ended:
        first.end()
    later = claimed(shelf, 0, "second")
    first.end()
    assert (waits, False, True) == (later.succeeds, first.stands(), later.stands())
    assert ["part-00000.alone"] == shelf.names("r")


@pytest.mark.parametrize(("locked", "waits"), [(True, False), (False, True)])
def test_a_later_attempt_takes_its_place(shelf: Shelf, locked: bool, waits: bool) -> None:  # noqa: FBT001
    """It waits by itself, unless a lock makes it wait already."""
    first = claimed(shelf, 3)
    later = claimed(shelf, 3, locked=locked)
    assert (waits, False, True) == (later.succeeds, first.stands(), later.stands())
    later.end()
    assert not claimed(shelf, 3).succeeds


def test_a_damaged_claim_is_somebody_s(shelf: Shelf) -> None:
    """Whose, nobody knows: they are waited for."""
    for content in (b"", b"[]"):
        shelf.write("r/part-00003.alone", content)
        assert claimed(shelf, 0).succeeds


def test_the_advice_of_a_refusal_leads_out(tmp_path: Path) -> None:
    """A job that failed because two of its partitions had rows, written once more in one: with the same run_id."""
    job = Job(tmp_path, master="yarn")
    job.task(devices(5), 3)
    with pytest.raises(ConfigError, match=r"Write df\.coalesce\(1\)"):
        job.task(devices(1), 5)
    job.name, job.seen = "second", []
    job.task(devices(6), 0)
    assert 6 == len(job.seen)
    assert 6 == written(tmp_path / "r/part-00000-attempt-0.run").summary["counts"]["accepted"]


class Times(Job):
    """A job that notes when its requests are sent."""

    def __init__(self, out: Path, options: dict[str, str] | None = None) -> None:
        self.times: list[float] = []
        super().__init__(out, self._noted, options=options or {})

    def _noted(self, said: dict[str, Any]) -> httpx.Response:
        del said
        self.times.append(self.start + asyncio.get_running_loop().time())
        return answer(200)


def test_whoever_was_killed_may_not_know_it_yet(tmp_path: Path) -> None:
    """So the next job waits before its first request; after one that ended by itself it does not."""
    job = Times(tmp_path)
    Claim.take(LocalShelf(tmp_path), "r", SETTINGS, Task(3, job="killed"), locked=True)
    job.task(devices(1), 0)
    assert job.times[0] >= WAIT
    began, job.name = job.start, "second"
    job.task(devices(2), 1)
    assert job.times[1] - began < 1


@pytest.mark.parametrize("partition", [0, 1])
def test_two_attempts_never_send_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partition: int) -> None:
    """In a store without locks an executor that was given up sends on: the next one begins after its last request."""
    (tmp_path / "staging").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "staging"))
    monkeypatch.setattr(delivery, "take_place", MirroredPlace.take_over)
    monkeypatch.setattr(delivery, "is_locked", lambda _: False)
    old, new = Times(tmp_path / "out", options={"rate": "20/s"}), Times(tmp_path / "out", options={"rate": "20/s"})
    new.name = "first" if partition == 0 else "second"
    rows = devices(900)

    async def both() -> None:
        working = asyncio.create_task(carry_out(iter(rows), old.desk(0)))
        await asyncio.sleep(12.0)
        await carry_out(iter(rows), new.desk(partition))
        with pytest.raises(RunStopped, match="has taken over: this one sends no more"):
            await working

    virtually(both)
    assert 200 < len(old.times) < 20 * (12 + GIVEN_UP_SECONDS)
    assert max(old.times) < 12 + GIVEN_UP_SECONDS
    assert min(new.times) >= 12 + WAIT
    assert (900 if partition else 900 - len(old.times)) == len(new.times)


@pytest.mark.parametrize("says", [JournalError("away"), ValueError("odd"), None])
def test_nobody_sends_who_cannot_see_their_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: Exception | None
) -> None:
    """A store that fails, or that does not answer at all: a later attempt would not wait any longer for this one."""
    job = Times(tmp_path, options={"rate": "20/s"})
    real = delivery._look

    async def look(claim: Claim) -> float:
        now = asyncio.get_running_loop().time()
        if now < 10:
            return await real(claim)
        if says is not None:
            raise says
        await asyncio.sleep(3600)
        return now

    monkeypatch.setattr(delivery, "_look", look)
    with pytest.raises(RunStopped, match="for 30 seconds nobody could tell"):
        job.task(devices(2000))
    assert 35 < max(job.times) < 10 + GIVEN_UP_SECONDS
