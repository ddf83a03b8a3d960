"""Results in an object store: copied as they settle, taken up again on another host, readable at any moment."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_bulk.errors import CredentialsRejected, JournalError, RunStopped
from moe_bulk.spark import delivery, mirror
from moe_bulk.spark.mirror import MirroredPlace
from moe_bulk.spark.shelf import LocalShelf, Shelf, open_shelf
from tests.fake_service import KEY, accept, answer, device, devices
from tests.s3 import local_s3
from tests.spark_tasks import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

PART = "r/part-00000"


@pytest.fixture(autouse=True)
def _mirrored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let any shelf be one that is copied to, and staging be where it can be looked at."""
    monkeypatch.setattr(delivery, "take_place", MirroredPlace.take_over)
    (tmp_path / "staging").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "staging"))


def lines(shelf: Shelf, name: str = "results") -> list[dict[str, Any]]:
    """Read all objects of the attempts that count, one after the other."""
    state = json.loads(shelf.read(f"{PART}/attempt.json") or b"")
    found = []
    for attempt in range(state["since"], state["attempt"] + 1):
        names = [each for each in shelf.names(f"{PART}/attempt-{attempt}") if each.startswith(name)]
        for each in names[: state["objects"].get(str(attempt), {}).get(f"{name}.ndjson")]:
            content = shelf.read(f"{PART}/attempt-{attempt}/{each}") or b""
            assert content.endswith(b"\n")
            found += [json.loads(line) for line in content.splitlines()]
    return found


def stopping_after(count: int) -> Any:
    """Accept so many devices, and then refuse the key."""
    left = [count]

    def decide(_: dict[str, Any]) -> httpx.Response:
        left[0] -= 1
        return answer(200) if left[0] >= 0 else answer(401, "Authentication required")

    return decide


class Killed:
    """A host that dies with all that is on its disk: nothing is copied any more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def run(self, job: Job, rows: list[dict[str, object]], after: int) -> None:
        """Carry out a task until so many devices were accepted."""
        job.decide = stopping_after(after)
        with self._patch.context() as patch:
            patch.setattr(MirroredPlace, "close", lambda place: shutil.rmtree(place._staging))
            with suppress(CredentialsRejected):  # where all was sent before, it dies at the very end
                job.task(rows)
        job.decide, job.seen = accept, []


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Killed:
    """Give what kills."""
    return Killed(monkeypatch)


def test_what_is_left_is_complete_and_nothing_stays_on_the_host(tmp_path: Path) -> None:
    """Results by attempt, dead letters as one object, the summary and its page."""
    shelf = LocalShelf(tmp_path / "out")
    (told,) = Job(shelf.root).task([*devices(30), device(99, push_id="NA")]).delivered
    names = shelf.names(PART)
    expected = ["attempt-0", "attempt.json", "checkpoint.json", "dead-letter.ndjson", "report.html", "summary.json"]
    assert expected == names
    assert ["results-000000.ndjson"] == shelf.names(f"{PART}/attempt-0")
    assert 31 == len(lines(shelf))
    assert "user-99" == json.loads(shelf.read(f"{PART}/dead-letter.ndjson") or b"")["customer_id"]
    assert (str(tmp_path / "out" / PART), 30) == (told.folder, told.counts["accepted"])
    assert [] == list((tmp_path / "staging").iterdir())


def test_results_are_copied_as_they_settle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every few seconds an object of whole lines, their dead letters first."""
    written: list[str] = []
    write = LocalShelf.write

    def watched(shelf: LocalShelf, name: str, content: bytes) -> None:
        written.append(name.removeprefix(f"{PART}/"))
        write(shelf, name, content)

    monkeypatch.setattr(LocalShelf, "write", watched)
    rows = [*devices(40), device(99, push_id="NA"), *devices(120)[40:]]
    Job(tmp_path / "out", options={"in_flight": "1"}).task(rows)
    assert 4 <= len([name for name in written if "results" in name])
    assert written.index("attempt-0/dead-letter-000000.ndjson") < written.index("attempt-0/results-000001.ndjson")
    assert [] == [name for name in LocalShelf(tmp_path / "out").names(f"{PART}/attempt-0") if "dead" in name]


