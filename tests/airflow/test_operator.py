"""The operator, by its `execute`."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("airflow.sdk", reason="needs Airflow, in an environment of its own: pip install '.[airflow]'")

from airflow.sdk import DAG
from airflow.sdk.bases.operator import ExecutorSafeguard

from moe_bulk.airflow.operators.moengage import MoEngageUploadOperator
from moe_bulk.airflow.sdk import AirflowException, AirflowFailException
from tests.acceptance.command import lines, write_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from moe_bulk.sandbox import Sandbox

KEY = "wrong-key-that-nobody-may-see"


class Instance:
    """A task instance, as far as the operator knows it."""

    def __init__(self) -> None:
        self.map_index = -1
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: object) -> None:
        """Take what is left for other tasks; Airflow makes JSON of it."""
        self.pushed[key] = json.loads(json.dumps(value))


class Try:
    """One try of a task: rendered and carried out, as Airflow does it."""

    def __init__(self, source: Any, **arguments: Any) -> None:
        dag = DAG("nightly", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))
        self.task = MoEngageUploadOperator(task_id="upload", source=source, dag=dag, **arguments)
        self.instance = Instance()
        self.context: Any = {
            "ti": self.instance,
            "task": self.task,
            "dag": dag,
            "run_id": "manual__1",
            "ds": "today",
        }

    def execute(self) -> dict[str, Any]:
        """Carry it out and return its report."""
        self.task.render_template_fields(self.context)
        token = ExecutorSafeguard.tracker.set(self.task)
        try:
            found: dict[str, Any] = json.loads(json.dumps(self.task.execute(self.context)))
        finally:
            ExecutorSafeguard.tracker.reset(token)
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the run of the task of `Try` is."""
    return tmp_path / "runs" / "nightly" / "manual__1" / "upload.run"


def test_a_file_is_uploaded(tmp_path: Path, folder: Path, sandbox: Sandbox, connect: Callable[..., None]) -> None:
    """The report says so, and where the run folder is: by Dag, run and task."""
    connect()
    write_devices(tmp_path / "today.csv", 5)
    done = Try(f"{tmp_path}/{{{{ ds }}}}.csv")
    report = done.execute()
    assert (str(folder), 5, 5) == (report["run"], report["counts"]["accepted"], len(sandbox.devices))
    assert {} == done.instance.pushed  # Airflow itself takes what is returned
    assert "user-0" not in json.dumps(report)


def test_the_same_task_again_sends_nothing(tmp_path: Path, sandbox: Sandbox, connect: Callable[..., None]) -> None:
    """Whoever clears a task that is done gets the same report."""
    connect()
    source = str(write_devices(tmp_path / "devices.csv", 5))
    assert Try(source).execute() == Try(source).execute()
    assert 5 == sandbox.stats.requests


def test_options_are_templates_and_go_before_the_connection_s(
    tmp_path: Path, sandbox: Sandbox, connect: Callable[..., None]
) -> None:
    """What the connection says holds where the task says nothing."""
    connect(extra={"set": {"platform": "web"}, "max-failures": "0", "rate": "9000/min"})
    source = tmp_path / "x.csv"
    source.write_text("user,device_id,push_id\nu-1,d-1,t-1\n", encoding="utf-8")
    options = {"column": {"customer_id": "user"}, "set": ["platform=iOS", "model={{ ds }}"]}
    report = Try(str(source), options=options).execute()
    (device,) = sandbox.devices.values()
    assert ("iOS", "today") == (device.attributes["platform"], device.attributes["model"])
    assert 9000 == report["limit"]


def test_failed_rows_fail_the_task(tmp_path: Path, folder: Path, connect: Callable[..., None]) -> None:
    """For good: all others are delivered. The report is left behind."""
    connect()
    source = write_devices(tmp_path / "devices.csv", 5)
    with source.open("a", encoding="utf-8") as file:
        file.write("guest,d,web,secret-token\n")
    failed = Try(str(source))
    with pytest.raises(AirflowFailException, match="1 of 6 rows failed") as raised:
        failed.execute()
    assert str(folder) in str(raised.value)
    left = failed.instance.pushed["return_value"]
    assert (1, 5, 1) == (left["exit_code"], left["counts"]["accepted"], len(left["causes"]))
    assert left == Try(str(source), failed_rows="allow").execute()
    assert "secret-token" not in str(raised.value) + json.dumps(left)
    quiet = Try(str(source), do_xcom_push=False)
    with pytest.raises(AirflowFailException):
        quiet.execute()
    assert {} == quiet.instance.pushed


