"""What a task tells Airflow, whose log and database more people read than a run folder: no value of any row.

The small report in XCom holds numbers, causes and the run folder. Of what MoEngage says only the HTTP status is told,
the field that it names, and kinds of error that its documentation knows: any other text may repeat a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moe_bulk.causes import Failures, without_values
from moe_bulk.chronicle import said_of
from moe_bulk.device import FIELDS
from moe_bulk.naming import REPORT
from moe_bulk.tally import Summary

if TYPE_CHECKING:
    from pathlib import Path

    from moe_bulk.errors import MoeBulkError

FORMAT = 1
KNOWN = {
    *("MissingAttributeError", "ValueError", "TypeError", "InvalidParams", "ParamsRequired", "Blacklisted"),
    *("BlockedClient", "PayloadTooLarge", *FIELDS),
}
MOST_CAUSES = 10
"""XCom lies in Airflow's database: the rest stands in the run folder's `summary.json`."""


def discreet(summary: Summary) -> Summary:
    """The same summary, whose causes hold no words of MoEngage's but known ones, and no examples."""
    failures = [Failures(**{**each, "cause": _plain(each["cause"]), "example": ""}) for each in summary["failures"]]
    return Summary(**{**summary, "failures": failures})


def _plain(cause: str) -> str:
    words = cause.split()
    if words[:1] != ["HTTP"]:
        return cause
    return " ".join([*words[:2], *(word for word in words[2:] if word in KNOWN)])


def report(summary: Summary, folder: Path, error: MoeBulkError | None = None) -> dict[str, Any]:
    """The run in plain JSON, a few kilobytes at most; `error` is what it was stopped by."""
    rate, failures = summary["rate"], discreet(summary)["failures"]
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
                "first_source": each.get("first_source"),
                "remedy": each["remedy"],
            }
            for each in failures[:MOST_CAUSES]
        ],
        "more_causes": max(0, len(failures) - MOST_CAUSES),
    }