def test_another_host_goes_on(tmp_path: Path, killed: Killed) -> None:
    """What was copied is not sent again; the objects of both attempts are the whole of it, each row once."""
    shelf, job = LocalShelf(tmp_path / "out"), Job(tmp_path / "out", options={"in_flight": "1"})
    rows = [device(99, push_id="NA"), *devices(80)]
    killed.run(job, rows, 50)
    copied = {each["customer_id"] for each in lines(shelf)}
    assert 20 < len(copied) < 50
    (told,) = job.task(rows).delivered
    assert not copied & set(job.seen)
    results = lines(shelf)
    assert (81, 81) == (len(results), len({each["offset"] for each in results}))
    assert (80, 1, 1) == (told.counts["accepted"], told.counts["invalid"], told.attempt)
    assert 1 == len((shelf.read(f"{PART}/dead-letter.ndjson") or b"").splitlines())
    assert [] == list((tmp_path / "staging").iterdir())


@settings(max_examples=8)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=3))
def test_however_often_hosts_die_each_row_has_one_result(after: list[int]) -> None:
    """And nothing that was copied is sent again."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        shelf, job = LocalShelf(Path(folder)), Job(folder, options={"in_flight": "1"})
        rows = [device(number % 30, push_id="NA" if number % 9 == 0 else f"t{number}") for number in range(54)]
        settled: set[int] = set()
        for count in after:
            Killed(patch).run(job, rows, count)
            now = {each["offset"] for each in lines(shelf)}
            assert settled <= now
            settled = now
        (told,) = job.task(rows).delivered
        assert 54 == told.counts["read"] == len(lines(shelf))
        assert set(range(54)) == {each["offset"] for each in lines(shelf)}
        assert len(job.seen) == 48 - len({offset for offset in settled if offset % 9})
        assert 6 == len((shelf.read(f"{PART}/dead-letter.ndjson") or b"").splitlines())


def test_a_thousand_and_first_device_is_counted_over_hosts(tmp_path: Path, killed: Killed) -> None:
    """The census is not copied: it is read back from the results."""
    job = Job(tmp_path / "out", options={"in_flight": "64"})
    rows = [device(number, customer_id="user-0") for number in range(1_002)]
    killed.run(job, rows, 600)
    (told,) = job.task(rows).delivered
    assert (1_000, 2) == (told.counts["accepted"], told.counts["invalid"])


def test_a_finished_partition_is_not_sent_again(tmp_path: Path) -> None:
    """Nor is anything there changed; dead letters that somebody has corrected stay corrected."""
    shelf, job = LocalShelf(tmp_path / "out"), Job(tmp_path / "out")
    rows = [*devices(5), device(99, push_id="NA")]
    (before,) = job.task(rows).delivered
    shelf.write(f"{PART}/dead-letter.ndjson", b'{"corrected": true}\n')
    job.seen = []
    (after,) = job.task(rows).delivered
    assert ([], before.counts, before.keys) == (job.seen, after.counts, after.keys)
    assert b'{"corrected": true}\n' == shelf.read(f"{PART}/dead-letter.ndjson")
    assert 6 == len(lines(shelf))


def test_rows_in_another_order_begin_again(tmp_path: Path, killed: Killed) -> None:
    """The objects of the attempts before stay readable, and count no more."""
    shelf, job = LocalShelf(tmp_path / "out"), Job(tmp_path / "out", options={"in_flight": "1"})
    killed.run(job, devices(80), 50)
    (told,) = job.task(devices(80)[::-1]).delivered
    assert (True, 80, 80) == (told.started_over, len(job.seen), len(lines(shelf)))
    assert 1 == json.loads(shelf.read(f"{PART}/attempt.json") or b"")["since"]
    assert shelf.names(f"{PART}/attempt-0")
    (told,) = job.task(devices(80)[::-1]).delivered
    assert (80, 80) == (len(job.seen), told.counts["accepted"])


def test_memory_does_not_grow_with_what_failed(tmp_path: Path) -> None:
    """All rows may be dead letters: they are copied in pieces, there and back."""
    shelf = LocalShelf(tmp_path / "out")
    Job(shelf.root).task([device(99, push_id="NA")])
    place = MirroredPlace.take_over(shelf, "r", 0)
    letters = place.folder / "dead-letter.ndjson"
    letters.write_bytes(letters.read_bytes() + b"x" * 32_000_000 + b"\n")
    tracemalloc.start()
    try:
        place._put(letters.name)
        again = MirroredPlace.take_over(shelf, "r", 0)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert letters.stat().st_size == (again.folder / letters.name).stat().st_size


def test_an_attempt_that_was_given_up_sends_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees at its next copy that a later one is at work, and overwrites nothing of it."""
    shelf, job = LocalShelf(tmp_path / "out"), Job(tmp_path / "out", options={"in_flight": "1"})
    left = [50]

    def decide(_: dict[str, Any]) -> httpx.Response:
        left[0] -= 1
        if left[0] == 0:
            MirroredPlace.take_over(shelf, "r", 0)
        return answer(200)

    job.decide = decide
    with pytest.raises((RunStopped, JournalError), match="a later attempt has taken over"):
        job.task(devices(200))
    assert len(job.seen) < 120
    assert 1 == json.loads(shelf.read(f"{PART}/attempt.json") or b"")["attempt"]
    assert "summary.json" not in shelf.names(PART)


