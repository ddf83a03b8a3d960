"""A run's numbers for Prometheus: they are the run's, no row's value is among them, and the file is always whole."""

from __future__ import annotations

import asyncio
import builtins
import os
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from moe_bulk import cli
from moe_bulk.causes import Failures
from moe_bulk.config import Rate
from moe_bulk.display import Display, Manner
from moe_bulk.errors import ConfigError, MoeBulkError
from moe_bulk.metrics import CAUSES_TOLD, MetricsFile, RunMetrics, causes_of
from tests.fake_service import FakeService, accept, answer, device, devices
from tests.runs import FAST, deliver
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

    from moe_bulk.intake import Rows
    from moe_bulk.view import RunView


def values_in(text: str) -> dict[str, float]:
    """Each series by its name and labels, as Prometheus reads them."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()) if name != "upload")
            found[f"{sample.name.removeprefix('moe_bulk_')}{{{labels}}}".replace("{}", "")] = sample.value
    return found


def upload(
    rows: Rows, folder: Path, decide: Callable[[dict[str, Any]], httpx.Response] = accept, **more: Any
) -> tuple[MetricsFile, list[dict[str, float]]]:
    """Deliver rows with a metrics file: the file, and what stood in it every 7 s."""
    metrics = MetricsFile(folder / "crm.prom")
    seen: list[dict[str, float]] = []

    async def look() -> None:
        while True:
            await asyncio.sleep(7)
            seen.append(values_in(metrics.path.read_text()))

    async def main() -> None:
        async with FakeService(decide).uploader(**more) as uploader:
            display = Display(uploader, Manner("none", quiet=True), metrics=metrics)
            looking = asyncio.create_task(look())
            try:
                async with display:
                    summary = await uploader.run(rows, out=folder / "x.run", watch=display.begin)
                display.nothing_to_do(summary, folder / "x.run")
            except MoeBulkError:
                pass
            finally:
                looking.cancel()
                display.end()

    run_virtually(main)
    return metrics, seen


def test_the_file_tells_how_the_run_is_and_was(tmp_path: Path) -> None:
    """It is written at the beginning, every 15 s and at the end, with the numbers of the summary."""
    refused = {"user-3", "user-7"}

    def decide(said: dict[str, Any]) -> httpx.Response:
        return answer(400, f"type of {said['customer_id']}") if said["customer_id"] in refused else answer(200)

    rows: list[Mapping[str, object]] = [*devices(300), {"customer_id": "secret-user"}]
    metrics, seen = upload(rows, tmp_path, decide, rate=Rate(600, 60.0))
    assert {1.0} == {each["running"] for each in seen}
    assert seen[0]["requests_total"] == seen[1]["requests_total"] == 0 < seen[2]["requests_total"]
    assert (1.0, 10.0) == (seen[2]["waiting{reason=pace}"], seen[2]["pace_requests_per_second"])
    found = values_in(metrics.path.read_text())
    expected = {
        "running": 0,
        "run_exit_code": 1,
        "rows_read_total": 301,
        "rows_total{status=accepted}": 298,
        "rows_total{status=rejected}": 2,
        "rows_total{status=invalid}": 1,
        "rows_total{status=exhausted}": 0,
        "failures_total{cause=HTTP 400,status=rejected}": 2,
        "requests_total": 300,
        "retries_total": 0,
        "pauses_total": 0,
        "sessions": 1,
        "request_duration_seconds_bucket{le=0.25}": 0,
        "request_duration_seconds_bucket{le=0.5}": 300,
        "request_duration_seconds_bucket{le=+Inf}": 300,
        "request_duration_seconds_count": 300,
        "limit_requests_per_second": 10,
        "pace_requests_per_second": 0,
        "in_flight_requests": 0,
        "unsettled_rows": 0,
    }
    assert expected == {name: found[name] for name in expected}
    assert pytest.approx(90, rel=0.02) == found["request_duration_seconds_sum"]
    assert found["run_start_timestamp_seconds"] <= found["last_settled_timestamp_seconds"]
    assert found["last_settled_timestamp_seconds"] <= found["run_end_timestamp_seconds"]
    assert not [name for name in found if "user-" in name or "secret" in name]


def test_a_run_that_stopped_early(tmp_path: Path) -> None:
    """Its exit code and what is left are told."""
    metrics, _ = upload(devices(20), tmp_path, lambda _: answer(401, "Authentication required"))
    found = values_in(metrics.path.read_text())
    assert (3, 0) == (found["run_exit_code"], found["running"])
    assert 0 < found["unsettled_rows"]


def test_a_run_that_was_finished_before(tmp_path: Path) -> None:
    """Where nothing is sent the finished run's numbers are told, also in another file."""
    upload(devices(5), tmp_path)
    (tmp_path / "crm.prom").unlink()
    metrics, _ = upload(devices(5), tmp_path)
    found = values_in(metrics.path.read_text())
    assert (0, 5, 5) == (found["run_exit_code"], found["rows_total{status=accepted}"], found["requests_total"])


