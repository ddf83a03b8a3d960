"""Dags, by `airflow dags test`: the sample with its mapped tasks, and a task that is killed and tried again."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow.sdk", reason="needs Airflow, in an environment of its own: pip install '.[airflow]'")

from airflow.sdk import DAG

from moe_bulk.airflow.operators.moengage import MoEngageUploadOperator
from moe_bulk.airflow.plan import planned
from moe_bulk.sandbox import Sandbox, SandboxSettings
from tests.acceptance.command import lines, running_sandbox, write_devices

SAMPLE = Path(__file__).parents[2] / "samples" / "airflow" / "moengage_devices.py"
WORKSPACES = ("CRM", "SHOP", "NEWS")


def write_exports(folder: Path) -> None:
    """Two files of the CRM's, one for each of the others; a row of the last is no device."""
    for name in ("crm", "shop", "news"):
        (folder / name).mkdir(parents=True)
    for name in ("monday", "tuesday"):
        rows = "".join(f"user-{name}-{number},device-{name}-{number},token-{name}-{number}\n" for number in range(5))
        (folder / "crm" / f"{name}.csv").write_text(f"customer_id,device_id,token\n{rows}", encoding="utf-8")
    for name, more in (("shop", ""), ("news", "guest,device-x,web,token-x\n")):
        rows = "".join(f"user-{name}-{number},device-{name}-{number},web,token-{number}\n" for number in range(5))
        header = "customer_id,device_id,platform,push_id\n"
        (folder / name / "devices.csv").write_text(header + rows + more, encoding="utf-8")


def connection(sandbox: Sandbox, runs: Path) -> str:
    """One of the type moengage: in its extra the workspace's own rate, pace and folder for runs."""
    extra = {"rate": "6000/min", "pace": "process", "runs": str(runs)}
    account = {"host": sandbox.url, "login": sandbox.workspace_id, "password": sandbox.api_key}
    return json.dumps({"conn_type": "moengage", **account, "extra": extra})


def test_the_readme_s_dag_is_one() -> None:
    """It has one task, with a source by date and options that a task takes."""
    readme = (SAMPLE.parents[2] / "README.md").read_text(encoding="utf-8")
    block = readme.partition("<!-- airflow -->\n```python\n")[2].partition("```")[0]
    said: dict[str, Any] = {}
    exec(block, said)  # noqa: S102  it is ours
    assert isinstance(said["dag"], DAG)
    (task,) = said["dag"].tasks
    assert isinstance(task, MoEngageUploadOperator)
    assert "onesignal" == planned(task.source, task.options or {}, Path.cwd()).reading.columns.preset


def airflow(environ: dict[str, str], *words: str) -> str:
    """Run Airflow's own command, and return all that it said."""
    command = [sys.executable, "-m", "airflow", *words]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert 0 == ended.returncode, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Airflow's folder, with its database; making one takes ten seconds."""
    folder = tmp_path_factory.mktemp("home")
    airflow(os.environ | {"AIRFLOW_HOME": str(folder)}, "db", "migrate")
    return folder


def environment(home: Path, dags: Path, connections: dict[str, str]) -> dict[str, str]:
    """What Airflow is told: its folder, that of its Dags, and connections by their names."""
    return os.environ | {
        **{f"AIRFLOW_CONN_MOENGAGE_{name}": said for name, said in connections.items()},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
    }


def reports(home: Path, dag: str) -> dict[tuple[str, int], Any]:
    """What lies in XCom of a Dag, by task and map index."""
    asked = "SELECT task_id, map_index, value FROM xcom WHERE key = 'return_value' AND dag_id = ?"
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        rows = database.execute(asked, [dag]).fetchall()
    told = ((task, index, json.loads(value)) for task, index, value in rows)
    return {(task, index): json.loads(value) if isinstance(value, str) else value for task, index, value in told}


