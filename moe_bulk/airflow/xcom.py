"""The small report that a task leaves in XCom: numbers, causes and the run folder; no value of any row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moe_bulk.causes import without_values
from moe_bulk.chronicle import said_of
from moe_bulk.naming import REPORT

if TYPE_CHECKING:
    from pathlib import Path

    from moe_bulk.errors import MoeBulkError
    from moe_bulk.tally import Summary

FORMAT = 1
MOST_CAUSES = 10
"""XCom lies in Airflow's database: the rest stands in the run folder's `summary.json`."""


def report(summary: Summary, folder: Path, error: MoeBulkError | None = None) -> dict[str, Any]:
    """The run in plain JSON, a few kilobytes at most; `error` is what it was stopped by."""
    rate, failures = summary["rate"], summary["failures"]
    stopped = said_of(error) if error is not None else without_values(summary.get("stopped", "")) or None
    return {
        "format": FORMAT,
        "run": str(folder),
        "report": str(folder / REPORT),
        "dead_letter": str(folder / "dead-letter.ndjson") if failures else None,
        "finished": "stopped" not in summary,
        "stopped": stopped,
        "exit_code": summary["exit_code"],
        "counts": dict(summary["counts"]),
        "requests": summary["requests"],
        "retries": summary["retries"],
        "pauses": summary["pauses"],
        "sessions": summary["sessions"],
        "seconds": round(summary["ended_at"] - summary["started_at"], 3),
        "limit": rate["limit"],
        "per_seconds": rate["per"],
        "busiest_window": rate["busiest_window"]["count"],
        "causes": [
            {
                "status": each["status"],
                "cause": each["cause"],
                "count": each["count"],
                "first_line": each["first_line"],
                "remedy": each["remedy"],
            }
            for each in failures[:MOST_CAUSES]
        ],
        "more_causes": max(0, len(failures) - MOST_CAUSES),
    }
