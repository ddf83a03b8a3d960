"""Where a run stands when a session begins: what of the folder, the numbers and the rows must agree."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest

from moe_bulk.clock import Clock
from moe_bulk.config import Rate
from moe_bulk.errors import ConfigError, Interrupted, JournalError, RunRefused
from moe_bulk.intake import Files, Intake, Reading
from moe_bulk.rundir import RunFolder
from moe_bulk.standing import Job, Standing, Terms, _in_thread, mend, take_up
from tests.fake_service import devices
from tests.runs import Cut, deliver, written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from moe_bulk.intake import Rows

TERMS = Terms()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Name a run folder."""
    return tmp_path / "devices.run"


def job_of(out: Path, rows: Rows, **settings: object) -> Job:
    """Make a job of some rows, with the settings of the folder's run where there is one."""
    path = out / "checkpoint.json"
    if path.exists():
        settings = {**orjson.loads(path.read_bytes()).get("settings", {}), **settings}
    intake = Intake(rows, Reading(), keep_in=out.parent)
    return Job(intake, Rate(100, per=60), Clock(lambda: 5000.0, 1.7e9), settings)


def stand(out: Path, rows: Rows, terms: Terms = TERMS, **settings: object) -> Standing | None:
    """Take up what is there, and let go of it again; None where all is done, and its summary was given."""

    async def main() -> Standing | None:
        job = job_of(out, rows, **settings)
        try:
            await job.intake.open()
            with RunFolder.claim(out, fresh=terms.fresh) as folder:
                standing = await take_up(folder, job, terms)
                if not isinstance(standing, Standing):
                    assert standing == folder.read_summary()
                    return None
                standing.close()
                return standing
        finally:
            await job.intake.close()

    return asyncio.run(main())


def test_a_new_run_stands_at_its_beginning(out: Path) -> None:
    """Empty files, no numbers, nothing settled."""
    standing = stand(out, devices(3))
    assert standing is not None
    assert ((0, 0), 0, 1) == (standing.journal.lengths, standing.tally.settled_rows, standing.tally.sessions)
    assert (0, 1, 0) == standing.settled.begin
    assert 1.7e9 + 5000 == standing.started_at


def test_a_run_that_stopped_stands_where_its_lines_end(out: Path) -> None:
    """Lines, numbers and rows agree, and the summary of the stop is gone."""
    deliver(devices(9), out, cut=Cut("signal", 4))
    results = (out / "results.ndjson").read_bytes()
    started_at = written(out).summary["started_at"]
    standing = stand(out, devices(9))
    assert standing is not None
    assert (len(results), 0) == standing.journal.lengths
    assert results.count(b"\n") == standing.tally.settled_rows
    assert (2, started_at) == (standing.tally.sessions, standing.started_at)
    assert not (out / "summary.json").exists()


def test_lines_without_a_checkpoint_of_their_own_count(out: Path) -> None:
    """What a crash left behind the last checkpoint is read back; where that is of no use, everything is."""
    deliver(devices(9), out)
    results = (out / "results.ndjson").read_bytes()
    path = out / "checkpoint.json"
    said = orjson.loads(path.read_bytes())
    said["finished"] = False
    path.write_bytes(orjson.dumps(said))
    (out / "results.ndjson").write_bytes(results[:-5])
    for _ in range(2):  # the first one writes a checkpoint of a run that begins from its lines
        standing = stand(out, devices(9))
        assert standing is not None
        assert (8, 2) == (standing.tally.settled_rows, standing.tally.sessions)
        assert 8 == standing.tally.requests


def test_a_finished_run_is_done(out: Path) -> None:
    """Where its summary is gone, it is made once more."""
    deliver(devices(9), out)
    assert stand(out, devices(9)) is None
    before = written(out).summary
    (out / "summary.json").unlink()
    assert stand(out, devices(9)) is None
    after = written(out).summary
    assert {**before, "ended_at": 0, "rate": 0} == {**after, "ended_at": 0, "rate": 0}


