"""The benchmarks as programs: they run, name every contender, and count windows right."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from moe_bulk.config import Rate

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the benchmarks' module of that name, which is imported as their programs do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("measure")


def run(program: str, *arguments: str) -> str:
    """Run a benchmark and give what it printed."""
    command = [sys.executable, str(BENCHMARKS / program), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def rows(printed: str) -> dict[str, list[str]]:
    """Give the cells of its table by the name in front."""
    lines = [line.strip("| ").split("|") for line in printed.splitlines() if line.startswith("| ")]
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in lines[2:]}


def test_throughput_puts_the_contenders_side_by_side() -> None:
    """One run prints one table with a line for each contender, every request accepted."""
    printed = run("throughput.py", "--rounds", "1", "--requests", "30", "--in-flight", "4", "--latency", "1")
    found = rows(printed)
    assert ["moe_bulk", "bare loop", "plain script", "aiohttp pipeline"] == list(found)
    assert "4 in flight, server answers after 1 ms, HTTP" in printed
    assert "NOT ACCEPTED" not in printed
    assert ["1.00x", "1.00x"] == [found["plain script"][1], found["plain script"][4]]
    assert all(float(cells[3].replace(",", "")) > 0 for cells in found.values())
    assert {"4"} == {cells[7] for cells in found.values()}, "the same connections are used again"


def test_at_the_cap_counts_the_busiest_window_at_the_server() -> None:
    """A second at 40/s: no window exceeds it; how much of it is used, a busy machine decides."""
    printed = run("at_the_cap.py", "--seconds", "1.2", "--rate", "40/s", "--latency", "10")
    (_, used, arrivals, any_moment, cpu, *_) = rows(printed)["moe_bulk"]
    assert "NOT ACCEPTED" not in printed
    assert float(used.rstrip("%")) > 0
    assert 0 < int(arrivals) <= int(any_moment) <= 40
    assert int(cpu.replace(",", "")) > 0


def test_the_table_holds_what_was_measured_against_what_is_to_be_reached(tmp_path: Path) -> None:
    """Two of its rows in smoke size: each has its line, nothing is judged, and the file says what the screen says."""
    out = tmp_path / "table.md"
    printed = run("table.py", "smoke", "cap", "journal", "--out", str(out))
    found = rows(printed[printed.index("| work") :])
    works = [
        "10000/min for 0.3 s, 300 ms ± 200 ms, 1 % 5xx and resets",
        "dlt at 10000/min for 0.3 s, the same server: CPU a record, of ours",
        "drt at 10000/min for 0.3 s, the same server: CPU a record, of ours",
        "journal: result line, dead letter, checkpoint",
    ]
    assert works == list(found)
    assert {"-"} == {cells[2] for cells in found.values()}
    assert found[works[1]][1].startswith("not installed: pip install -r benchmarks/requirements.txt")
    assert found == rows(out.read_text()[out.read_text().index("| work") :].partition("\n\n")[0])


def test_what_fails_is_told_beside_what_was_measured(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """One row's contender breaks down: the others have their lines, and the exit tells of it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    program, failed = import_module("table"), import_module("measure").Failed

    def fail(_: object) -> None:
        raise failed("it fell over")

    monkeypatch.setitem(program.ROWS, "cap", fail)
    with pytest.raises(SystemExit, match="not measured: cap"):
        program.main(["smoke", "cap", "journal"])
    found = rows((printed := capsys.readouterr().out)[printed.index("| work") :])
    assert "failed: it fell over" == found["cap"][1]
    assert "µs" in found["journal: result line, dead letter, checkpoint"][1]


def test_pairs_begin_with_either_in_turn_between_two_readings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What runs first, and how fast the machine is around it, favours neither."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    pairs, interleaved, measure = (import_module(name) for name in ("pairs", "interleaved", "measure"))
    one, other = (interleaved.Entrant(name, 4, 10) for name in ("one", "other"))
    ran: list[str] = []

    def interleave(entrants: list[Any], *_: object) -> dict[Any, list[Any]]:
        (entrant,) = entrants
        ran.append(entrant.contender)
        return {entrant: [interleaved.Round(measure.Measured(10, 1.0, len(ran) / 1e5, 1.0), None)]}

    def read(*_: object) -> float:
        ran.append("by hand")
        return float(len(ran))

    monkeypatch.setattr(pairs, "interleave", interleave)
    monkeypatch.setattr(pairs, "part_cost", read)
    found = pairs.in_pairs(one, other, None, 2, None, tmp_path)
    assert ["by hand", "other", "one", "by hand", "one", "other", "by hand"] == ran
    assert [(1 + 4) / 2, (4 + 7) / 2] == found.by_hand
    assert [pytest.approx((3, 2)), pytest.approx((5, 6))] == found.costs


