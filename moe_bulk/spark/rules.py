"""What is refused before a task sends anything, and why: several hands on one limit, speculation, keys in sight."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moe_bulk.errors import ConfigError

if TYPE_CHECKING:
    from moe_bulk.spark.settings import Settings

REDACTED = "(?i)secret|password|token|access[.]?key"
"""`spark.redaction.regex` where nobody sets it: https://spark.apache.org/docs/latest/configuration.html"""

_LOCAL = re.compile(r"local(\[[^\]]*\])?")


@dataclass(frozen=True, slots=True)
class Task:
    """What a task knows of itself and of the session that it belongs to."""

    partition: int
    attempt: int = 0
    """How often Spark has tried this task before, in this stage."""
    job: str = ""
    """By this its tasks know their job; another job of the same run has another."""
    master: str = ""
    speculation: str = ""
    redaction: str = REDACTED
    query_id: str | None = None
    batch_id: int | None = None
    """The stream's query and its micro-batch; None in a batch job."""
    streams: bool = True
    """Whether `writeStream` itself writes, or `foreachBatch`, whose writes are jobs, each with a run of its own."""

    @property
    def batch(self) -> tuple[str, int] | None:
        """The query and the micro-batch whose run this is; None where the run has a name of its own."""
        return (self.query_id, self.batch_id or 0) if self.streams and self.query_id is not None else None

    @property
    def local(self) -> bool:
        """Whether all tasks are processes of one user on one machine."""
        return _LOCAL.fullmatch(self.master) is not None


OVERWRITE = (
    'mode("overwrite") would have to take back what MoEngage holds already, and its API cannot delete devices: use '
    'mode("append"). A device that is sent again replaces what MoEngage knew of it'
)


def refuse_overwrite(*, overwrite: bool) -> None:
    """Raise ConfigError for a mode that cannot be kept."""
    if overwrite:
        raise ConfigError(OVERWRITE)


def refuse(settings: Settings, task: Task) -> None:
    """Raise ConfigError, with the reason, where this task must not begin."""
    if task.speculation.strip().lower() == "true":
        raise ConfigError(
            "spark.speculation is on: a second copy of a slow task would send the same rows beside the first, out of "
            "order and at the workspace's expense. Nothing was sent. Set spark.speculation=false for this job"
        )
    for name in settings.secrets:
        if not _redacts(task.redaction, name):
            raise ConfigError(
                f"spark.redaction.regex does not match the option {name}, so it stands in Spark's plans and UI, where "
                "others may have read it. Nothing was sent. Let the pattern match it, and replace the secret"
            )
    if task.batch is not None and settings.run_id is not None:
        raise ConfigError("a stream's run is its query: leave out run_id")
    if task.query_id is not None and not is_shared(settings, task):
        raise ConfigError(
            "the micro-batches of a stream are processes of their own, one after the other within a minute, and on any "
            "host of a cluster: their limit has to be shared. Give the option pace a redis:// URL; on a local master "
            "leave it out"
        )


def _redacts(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False


def is_shared(settings: Settings, task: Task) -> bool:
    """Whether several partitions may send at once because their pace is one."""
    return settings.over_network or (settings.pace == "host" and task.local)


def alone(settings: Settings, partition: int, others: list[int]) -> ConfigError:
    """What to say where a second partition wants to send to a workspace, and the pace is not shared."""
    mine = "this host's" if settings.pace == "host" else "this process's"
    return ConfigError(
        f"partitions {', '.join(map(str, sorted({partition, *others})))} have rows for one workspace, and its limit is "
        f"kept by {mine} pace alone: together they would exceed it. Write df.coalesce(1), which reaches the usual "
        "limit; or let all hosts share a pace: option pace with a redis:// URL. A share for each would be left unused "
        "by those that end early, so none is dealt out"
    )
