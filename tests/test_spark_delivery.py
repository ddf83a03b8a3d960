"""A task of Spark's: one partition delivered, taken up again by the next attempt, and told to the driver."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from moe_bulk.errors import ConfigError, CredentialsRejected, RunRefused, RunStopped, SourceError
from moe_bulk.pacing.host import ALONE
from moe_bulk.spark import delivery
from moe_bulk.spark.access import Workspace, Workspaces
from moe_bulk.spark.delivery import deliver
from moe_bulk.spark.plan import plan
from moe_bulk.spark.rules import Task
from moe_bulk.spark.settings import read_options
from moe_bulk.spark.shelf import open_shelf
from tests.fake_service import KEY, accept, answer, device, devices, sandbox_in_a_thread
from tests.runs import written
from tests.spark_tasks import Job

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import httpx

    from moe_bulk.spark.settings import Settings
    from moe_bulk.uploader import Uploader

PART = "r/part-00000-attempt-{}.run"


def refusing_after(count: int) -> Any:
    """Accept so many devices, and then refuse the key."""
    left = [count]

    def decide(_: dict[str, Any]) -> httpx.Response:
        left[0] -= 1
        return answer(200) if left[0] >= 0 else answer(401, "Authentication required")

    return decide


def test_a_partition_is_delivered_into_its_folder(tmp_path: Path) -> None:
    """With the same results and dead letters as any upload; the driver is told numbers, and no row."""
    rows = [*devices(20), device(99, push_id="NA")]
    job = Job(tmp_path)
    report = job.task(rows, attempt=2)
    found = written(tmp_path / PART.format(0))
    assert (21, 20, 1) == tuple(found.summary["counts"][name] for name in ("read", "accepted", "invalid"))
    assert "user-99" == found.letters[0]["customer_id"]
    (told,) = report.delivered
    assert (0, 1, 20, 20) == (told.attempt, told.exit_code, told.requests, told.counts["accepted"])
    assert [("invalid", 1)] == [(each["status"], each["count"]) for each in told.failures]
    assert (21, 42) == (len(told.customers.hashes), len(told.keys.hashes) + 1)
    sent = pickle.dumps(report)
    assert not [word for word in (b"user-", b"token-", KEY.encode()) if word in sent]


def test_the_next_attempt_sends_nothing_that_was_settled(tmp_path: Path) -> None:
    """Its folder holds what both did; requests of the first are counted, too."""
    job = Job(tmp_path, refusing_after(12), options={"in_flight": "1"})
    with pytest.raises(CredentialsRejected):
        job.task(devices(30))
    settled = {each["customer_id"] for each in written(tmp_path / PART.format(0)).results}
    assert 12 == len(settled)
    first, job.seen, job.decide = job.seen, [], accept
    (told,) = job.task(devices(30)).delivered
    assert not settled & set(job.seen)
    assert [PART.format(1)] == [str(each.relative_to(tmp_path)) for each in (tmp_path / "r").glob("*.run")]
    found = written(tmp_path / PART.format(1))
    assert (1, 30, 2) == (told.attempt, told.counts["accepted"], found.summary["sessions"])
    assert len(first) + len(job.seen) == told.requests
    assert not told.started_over


def test_a_finished_partition_is_not_sent_again(tmp_path: Path) -> None:
    """Spark tries whole stages again; the driver is told the same."""
    job = Job(tmp_path)
    (before,) = job.task(devices(5)).delivered
    (after,) = job.task(devices(5)).delivered
    assert 5 == len(job.seen)
    assert (before.counts, before.keys, 1) == (after.counts, after.keys, after.attempt)


def test_rows_in_another_order_are_all_sent_again(tmp_path: Path) -> None:
    """Nobody knows by their places which of them were settled; what the attempt before wrote stays, moved aside."""
    job = Job(tmp_path, refusing_after(12), options={"in_flight": "1"})
    with pytest.raises(CredentialsRejected):
        job.task(devices(30))
    job.seen, job.decide = [], accept
    (told,) = job.task(devices(30)[::-1]).delivered
    assert [f"user-{number}" for number in range(29, -1, -1)] == job.seen
    assert (True, 30) == (told.started_over, told.counts["accepted"])
    aside = [each for each in (tmp_path / "r").iterdir() if ".run-" in each.name]
    assert 12 == len((aside[0] / "results.ndjson").read_bytes().splitlines())


def test_rows_that_differ_too_late_are_sent_by_the_attempt_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spark gives its rows only once: the attempt that has compared them cannot send them, the next one does."""
    monkeypatch.setattr("moe_bulk.intake.memory.HELD", 10)
    job = Job(tmp_path, refusing_after(60), options={"in_flight": "1"})
    rows = devices(80)
    with pytest.raises(CredentialsRejected):
        job.task(rows)
    other = [*rows[:50], *rows[50:][::-1]]
    job.seen, job.decide = [], accept
    with pytest.raises(SourceError, match="Spark's next attempt sends all of them again"):
        job.task(other)
    (told,) = job.task(other).delivered
    assert (80, 80) == (told.counts["accepted"], len(set(job.seen)))


