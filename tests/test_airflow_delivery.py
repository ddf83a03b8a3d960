"""One upload in a thread of its own, and how it is stopped."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from moe_bulk.airflow import delivery
from moe_bulk.airflow.delivery import Delivery
from moe_bulk.airflow.plan import planned
from moe_bulk.config import Credentials
from moe_bulk.errors import CredentialsRejected, InputRefused, Interrupted, SourceError
from moe_bulk.sandbox import Faults, Sandbox, SandboxSettings
from tests.acceptance.command import lines, running_sandbox, write_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """What stands in for MoEngage."""
    with running_sandbox(SandboxSettings(limit=None)) as running:
        yield running


class Task:
    """One task's file and folder; each `delivery` of it is a try."""

    def __init__(self, folder: Path, sandbox: Sandbox, rows: int) -> None:
        self.source = write_devices(folder / "devices.csv", rows)
        self.out = folder / "task.run"
        self.sandbox = sandbox

    def delivery(self, key: str | None = None, **options: object) -> Delivery:
        """Make a try that was not begun."""
        sandbox = self.sandbox
        credentials = Credentials(sandbox.workspace_id, key or sandbox.api_key, base_url=sandbox.url)
        plan = planned(str(self.source), {"pace": "process", "rate": "20/s", **options}, self.out.parent, {})
        return Delivery(credentials, plan, self.out)

    @property
    def results(self) -> list[dict[str, Any]]:
        """The result lines."""
        return lines(self.out / "results.ndjson")


def test_a_delivery_ends_with_its_summary(tmp_path: Path, sandbox: Sandbox) -> None:
    """The one that stands in the run folder, too."""
    task = Task(tmp_path, sandbox, 5)
    tried = task.delivery()
    summary = tried.result()
    assert (0, 5, 5) == (summary["exit_code"], summary["counts"]["accepted"], len(sandbox.devices))
    assert summary == tried.summary == json.loads((task.out / "summary.json").read_text())


def test_what_the_upload_raises_is_raised(tmp_path: Path, sandbox: Sandbox) -> None:
    """In the thread that waits, with a summary where there was a run."""
    task = Task(tmp_path, sandbox, 5)
    refused = task.delivery(key="wrong")
    with pytest.raises(CredentialsRejected):
        refused.result()
    assert refused.summary is not None
    assert 3 == refused.summary["exit_code"]

    task.source.unlink()
    missing = task.delivery()
    with pytest.raises(SourceError):
        missing.result()
    assert missing.summary is None


def test_a_stop_leaves_a_run_that_goes_on(tmp_path: Path, sandbox: Sandbox) -> None:
    """Whoever is asked to end sends no more; the next try sends what is left, and nothing has two results."""
    task = Task(tmp_path, sandbox, 40)
    first = task.delivery()
    with when_there_are(3, task, first.stop), pytest.raises(Interrupted) as raised:
        first.result()
    assert 128 + signal.SIGTERM == raised.value.exit_code
    before = len(task.results)
    assert 3 <= before < 40

    summary = task.delivery().result()
    assert (0, 40, 2) == (summary["exit_code"], summary["counts"]["accepted"], summary["sessions"])
    assert sorted(range(2, 42)) == sorted(each["line"] for each in task.results)


def test_a_stop_does_not_wait_for_answers_that_do_not_come(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow kills what has not ended after some seconds: before that everything is written."""
    monkeypatch.setattr(delivery, "STOP_SECONDS", 0.1)
    task = Task(tmp_path, sandbox, 40)
    with running_sandbox(SandboxSettings(limit=None, faults=Faults.parse("hang=100%"))) as slow:
        task.sandbox = slow
        first = task.delivery()
        with when_there_are(0, task, first.stop), pytest.raises(Interrupted):
            first.result()
    assert first.summary is not None
    assert (130, 0) == (first.summary["exit_code"], first.summary["counts"]["accepted"])


def test_a_stop_before_the_beginning(tmp_path: Path, sandbox: Sandbox) -> None:
    """Nothing is sent."""
    task = Task(tmp_path, sandbox, 5)
    for check_first in (False, True):
        tried = task.delivery(check_first=check_first)
        tried.stop()
        with pytest.raises(Interrupted):
            tried.result()
        tried.stop()  # when all is over it does nothing
    assert (0, False) == (len(sandbox.devices), task.out.exists())


def test_a_timeout_stops_it_and_is_raised(tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's execution_timeout raises where the main thread waits: it comes out, behind an orderly stop."""
    monkeypatch.setattr(delivery, "LOOK_SECONDS", 0.05)
    task = Task(tmp_path, sandbox, 40)
    tried = task.delivery()

    class TaskTimeout(BaseException):
        pass

    def time_is_up(*_: object) -> None:
        raise TaskTimeout

    before = signal.signal(signal.SIGALRM, time_is_up)
    ring = partial(os.kill, os.getpid(), signal.SIGALRM)
    try:
        with when_there_are(3, task, ring), pytest.raises(TaskTimeout):
            tried.result()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert tried.summary is not None
    assert 128 + signal.SIGTERM == tried.summary["exit_code"]
    assert 40 == task.delivery().result()["counts"]["accepted"]


def test_check_first(tmp_path: Path, sandbox: Sandbox) -> None:
    """Nothing is sent where too many rows would fail."""
    task = Task(tmp_path, sandbox, 5)
    with task.source.open("a", encoding="utf-8") as file:
        file.write("guest,d,web,t\n")
    with pytest.raises(InputRefused):
        task.delivery(check_first=True).result()
    assert 0 == len(sandbox.devices)
    assert 5 == task.delivery(check_first=True, max_failures=1).result()["counts"]["accepted"]


def test_the_log_tells_how_far_it_is(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A line now and then, in ASCII, from the logger of all runs."""
    monkeypatch.setattr(delivery, "TELL_SECONDS", 1)
    caplog.set_level("INFO", "moe_bulk")
    Task(tmp_path, sandbox, 40).delivery().result()
    said = [each.message for each in caplog.records if getattr(each, "event", "") == "progress"]
    assert said
    assert all(each.isascii() and " of 20/s - " in each for each in said)


@contextmanager
def when_there_are(results: int, task: Task, do: Callable[[], None]) -> Iterator[None]:
    """Within it something is done, once: when requests were sent and the task has that many results."""
    over = threading.Event()

    def watch() -> None:
        file = task.out / "results.ndjson"
        while not over.wait(0.02):
            if task.sandbox.stats.requests and file.exists() and file.read_bytes().count(b"\n") >= results:
                do()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