@pytest.mark.parametrize(("accepted", "met"), [((10, 10), "yes"), ((10, 0), "NO"), ((9, 10), "NO")])
def test_nothing_is_met_by_rows_that_were_not_accepted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, accepted: tuple[int, int], met: str
) -> None:
    """An engine that is quick because it loses rows has reached nothing."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    table, sizes, interleaved, measure, pairs = (
        import_module(name) for name in ("rows", "sizes", "interleaved", "measure", "pairs")
    )

    def in_pairs(*entrants: Any) -> Any:
        rounds = {
            each: [interleaved.Round(measure.Measured(count, 1.0, 1e-3, 1.0), None)]
            for each, count in zip(entrants, accepted, strict=False)
        }
        return pairs.Pairs(rounds, [3.0])

    monkeypatch.setattr(table, "in_pairs", in_pairs)
    told = table.crowded(table.Setup(sizes.SMOKE, tmp_path))
    assert met == told.lines[0].cells()[-1]


def test_the_memory_of_a_process_is_not_that_of_the_one_that_started_it() -> None:
    """Linux keeps what getrusage tells across execve: a small program would seem as large as the benchmark itself."""
    ballast = bytearray(150_000_000)
    ask = "from machine import peak_memory; print(peak_memory())"
    command = [sys.executable, "-c", ask]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, cwd=BENCHMARKS)
    assert 0 < float(done.stdout) < len(ballast) / 2e6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("table.py", "smoke", "speed"), "there is no row 'speed': choose from uncapped, overhead"),
        (("table.py", "smoke", "--peers-python", "/nowhere"), "/nowhere has not all peers"),
        (("compare.py", "no-such-commit", "HEAD"), "there is no commit 'no-such-commit'"),
        (("compare.py", "HEAD", "HEAD", "speed"), "there is no row 'speed': choose from uncapped, latency"),
    ],
)
def test_what_cannot_be_measured_is_said_at_once(arguments: tuple[str, ...], said: str) -> None:
    """A misspelt row, peers that are not there, an unknown commit: nothing runs."""
    program, *others = arguments
    command = [sys.executable, str(BENCHMARKS / program), *others]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert 2 == done.returncode
    assert said in done.stderr


def test_two_commits_are_compared_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same interpreter on both sides: a ratio for what can be measured, and why where something cannot."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    compare = import_module("compare")
    both = {"old": sys.executable, "new": sys.executable}
    found = compare.measure(both, ["journal"], compare.TINY, 1)
    unit, old, new, times = found["journal"]
    assert "µs a row" == unit
    assert float(old) > 0 < float(new)
    assert times.endswith("x")
    broken = compare.measure({"old": "/bin/false", "new": sys.executable}, ["import"], compare.TINY, 2)
    assert broken["import"][1].startswith("cannot be measured in old: ")


def test_several_uploads_share_one_window() -> None:
    """Two processes for some seconds: no window exceeds the limit; how much is used, a busy machine decides."""
    printed = run("shared_window.py", "--processes", "2", "--seconds", "4", "--rate", "40/s", "--latency", "10")
    used, arrivals, any_moment, least, _ = rows(printed)["2"]
    assert 0 <= float(least.rstrip("%")) <= 100
    assert float(used.rstrip("%")) > 0
    assert 0 < int(arrivals) <= int(any_moment) <= 40


def test_shared_limit_prints_its_plot() -> None:
    """A minute of a small limit: a line for every ten seconds, and what the upload made of each share."""
    printed = run("shared_limit.py", "--seconds", "60", "--rate", "600/min", "--live", "40,70", "--server", "bucket")
    numbers = [line.split() for line in printed.splitlines() if line[:6].strip().isdigit()]
    assert ["0", "10", "20", "30", "40", "50"] == [line[0] for line in numbers]
    assert {7} == set(map(len, numbers))
    assert ["live traffic takes 40%", "live traffic takes 70%"] == [
        line.partition(":")[0] for line in printed.splitlines()[-2:]
    ]


@pytest.fixture(scope="module")
def shared_limit() -> Any:
    """Give the simulation of live traffic."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return import_module("shared_limit")