def test_another_partition_must_not_send_at_its_own_pace(tmp_path: Path) -> None:
    """It is refused before its first row; the one that sends, and its later attempts, are left alone."""
    job = Job(tmp_path)
    job.task(devices(5), 1)
    with pytest.raises(ConfigError, match="partitions 1, 2 have rows for one workspace"):
        job.task([device(7)], 2)
    job.task(devices(5), 1)
    assert 5 == len(job.seen)
    assert ["part-00001-attempt-1.run", "part-00001.alone"] == open_shelf(str(tmp_path)).names("r")


def test_with_one_pace_several_partitions_send(tmp_path: Path) -> None:
    """All tasks of a local master are processes of one host, whose window they share."""
    job = Job(tmp_path, start=1000.0, options={"pace": "host"})
    for partition in range(3):
        job.task([device(partition)], partition)
    assert 3 == len(job.seen)
    assert not [name for name in open_shelf(str(tmp_path)).names("r") if "alone" in name]


def test_a_pace_that_cannot_be_shared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload alone would go on with a warning: here others may run beside it."""
    (tmp_path / "state").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    job = Job(tmp_path, options={"pace": "host"})
    with pytest.raises(ConfigError, match="give the option pace the value process"):
        job.task(devices(5))
    assert [] == job.seen
    Job(tmp_path, options={"pace": "host"}, master="yarn").task(devices(5))  # one partition alone


def test_a_pace_that_is_shared_no_longer_ends_the_upload(tmp_path: Path) -> None:
    """Where the file that is shared goes bad in the middle, an upload is silent for a minute: here it stops."""
    job = Job(tmp_path, start=1000.0, options={"pace": "host", "in_flight": "1"})
    made: list[Uploader] = []
    make = job.make

    def noted(workspace: Workspace, settings: Settings) -> Uploader:
        made.append(make(workspace, settings))
        return made[0]

    def decide(_: dict[str, Any]) -> httpx.Response:
        if len(job.seen) == 5:
            made[0].notes.append(f"a disk is full: from 95 s on this upload {ALONE}")
        return answer(200)

    job.make, job.decide = noted, decide  # type: ignore[method-assign]
    with pytest.raises(RunStopped, match="only where their pace is shared, and a disk is full"):
        job.task(devices(100))
    assert len(job.seen) < 50


def test_a_file_with_another_pace_is_told_without_its_password(tmp_path: Path) -> None:
    """Spark shows what tasks raise to whoever looks, and what to write instead is shown as it is."""
    (tmp_path / "pace").write_text("redis://:S3CR3T/@host")
    job = Job(tmp_path, options={"pace": f"@{tmp_path}/pace"})
    with pytest.raises(ConfigError, match=r"rediss://USER:PASSWORD@HOST:6379/0 for TLS") as refused:
        job.task(devices(1))
    assert "S3CR3T" not in str(refused.value)


def test_other_settings_in_the_same_run_are_refused(tmp_path: Path) -> None:
    """With the way out."""
    job = Job(tmp_path)
    job.task(devices(5))
    job.options["set.platform"] = "web"
    with pytest.raises(RunRefused, match="In Spark another run_id starts over"):
        job.task(devices(5))


def test_typed_columns_become_what_parquet_s_would(tmp_path: Path) -> None:
    """Whole numbers stay numbers, which ids may be; decimals, dates and times are text."""
    row = device(1, customer_id=2**40, app_version=Decimal("1.10"), os_version=date(2026, 11, 25), model=None)
    Job(tmp_path).task([{**row, "at": datetime(2026, 11, 25, tzinfo=UTC)}, device(2, push_id=1.5, at=Decimal("2.50"))])
    found = written(tmp_path / PART.format(0))
    assert str(2**40) in {each["customer_id"] for each in found.results}
    assert "2.50" == found.letters[0]["at"]


def test_rows_that_are_late_are_warned_about(tmp_path: Path) -> None:
    """With the column that tells the order; that this one is not sent needs no warning."""
    rows = [device(1, n=2), device(1, n=1), device(2, n=1)]
    report = Job(tmp_path, options={"order_by": "n"}).task(rows)
    assert "1 rows (the first is row 2) came behind one" in report.warnings[0]
    assert () == report.delivered[0].warnings
    assert ("field 'n' is not sent: it is none of the API's.",) == Job(tmp_path / "b").task(rows).delivered[0].warnings


def test_what_the_rows_raise_is_raised_and_the_run_goes_on(tmp_path: Path) -> None:
    """Spark makes rows while they are asked for, and that may fail."""

    def rows() -> Iterator[Mapping[str, object]]:
        yield from devices(150)
        raise OSError("a shuffle file is gone")

    job = Job(tmp_path)
    with pytest.raises(OSError, match="shuffle file"):
        job.task(rows())
    before = len(job.seen)
    (told,) = job.task(devices(200)).delivered
    assert 0 < before < 200
    assert (200, 200) == (told.counts["accepted"], len(set(job.seen)))
    assert len(job.seen) == 200


# -- many workspaces ---------------------------------------------------------------------------------------------------


def many(tmp_path: Path, decide: Any = accept, **options: str) -> Job:
    """Make a job with three workspaces."""
    file = tmp_path / "workspaces.toml"
    tables = [f'[{name}]\nbase_url = "http://127.0.0.1:9"\napi_key = "{KEY}"\n' for name in ("ACME", "Beta", "Gamma")]
    file.write_text("".join(tables))
    options = {"workspace_column": "w", "workspaces_file": str(file), **options}
    return Job(tmp_path / "out", decide, options=options)


ROWS = [device(number, w=("ACME", "Beta", "Gamma")[number % 3]) for number in range(90)]


def test_each_row_goes_to_its_workspace(tmp_path: Path) -> None:
    """One key, pace and folder each; the driver is told of each."""
    job = many(tmp_path)
    report = job.task(ROWS)
    assert {"ACME": 30, "Beta": 30, "Gamma": 30} == {
        each.workspace: each.counts["accepted"] for each in report.delivered
    }
    for name in ("ACME", "Beta", "Gamma"):
        assert 30 == written(tmp_path / "out/r" / name / "part-00000-attempt-0.run").summary["counts"]["accepted"]
    assert {"ACME": 30, "Beta": 30, "Gamma": 30} == {name: job.sent_to.count(name) for name in set(job.sent_to)}
    assert [()] * 3 == [each.warnings for each in report.delivered]


def test_a_workspace_that_stops_holds_up_no_other(tmp_path: Path) -> None:
    """Its error is raised when the others are done; the next attempt sends only what it lacks."""
    job = many(tmp_path)
    job.decide = lambda said: answer(401, "no") if int(said["customer_id"][5:]) % 3 == 1 else answer(200)
    with pytest.raises(RunStopped, match="1 of 3 workspaces stopped: Beta: "):
        job.task(ROWS)
    job.seen, job.decide = [], accept
    report = job.task(ROWS)
    assert {1} == {int(each[5:]) % 3 for each in job.seen}
    assert 90 == sum(each.counts["accepted"] for each in report.delivered)


def test_a_workspace_has_rows_in_one_partition_at_its_own_pace(tmp_path: Path) -> None:
    """Others may be in other partitions: each has its own limit."""
    job = many(tmp_path)
    job.task([row for row in ROWS if row["w"] == "ACME"], 1)
    job.task([row for row in ROWS if row["w"] == "Beta"], 2)
    with pytest.raises(RunStopped, match="ACME: partitions 1, 2 have rows for one workspace"):
        job.task([device(1, w="ACME")], 2)


@pytest.mark.parametrize(
    ("workspace", "why"), [("Delta", "a row names the workspace 'Delta'"), (None, "no workspace in the column 'w'")]
)
def test_a_row_that_belongs_nowhere_is_told(tmp_path: Path, workspace: str | None, why: str) -> None:
    """It is no row's fault alone: the job lacks a table, or a filter."""
    job = many(tmp_path)
    with pytest.raises((ConfigError, RunStopped), match=why):
        job.task([*ROWS, device(91, w=workspace)])
    job.seen = []
    report = job.task(ROWS)
    assert 90 == sum(each.counts["accepted"] for each in report.delivered)