def test_what_a_given_up_attempt_copies_late_does_not_count(tmp_path: Path, killed: Killed) -> None:
    """Its rows are sent again, and have the later result; whoever goes on after that sees each row once."""
    shelf, job = LocalShelf(tmp_path / "out"), Job(tmp_path / "out", options={"in_flight": "1"})
    killed.run(job, devices(90), 45)
    killed.run(job, devices(90), 0)
    late = [json.loads(line) for line in (shelf.read(f"{PART}/attempt-0/results-000000.ndjson") or b"").splitlines()]
    again = b"".join(json.dumps({**each, "offset": each["offset"] + 60}).encode() + b"\n" for each in late[:5])
    shelf.write(f"{PART}/attempt-0/results-000001.ndjson", again)
    (told,) = job.task(devices(90)).delivered
    assert (90, 90 - len(late)) == (told.counts["accepted"], len(set(job.seen)))
    assert set(range(90)) == {each["offset"] for each in lines(shelf)}
    (after,) = job.task(devices(90)).delivered
    assert told.counts == after.counts


def test_an_attempt_that_stops_leaves_all_that_it_did(tmp_path: Path) -> None:
    """Orderly: nothing that settled is missing, and the summary says why it stopped."""
    shelf, job = LocalShelf(tmp_path / "out"), Job(tmp_path / "out", stopping_after(20), options={"in_flight": "1"})
    with pytest.raises(CredentialsRejected):
        job.task([device(99, push_id="NA"), *devices(60)])
    assert (21, 1) == (len(lines(shelf)), len(lines(shelf, "dead-letter")))
    assert "refuses the credentials" in json.loads(shelf.read(f"{PART}/summary.json") or b"")["stopped"]
    assert [] == list((tmp_path / "staging").iterdir())


def test_a_line_that_is_being_written_is_left_for_the_next_object(tmp_path: Path) -> None:
    """Whoever reads an object finds whole lines."""
    shelf = LocalShelf(tmp_path / "out")
    place = MirroredPlace.take_over(shelf, "r", 0)
    place.folder.mkdir()
    for text, expected in (('{"a":1}\n{"b"', b'{"a":1}\n'), (":2}\n", b'{"b":2}\n')):
        with (place.folder / "results.ndjson").open("a") as file:
            file.write(text)
        place._copy_lines()
        assert expected == shelf.read(f"{PART}/attempt-0/{shelf.names(f'{PART}/attempt-0')[-1]}")
    place._copy_lines()
    assert 2 == len(shelf.names(f"{PART}/attempt-0"))
    place.close()


