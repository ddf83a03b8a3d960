"""The results of real runs hold against their summaries, whatever happened to the run; tampered ones do not."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_bulk import cli
from moe_bulk.audit import audit
from moe_bulk.config import Rate, Retry
from tests.fake_service import answer, device, devices
from tests.runs import EPOCH, Cut, deliver

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

SLOW = Rate(40, per=5)


def moody(seed: int) -> Callable[[dict[str, Any]], httpx.Response]:
    """A service that refuses some for good, and answers others with trouble or a 429 now and then."""
    chance = random.Random(seed)

    def decide(said: dict[str, Any]) -> httpx.Response:
        number = int(said["customer_id"].partition("-")[2])
        if number % 7 == 3:
            return answer(400, "ValueError")
        mood = chance.random()
        if mood < 0.1:
            return answer(503, "later")
        return answer(429, "Rate Limits Exceeded", **{"retry-after": "1"}) if mood < 0.15 else answer(200)

    return decide


def rows(count: int) -> list[dict[str, object]]:
    """Give that many rows, of which some are no devices."""
    return [device(number, **({"platform": "toaster"} if number % 11 == 5 else {})) for number in range(count)]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that came to its end in one session."""
    out = tmp_path_factory.mktemp("audit") / "devices.run"
    deliver(rows(80), out, moody(1), rate=SLOW)
    return out


@pytest.fixture
def run(untouched: Path, tmp_path: Path) -> Path:
    """Its folder, to tamper with."""
    return Path(shutil.copytree(untouched, tmp_path / "devices.run"))