@pytest.mark.parametrize(
    ("server", "tells", "seconds"),
    [("fixed", "nothing", 60), ("fixed", "retry-after", 60), ("sliding", "nothing", 20), ("bucket", "remaining", 20)],
)
def test_the_upload_takes_what_live_traffic_leaves(shared_limit: Any, server: str, tells: str, seconds: int) -> None:
    """It settles near what is left, with next to no 429s for either; it gives way when the live traffic grows.

    A service that counts by the minute shows nothing before the minute is full: then a few seconds later.
    """
    plan = shared_limit.Plan(server=server, tells=tells, rate=Rate(2000, 60.0), seconds=720)
    found = shared_limit.findings(plan, shared_limit.simulate(plan))
    for part in found:
        assert 0.9 <= part.used <= 1.05
        assert part.refused <= 0.03
        assert part.live_refused <= 0.04
    assert found[1].reaction <= seconds


@pytest.mark.parametrize(
    ("stays", "most"),
    [
        ([], 0),
        ([(0, 0)], 1),
        ([(0, 0), (9.9, 9.9)], 2),
        ([(0, 0), (10, 10)], 1),
        ([(0, 0.1), (10, 10)], 2),
        ([(0, 0), (4, 4), (8, 8), (12, 12), (16, 16)], 3),
        ([(0, 3), (2, 4), (12.5, 15), (12.9, 12.9), (30, 30)], 4),
        ([(5, 5), (5, 5), (15, 15), (15, 15), (15, 15)], 3),
    ],
)
def test_busiest_counts_each_request_at_any_moment_of_its_stay(
    measure: Any, stays: list[tuple[float, float]], most: int
) -> None:
    """A window is half open, and a request counts in every window that its stay touches."""
    assert most == measure.busiest(stays, 10)


def test_spread_and_table_read_well(measure: Any) -> None:
    """Medians come with the least and the most; names stand to the left, numbers to the right."""
    assert "5,120 (4,980 to 5,200)" == measure.spread([5200, 4980, 5120])
    assert "47.2" == measure.spread([47.21], digits=1)
    assert "2.5x (1.0 to 4.0)" == measure.spread([4, 1, 2.5], digits=1, unit="x")
    assert ["| who |  n |", "| --- | -: |", "| a   | 12 |"] == measure.table(("who", "n"), [("a", "12")]).splitlines()


def test_a_ratio_tells_its_spread(measure: Any) -> None:
    """One median of another, and of single rounds the least and the most."""
    assert "2.00x (1.00 to 4.00)" == measure.ratio([2, 4, 8], [2, 2, 2])
    assert "0.50x" == measure.ratio([1], [2])


def test_changed_only_leaves_out_what_is_known() -> None:
    """A small state: one row in fifty has changed, once it was sent it is known."""
    printed = run("changed_only.py", "--devices", "500", "--rows", "100")
    found = rows(printed)
    assert "500 devices are known" in printed
    assert ["100", "98"] == found["the whole upload"][:2]
    assert ["500", "492"] == found["asking what is known"][:2]


def test_checking_an_input_counts_right() -> None:
    """A small one, of which a tenth stands there twice."""
    found = rows(run("check_input.py", "--rows", "500"))
    assert "50" == found["500"][-1]


@pytest.mark.skipif(not (shutil.which("redis-server") or shutil.which("valkey-server")), reason="no Redis server")
def test_a_limit_is_shared_through_redis() -> None:
    """Two processes for some seconds: no window exceeds the limit; how much is used, a busy machine decides."""
    arguments = ["--processes", "2", "--rates", "100/s", "--seconds", "4", "--latency", "10"]
    used, sent, any_moment, calls, _, _ = rows(run("redis_pace.py", *arguments))["2"][1:]
    assert float(used.rstrip("%")) > 0
    assert 0 < int(sent) <= int(any_moment) <= 100
    assert float(calls) > 0
