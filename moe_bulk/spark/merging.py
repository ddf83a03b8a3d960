"""What the tasks tell the driver, and what it makes of that: one summary for the job."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

from moe_bulk.outcome import Status
from moe_bulk.spark.sampling import InCommon, Sample, in_common

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from moe_bulk.tally import Window

SUMMARY = "summary.json"

FORMAT = 1
MOST_FAILURES = 50
"""Causes that a job's summary tells; each partition's own summary tells its own."""


class Cause(TypedDict):
    """Failures with one cause, without an example: those stand in the partitions' own folders."""

    cause: str
    status: str
    count: int
    remedy: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """What one attempt at a partition came to for one workspace. It holds no customer's id, no token and no row."""

    folder: str
    attempt: int
    exit_code: int
    started_at: float
    ended_at: float
    counts: Mapping[str, int]
    requests: int
    retries: int
    pauses: int
    busiest_window: Window | None = None
    failures: Sequence[Cause] = ()
    workspace: str | None = None
    started_over: bool = False
    """Whether rows were sent again because they were not those of the attempt before."""
    customers: Sample = field(default_factory=Sample)
    keys: Sample = field(default_factory=Sample)
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PartitionReport:
    """What a task tells the driver at its end."""

    partition: int
    run: str
    delivered: Sequence[Delivered] = ()
    warnings: Sequence[str] = field(default=())


class Part(TypedDict):
    """One partition's line in the summary of its job."""

    partition: int
    workspace: str | None
    folder: str
    attempt: int
    exit_code: int
    counts: dict[str, int]
    requests: int
    busiest_window: Window | None


class JobSummary(TypedDict):
    """What `summary.json` of a job holds. Times are epoch seconds."""

    format: int
    version: str
    run: str
    finished: bool
    exit_code: int
    started_at: float | None
    ended_at: float | None
    partitions: int
    counts: dict[str, int]
    requests: int
    retries: int
    pauses: int
    failures: list[Cause]
    warnings: list[str]
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ended: `missing` of its tasks told nothing, where it was aborted."""

    missing: int = 0
    aborted: bool = False
    together: str = '"customer_id"'
    """By what its rows are repartitioned so that each customer's stay together."""


_COMMITTED = JobEnd()


def merged(run: str, reports: Sequence[PartitionReport], version: str, end: JobEnd = _COMMITTED) -> JobSummary:
    """One summary of all that the tasks told."""
    parts = [
        (report.partition, each)
        for report in sorted(reports, key=lambda each: each.partition)
        for each in report.delivered
    ]
    done = [each for _, each in parts]
    counts: Counter[str] = Counter({"read": 0, **{status.value: 0 for status in Status}, "unsettled": 0})
    for each in done:
        counts.update(each.counts)
    return {
        "format": FORMAT,
        "version": version,
        "run": run,
        "finished": not end.aborted,
        "exit_code": 3 if end.aborted else max((each.exit_code for each in done), default=0),
        "started_at": min((each.started_at for each in done), default=None),
        "ended_at": max((each.ended_at for each in done), default=None),
        "partitions": len(reports) + end.missing,
        "counts": dict(counts),
        "requests": sum(each.requests for each in done),
        "retries": sum(each.retries for each in done),
        "pauses": sum(each.pauses for each in done),
        "failures": _failures(done),
        "warnings": [*_unfinished(end), *_order(done, end.together), *_said(reports)],
        "parts": [_part(partition, each) for partition, each in parts],
    }


def _part(partition: int, each: Delivered) -> Part:
    return {
        "partition": partition,
        "workspace": each.workspace,
        "folder": each.folder,
        "attempt": each.attempt,
        "exit_code": each.exit_code,
        "counts": dict(each.counts),
        "requests": each.requests,
        "busiest_window": each.busiest_window,
    }


def _failures(done: Iterable[Delivered]) -> list[Cause]:
    """The causes of all partitions, the most frequent first."""
    found: dict[tuple[str, str], Cause] = {}
    for each in done:
        for failure in each.failures:
            known = found.setdefault((failure["status"], failure["cause"]), {**failure, "count": 0})  # a copy
            known["count"] += failure["count"]
    return sorted(found.values(), key=lambda failure: -failure["count"])[:MOST_FAILURES]


def _unfinished(end: JobEnd) -> list[str]:
    if not end.aborted:
        return []
    told = (
        f"the job failed, and {end.missing:,} of its tasks told nothing: all numbers here are too low. What was sent "
        "stands in the partitions' own folders. The same write with the same run_id goes on where they stopped"
    )
    return [told]


def _order(done: Sequence[Delivered], together: str) -> list[str]:
    """What can be known of rows whose order nobody kept, because they stood in several partitions."""
    told = []
    if (customers := _shared((each.workspace, each.customers) for each in done)).keys:
        told.append(
            f"{customers} customers have rows in several partitions, where nobody keeps their order nor MoEngage's "
            f"limits per user: add .repartition(n, {together}) before .sortWithinPartitions(…)"
        )
    if (keys := _shared((each.workspace, each.keys) for each in done)).keys:
        told.append(
            f"{keys} devices, push tokens or advertising ids stand in several partitions: which of their rows MoEngage "
            "got last is not known"
        )
    if again := sum(each.started_over for each in done):
        told.append(
            f"{again:,} partitions were sent again from their first row, because a later attempt was given other rows "
            "or another order: sort within partitions by columns that tell all rows apart"
        )
    return told


def _shared(samples: Iterable[tuple[str | None, Sample]]) -> InCommon:
    by_workspace: dict[str | None, list[Sample]] = {}
    for workspace, sample in samples:
        by_workspace.setdefault(workspace, []).append(sample)
    found = [in_common(each) for each in by_workspace.values()]
    return InCommon(sum(each.keys for each in found), all(each.exact for each in found))


def _said(reports: Iterable[PartitionReport]) -> list[str]:
    """What partitions had to say, once each, with how many said so."""
    said: Counter[str] = Counter()
    for report in reports:
        said.update({*report.warnings, *(warning for each in report.delivered for warning in each.warnings)})
    return [text if times == 1 else f"{text} ({times:,} partitions)" for text, times in said.items()]