@settings(max_examples=6, deadline=None)
@given(
    st.integers(0, 40),
    st.integers(0, 99),
    st.lists(st.tuples(st.sampled_from(["crash", "signal", "cancel"]), st.integers(1, 25)), max_size=2),
    st.booleans(),
)
def test_every_run_holds(count: int, seed: int, cuts: list[tuple[Any, int]], reboot: bool) -> None:  # noqa: FBT001
    """In one session or several, ended in any way, on a machine that was started again meanwhile or not."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "devices.run"
        at = 1_000.0
        for way, after in cuts:
            deliver(rows(count), out, moody(seed), rate=SLOW, clock=(at, EPOCH), cut=Cut(way, after))
            found = audit(out)
            assert () == found.contradictions
            at += 400.0
        clock = (400.0, EPOCH + at) if reboot else (at, EPOCH + 0.01)
        with pytest.MonkeyPatch.context() as patch:
            if reboot:
                patch.setattr("moe_bulk.standing.boot_id", lambda: "another start")
                patch.setattr("moe_bulk.run.boot_id", lambda: "another start")
            deliver(rows(count), out, moody(seed), rate=SLOW, clock=clock)
        found = audit(out)
        assert () == found.contradictions
        assert found.compared
        assert cuts or not found.lower_bound
        assert found.busiest.least <= SLOW.limit


def lines(run: Path) -> list[dict[str, Any]]:
    """Read the results."""
    return [orjson.loads(line) for line in (run / "results.ndjson").read_bytes().splitlines()]


def write(run: Path, results: list[dict[str, Any]], name: str = "results.ndjson") -> None:
    """Put others in their place."""
    (run / name).write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in results))


def contradictions(run: Path) -> str:
    """What is found, as one text."""
    found = audit(run)
    assert not found.hold
    return "\n".join(found.contradictions)


def test_a_line_that_stands_there_twice(run: Path) -> None:
    """The row is named, and its status counts one too many."""
    found = lines(run)
    write(run, [*found, found[10]])
    said = contradictions(run)
    assert f"rows with more than one result: rows, offset {found[10]['offset']}: 2" in said
    assert "rows: 81 in the results, 80 in the summary" in said


def test_a_line_that_is_gone(run: Path) -> None:
    """Each of its traces is missed: the row, its requests, its dead letter."""
    write(run, [each for each in lines(run) if each["status"] != "invalid"])
    said = contradictions(run)
    assert "invalid rows: 0 in the results, 7 in the summary" in said
    assert "dead letters of rows that did not fail so (was dead-letter.ndjson edited?): rows, line 6, invalid" in said


def test_a_status_that_was_changed(run: Path) -> None:
    """A failure that is told as a success, and the other way round."""
    found = lines(run)
    next(each for each in found if each["status"] == "rejected")["status"] = "accepted"
    write(run, found)
    said = contradictions(run)
    assert "a row that is accepted, and its last attempt was not" in said
    assert "failures, rejected: HTTP 400 ValueError" in said
    assert "accepted rows" in said


@pytest.mark.parametrize("moved", ["both", "at"])
def test_an_attempt_that_was_moved(run: Path, moved: str) -> None:
    """Into the busiest window: it held more than the summary says. By its boot-clock time alone: that is no clock."""
    found = lines(run)
    window = audit(run).busiest
    assert window.at is not None
    late = [each for each in found if each["attempts"] and each["attempts"][0]["sent"] > window.at + 6]
    for each in late[:3]:
        (attempt, *_) = each["attempts"]
        attempt["at"] += window.at + 1 - attempt["sent"]
        if moved == "both":
            attempt["sent"] = window.at + 1
    write(run, found)
    assert ("busiest window" if moved == "both" else "sessions, by their clocks") in contradictions(run)


def test_dead_letters_that_are_gone_or_changed(run: Path) -> None:
    """Somebody may have corrected them: it is named all the same, with the question."""
    letters = [orjson.loads(line) for line in (run / "dead-letter.ndjson").read_bytes().splitlines()]
    write(run, letters[1:], "dead-letter.ndjson")
    assert "failed rows without a dead letter (was dead-letter.ndjson edited?): rows, line 4" in contradictions(run)
    write(run, [*letters, {"no": "note"}], "dead-letter.ndjson")
    assert "lines of dead-letter.ndjson that are none of this run's: line" in contradictions(run)
    (run / "dead-letter.ndjson").unlink()
    assert "dead-letter.ndjson is missing" in contradictions(run)


@pytest.mark.parametrize("name", ["requests", "retries", "sessions"])
def test_a_summary_that_was_changed(run: Path, name: str) -> None:
    """Its numbers are held against the lines."""
    summary = orjson.loads((run / "summary.json").read_bytes())
    summary[name] += 1 if name != "sessions" else -1
    (run / "summary.json").write_bytes(orjson.dumps(summary))
    assert name in contradictions(run)


def test_lines_that_are_none(run: Path) -> None:
    """Junk and a torn end are named by their number, in a run that is finished."""
    with (run / "results.ndjson").open("ab") as file:
        file.write(b'junk\n{"torn')
    assert "lines that are no results: line 81 (unexpected character" in contradictions(run)


def test_a_summary_that_is_missing(run: Path) -> None:
    """The checkpoint of a finished run says the same."""
    (run / "summary.json").unlink()
    found = audit(run)
    assert (True, True) == (found.hold, found.compared)
    write(run, lines(run)[1:])
    assert not audit(run).hold


def test_a_killed_run_has_nothing_to_compare_with(tmp_path: Path) -> None:
    """Its torn end is no contradiction, and neither is a letter whose result was not written."""
    out = tmp_path / "devices.run"
    deliver(rows(60), out, moody(2), rate=SLOW, cut=Cut("crash", 40))
    with (out / "results.ndjson").open("ab") as file:
        file.write(b'{"torn')
    found = audit(out)
    assert (True, False, True) == (found.hold, found.compared, found.lower_bound)
    assert "Nothing contradicts so far." == found.lines()[-1]


def test_requests_that_nobody_can_place(tmp_path: Path) -> None:
    """A row with more than 20 tries tells of the last 20 only: the window is a lower bound, and it says so."""
    out = tmp_path / "devices.run"
    deliver(
        devices(2), out, lambda said: answer(503 if said["customer_id"] == "user-1" else 200), retry=Retry(tries=25)
    )
    found = audit(out)
    assert found.hold
    assert found.lower_bound
    assert "at least" in "\n".join(found.lines())


def test_another_window_in_a_later_session(tmp_path: Path) -> None:
    """The busiest window was looked for since then only: what was sent before does not contradict it."""
    out = tmp_path / "devices.run"
    deliver(rows(60), out, moody(3), rate=Rate(1_000, per=1), cut=Cut("signal", 40))
    deliver(rows(60), out, moody(3), rate=SLOW, clock=(1_000.0, EPOCH))
    found = audit(out)
    assert () == found.contradictions
    assert "since" in "\n".join(found.notes)


def test_the_command_tells_people_and_machines(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 where all holds, 1 with what contradicts, 2 where there is no run; lines of 80 columns."""
    assert 0 == cli.run(["audit", str(run)])
    said = capsys.readouterr().out
    assert "All of it holds.\n" in said
    assert 80 >= max(map(len, said.splitlines()))
    write(run, lines(run)[1:])
    assert 1 == cli.run(["audit", str(run), "--json"])
    told = orjson.loads(capsys.readouterr().out)
    assert (False, True) == (told["holds"], "80 in the summary" in "".join(told["contradictions"]))
    assert 1 == cli.run(["audit", str(run)])
    assert "  - " in capsys.readouterr().out
    assert 2 == cli.run(["audit", str(run.parent)])
    assert "is no run folder" in capsys.readouterr().err


def test_people_are_told_how_far_it_is(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal, every few seconds and beside what is printed; elsewhere nobody is."""
    monkeypatch.setattr("moe_bulk.audit.LOOK_LINES", 10)
    told: list[tuple[int, int]] = []
    audit(run, lambda read, total: told.append((read, total)))
    size = (run / "results.ndjson").stat().st_size
    assert {size} == {total for _, total in told}
    assert len(told) > 1
    assert sorted(set(told)) == told
    assert told[-1][0] <= size

    seconds = iter(range(0, 1000, 3))
    monkeypatch.setattr("moe_bulk.cli.audit.time.monotonic", lambda: next(seconds))
    assert 0 == cli.run(["audit", str(run)])
    assert "" == capsys.readouterr().err
    monkeypatch.setattr("moe_bulk.display.Unbreakable.isatty", lambda _: True)
    assert 0 == cli.run(["audit", str(run), "--json"])
    said = capsys.readouterr()
    shares = said.err.splitlines()
    assert all(share.endswith("% of the results read") for share in shares)
    assert 1 < len(shares) < len(told)
    assert orjson.loads(said.out)["holds"]


def test_memory_does_not_grow_with_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for ten numbers in memory the findings are the same."""
    before = audit(run)
    monkeypatch.setattr("moe_bulk.audit.IN_MEMORY", 10)
    assert before == audit(run)