@pytest.mark.parametrize(
    ("connection", "arguments", "kind", "said"),
    [
        ({"password": KEY}, {}, AirflowFailException, "MoEngage answered 401"),
        ({"host": "07"}, {}, AirflowFailException, "the connection 'moengage_default': '07' is no data center"),
        ({}, {"source": "missing.csv"}, AirflowException, "missing.csv"),
        ({}, {"options": {"rat": "1/s"}}, AirflowFailException, "there is no option 'rat'. Did you mean rate?"),
        ({}, {"options": {"fresh": True}}, AirflowFailException, "a retry would throw away"),
        ({}, {"out": "../x"}, AirflowFailException, "leads out of its folder"),
    ],
)
def test_what_goes_wrong_tells_airflow_whether_to_try_again(
    connection: dict[str, object],
    arguments: dict[str, Any],
    kind: type[Exception],
    said: str,
    tmp_path: Path,
    connect: Callable[..., None],
) -> None:
    """AirflowFailException where a retry would meet it again; never with the key."""
    connect(**connection)
    source = str(write_devices(tmp_path / "devices.csv", 5))
    tried = Try(**{"source": source, **arguments})
    with pytest.raises(AirflowException) as raised:
        tried.execute()
    assert (kind, True) == (type(raised.value), said in str(raised.value)), raised.value
    assert KEY not in str(raised.value) + json.dumps(tried.instance.pushed)
    assert ("401" in said) == ("return_value" in tried.instance.pushed)


@contextmanager
def signalled(signum: signal.Signals, results: Path) -> Iterator[None]:
    """Within it this process gets a signal, once there are three results."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if results.exists() and results.read_bytes().count(b"\n") >= 3:
                os.kill(os.getpid(), signum)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_task_that_is_killed_goes_on_when_it_is_tried_again(
    tmp_path: Path, folder: Path, sandbox: Sandbox, connect: Callable[..., None]
) -> None:
    """SIGTERM calls `on_kill`, as Airflow's task runner has it; the retry sends what is left, into the same folder."""
    connect(extra={"rate": "20/s", "pace": "process"})
    source = str(write_devices(tmp_path / "devices.csv", 40))
    first = Try(source)
    before = signal.signal(signal.SIGTERM, lambda *_: first.task.on_kill())
    try:
        with signalled(signal.SIGTERM, folder / "results.ndjson"), pytest.raises(AirflowException) as raised:
            first.execute()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert AirflowException is type(raised.value)  # so that it is tried again
    assert f"Airflow asked the task to end. A retry goes on in {folder}" == str(raised.value)
    assert (143, False) == tuple(first.instance.pushed["return_value"][name] for name in ("exit_code", "finished"))

    report = Try(source).execute()
    assert (str(folder), 40, 2) == (report["run"], report["counts"]["accepted"], report["sessions"])
    assert sorted(range(2, 42)) == sorted(each["line"] for each in lines(folder / "results.ndjson"))


def test_a_task_that_is_killed_before_it_sends(tmp_path: Path, sandbox: Sandbox, connect: Callable[..., None]) -> None:
    """It sends nothing."""
    connect()
    killed = Try(str(write_devices(tmp_path / "devices.csv", 5)))
    killed.task.on_kill()
    with pytest.raises(AirflowException, match="Airflow asked the task to end"):
        killed.execute()
    assert 0 == sandbox.stats.requests


def test_a_task_whose_time_is_up(tmp_path: Path, folder: Path, connect: Callable[..., None]) -> None:
    """Airflow's own timer raises in the midst of it: the run is left in order, and the retry ends it."""
    timer = pytest.importorskip("airflow.sdk.execution_time.timeout", reason="Airflow 3.0 has its timer elsewhere")
    connect(extra={"rate": "20/s", "pace": "process"})
    source = str(write_devices(tmp_path / "devices.csv", 40))
    late = Try(source)
    rings = signalled(signal.SIGALRM, folder / "results.ndjson")  # as the timer would after a minute
    with rings, pytest.raises(BaseException, match="Timeout") as raised, timer.timeout(60):
        late.execute()
    assert not isinstance(raised.value, Exception)
    late.task.on_kill()  # Airflow calls it behind that
    assert 143 == json.loads((folder / "summary.json").read_text())["exit_code"]
    assert 40 == Try(source).execute()["counts"]["accepted"]


def test_mapped_tasks_know_its_arguments() -> None:
    """One a file, or one a workspace; a name that it does not have is refused when the Dag is read."""
    with DAG("nightly", schedule=None):
        one = MoEngageUploadOperator.partial(task_id="a", retry_delay=timedelta(minutes=1)).expand(source=["x", "y"])
        two = MoEngageUploadOperator.partial(task_id="b").expand_kwargs([{"moengage_conn_id": "c", "source": "x"}])
        with pytest.raises(TypeError, match="rate"):
            MoEngageUploadOperator.partial(task_id="c", rate="1/s")
    assert {"source", "options", "out", "moengage_conn_id"} == {*one.template_fields} == {*two.template_fields}


def test_a_mapped_task_has_a_folder_of_its_own(tmp_path: Path, connect: Callable[..., None]) -> None:
    """Its map index is in the name."""
    connect()
    mapped = Try(str(write_devices(tmp_path / "devices.csv", 1)))
    mapped.instance.map_index = 3
    assert mapped.execute()["run"].endswith("/nightly/manual__1/upload.3.run")


def test_failed_rows_fail_or_are_allowed() -> None:
    """Nothing else."""
    with pytest.raises(ValueError, match="'fail' or 'allow'; got 'ignore'"):
        MoEngageUploadOperator(task_id="upload", source="x", failed_rows="ignore")  # type: ignore[arg-type]
