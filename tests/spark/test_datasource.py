"""Spark writes to MoEngage: jobs and streams, a task that is killed, a job that fails, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from moe_bulk.audit import audit
from tests.redis_server import PASSWORD, running_redis
from tests.runs import written

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame, SparkSession

    from moe_bulk.sandbox import Sandbox

pytestmark = pytest.mark.timeout(300)  # a session takes up to a minute to begin, on a busy machine

FIELDS = ("customer_id", "device_id", "platform", "push_id")
SCHEMA = ", ".join(f"{name} string" for name in FIELDS)


def devices(spark: SparkSession, name: str, count: int, customers: int = 40) -> DataFrame:
    """Make a table of devices that no other test has."""
    rows = [(f"{name}-{n % customers}", f"{name}-d{n}", "iOS", f"{name}-t{n}", n) for n in range(count)]
    return spark.createDataFrame(rows, f"{SCHEMA}, n int")


def save(table: DataFrame, out: Path, mode: str = "append", **options: str) -> None:
    """Write it."""
    table.write.format("moengage").mode(mode).option("out", str(out)).options(**options).save()


def received(sandbox: Sandbox, name: str) -> Counter[str]:
    """Count the requests of each device of a test."""
    told = [each.device_id for each in sandbox.requests if each.device_id and each.device_id.startswith(f"{name}-")]
    return Counter(told)


def summary_of(folder: Path) -> dict[str, Any]:
    """Read the summary of a job."""
    said: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return said


def eventually(look: Callable[[], object]) -> None:
    """Wait until it is so, for a minute."""
    until = time.monotonic() + 60
    while not look():
        assert time.monotonic() < until
        time.sleep(0.02)


def worker_of(folder: Path) -> int:
    """Which of Spark's processes is at work in a run folder."""
    return int((folder.parent / f"{folder.name}.lock").read_text())


def lines_in(folder: Path) -> list[bytes]:
    """The whole lines of the results that are there so far."""
    try:
        return (folder / "results.ndjson").read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []


def test_a_job_delivers_each_customer_s_rows_in_their_order(
    spark: SparkSession, sandbox: Sandbox, tmp_path: Path
) -> None:
    """By the documented repartition and sort: two tasks at a time, which share this host's pace."""
    table = devices(spark, "job", 200).repartition(2, "customer_id").sortWithinPartitions("customer_id", "n")
    save(table, tmp_path, run_id="r", order_by="n")
    found = summary_of(tmp_path / "r")
    assert (True, 0, 2, []) == tuple(found[name] for name in ("finished", "exit_code", "partitions", "warnings"))
    assert (200, 200) == (found["counts"]["accepted"], found["requests"])
    assert {f"job-d{n}": 1 for n in range(200)} == received(sandbox, "job")
    for part in found["parts"]:
        folder = tmp_path / "r" / f"part-{part['partition']:05}-attempt-0.run"
        assert str(folder) == part["folder"]
        results = written(folder).results
        assert part["counts"]["accepted"] == len(results)
        assert not audit(folder).contradictions


def busiest(sandbox: Sandbox, name: str, seconds: float) -> int:
    """The most requests of a test that arrived within any such time."""
    times = [each.arrived for each in sandbox.requests if each.device_id and each.device_id.startswith(f"{name}-")]
    return max(sum(start <= time < start + seconds for time in times) for start in times)


def test_rows_that_nobody_sorted_are_warned_about(spark: SparkSession, sandbox: Sandbox, tmp_path: Path) -> None:
    """Customers in several partitions, and rows that are late in one."""
    table = devices(spark, "loose", 80, customers=4).repartition(2)
    save(table, tmp_path, run_id="r", order_by="n", rate="40/s")
    assert busiest(sandbox, "loose", 1.0) <= 40  # two tasks, one limit
    said = "\n".join(summary_of(tmp_path / "r")["warnings"])
    assert "4 customers have rows in several partitions" in said
    assert ".sortWithinPartitions('customer_id', 'n')" in said
    assert 80 == len(received(sandbox, "loose"))


