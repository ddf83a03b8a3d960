"""The night's exports to MoEngage: a task for each file, then one for each workspace; the last says what came of it.

Its connections are of the type moengage, one a workspace: host = data center, login = workspace id, password = key. A
task that was stopped, or that failed in a way that passes, goes on where it ended when Airflow tries it again.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag, task

from moe_bulk.airflow.operators.moengage import MoEngageUploadOperator

EXPORTS = os.environ.get("EXPORTS", "/srv/export")


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=10)},
)
def moengage_devices() -> None:
    """Deliver them."""

    @task
    def exports() -> list[str]:
        return sorted(map(str, Path(EXPORTS, "crm").glob("*.csv")))

    # One workspace, so one limit: the uploads of a machine share it by themselves (pace: host). With workers on several
    # machines let one go at a time: max_active_tis_per_dag=1.
    by_file = MoEngageUploadOperator.partial(
        task_id="by_file",
        moengage_conn_id="moengage_crm",
        options={"column": {"push_id": "token"}, "set": {"platform": "ANDROID"}, "max-failures": "5%"},
    ).expand(source=exports())

    # A connection each: its own workspace and key, and in its extra its own rate, pace and folder for runs.
    by_workspace = MoEngageUploadOperator.partial(task_id="by_workspace", failed_rows="allow").expand_kwargs(
        [
            {"moengage_conn_id": "moengage_shop", "source": f"{EXPORTS}/shop/devices.csv"},
            {"moengage_conn_id": "moengage_news", "source": f"{EXPORTS}/news/devices.csv"},
        ]
    )

    @task(trigger_rule="all_done")
    def tell(reports: list[dict[str, Any]]) -> None:
        for report in reports:
            print(report["counts"]["accepted"], "accepted of", report["counts"]["read"], "in", report["run"])

    by_file >> by_workspace >> tell(by_workspace.output)  # type: ignore[operator,arg-type]


moengage_devices()