@pytest.mark.timeout(600)
def test_the_sample_dag_runs(tmp_path: Path, home: Path) -> None:
    """Each file and each workspace is a task of its own: its devices, folder, report; nothing of a row in Airflow."""
    runs = {name: tmp_path / "runs" / name for name in WORKSPACES}
    write_exports(tmp_path / "exports")
    with ExitStack() as stack:
        sandboxes = {
            name: stack.enter_context(running_sandbox(SandboxSettings(workspace_id=name))) for name in WORKSPACES
        }
        connections = {name: connection(sandboxes[name], runs[name]) for name in WORKSPACES}
        environ = environment(home, SAMPLE.parent, connections) | {"EXPORTS": str(tmp_path / "exports")}
        said = airflow(environ, "dags", "test", "-f", str(SAMPLE), "moengage_devices", "2026-11-25")
        assert {"CRM": 10, "SHOP": 5, "NEWS": 5} == {name: len(each.devices) for name, each in sandboxes.items()}
        keys = [each.api_key for each in sandboxes.values()]

    found = reports(home, "moengage_devices")
    uploads = {name: report for name, report in found.items() if name[0].startswith("by_")}
    counted = {name: (each["counts"]["accepted"], each["exit_code"]) for name, each in uploads.items()}
    files, workspaces = [("by_file", 0), ("by_file", 1)], [("by_workspace", 0), ("by_workspace", 1)]
    assert {**dict.fromkeys(files, (5, 0)), workspaces[0]: (5, 0), workspaces[1]: (5, 1)} == counted
    for (task, index), workspace in zip([*files, *workspaces], ("CRM", *WORKSPACES), strict=True):
        report = uploads[task, index]
        (dag_run,) = (runs[workspace] / "moengage_devices").iterdir()
        assert str(dag_run / f"{task}.{index}.run") == report["run"]
        assert (dag_run / f"{task}.{index}.run" / "report.html").exists()
    for name in workspaces:
        counts = uploads[name]["counts"]
        assert f"{counts['accepted']} accepted of {counts['read']} in {uploads[name]['run']}" in said
    for secret in (*keys, "token-", "user-"):
        assert secret not in said + json.dumps(list(found.values()))


KILLED = """
from datetime import timedelta
from airflow.sdk import DAG
from moe_bulk.airflow.operators.moengage import MoEngageUploadOperator

with DAG("killed", schedule=None, default_args={"retries": 1, "retry_delay": timedelta(seconds=1)}):
    MoEngageUploadOperator(task_id="upload", source=SOURCE, moengage_conn_id="moengage_crm", options={"rate": "20/s"})
"""


@pytest.mark.timeout(600)
def test_a_task_that_airflow_kills_goes_on(tmp_path: Path, home: Path) -> None:
    """SIGTERM reaches it by way of Airflow, Airflow tries it again by itself, and no row has two results."""
    source, dags, runs = write_devices(tmp_path / "devices.csv", 60), tmp_path / "dags", tmp_path / "runs"
    dags.mkdir()
    file = dags / "killed.py"
    file.write_text(KILLED.replace("SOURCE", repr(str(source))), encoding="utf-8")
    with running_sandbox(SandboxSettings()) as sandbox, (tmp_path / "log").open("w") as log:
        environ = environment(home, dags, {"CRM": connection(sandbox, runs)})
        command = [sys.executable, "-m", "airflow", "dags", "test", "-f", str(file), "killed", "2026-11-25"]
        with subprocess.Popen(command, env=environ, stdout=log, stderr=log) as process:
            try:
                wait_for_results(process, runs, 5)
                process.terminate()
                process.wait(200)
            finally:
                process.kill()
        assert (0, 60) == (process.returncode, len(sandbox.devices))

    said = (tmp_path / "log").read_text(encoding="utf-8")
    assert "Airflow asked the task to end. A retry goes on in" in said
    report = reports(home, "killed")["upload", -1]
    assert (60, 2, 0) == (report["counts"]["accepted"], report["sessions"], report["exit_code"])
    results = lines(Path(report["run"]) / "results.ndjson")
    assert sorted(range(2, 62)) == sorted(each["line"] for each in results)


def wait_for_results(process: subprocess.Popen[bytes], runs: Path, count: int) -> None:
    """Wait until the one run in there has that many results."""
    while process.poll() is None:
        if any(file.read_bytes().count(b"\n") >= count for file in runs.rglob("results.ndjson")):
            return
        time.sleep(0.1)