def test_a_task_that_is_killed_is_tried_again_and_sends_nothing_twice(
    spark: SparkSession, sandbox: Sandbox, tmp_path: Path
) -> None:
    """A kill -9 of the executor's Python in the middle of its partition: what it had settled was received once."""
    folder = tmp_path / "r" / "part-00000-attempt-0.run"
    settled: list[str] = []

    def kill() -> None:
        eventually(lambda: len(lines_in(folder)) >= 40)
        pid = worker_of(folder)
        assert pid != os.getpid()
        os.kill(pid, signal.SIGSTOP)  # it writes no more, so that all it has settled can be read
        settled.extend(json.loads(line)["device_id"] for line in lines_in(folder) if line.endswith(b"\n"))
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    save(devices(spark, "killed", 300).coalesce(1), tmp_path, run_id="r", rate="100/s")
    killer.join()
    found = summary_of(tmp_path / "r")
    assert (300, 0) == (found["counts"]["accepted"], found["exit_code"])
    assert [1] == [part["attempt"] for part in found["parts"]]
    times = received(sandbox, "killed")
    assert 40 <= len(settled) < 300
    assert {1} == {times[device] for device in settled}
    assert 300 == len(times)
    assert max(times.values()) <= 2  # what was on its way may have been received twice
    assert 2 == written(tmp_path / "r" / "part-00000-attempt-1.run").summary["sessions"]


def test_a_job_that_fails_leaves_everything_readable(spark: SparkSession, sandbox: Sandbox, tmp_path: Path) -> None:
    """Its summary says that it knows too little; the same run_id with the right key sends the rest."""
    table = devices(spark, "fails", 20).coalesce(1)
    with pytest.raises(Exception, match="CredentialsRejected"):
        save(table, tmp_path, run_id="r", api_key_secret="wrong")
    found = summary_of(tmp_path / "r")
    assert (False, 3, 1) == (found["finished"], found["exit_code"], found["partitions"])
    assert "1 of its tasks told nothing" in found["warnings"][0]
    left = written(tmp_path / "r" / "part-00000-attempt-1.run")  # Spark tried twice
    assert "stopped" in left.summary
    save(table, tmp_path, run_id="r")
    assert (True, 20) == (summary_of(tmp_path / "r")["finished"], summary_of(tmp_path / "r")["counts"]["accepted"])
    assert 20 == len(received(sandbox, "fails"))


def test_what_cannot_be_kept_is_refused_with_the_reason(spark: SparkSession, sandbox: Sandbox, tmp_path: Path) -> None:
    """Overwriting, speculation, two partitions at two paces; and an option that is none."""
    table = devices(spark, "refused", 20)
    with pytest.raises(Exception, match="its API cannot delete devices"):
        save(table.coalesce(1), tmp_path, mode="overwrite")
    with pytest.raises(Exception, match=r"there is no option 'rat'\. Did you mean rate"):
        save(table, tmp_path, rat="1/s")
    with pytest.raises(Exception, match="moengage is written to, and cannot be read"):
        spark.read.format("moengage").load()
    context = spark.sparkContext
    context.setLocalProperty("spark.speculation", "true")
    try:
        with pytest.raises(Exception, match=r"Set spark\.speculation=false"):
            save(table.coalesce(1), tmp_path)
    finally:
        context.setLocalProperty("spark.speculation", "false")
    assert {} == received(sandbox, "refused")
    with pytest.raises(Exception, match=r"Write df\.coalesce\(1\)"):
        save(table.repartition(2), tmp_path, pace="process")


def test_a_key_stands_in_no_plan(spark: SparkSession, sandbox: Sandbox, events: Path, tmp_path: Path) -> None:
    """What Spark's UI shows is what it writes into its event log: other options stand there, the key does not."""
    table = devices(spark, "secret", 5).coalesce(1)
    save(table, tmp_path, run_id="a-run-that-shows", api_key_secret=sandbox.api_key)
    assert 5 == len(received(sandbox, "secret"))
    log = b"".join(path.read_bytes() for path in events.rglob("*") if path.is_file())
    assert b"run_id=a-run-that-shows" in log
    assert sandbox.api_key.encode() not in log
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if sandbox.api_key.encode() in path.read_bytes()]


def test_executors_share_a_pace_through_redis_for_workspaces_of_a_column(
    spark: SparkSession, sandbox: Sandbox, events: Path, tmp_path: Path
) -> None:
    """Two partitions of one workspace, one limit; neither the server's password nor the key is told anywhere."""
    keys = tmp_path / "workspaces.toml"
    keys.write_text(f'[{sandbox.workspace_id}]\nbase_url = "{sandbox.url}"\napi_key = "{sandbox.api_key}"\n')
    from pyspark.sql.functions import lit  # noqa: PLC0415  it is there

    table = devices(spark, "redis", 60).withColumn("brand", lit(sandbox.workspace_id)).repartition(2, "customer_id")
    with running_redis("--requirepass", PASSWORD) as server:
        url = f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}"
        save(
            table.sortWithinPartitions("brand", "customer_id", "n"),
            tmp_path / "out",
            run_id="a-run-through-redis",
            order_by="n",
            workspace_column="brand",
            workspaces_file=str(keys),
            pace_secret=url,
            rate="60/s",
            timeout="1s",
        )
    found = summary_of(tmp_path / "out" / "a-run-through-redis")
    assert (60, 2) == (found["counts"]["accepted"], found["partitions"])
    new_there = f"redis://127.0.0.1:{server.port}/0, which keeps the pace, "
    assert {new_there} == {warning[: len(new_there)] for warning in found["warnings"]}
    assert {f"redis-d{n}": 1 for n in range(60)} == received(sandbox, "redis")
    assert {sandbox.workspace_id} == {part["workspace"] for part in found["parts"]}
    assert 2 == len(list((tmp_path / "out" / "a-run-through-redis" / sandbox.workspace_id).glob("*.run")))
    told = [path for folder in (events, tmp_path / "out") for path in folder.rglob("*") if path.is_file()]
    blob = b"".join(path.read_bytes() for path in told)
    assert b"a-run-through-redis" in blob
    secrets = (PASSWORD, quote(PASSWORD, safe=""), sandbox.api_key)
    assert not [each for each in secrets if each.encode() in blob]


