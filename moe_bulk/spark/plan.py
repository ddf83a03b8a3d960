"""The driver's part: what a write comes to before its tasks begin, and the summary after they have ended."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from moe_bulk.spark.attempts import is_alone_name
from moe_bulk.spark.merging import SUMMARY, JobEnd, merged
from moe_bulk.spark.rules import refuse_overwrite
from moe_bulk.spark.settings import read_options
from moe_bulk.spark.shelf import mark, open_shelf
from moe_bulk.standing import version

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from moe_bulk.spark.merging import JobSummary, PartitionReport
    from moe_bulk.spark.settings import Settings
    from moe_bulk.spark.shelf import Shelf

_log = logging.getLogger("moe_bulk")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the tasks of a job are told: the settings, and what the folder is known by."""

    settings: Settings
    mark: str
    stream: bool = False
    """Whether `writeStream` writes: then the run is its query."""
    job: str = field(default_factory=lambda: secrets.token_hex(8))
    """What tells this job from others of the same run."""


def plan(options: Mapping[str, str], names: Collection[str], *, overwrite: bool, stream: bool) -> Plan:
    """Read the options of a write and make its folder. Raises ConfigError where it must not begin.

    A batch job without a run_id is given one, by the time: all its tasks and their attempts have it in common. A stream
    has its query's.
    """
    refuse_overwrite(overwrite=overwrite)
    settings = read_options(options, names)
    if not stream and settings.run_id is None:
        settings = replace(settings, run_id=f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}-{secrets.token_hex(3)}")
    return Plan(settings, mark(open_shelf(settings.out)), stream)


def end(plan: Plan, reports: Sequence[PartitionReport], tasks: int, *, aborted: bool = False) -> JobSummary | None:
    """Write the job's summary into its folder, and log what people should know; None where no task told its folder.

    The results stay where the tasks wrote them, whether the job was committed or aborted.
    """
    run = next((report.run for report in reports), plan.settings.run_id)
    if run is None:
        return None
    how = JobEnd(tasks - len(reports), aborted, plan.settings.together)
    summary = merged(run, reports, version(), how)
    shelf = open_shelf(plan.settings.out)
    if not aborted:
        _release(shelf, run, reports)
    shelf.write(f"{run}/{SUMMARY}", orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    for warning in summary["warnings"]:
        _log.warning("%s: %s", shelf.where(run), warning)
    return summary


def _release(shelf: Shelf, run: str, reports: Sequence[PartitionReport]) -> None:
    """Nobody sends any more, so nobody has to be waited for."""
    folders = {run, *(f"{run}/{each.workspace}" for report in reports for each in report.delivered if each.workspace)}
    for folder in folders:
        for name in filter(is_alone_name, shelf.names(folder)):
            shelf.remove(f"{folder}/{name}")
