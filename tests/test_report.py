"""The page of a run: all of it, under 200 KB, safe whatever the data holds; and the command that shows a run again."""

from __future__ import annotations

import asyncio
import html
import random
import re
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson
import pytest

from moe_bulk import cli
from moe_bulk.config import Network, Rate
from moe_bulk.outcome import Attempt
from moe_bulk.page import Markup
from moe_bulk.report import Told, _short, document
from moe_bulk.rundir import RunFolder
from moe_bulk.tally import Tally
from moe_bulk.timeline import MOST_BINS, RATES_KEPT
from tests.fake_service import KEY, answer, device, devices
from tests.runs import EPOCH, Cut, deliver
from tests.test_page import Reader

if TYPE_CHECKING:
    import httpx

    from moe_bulk.tally import Summary

NASTY = "<script>alert('x')</script>\" onload=\"x \x1b[31m \u202e\u05d0 &amp; \ud800"
LARGEST = 200_000


def text(page: str) -> str:
    """What is shown, in one line."""
    return " ".join(html.unescape(re.sub(r"<style>.*</style>|<[^>]+>", " ", page, flags=re.DOTALL)).split())


def page_of(run: Path) -> str:
    """Read the page of a run."""
    return (run / "report.html").read_text(encoding="utf-8")


def told(tally: Tally, folder: str = "x.run", stopped: str | None = None, **more: Any) -> Told:
    """What there is to tell of these numbers."""
    said = tally.summary(
        started_at=EPOCH, ended_at=EPOCH + 60, exit_code=0, version="1.2.3", settings={"format": "csv"}, stopped=stopped
    )
    return Told(cast("Summary", {**said, **more}), tally.timeline, tally.latency, Path(folder))


def test_each_run_leaves_its_page(tmp_path: Path) -> None:
    """0600, with all there is to tell of it and what to type next; without the key."""
    out = tmp_path / "devices.csv.run"
    deliver([*devices(200), device(200, platform="<i>toaster"), device(201, platform="toaster")], out)
    page = page_of(out)
    said = text(page)
    assert 0o600 == stat.S_IMODE((out / "report.html").stat().st_mode)
    for expected in (
        "Upload of devices.csv",
        "200 of 202 rows were accepted, 2 failed for one reason.",
        "202 read = 200 accepted + 2 invalid",
        "2 invalid: platform … is unknown",
        "platform '<i>toaster' is unknown",
        f"moe-bulk upload {out / 'dead-letter.ndjson'}",
        "Requests a second over time: at most",
        "half of the answers (p50)",
        "No answer was a 429",
        "How long answers took",
        "Busiest window 200 requests in 60 s",
        "Workspace id WORKSPACE",
        "API key ••••",
    ):
        assert expected in said
    assert KEY not in page
    assert Reader(page).balanced


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(2.0, "Pace It took 2 s, at 6,000 a minute "), (7_200.0, "Pace 50.0% of the limit was used in 2 h ")],
)
def test_a_share_of_the_limit_is_told_of_runs_that_were_long_enough(seconds: float, expected: str) -> None:
    """As at the upload's end: a run of two seconds has used 100 % of nothing."""
    tally = Tally(10_000, 60.0, EPOCH)
    for number in range(200):
        tally.sent(number / 100)
    given = told(tally)
    given.summary["ended_at"] = EPOCH + seconds
    given.summary["rate"]["used_share"] = 0.5
    assert expected in text(document(given))


def test_a_limit_far_beyond_is_not_in_the_picture(tmp_path: Path) -> None:
    """Or nothing would be seen of the requests; the page says so."""
    deliver(devices(300), tmp_path / "far.run", latency=20.0, network=Network(in_flight=2))
    page = page_of(tmp_path / "far.run")
    assert "That is far beyond what was sent, and not in the picture." in text(page)
    assert 'class="limit"' not in page
    deliver(devices(300), tmp_path / "near.run", rate=Rate(1_200, per=60))
    assert 'class="limit"' in page_of(tmp_path / "near.run")


def test_a_run_without_rows_has_a_page(tmp_path: Path) -> None:
    """There is nothing to plot, and it says what happened."""
    deliver([], tmp_path / "x.run")
    said = text(page_of(tmp_path / "x.run"))
    assert "Nothing to do: the input holds no rows." in said
    assert "Over time" not in said


