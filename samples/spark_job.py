"""A Spark job: deliver a table's rows, each customer's in their order, and print what became of them.

    python samples/spark_job.py samples/devices.csv /tmp/moe --sandbox

On `local[2]` as it stands; with spark-submit on your cluster, with a pace that all hosts share. Without --sandbox the
executors take where to and with which key from their environment (MOENGAGE_WORKSPACE_ID, MOENGAGE_API_KEY,
MOENGAGE_DATA_CENTER). The second argument is a folder that all hosts see, or s3://…
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


def deliver(devices: str, out: str) -> None:
    """Write the rows to MoEngage. The same run_id again goes on where a job stopped."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = SparkSession.builder.master("local[2]").config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    spark.dataSource.register(MoEngageDataSource)
    rows = spark.read.csv(devices, header=True, escape='"', multiLine=True)
    (
        rows.withColumn("place", monotonically_increasing_id())  # the order of the file; yours may have a time
        .repartition(2, "customer_id")
        .sortWithinPartitions("customer_id", "place")
        .write.format("moengage")
        .mode("append")
        .option("out", out)
        .option("run_id", "sample")
        .option("order_by", "place")
        .save()
    )
    spark.stop()


if __name__ == "__main__":
    devices, out, *more = sys.argv[1:]
    with sandbox() if more == ["--sandbox"] else contextlib.nullcontext():
        deliver(devices, out)
    summary = json.loads((Path(out) / "sample" / "summary.json").read_text())
    for status, count in summary["counts"].items():
        print(f"{status:>10} {count:>8,}")
    for warning in summary["warnings"]:
        print(warning)
    sys.exit(summary["exit_code"])