def test_a_bug_in_one_workspace_s_upload_is_raised_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above what others stopped for."""
    job = many(tmp_path, lambda _: answer(401, "no"))
    make = job.make

    def breaks(workspace: Workspace, settings: Settings) -> Uploader:
        return make(workspace, settings) if workspace.credentials.workspace_id != "Beta" else 1 // 0  # type: ignore[return-value]

    monkeypatch.setattr(job, "make", breaks)
    with pytest.raises(ZeroDivisionError):
        job.task(ROWS)


def test_workspaces_share_a_task_s_connections(tmp_path: Path) -> None:
    """Each is given fewer than a single one would have, unless the option says how many."""
    job = many(tmp_path)
    for more, expected in (({}, delivery.IN_FLIGHT_EACH), ({"in_flight": "7"}, 7)):
        settings = read_options({"out": "/a", **job.options, **more})
        workspace = Workspaces(job.options["workspaces_file"], {}).find("ACME")
        assert expected == delivery.make_uploader(workspace, settings)._party.network.in_flight


def test_what_is_done_while_redis_is_away_reaches_the_uploader(tmp_path: Path) -> None:
    """It belongs to the pace."""
    job = many(tmp_path)
    said = {"out": "/a", **job.options, "pace": "redis://pace.example.org", "pace_fallback": "share=3"}
    workspace = Workspaces(job.options["workspaces_file"], {}).find("ACME")
    pace = delivery.make_uploader(workspace, read_options(said))._pace_of
    assert "RedisPace('redis://pace.example.org:6379/0', share=3)" == repr(pace)


def test_too_many_workspaces_in_a_task_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its connections."""
    monkeypatch.setattr("moe_bulk.spark.dividing.MOST_WORKSPACES", 2)
    with pytest.raises(ConfigError, match=r"df\.repartition\(n, 'w'\)"):
        many(tmp_path).task(ROWS)


