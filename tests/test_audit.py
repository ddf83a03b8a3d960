"""The results of real runs hold against their summaries, whatever happened to the run; tampered ones do not."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_bulk import cli
from moe_bulk.audit import audit
from moe_bulk.config import Rate, Retry
from tests.effort import examples
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
    deliver(rows(80), out, moody(1), rate=SLOW, also={"sandbox": True})
    assert audit(out).hold
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


Path_ = tuple[str | int, ...]

CHANGED: list[tuple[Path_, Any]] = [
    (("format",), 2),
    (("exit_code",), -1),
    (("exit_code",), None),
    (("started_at",), -86_400.0),
    (("started_at",), +10.0),
    (("ended_at",), -10.0),
    (("ended_at",), -86_400.0),
    (("sessions",), +1),
    (("sessions",), -1),
    (("requests",), +1),
    (("requests",), -1),
    (("retries",), +1),
    (("retries",), -1),
    (("pauses",), +1),
    (("pauses",), -1),
    *((("counts", name), by) for name in ("read", "accepted", "rejected", "invalid", "unsettled") for by in (1, -1)),
    *((("latency_ms", name), by) for name in ("p50", "p95", "p99") for by in (10.0, -10.0, None)),
    (("rate", "limit"), -39),
    (("rate", "limit"), +1),
    (("rate", "per"), +1.0),
    (("rate", "used_share"), +0.01),
    (("rate", "used_share"), -0.01),
    (("rate", "used_share"), None),
    (("rate", "busiest_window", "count"), +1),
    (("rate", "busiest_window", "count"), -1),
    (("rate", "busiest_window", "at"), +1000.0),
    (("rate", "busiest_window", "at"), -1.0),
    (("rate", "busiest_window", "at"), None),
    (("rate", "counted_since"), EPOCH),
    *((("failures", 0, name), by) for name in ("count", "first_line") for by in (1, -1)),
    *((("failures", 0, name), "other") for name in ("cause", "example", "first_source")),
    (("failures", 0, "status"), "exhausted"),
    (("failures", 0), None),
    (("settings", "workspace_id"), "other"),
    (("settings", "sandbox"), False),
    (("settings", "constants"), {"platform": "iOS"}),
]
"""Fields of the summary, and what is done to each: a number is added, a text or None put in its place."""


def change(said: Any, path: Path_, by: Any) -> None:
    """Change one field of a summary."""
    *to, name = path
    for each in to:
        said = said[each]
    if by is None and isinstance(said, list) and isinstance(name, int):
        del said[name]
    elif type(by) in (int, float) and isinstance(name, str) and name in said:
        said[name] += by
    else:
        said[name] = by


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two sessions, the first of which was killed: requests are lost."""
    out = tmp_path_factory.mktemp("audit") / "devices.run"
    deliver(rows(120), out, moody(1), rate=SLOW, cut=Cut("crash", 60), also={"sandbox": True})
    deliver(rows(120), out, moody(1), rate=SLOW, clock=(1_000.0, EPOCH), also={"sandbox": True})
    assert audit(out).hold
    return out


@pytest.mark.parametrize(("path", "by"), CHANGED, ids=lambda it: ".".join(map(str, it)) if type(it) is tuple else None)
@pytest.mark.parametrize("kind", ["one session", "two sessions"])
def test_a_summary_that_was_changed(
    untouched: Path, resumed: Path, tmp_path: Path, kind: str, path: Path_, by: Any
) -> None:
    """Each field alone: its numbers are held against the lines, and against the checkpoint what they do not tell."""
    run = Path(shutil.copytree(resumed if kind == "two sessions" else untouched, tmp_path / "devices.run"))
    summary = orjson.loads((run / "summary.json").read_bytes())
    if path == ("ended_at",):  # the virtual clock goes on while a slow disk syncs, so that the end may come much later
        summary["ended_at"] = max(each["settled_at"] for each in lines(run))
    change(summary, path, by)
    (run / "summary.json").write_bytes(orjson.dumps(summary))
    found = audit(run)
    assert 1 <= len(found.contradictions)
    told = "\n".join(found.lines())
    assert not any(word in told for word in ("user-", "device-", "token-", "toaster"))


def paths(said: object, to: Path_ = ()) -> list[Path_]:
    """Give all places in it."""
    inside = said.items() if isinstance(said, dict) else enumerate(said) if isinstance(said, list) else ()
    return [*([to] if to else []), *(path for name, each in inside for path in paths(each, (*to, name)))]


