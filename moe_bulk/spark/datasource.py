"""What Spark calls: on the driver to plan, commit and abort, on the executors to write a partition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark import TaskContext
from pyspark.sql.datasource import DataSource, DataSourceStreamWriter, DataSourceWriter, WriterCommitMessage

from moe_bulk.errors import ConfigError
from moe_bulk.spark.delivery import deliver
from moe_bulk.spark.plan import Plan, end, plan
from moe_bulk.spark.rules import REDACTED, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import Row
    from pyspark.sql.types import StructType

    from moe_bulk.spark.merging import PartitionReport

_QUERY, _BATCH = "sql.streaming.queryId", "streaming.sql.batchId"
"""Where Spark tells tasks of their stream: `StreamExecution.QUERY_ID_KEY` and `MicroBatchExecution.BATCH_ID_KEY`."""


class MoEngageDataSource(DataSource):
    """Writes a DataFrame's rows as devices to MoEngage: `df.write.format("moengage").mode("append")`."""

    @classmethod
    def name(cls) -> str:
        """What it is called in `format(…)`."""
        return "moengage"

    def schema(self) -> StructType:
        """Refuse to be read: Spark asks for it before it reads."""
        raise ConfigError("moengage is written to, and cannot be read: MoEngage's API tells of no devices")

    def writer(self, schema: StructType, overwrite: bool) -> MoEngageWriter:  # noqa: FBT001  Spark's own
        """Plan a batch job, on the driver."""
        return MoEngageWriter(plan(self.options, schema.fieldNames(), overwrite=overwrite, stream=False))

    def streamWriter(self, schema: StructType, overwrite: bool) -> MoEngageStreamWriter:  # noqa: FBT001, N802  Spark's
        """Plan a micro-batch of a stream, on the driver."""
        return MoEngageStreamWriter(plan(self.options, schema.fieldNames(), overwrite=overwrite, stream=True))


class PartitionDelivered(WriterCommitMessage):
    """What a task sends to the driver."""

    def __init__(self, report: PartitionReport) -> None:
        self.report = report


class MoEngageWriter(DataSourceWriter):
    """A batch job."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def write(self, iterator: Iterator[Row]) -> PartitionDelivered:
        """Deliver one partition, on an executor."""
        return _deliver(iterator, self.plan)

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:
        """Sum up, on the driver."""
        end(self.plan, _reports(messages), len(messages))

    def abort(self, messages: list[WriterCommitMessage | None]) -> None:
        """Leave what was written, and say that the job failed, on the driver."""
        end(self.plan, _reports(messages), len(messages), aborted=True)


class MoEngageStreamWriter(DataSourceStreamWriter):
    """One micro-batch of a stream; the checkpoint that Spark keeps says which batches are done."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def write(self, iterator: Iterator[Row]) -> PartitionDelivered:
        """Deliver one partition of it, on an executor."""
        return _deliver(iterator, self.plan)

    def commit(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: N803  Spark's own
        """Sum the batch up, on the driver."""
        del batchId  # the tasks were told it, too
        end(self.plan, _reports(messages), len(messages))

    def abort(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: N803  Spark's own
        """Leave what was written, and say that the batch failed, on the driver."""
        del batchId
        end(self.plan, _reports(messages), len(messages), aborted=True)


def _deliver(iterator: Iterator[Row], plan: Plan) -> PartitionDelivered:
    rows = (row.asDict(recursive=True) for row in iterator)
    return PartitionDelivered(deliver(rows, plan.settings, _task(plan), plan.mark))


def _task(plan: Plan) -> Task:
    context = TaskContext.get()
    if context is None:
        raise RuntimeError("this is no task of Spark's: the driver writes nothing")
    batch = context.getLocalProperty(_BATCH)
    return Task(
        context.partitionId(),
        context.attemptNumber(),
        plan.job,
        master=context.getLocalProperty("spark.master") or "",
        speculation=context.getLocalProperty("spark.speculation") or "",
        redaction=context.getLocalProperty("spark.redaction.regex") or REDACTED,
        query_id=context.getLocalProperty(_QUERY),
        batch_id=int(batch) if batch is not None else None,
        streams=plan.stream,
    )


def _reports(messages: list[WriterCommitMessage | None]) -> list[PartitionReport]:
    return [message.report for message in messages if isinstance(message, PartitionDelivered)]
