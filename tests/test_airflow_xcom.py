"""The small report that a task leaves in XCom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moe_bulk.airflow.verdicts import failed_rows
from moe_bulk.airflow.xcom import MOST_CAUSES, discreet, report
from moe_bulk.errors import AccountRefused
from moe_bulk.outcome import Result, Status
from moe_bulk.record import Position, Row
from moe_bulk.tally import Summary, Tally, lines

FOLDER = Path("/srv/runs/d/r/upload.run")


def summary(reasons: list[str], stopped: str | None = None) -> Summary:
    """Sum up a run whose rows failed for these reasons."""
    tally = Tally(10_000, 60.0)
    tally.read(len(reasons) + 1)
    for line, reason in enumerate([None, *reasons], 1):
        place, status = Position("x.csv", line, 0), Status.INVALID if reason else Status.ACCEPTED
        tally.settled(Result(place, status, Row(place, {}), customer_id="secret-user", reason=reason))
    return tally.summary(
        started_at=100.0, ended_at=101.5, exit_code=1 if reasons else 0, version="0", settings={}, stopped=stopped
    )


def test_a_run_without_failures() -> None:
    """All of it, as it stands."""
    expected = {
        "format": 1,
        "run": str(FOLDER),
        "report": f"{FOLDER}/report.html",
        "dead_letter": None,
        "finished": True,
        "stopped": None,
        "exit_code": 0,
        "counts": {
            "read": 1,
            "accepted": 1,
            "rejected": 0,
            "invalid": 0,
            "exhausted": 0,
            "superseded": 0,
            "unchanged": 0,
            "skipped": 0,
            "unsettled": 0,
        },
        "requests": 0,
        "retries": 0,
        "pauses": 0,
        "sessions": 1,
        "seconds": 1.5,
        "limit": 10_000,
        "per_seconds": 60.0,
        "busiest_window": 0,
        "causes": [],
        "more_causes": 0,
    }
    found = report(summary([]), FOLDER)
    assert expected == found
    assert found == json.loads(json.dumps(found))


def test_a_run_with_failures() -> None:
    """Causes without examples: they hold values of rows, which stay in the run folder."""
    found = report(summary(["push_id is a placeholder: 'secret-token'"]), FOLDER)
    assert f"{FOLDER}/dead-letter.ndjson" == found["dead_letter"]
    (cause,) = found["causes"]
    assert ("invalid", 1, 2) == (cause["status"], cause["count"], cause["first_line"])
    assert found["causes"][0]["first_source"]
    assert "moe-bulk" not in cause["remedy"]
    assert "secret" not in json.dumps(found)


def test_a_run_that_stopped() -> None:
    """Why, in words of ours; those of MoEngage's may repeat a row."""
    said = "MoEngage refuses: secret-user is blocked"
    found = report(summary([], stopped=said), FOLDER, AccountRefused(said))
    assert (False, "Three different records") == (found["finished"], str(found["stopped"])[:23])
    assert "secret" not in json.dumps(found)
    assert "line 3: …" == report(summary([], stopped="line 3: 'secret-user'"), FOLDER)["stopped"]


@pytest.mark.parametrize("causes", [MOST_CAUSES, 60])
def test_it_stays_small(causes: int) -> None:
    """Airflow's database holds it, so the ten most frequent causes have to do."""
    found = report(summary([f"{'abcdefghij'[n // 10]}{'klmnopqrst'[n % 10]} is empty" for n in range(causes)]), FOLDER)
    assert (MOST_CAUSES, causes - MOST_CAUSES) == (len(found["causes"]), found["more_causes"])
    assert len(json.dumps(found)) < 8_000


def test_a_stranger_s_words_are_left_out() -> None:
    """A kind of error is MoEngage's text: one that nobody knows may be anything."""
    tally = Tally(10_000, 60.0)
    tally.read(2)
    for line, kind in enumerate(["MissingAttributeError", "alice@example.org is unwelcome"], 1):
        place = Position("x.csv", line, 0)
        reason = "push_id of alice@example.org is missing"
        tally.settled(Result(place, Status.REJECTED, Row(place, {}), http_status=400, error_type=kind, reason=reason))
    told = tally.summary(started_at=0, ended_at=1, exit_code=1, version="0")
    causes = [each["cause"] for each in report(told, FOLDER)["causes"]]
    assert ["HTTP 400 MissingAttributeError push_id", "HTTP 400 push_id"] == causes
    said = " ".join([*lines(discreet(told)), failed_rows(discreet(told), FOLDER), json.dumps(report(told, FOLDER))])
    assert "alice" not in said
    assert "alice" in " ".join(lines(told))