JUNK = st.sampled_from([None, "x", "\x1b[31m", [], {}, [None], {"a": 1}, -1, 1e300, 2**63, True])


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_summary_makes_it_stumble(
    run: Path, untouched: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    """Whatever stands in it: audit says that it contradicts, or that all holds, and `report` shows what it can."""
    summary = orjson.loads((untouched / "summary.json").read_bytes())
    summary["failures"] *= data.draw(st.sampled_from([1, 9]))
    path = data.draw(st.sampled_from(paths(summary)))
    *to, name = path
    inside = summary
    for each in to:
        inside = inside[each]
    inside[name] = data.draw(JUNK)
    (run / "summary.json").write_bytes(orjson.dumps(summary))
    assert "\x1b" not in "".join(audit(run).lines())
    assert cli.run(["report", str(run)]) in (0, 2)
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err


LINES_TELL = (
    *("format", "exit_code", "counts", "requests", "retries", "latency_ms", "failures"),
    *("rate.used_share", "rate.busiest_window"),
)


@pytest.mark.parametrize(
    ("path", "by"),
    [each for each in CHANGED if ".".join(map(str, each[0])).startswith(LINES_TELL) or each[1] in (10.0, -10.0)],
    ids=lambda it: ".".join(map(str, it)) if type(it) is tuple else None,
)
def test_what_lines_tell_needs_no_checkpoint(run: Path, path: Path_, by: Any) -> None:
    """Most of it is found in the results alone; what is not is said."""
    (run / "checkpoint.json").unlink()
    found = audit(run)
    assert found.hold
    assert "checkpoint.json is missing or cannot be read" in found.notes
    assert "pauses" not in found.compared
    assert any("nothing tells pauses" in note for note in found.notes)
    summary = orjson.loads((run / "summary.json").read_bytes())
    change(summary, path, by)
    (run / "summary.json").write_bytes(orjson.dumps(summary))
    assert not audit(run).hold


def test_every_field_is_changed_by_a_test(run: Path) -> None:
    """But for words, the version, and what was once no part of a summary."""
    summary = orjson.loads((run / "summary.json").read_bytes())
    names = {path[0] for path, _ in CHANGED}
    assert {"version", "sources"} == summary.keys() - names
    rate = {path[1] for path, _ in CHANGED if path[0] == "rate"}
    assert set() == summary["rate"].keys() - rate
    assert {"remedy"} == summary["failures"][0].keys() - {path[2] for path, _ in CHANGED if len(path) == 3}


def test_a_checkpoint_of_an_earlier_moment(tmp_path: Path) -> None:
    """A full disk may have kept the last one from being written: then it tells when the run began, and no more."""
    out = tmp_path / "devices.run"
    saved: list[bytes] = []
    deliver(rows(80), out, moody(1), rate=SLOW, watch=lambda _: saved.append((out / "checkpoint.json").read_bytes()))
    (out / "checkpoint.json").write_bytes(saved[0])
    summary = orjson.loads((out / "summary.json").read_bytes())
    (out / "summary.json").write_bytes(orjson.dumps(summary | {"stopped": "the disk is full", "exit_code": 3}))
    found = audit(out)
    assert found.hold
    assert any("is of an earlier moment" in note for note in found.notes)
    assert "pauses" not in found.compared
    assert "started_at" in found.compared


@pytest.mark.parametrize("known", [True, False])
def test_a_run_without_any_answer(tmp_path: Path, known: bool) -> None:  # noqa: FBT001  a table's column
    """There are no percentiles to tell, and no window where there was no request."""
    out = tmp_path / "devices.run"
    deliver([device(1, platform="toaster")] if known else [], out)
    assert audit(out).hold
    summary = orjson.loads((out / "summary.json").read_bytes())
    summary["latency_ms"] = dict.fromkeys(summary["latency_ms"], 12.0)
    (out / "summary.json").write_bytes(orjson.dumps(summary))
    assert "latency, p50: None ms in the results, 12.0 ms in the summary" in contradictions(out)


def test_letters_that_are_missing_in_a_run_that_stopped(tmp_path: Path) -> None:
    """It may have more than failed rows, not fewer."""
    out = tmp_path / "devices.run"
    deliver(rows(80), out, moody(1), rate=SLOW, cut=Cut("signal", 50))
    letters = (out / "dead-letter.ndjson").read_bytes().splitlines(keepends=True)
    (out / "dead-letter.ndjson").write_bytes(b"".join(letters[1:]))
    assert f"{len(letters)} rows failed, there are {len(letters) - 1} dead letters" in contradictions(out)


def test_a_clock_that_was_set_back_is_no_contradiction(tmp_path: Path) -> None:
    """Nobody knows then how long the run took: it is noted."""
    out = tmp_path / "devices.run"
    deliver(rows(60), out, moody(3), rate=SLOW, cut=Cut("signal", 40))
    deliver(rows(60), out, moody(3), rate=SLOW, clock=(1_000.0, EPOCH - 3_000))
    found = audit(out)
    assert () == found.contradictions
    assert any(note.startswith("the clock was set") and "it ended at" in note for note in found.notes)


def test_a_stopped_run_is_compared_too(tmp_path: Path) -> None:
    """With its summary, and with the checkpoint that was written with it."""
    out = tmp_path / "devices.run"
    deliver(rows(80), out, moody(1), rate=SLOW, cut=Cut("signal", 50))
    found = audit(out)
    assert (True, "summary.json") == (found.hold, found.compared_with)
    assert {"pauses", "settings", "exit_code"} <= set(found.compared)
    changed: list[tuple[Path_, Any]] = [(("pauses",), 1), (("sessions",), 1), (("rate", "limit"), -1)]
    for path, by in [*changed, (("exit_code",), None)]:
        summary = orjson.loads((out / "summary.json").read_bytes())
        change(summary, path, by)
        shutil.copytree(out, tmp_path / f"{path[-1]}.run")
        (tmp_path / f"{path[-1]}.run" / "summary.json").write_bytes(orjson.dumps(summary))
        assert not audit(tmp_path / f"{path[-1]}.run").hold


def test_lines_that_are_none(run: Path) -> None:
    """Junk and a torn end are named by their number, in a run that is finished."""
    with (run / "results.ndjson").open("ab") as file:
        file.write(b'junk\n{"torn')
    assert "lines that are no results: line 81 (unexpected character" in contradictions(run)


@pytest.mark.parametrize("junk", [None, b"{torn", b"[]", b"{}"])
def test_a_summary_that_is_missing_or_damaged(run: Path, junk: bytes | None) -> None:
    """A run that came to its end has one: the lines are compared with the checkpoint all the same."""
    (run / "summary.json").unlink()
    if junk is not None:
        (run / "summary.json").write_bytes(junk)
    found = audit(run)
    (said,) = found.contradictions
    assert said.startswith("summary.json is missing" if junk is None else "summary.json is damaged")
    assert "checkpoint.json" == found.compared_with
    assert junk is None or any(note.startswith("summary.json is damaged") for note in found.notes)
    write(run, lines(run)[1:])
    assert "79 in the results, 80 in the summary" in contradictions(run)


def test_a_summary_without_counts(run: Path) -> None:
    """It is a damaged one."""
    summary = orjson.loads((run / "summary.json").read_bytes())
    del summary["counts"]
    (run / "summary.json").write_bytes(orjson.dumps(summary))
    assert "summary.json is damaged" in contradictions(run)


def test_results_alone(run: Path) -> None:
    """Every run has a checkpoint from its first moment on: that nothing is there to compare with is said plainly."""
    (run / "summary.json").unlink()
    (run / "checkpoint.json").write_bytes(b"{torn")
    found = audit(run)
    assert (False, (), None) == (found.hold, found.compared, found.compared_with)
    assert "neither summary.json nor checkpoint.json can be read" in found.lines()[-1]


def test_a_checkpoint_that_says_otherwise(run: Path) -> None:
    """A damaged one is noted; a finished run does not stop afterwards."""
    summary = orjson.loads((run / "summary.json").read_bytes())
    (run / "summary.json").write_bytes(orjson.dumps(summary | {"stopped": "somebody asked"}))
    assert "summary.json says that the run stopped, checkpoint.json that it is finished" in contradictions(run)
    (run / "checkpoint.json").write_bytes(b"{torn")
    (run / "summary.json").write_bytes(orjson.dumps(summary))
    found = audit(run)
    assert found.hold
    assert any(note.startswith("checkpoint.json is damaged") for note in found.notes)


def test_a_run_of_before_is_no_contradiction(run: Path) -> None:
    """Older summaries do not tell the source of a failure, nor older checkpoints which settings do not matter."""
    summary = orjson.loads((run / "summary.json").read_bytes())
    for each in summary["failures"]:
        del each["first_source"]
    del summary["sources"]
    (run / "summary.json").write_bytes(orjson.dumps(summary))
    checkpoint = orjson.loads((run / "checkpoint.json").read_bytes())
    del checkpoint["also"]
    (run / "checkpoint.json").write_bytes(orjson.dumps(checkpoint))
    assert audit(run).hold


def test_a_killed_run_has_nothing_to_compare_with(tmp_path: Path) -> None:
    """Its torn end is no contradiction, and neither is a letter whose result was not written."""
    out = tmp_path / "devices.run"
    deliver(rows(60), out, moody(2), rate=SLOW, cut=Cut("crash", 40))
    with (out / "results.ndjson").open("ab") as file:
        file.write(b'{"torn')
    found = audit(out)
    assert (True, (), True) == (found.hold, found.compared, found.lower_bound)
    assert "Nothing contradicts so far." == found.lines()[-1]
    (out / "summary.json").write_bytes(b"{torn")
    assert "summary.json is damaged" in contradictions(out)


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
    assert ("summary.json", True) == (told["compared_with"], {"counts", "pauses"} <= set(told["compared"]))
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