def test_a_stream_that_is_stopped_goes_on(spark: SparkSession, sandbox: Sandbox, tmp_path: Path) -> None:
    """In the middle of a micro-batch: no row is lost, and what had settled is not sent again."""
    (tmp_path / "in").mkdir()
    sizes = (10, 200, 10)
    for number, count in enumerate(sizes):
        names = [f"{number}-{n}" for n in range(count)]
        rows = [(f"stream-{name}", f"stream-d{name}", "web", f"stream-t{name}") for name in names]
        lines = [json.dumps(dict(zip(FIELDS, row, strict=True))) + "\n" for row in rows]
        file = tmp_path / "in" / f"{number}.json"
        file.write_text("".join(lines))
        os.utime(file, (1000 + number,) * 2)  # Spark takes the oldest first

    def start() -> Any:
        table = spark.readStream.schema(SCHEMA).option("maxFilesPerTrigger", 1)
        writing = table.json(str(tmp_path / "in")).coalesce(1).writeStream.format("moengage")
        options = {"out": str(tmp_path / "out"), "checkpointLocation": str(tmp_path / "checkpoint"), "rate": "40/s"}
        return writing.options(**options).trigger(availableNow=True).start()

    query = start()
    second = tmp_path / "out" / query.id / "batch-000000001"
    eventually(lambda: len(lines_in(second / "part-00000-attempt-0.run")) >= 20)
    pid = worker_of(second / "part-00000-attempt-0.run")
    query.stop()
    eventually(lambda: not Path(f"/proc/{pid}").exists())  # Spark kills it when it has not ended for two seconds
    settled = [
        json.loads(line)["device_id"]
        for line in lines_in(next(second.glob("part-00000-attempt-?.run")))
        if line.endswith(b"\n")
    ]
    query = start()
    query.awaitTermination()
    times = received(sandbox, "stream")
    assert sum(sizes) == len(times)
    assert 20 <= len(settled) < 200
    assert {1} == {times[device] for device in settled}
    batches = sorted((tmp_path / "out" / query.id).iterdir())
    assert [f"batch-{number:09}" for number in range(3)] == [each.name for each in batches]
    assert list(sizes) == [summary_of(each)["counts"]["accepted"] for each in batches]


def test_each_batch_of_a_stream_is_a_job_with_foreach_batch(
    spark: SparkSession, sandbox: Sandbox, tmp_path: Path
) -> None:
    """It is named by the batch, so that a batch which Spark begins again goes on; without a name it is the time's."""
    (tmp_path / "in").mkdir()
    rows = [dict(zip(FIELDS, (f"each-{n}", f"each-d{n}", "web", f"each-t{n}"), strict=True)) for n in range(5)]
    (tmp_path / "in" / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(batch: DataFrame, number: int) -> None:
        save(batch.coalesce(1), tmp_path / "named", run_id=f"each-{number}")
        save(batch.coalesce(1), tmp_path / "named", run_id=f"each-{number}")  # as after a stop
        save(batch.coalesce(1), tmp_path / "unnamed")

    table = spark.readStream.schema(SCHEMA).json(str(tmp_path / "in"))
    writing = table.writeStream.foreachBatch(write).option("checkpointLocation", str(tmp_path / "checkpoint"))
    writing.trigger(availableNow=True).start().awaitTermination()
    assert {f"each-d{n}": 2 for n in range(5)} == received(sandbox, "each")
    assert 5 == summary_of(tmp_path / "named" / "each-0")["counts"]["accepted"]
    (unnamed,) = (each for each in (tmp_path / "unnamed").iterdir() if each.is_dir())
    assert 5 == summary_of(unnamed)["counts"]["accepted"]