def test_pauses_are_told_while_they_last(tmp_path: Path) -> None:
    """A pause shows at once, and the pace is nothing as long as it lasts."""
    throttled = partial(answer, 429, "Rate Limits Exceeded", **{"Retry-After": "40"})

    def decide(_: dict[str, Any]) -> httpx.Response:
        return throttled() if asyncio.get_running_loop().time() < 2 else answer(200)

    _, seen = upload(devices(300), tmp_path, decide, rate=FAST)
    assert (1, 0, 1) == tuple(
        seen[2][name] for name in ("pauses_total", "pace_requests_per_second", "waiting{reason=pause}")
    )


# -- labels ------------------------------------------------------------------------------------------------------------


def failures(*causes: str, status: str = "invalid") -> list[Failures]:
    """One failed row of each cause."""
    return [
        Failures(cause=cause, status=status, count=1, first_line=1, example="secret", remedy="none") for cause in causes
    ]


def test_causes_are_bounded() -> None:
    """The first twenty have a series each, the rest has one together."""
    found = causes_of(failures(*(f"cause {number}" for number in range(100))))
    assert CAUSES_TOLD + 1 == len(found)
    assert (100, 80) == (found.total(), found["invalid", "other"])


def test_what_the_service_says_is_no_label() -> None:
    """Only the status of its answer is: its words may repeat a row's values."""
    said = failures("HTTP 400 token-123 of user-7", "HTTP 400 other words", "HTTP 503", status="rejected")
    assert {("rejected", "HTTP 400"): 2, ("rejected", "HTTP 503"): 1} == causes_of(said)


def test_hostile_rows_leave_nothing_in_the_file(tmp_path: Path) -> None:
    """Whatever stands in a row, in its names or in what the service says of it, the file does not repeat."""
    secret = 's3cret"\\\n{}=#'
    rows: list[Mapping[str, object]] = [
        device(1, **{secret: secret}),
        device(2, model=secret * 50),
        {"customer_id": secret, "platform": secret},
    ]
    metrics, _ = upload(rows, tmp_path, lambda said: answer(400, f"{secret} {said['customer_id']}"))
    text = metrics.path.read_text()
    assert values_in(text)["rows_read_total"] == 3
    for each in ("s3cret", "user-1", "device-1", "token-1"):
        assert each not in text


# -- the file ----------------------------------------------------------------------------------------------------------


def test_its_mode_and_what_lies_beside_it(tmp_path: Path) -> None:
    """The collector, another user, may read it; a mode that somebody set stays; nothing else is left."""
    metrics, _ = upload(devices(1), tmp_path)
    assert 0o644 == stat.S_IMODE(metrics.path.stat().st_mode)
    metrics.path.chmod(0o640)
    upload(devices(2), tmp_path)
    assert 0o640 == stat.S_IMODE(metrics.path.stat().st_mode)
    assert {"crm.prom"} == {path.name for path in tmp_path.iterdir() if not path.name.startswith("x.run")}
    assert 'upload="crm"' in metrics.path.read_text()


