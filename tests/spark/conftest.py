"""One Spark session and one sandbox for all tests here."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fake_service import sandbox_in_a_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

    from moe_bulk.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Run a sandbox, and lead executors there: they have the environment in which the session was begun."""
    pytest.importorskip("pyspark", reason="PySpark is not installed: .ci/run has an environment for these tests")
    with sandbox_in_a_thread() as running, pytest.MonkeyPatch.context() as environ:
        environ.setenv("MOENGAGE_WORKSPACE_ID", running.workspace_id)
        environ.setenv("MOENGAGE_API_KEY", running.api_key)
        environ.setenv("MOENGAGE_BASE_URL", running.url)
        yield running


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Spark writes all that its UI shows."""
    return tmp_path_factory.mktemp("events")


@pytest.fixture(scope="session")
def spark(sandbox: Sandbox, events: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Begin the session: two tasks at a time, each tried twice, nothing beyond the loopback."""
    from pyspark.sql import SparkSession  # noqa: PLC0415  it is there

    from moe_bulk.spark import MoEngageDataSource  # noqa: PLC0415

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        # for minutes, not for days: the quick compiler alone, and no code made for each query
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.eventLog.enabled": "true",
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.dir": events.as_uri(),
        "spark.sql.ui.explainMode": "extended",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
    }
    builder = SparkSession.builder.master("local[2,2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    session.dataSource.register(MoEngageDataSource)
    yield session
    session.stop()