def test_a_rehearsal_is_called_one() -> None:
    """Nobody takes a sandbox's run for MoEngage's."""
    tally = Tally(100, 60.0, EPOCH)
    assert "Rehearsal of devices.csv " in text(document(told(tally, "devices.csv.sandbox.run")))
    assert "Upload of devices.csv " in text(document(told(tally, "devices.csv.run")))
    assert "Rehearsal of weekly " in text(document(told(tally, "weekly.run", settings={"sandbox": True})))
    assert "Upload of x.sandbox " in text(document(told(tally, "x.sandbox.run", settings={"sandbox": False})))


def test_a_run_that_stopped_has_a_page(tmp_path: Path) -> None:
    """It says why, and how to go on; when the run goes on the page is another one."""
    out = tmp_path / "x.run"
    deliver(devices(30), out, cut=Cut("401", 10))
    said = text(page_of(out))
    assert "Not finished: 9 of" in said
    assert "Why it stopped: MoEngage" in said
    assert "goes on where it stopped" in said
    seen: list[bool] = []
    deliver(devices(30), out, watch=lambda view: seen.append((view.folder / "report.html").exists()))
    assert [False] == seen
    assert "All 30 rows were accepted. " in text(page_of(out))
    assert "in 2 sessions" in text(page_of(out))