def test_a_place_that_cannot_be_written_is_told_first(tmp_path: Path) -> None:
    """Before anything is sent."""
    for path in (tmp_path / "nowhere" / "m.prom", tmp_path):
        with pytest.raises(ConfigError, match="the metrics cannot be written to"):
            MetricsFile(path)


def test_what_is_no_file_is_refused_and_stays(tmp_path: Path) -> None:
    """A file in the place of a device, a pipe or a folder would be the end of it."""
    pipe, socket, link = tmp_path / "pipe", tmp_path / "socket", tmp_path / "link"
    os.mkfifo(pipe)
    os.mknod(socket, stat.S_IFSOCK | 0o600)
    link.symlink_to(pipe)
    for path in (pipe, socket, link, Path(os.devnull)):
        with pytest.raises(ConfigError, match="a device, a pipe or a socket"):
            MetricsFile(path)
    with pytest.raises(ConfigError, match="it is a folder"):
        MetricsFile(tmp_path)
    assert {"pipe", "socket", "link"} == {each.name for each in tmp_path.iterdir()}
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_that_comes_while_a_run_goes_on_stays(tmp_path: Path) -> None:
    """It is looked at each time."""
    metrics, _ = upload(devices(1), tmp_path)
    metrics.path.unlink()
    os.mkfifo(metrics.path)
    metrics.write()
    assert "a device, a pipe or a socket" in (metrics.trouble or "")
    assert ["crm.prom"] == [each.name for each in tmp_path.iterdir() if each.name.startswith((".", "crm"))]


def test_a_link_is_followed(tmp_path: Path) -> None:
    """It stays a link; what it leads to is replaced as a whole, or made, with the label of the name that was given."""
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "numbers"
    (tmp_path / "crm.prom").symlink_to(target)
    upload(devices(1), tmp_path)
    assert (tmp_path / "crm.prom").is_symlink()
    assert 'moe_bulk_rows_total{status="accepted",upload="crm"} 1.0' in target.read_text(encoding="utf-8")
    assert [target] == list(target.parent.iterdir())


def test_a_place_that_goes_away_is_told_and_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A note says so, once, and the run goes on."""
    place = tmp_path / "place"
    place.mkdir()
    metrics = MetricsFile(place / "m.prom")

    async def main() -> None:
        async with FakeService().uploader() as uploader:
            display = Display(uploader, Manner("none"), metrics=metrics)
            place.rmdir()
            async with display:
                await uploader.run(devices(3), out=tmp_path / "x.run", watch=display.begin)
            display.end()

    run_virtually(main)
    said = capsys.readouterr().err
    assert 1 == said.count(f"Note: the metrics cannot be written to {metrics.path}: No such file or directory")
    assert "Read 3 rows: 3 accepted" in said


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What to install is said before anything is sent."""
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.delitem(__import__("sys").modules, "moe_bulk.metrics")
    monkeypatch.setattr("builtins.__import__", without)
    source = tmp_path / "a.csv"
    source.write_text("customer_id,device_id,platform,push_id\nuser-1,device-1,web,token-1\n", encoding="utf-8")
    assert 2 == cli.run(["upload", str(source), "--sandbox", "--metrics-file", str(tmp_path / "m.prom")])
    assert "pip install 'moe-bulk[metrics]'" in capsys.readouterr().err
    assert ["a.csv"] == [path.name for path in tmp_path.iterdir()]


# -- in a program's own registry ---------------------------------------------------------------------------------------


def test_a_registry_of_one_s_own(tmp_path: Path) -> None:
    """A program registers the run beside its own metrics, with labels that tell runs apart."""
    registry = CollectorRegistry()

    def begin(view: RunView) -> None:
        registry.register(RunMetrics(view, {"job": "crm"}))

    deliver(devices(4), tmp_path / "x.run", watch=begin)
    value = registry.get_sample_value
    assert 4 == value("moe_bulk_rows_total", {"job": "crm", "status": "accepted"})
    assert 0 == value("moe_bulk_run_exit_code", {"job": "crm"})
