"""A Spark job: deliver a table's rows, each customer's in their order, and print what became of them.

    python samples/spark_job.py samples/devices.csv /tmp/moe --sandbox
    spark-submit samples/spark_job.py s3a://exports/devices.csv s3://results/moe

With --sandbox two tasks run here, on `local[2]`. On your cluster the executors take where to and with which key from
their environment (MOENGAGE_WORKSPACE_ID, MOENGAGE_API_KEY, MOENGAGE_DATA_CENTER), one task reaches the usual limit, and
results go to a folder that all hosts see, or to S3.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql.functions import monotonically_increasing_id

from moe_bulk.spark import MoEngageDataSource


@contextlib.contextmanager
def sandbox() -> Iterator[None]:
    """Run a stand-in for MoEngage beside the job, and set the variables that lead there."""
    command = [sys.executable, "-m", "moe_bulk", "sandbox", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout or ():
            name, _, value = line.strip().removeprefix("export ").partition("=")
            if name.startswith("MOENGAGE_"):
                os.environ[name] = value
            if name == "MOENGAGE_API_KEY":
                break
        try:
            yield
        finally:
            running.terminate()


def local() -> SparkSession:
    """Give a session of two tasks on this machine, which nobody else sees."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    return (
        builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    )


def deliver(spark: SparkSession, devices: str, out: str, tasks: int) -> dict[str, Any]:
    """Write the rows to MoEngage and return the summary. The same run_id again goes on where a job stopped."""
    spark.dataSource.register(MoEngageDataSource)
    rows = spark.read.csv(devices, header=True, escape='"', multiLine=True)
    (
        rows.withColumn("place", monotonically_increasing_id())  # the order of the file; yours may have a time
        .repartition(tasks, "customer_id")
        .sortWithinPartitions("customer_id", "place")
        .write.format("moengage")
        .mode("append")
        .option("out", out)
        .option("run_id", "sample")
        .option("order_by", "place")
        .save()
    )
    summary = f"{out}/sample/summary.json"
    if "://" in out:
        row = spark.read.text(summary.replace("s3://", "s3a://"), wholetext=True).first()
        text = row[0] if row else "{}"
    else:  # a path of this host, while Spark would look for it in its default file system
        text = Path(summary).read_text(encoding="utf-8")
    spark.stop()
    found: dict[str, Any] = json.loads(text)
    return found


if __name__ == "__main__":
    devices, out, *more = sys.argv[1:]
    if more == ["--sandbox"]:
        with sandbox():
            summary = deliver(local(), devices, out, tasks=2)
    else:
        summary = deliver(SparkSession.builder.getOrCreate(), devices, out, tasks=1)
    for status, count in summary["counts"].items():
        print(f"{status:>10} {count:>8,}")
    for warning in summary["warnings"]:
        print(warning)
    sys.exit(summary["exit_code"])