def test_their_order_is_watched_apart(tmp_path: Path) -> None:
    """Workspaces ascend first."""
    rows = [device(2, w="ACME", n=5), device(1, w="Beta", n=1), device(1, w="Beta", n=2)]
    assert () == many(tmp_path, order_by="n").task(rows).warnings


# -- before it all -----------------------------------------------------------------------------------------------------


def test_a_task_as_spark_calls_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the executor's environment, over a real socket, on a loop of its own."""
    with sandbox_in_a_thread() as sandbox:
        monkeypatch.setenv("MOENGAGE_WORKSPACE_ID", sandbox.workspace_id)
        monkeypatch.setenv("MOENGAGE_API_KEY", sandbox.api_key)
        monkeypatch.setenv("MOENGAGE_BASE_URL", sandbox.url)
        made = plan({"out": str(tmp_path), "run_id": "r"}, (), overwrite=False, stream=False)
        report = deliver(iter(devices(30)), made.settings, Task(0, master="local[2]"), made.mark)
        assert (30, 30) == (report.delivered[0].counts["accepted"], len(sandbox.devices))
    written(tmp_path / PART.format(0))


def test_an_empty_partition_leaves_nothing(tmp_path: Path) -> None:
    """Neither a folder nor a claim: its rows are no workspace's."""
    settings = read_options({"out": str(tmp_path), "run_id": "r"})
    assert () == deliver(iter(()), settings, Task(3), "mark").delivered
    assert [] == list(tmp_path.iterdir())


def test_a_task_elsewhere_is_refused(tmp_path: Path) -> None:
    """Where its folder is not the driver's, nothing is sent."""
    settings = read_options({"out": str(tmp_path), "run_id": "r"})
    with pytest.raises(ConfigError, match="is not the same folder"):
        deliver(iter(devices(1)), settings, Task(3), "mark")