@pytest.mark.parametrize("status", [401, 403, 404])
def test_words_of_the_service_stay_in_the_run_folder(
    tmp_path: Path, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may repeat a row: the page has them, as text; the error, `report` and `stopped` do not."""
    out = tmp_path / "x.run"
    ended = deliver(devices(30), out, lambda said: answer(status, f"no such thing <b>for {said['customer_id']}"))
    assert f"({status} " in str(ended.error)
    assert "user-" not in str(ended.error)
    summary = ended.written.summary
    assert "user-" not in summary["stopped"]
    assert summary["service_said"].startswith("no such thing <b>for user-")
    assert "What MoEngage said: no such thing <b>for user-" in text(page_of(out))
    assert 0 == cli.run(["report", str(out)])
    said = " ".join(capsys.readouterr().out.split())
    assert "user-" not in said
    assert "What MoEngage said of it stands in summary.json" in said


def test_pauses_and_outages_are_on_the_time_axis(tmp_path: Path) -> None:
    """Shaded where they were, and explained."""

    def decide(_: dict[str, Any]) -> httpx.Response:
        now = asyncio.get_running_loop().time()
        if 5 < now < 20:
            return answer(503, "down")
        return answer(429, "Rate Limits Exceeded", **{"retry-after": "10"}) if 30 < now < 33 else answer(200)

    deliver(devices(350), tmp_path / "x.run", decide, rate=Rate(1_200, per=60))
    page = page_of(tmp_path / "x.run")
    for expected in ('<rect class="outage"', '<rect class="pause"', "429: too many requests", "5xx, or no answer"):
        assert expected in page


def test_nothing_from_data_becomes_html() -> None:
    """Reasons, settings, paths, versions, the reason of a stop: all is text."""
    tally = Tally(100, 60.0, EPOCH)
    cause = {"cause": NASTY, "status": "invalid", "count": 1, "first_line": 1, "example": NASTY, "remedy": NASTY}
    settings = {NASTY: {NASTY: NASTY}, "where": [[NASTY, NASTY]], "preset": NASTY}
    said = told(tally, f"{NASTY}.run".replace("/", "|"), NASTY, failures=[cause], settings=settings, version=NASTY)
    plain = told(tally, "x.run", "x", failures=[{**cause, "cause": "x", "example": "x", "remedy": "x"}])
    page = document(said)
    plain = replace(plain, summary=plain.summary | {"settings": {"a": "x", "where": ["x"], "preset": "x"}})
    assert set(Reader(document(plain)).names) == set(Reader(page).names)
    assert Reader(page).balanced
    assert None is re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", page)
    page.encode()


@pytest.mark.parametrize("character", ["'", '"', "\U000e0041", "€", "x"])
def test_the_page_is_small_for_any_run(character: str) -> None:
    """All bins, limits, colors and latencies that there can be, a hundred long reasons, settings, a long path."""
    tally, worst = busy_tally(), character * 5_000
    cause = {"cause": worst, "status": "exhausted", "count": 1, "first_line": 10**15, "example": worst, "remedy": worst}
    causes = [{**cause, "first_source": worst}] * 100
    settings = {f"{number}{worst}": {worst: worst} for number in range(200)} | {"options": [worst] * 9}
    more = {"failures": causes, "settings": settings, "version": worst, "sources": 2}
    finished = told(tally, worst.replace("x", "x/"), None, **more)
    stopped = told(tally, "x" * 200, worst, **more, service_said=worst)
    assert MOST_BINS == len(tally.timeline.bins())
    for each in (finished, stopped):
        page = document(each)
        assert 100_000 < len(page.encode()) < LARGEST
        assert isinstance(page, str)
        assert not isinstance(page, Markup)


def busy_tally() -> Tally:
    """Give the numbers of a run that leaves no part of any plot empty."""
    tally = Tally(100, 60.0, EPOCH)
    chance = random.Random(3)
    for number in range(6_000):
        at = number * 16_384 / 6_000
        tally.sent(at)
        tally.timeline.sent(at, again=number % 3 == 0)
        ms = 10 ** chance.uniform(-3, 10)
        tally.answered(ms, ok=True)
        tally.timeline.answered(Attempt(EPOCH + at, at, min(ms, 1.0), chance.choice([200, 429, 503])))
        tally.timeline.waited(at, chance.uniform(0, 30), chance.choice(["pause", "outage", ""]))
    for each in tally.timeline.bins():
        each.latencies = {chance.randint(0, 250): chance.randint(1, 9) for _ in range(9)}
    tally.timeline.rates = [(EPOCH + 300.0 * number, chance.randint(50, 150), 60.0) for number in range(RATES_KEPT)]
    return tally


@pytest.mark.parametrize(
    ("given", "expected"),
    [("a" * 10, "a" * 10), ("a" * 11, "a" * 9 + "…"), ("'" * 4, "''…"), ("é" * 10, "é" * 10), ("", "")],
)
def test_texts_are_cut_by_what_they_take(given: str, expected: str) -> None:
    """Ten characters, and twenty bytes of HTML."""
    assert expected == _short(given, 10)


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that is finished, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices.csv").write_text("customer_id\n", encoding="utf-8")
    deliver([*devices(5), device(6, push_id="")], tmp_path / "devices.csv.run")
    return tmp_path / "devices.csv.run"


@pytest.mark.parametrize("named", ["devices.csv.run", "devices.csv", "devices.csv.run/summary.json"])
def test_a_run_is_found(run: Path, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By its folder, by its source, by one of its files."""
    assert 0 == cli.run(["report", named])
    said = capsys.readouterr().out
    assert "5 of 6 rows were accepted, 1 failed for one reason." in said
    assert "moe-bulk upload devices.csv.run/dead-letter.ndjson" in said
    assert f"Page: {run / 'report.html'}" in said
    assert "user-6" not in said


@pytest.mark.parametrize("left", ["all of it", "no summary"])
def test_a_rehearsal_in_a_folder_of_another_name(
    tmp_path: Path, left: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its page and `report` send dead letters to the sandbox again, as the upload's own end did."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["moe-bulk", "upload", "a.csv", "--sandbox", "--config", "my.toml"])
    (tmp_path / "a.csv").write_text("customer_id,device_id,platform,push_id\nu,d,toaster,t\n", encoding="utf-8")
    assert 1 == cli.run(["upload", "a.csv", "--sandbox", "--out", "weekly.run"])
    command = "upload {}weekly.run/dead-letter.ndjson --sandbox --config my.toml"
    assert command.format(f"{tmp_path}/") in capsys.readouterr().err
    page = text(page_of(tmp_path / "weekly.run"))
    assert "Rehearsal of weekly " in page
    assert f"moe-bulk {command.format(f'{tmp_path}/')} " in page
    assert "Options --sandbox --config my.toml" in page
    if left == "no summary":
        (tmp_path / "weekly.run" / "summary.json").unlink()
    assert 0 == cli.run(["report", "weekly.run"])
    assert f"  moe-bulk {command.format('')}\n" in capsys.readouterr().out


def test_failures_are_told_with_their_source_where_there_are_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the upload's end, in `report` and on the page; of a single source the line says enough."""
    monkeypatch.chdir(tmp_path)
    for name, platform in (("a.csv", "ios"), ("b.csv", "toaster")):
        row = f"customer_id,device_id,platform,push_id\nu-{name},d-{name},{platform},t-{name}\n"
        (tmp_path / name).write_text(row, encoding="utf-8")
    for sources, place in ((["a.csv", "b.csv"], "b.csv, line 2"), (["b.csv"], "line 2")):
        assert 1 == cli.run(["upload", *sources, "--sandbox", "--out", "x.run", "--fresh"])
        assert f"(first: {place})\n" in capsys.readouterr().err
        assert f" First {place} " in text(page_of(tmp_path / "x.run"))
        for _ in range(2):
            assert 0 == cli.run(["report", "x.run"])
            assert f"(first: {place}) " in " ".join(capsys.readouterr().out.split())
            (tmp_path / "x.run" / "summary.json").unlink(missing_ok=True)


@pytest.mark.parametrize("named", [".", "missing.csv", "s3://bucket/x.csv", "*.parquet"])
def test_what_is_no_run_is_told(run: Path, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With what to name instead."""
    assert 2 == cli.run(["report", named])
    assert "is no run folder" in capsys.readouterr().err


def test_a_missing_page_is_written_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same one, for nobody else's eyes; one that is there stays."""
    before = page_of(run)
    (run / "report.html").unlink()
    assert 0 == cli.run(["report", str(run)])
    assert before == page_of(run)
    assert 0o600 == stat.S_IMODE((run / "report.html").stat().st_mode)
    (run / "report.html").write_text("mine", encoding="utf-8")
    assert 0 == cli.run(["report", str(run)])
    assert "mine" == page_of(run)


def test_a_run_that_somebody_is_at_work_in_is_shown_without_a_page(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files are that process's."""
    (run / "report.html").unlink()
    with RunFolder.claim(run, fresh=False):
        assert 0 == cli.run(["report", str(run)])
    assert "Another process is at work in this run" in capsys.readouterr().out


def test_the_page_is_opened(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In a browser; where there is none, its address is told."""
    opened: list[str] = []

    def browser(url: str) -> bool:
        opened.append(url)
        return len(opened) == 1

    monkeypatch.setattr("webbrowser.open", browser)
    assert 0 == cli.run(["report", str(run), "--open"])
    assert "" == capsys.readouterr().err
    assert 0 == cli.run(["report", str(run), "--open"])
    assert "No browser could be started here" in capsys.readouterr().err
    assert [(run / "report.html").as_uri()] * 2 == opened


def test_a_damaged_summary_is_made_again_from_the_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And it says so; where nothing can be read at all, that is told."""
    for junk in (b"{torn", b"[]", b'{"counts": 3}', orjson.dumps({"counts": {"read": "x"}})):
        (run / "summary.json").write_bytes(junk)
        assert 0 == cli.run(["report", str(run)])
        said = capsys.readouterr().out
        assert "5 of 6 rows were accepted" in said
        assert "summary.json is damaged" in said
    (run / "checkpoint.json").write_bytes(b"{torn")
    assert 2 == cli.run(["report", str(run)])
    assert "tells nothing that can be shown" in " ".join(capsys.readouterr().err.split())


def test_a_killed_run_says_that_it_is_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its numbers are those of the last time it was saved; its page is there, too."""
    out = tmp_path / "x.run"
    deliver(devices(200), out, cut=Cut("crash", 150), latency=2.0)
    assert 0 == cli.run(["report", str(out)])
    said = capsys.readouterr().out
    assert "Not finished: " in said
    assert "the last time it was saved" in " ".join(said.split())
    assert "Not finished" in text(page_of(out))


def test_a_page_that_cannot_be_made_does_not_fail_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All else was written; the trouble is told."""

    def bug(_: object) -> str:
        raise RuntimeError("a bug")

    monkeypatch.setattr("moe_bulk.report.document", bug)
    assert (0, ["report.html could not be written (RuntimeError): try moe-bulk report"]) == ended_with(
        tmp_path / "x.run"
    )
    # as where the package was replaced while the run went on: what is imported late no longer fits
    monkeypatch.setitem(sys.modules, "moe_bulk.report", None)
    name = ModuleNotFoundError.__name__
    assert (0, [f"report.html could not be written ({name}): try moe-bulk report"]) == ended_with(tmp_path / "y.run")


def ended_with(out: Path) -> tuple[int, list[str]]:
    """Deliver a few rows: the run's exit code, and what it warned of."""
    views: list[Any] = []
    ended = deliver(devices(3), out, watch=views.append)
    assert ended.summary is not None
    return ended.summary["exit_code"], views[0].warnings