def test_a_host_that_dies_between_a_letter_and_its_result_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The letter is cut off; what was copied before counts anew, in objects of the attempt that found it."""
    shelf, job = LocalShelf(tmp_path / "out"), Job(tmp_path / "out", options={"in_flight": "1"})
    rows, write = devices(90), LocalShelf.write
    job.decide = lambda said: answer(400, "ValueError") if int(said["customer_id"][5:]) % 3 == 0 else answer(200)

    def dies(where: LocalShelf, name: str, content: bytes) -> None:
        if "attempt-0/results-000001" in name:
            raise JournalError("the host is gone")
        write(where, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(LocalShelf, "write", dies)
        patch.setattr(MirroredPlace, "close", lambda place: shutil.rmtree(place._staging))
        with pytest.raises(RunStopped, match="the host is gone"):
            job.task(rows)
    settled = {each["offset"] for each in lines(shelf)}
    assert {each["_moe_bulk"]["line"] - 1 for each in lines(shelf, "dead-letter")} - settled
    rejected = len([offset for offset in settled if offset % 3 == 0])
    Killed(monkeypatch).run(job, rows, 45)
    assert 1 == json.loads(shelf.read(f"{PART}/attempt.json") or b"")["since"]
    assert settled < {each["offset"] for each in lines(shelf)}
    (told,) = job.task(rows).delivered
    assert list(range(90)) == sorted(each["offset"] for each in lines(shelf))
    assert (90 - rejected, rejected) == (told.counts["accepted"], told.counts["rejected"])
    assert rejected == len((shelf.read(f"{PART}/dead-letter.ndjson") or b"").splitlines()) > 5


def test_two_threads_copy_each_line_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is cancelled in the middle of a copy closes its place while a thread is still at it."""
    shelf = LocalShelf(tmp_path / "out")
    job = Job(shelf.root, stopping_after(40), options={"in_flight": "1"})
    monkeypatch.setattr(mirror, "MOST_BYTES", 1_000)
    close = MirroredPlace.close

    def both(place: MirroredPlace) -> None:
        threads = [threading.Thread(target=work) for work in (place.keep, place.keep, lambda: close(place))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    monkeypatch.setattr(MirroredPlace, "close", both)
    with pytest.raises(CredentialsRejected):
        job.task(devices(60))
    assert list(range(40)) == sorted(each["offset"] for each in lines(shelf))


def test_an_attempt_that_dies_at_once_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has said that it is at work, and did not come to count what was there."""
    shelf, job = LocalShelf(tmp_path / "out"), Job(tmp_path / "out", options={"in_flight": "1"})
    Killed(monkeypatch).run(job, devices(80), 50)
    copied = len(lines(shelf))
    with monkeypatch.context() as patch:
        patch.setattr(MirroredPlace, "_count", lambda _: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            job.task(devices(80))
    job.task(devices(80))
    assert (80 - copied, 80) == (len(job.seen), len(lines(shelf)))


@pytest.mark.parametrize("error", [JournalError("the store is gone"), ValueError("the store is gone")])
def test_a_store_that_takes_no_more_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What cannot be written is not sent; once it does again the next attempt goes on."""
    job = Job(tmp_path / "out", options={"in_flight": "1"})

    def refuse(*_: object) -> None:
        raise error

    job.decide = lambda _: answer(200)
    with monkeypatch.context() as patch:
        patch.setattr(MirroredPlace, "keep", refuse)
        with pytest.raises(RunStopped, match="the store is gone"):
            job.task(devices(200))
    assert len(job.seen) < 50
    (told,) = job.task(devices(200)).delivered
    assert (200, 200) == (told.counts["accepted"], len(job.seen))


def test_objects_are_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of whole lines."""
    monkeypatch.setattr(mirror, "MOST_BYTES", 2_000)
    shelf = LocalShelf(tmp_path / "out")
    Job(tmp_path / "out").task(devices(40))
    assert 5 < len(shelf.names(f"{PART}/attempt-0"))
    assert 40 == len(lines(shelf))


@pytest.mark.parametrize(
    ("name", "content"), [("attempt.json", b"{"), ("attempt.json", b"[]"), ("checkpoint.json", b"{}")]
)
def test_what_was_damaged_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    """With the way out; nothing stays on the host."""
    shelf, job = LocalShelf(tmp_path / "out"), Job(tmp_path / "out")
    job.task(devices(5))
    shelf.write(f"{PART}/{name}", content)
    with pytest.raises(JournalError, match="use another run_id"):
        job.task(devices(5))
    assert [] == list((tmp_path / "staging").iterdir())


# -- S3, where a local one is installed --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _store() -> Iterator[None]:
    """Run a local S3."""
    with local_s3("results"):
        yield


@pytest.mark.usefixtures("_store")
def test_s3_holds_it_all(killed: Killed) -> None:
    """A host dies, another goes on, a third finds nothing to do."""
    job, shelf = Job("s3://results/moe", options={"in_flight": "1"}), open_shelf("s3://results/moe")
    killed.run(job, devices(80), 50)
    copied = {each["customer_id"] for each in lines(shelf)}
    (told,) = job.task(devices(80)).delivered
    assert ("s3://results/moe/r/part-00000", 80, 1) == (told.folder, told.counts["accepted"], told.attempt)
    assert copied
    assert not copied & set(job.seen)
    assert set(range(80)) == {each["offset"] for each in lines(shelf)}
    job.seen = []
    job.task(devices(80))
    assert [] == job.seen
    contents = [shelf.read(f"{PART}/{name}") or b"" for name in shelf.names(PART)]
    assert not [each for each in contents if KEY.encode() in each]
