"""What Airflow should do about an upload that did not end well: try the task again, or fail it and tell somebody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_bulk.chronicle import said_of
from moe_bulk.errors import (
    ConfigError,
    InputRefused,
    Interrupted,
    JournalError,
    PaceLost,
    RunRefused,
    ServiceUnavailable,
    SourceError,
    StateRefused,
)

if TYPE_CHECKING:
    from pathlib import Path

    from moe_bulk.errors import MoeBulkError
    from moe_bulk.tally import Summary

PASSING = (SourceError, JournalError, ServiceUnavailable, PaceLost, Interrupted)
"""A file that is late or a store that hangs, a full disk or another upload in the folder, a service or the pace's Redis
that was gone, a worker that was stopped: the same task goes on where this try ended."""

LASTING = (InputRefused, RunRefused, StateRefused)
"""Those of them that a retry would meet again. So would wrong settings, a key that is refused, a wrong host, a refused
account, and too many failures, of which a retry would only make more."""


def retry_helps(error: MoeBulkError) -> bool:
    """Whether the task, tried again by itself, may get further."""
    return isinstance(error, PASSING) and not isinstance(error, LASTING)


def told(error: MoeBulkError, folder: Path | None = None) -> str:
    """What the task's log may hold of it: no value of any row, and no words of MoEngage's.

    `folder` is where the run is, if it got as far as that.
    """
    # a setting's own words hold a setting's value: what to correct
    said = (str(error) if isinstance(error, ConfigError) else said_of(error)).rstrip(".")
    where = "" if folder is None else f" in {folder}"
    if retry_helps(error):
        return f"{said}. A retry goes on{where}"
    return f"{said}. A retry would not help: correct it, then clear the task, which goes on{where}"


def failed_rows(summary: Summary, folder: Path) -> str:
    """What is said of an upload that is finished, while its dead letter is not empty."""
    counts = summary["counts"]
    failed = sum(each["count"] for each in summary["failures"])
    causes = "; ".join(f"{each['count']:,} {each['status']}: {each['cause']}" for each in summary["failures"][:3])
    more = "" if len(summary["failures"]) <= 3 else f"; and {len(summary['failures']) - 3} more causes"
    return (
        f"{failed:,} of {counts['read']:,} rows failed, all others are delivered: {causes}{more}. A retry would not "
        f"help: see {folder / 'report.html'}; {folder / 'dead-letter.ndjson'} can be corrected and uploaded"
    )