def test_other_data_and_other_settings(out: Path, tmp_path: Path) -> None:
    """As the table says: refused, or moved aside; of those so many are kept as asked for."""
    deliver(devices(9), out, cut=Cut("signal", 4))
    with pytest.raises(RunRefused, match="of other data"):
        stand(out, devices(9)[::-1])
    with pytest.raises(RunRefused, match="begun with --format auto, now --format csv"):
        stand(out, devices(9), format="csv")
    assert stand(out, devices(9)[::-1], Terms(if_changed="fresh")) is not None
    assert 1 == len(list(tmp_path.glob("devices.run-*")))
    assert stand(out, devices(1), Terms(fresh=True, keep_runs=1)) is not None
    assert 1 == len(list(tmp_path.glob("devices.run-*")))


def test_a_damaged_run_makes_room_only_when_told(out: Path, tmp_path: Path) -> None:
    """Nobody knows what its checkpoint stood for."""
    deliver(devices(9), out)
    (out / "checkpoint.json").write_bytes(b"{}")
    with pytest.raises(RunRefused, match="add --fresh"):
        stand(out, devices(9))
    assert stand(out, devices(9), Terms(fresh=True)) is not None
    assert 1 == len(list(tmp_path.glob("devices.run-*")))


@pytest.mark.parametrize(("name", "value"), [("next", {"source": 4, "line": 1, "offset": 0}), ("tally", {"x": 1})])
def test_a_checkpoint_that_makes_no_sense(name: str, value: object, out: Path) -> None:
    """It parses, and yet nothing can be made of it: refused with the way out, finished or not."""
    deliver(devices(9), out, cut=Cut("signal", 4))
    path = out / "checkpoint.json"
    for finished in (False, True):
        said = {**orjson.loads(path.read_bytes()), name: value, "finished": finished}
        path.write_bytes(orjson.dumps(said))
        (out / "summary.json").unlink(missing_ok=True)
        with pytest.raises(RunRefused, match=r"cannot go on: .*To start over: add --fresh"):
            stand(out, devices(9))


def test_sources_that_cannot_be_told_apart_leave_no_folder(out: Path, tmp_path: Path) -> None:
    """They are refused before anything is made."""
    header = "customer_id,device_id,platform,push_id\n"
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv")
    plain = str(tmp_path / "\\udcff.csv")
    for path in (odd, plain):
        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123  the name is no text
            file.write(header)
    with pytest.raises(ConfigError, match="same name"):
        stand(out, Files((odd, plain)))
    assert not out.exists()


@pytest.mark.parametrize("terms", [{"if_changed": "ask"}, {"keep_runs": -1}])
def test_terms_that_make_no_sense(terms: dict[str, Any]) -> None:
    """They are refused at birth."""
    with pytest.raises(ConfigError):
        Terms(**terms)


def test_a_disk_that_cannot_be_read_is_told(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in the thread comes out as itself."""
    deliver(devices(9), out, cut=Cut("signal", 4))

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("os.pread", broken)
    with pytest.raises(JournalError, match="Input/output error"):
        stand(out, devices(9))


def test_reading_back_ends_when_nobody_waits_for_it(out: Path) -> None:
    """It may be long, and the folder must not be let go of meanwhile."""
    deliver(devices(9), out, cut=Cut("crash", 4))
    with RunFolder.claim(out, fresh=False) as folder:
        assert folder.found is not None
        job = job_of(out, devices(9))
        (out / "results.ndjson").write_bytes(deliver_lines(out))
        with pytest.raises(Interrupted):
            mend(folder, job, folder.found, lambda: True)


def deliver_lines(out: Path) -> bytes:
    """The results of the same run, had it gone on."""
    other = out.with_name("other.run")
    deliver(devices(9), other)
    return (other / "results.ndjson").read_bytes()


def test_work_that_nobody_waits_for_any_more_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that was cancelled before it began would find a folder that is let go of."""
    left: list[Callable[[], object]] = []

    async def never(work: Callable[[], object], **_: object) -> None:
        left.append(work)
        await anyio.sleep_forever()

    async def main() -> None:
        monkeypatch.setattr("anyio.to_thread.run_sync", never)
        with anyio.move_on_after(0.01):
            await _in_thread(lambda _: pytest.fail("it began"))

    asyncio.run(main())
    with pytest.raises(Interrupted):
        left[0]()
