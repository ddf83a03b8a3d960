"""What Airflow should do about an upload that did not end well."""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_bulk import errors
from moe_bulk.airflow.verdicts import failed_rows, retry_helps, told
from moe_bulk.errors import (
    AccountRefused,
    ConfigError,
    CredentialsRejected,
    DestinationWrong,
    InputRefused,
    Interrupted,
    JournalError,
    MoeBulkError,
    PaceLost,
    RunHeld,
    RunRefused,
    RunStopped,
    ServiceUnavailable,
    SourceError,
    StateRefused,
    TooManyFailures,
)
from moe_bulk.outcome import Result, Status
from moe_bulk.record import Position, Row
from moe_bulk.tally import Tally

FOLDER = Path("/srv/runs/d/r/upload.run")
PASSING = [SourceError, JournalError, RunHeld, ServiceUnavailable, PaceLost, Interrupted]
LASTING = [
    *(ConfigError, InputRefused, RunRefused, StateRefused, CredentialsRejected, DestinationWrong, AccountRefused),
    TooManyFailures,
]


@pytest.mark.parametrize("kind", PASSING, ids=lambda kind: kind.__name__)
def test_what_passes_is_tried_again(kind: type[MoeBulkError]) -> None:
    """A late file, a full disk, another upload in the folder, a service that is gone, a worker that is stopped."""
    assert retry_helps(kind("why"))
    assert told(kind("why"), FOLDER).endswith(f"A retry goes on in {FOLDER}")


@pytest.mark.parametrize("kind", LASTING, ids=lambda kind: kind.__name__)
def test_what_lasts_is_not(kind: type[MoeBulkError]) -> None:
    """What a person has to correct first."""
    assert not retry_helps(kind("why"))
    said = f"A retry would not help: correct it, then clear the task, which goes on in {FOLDER}"
    assert told(kind("why"), FOLDER).endswith(said)


def test_every_error_has_its_verdict() -> None:
    """A new one has to be thought of."""
    found = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, MoeBulkError)}
    assert found - {MoeBulkError, RunStopped} == {*PASSING, *LASTING}


def test_no_value_of_a_row_is_told() -> None:
    """A task's log is read by more people than a run folder; what a setting holds may stand there."""
    assert "'u-1'" not in told(SourceError("line 3: 'u-1' is unreadable"))
    assert "Three different records in a row" in told(AccountRefused("MoEngage says: u-1 is blocked"))
    assert "u-1" not in told(AccountRefused("MoEngage says: u-1 is blocked"))
    assert "'fast' is no rate" in told(ConfigError("'fast' is no rate"))


def test_a_run_that_could_not_begin_has_no_folder() -> None:
    """It is not spoken of."""
    assert "wrong. A retry would not help: correct it, then clear the task, which goes on" == told(ConfigError("wrong"))


def test_failed_rows_are_told_by_their_causes() -> None:
    """The three most frequent ones, how many more there are, and where to look."""
    tally = Tally(10_000, 60.0)
    reasons = ["a is empty", "b is empty", "b is empty", "c is empty", "d is empty"]
    tally.read(len(reasons))
    for line, reason in enumerate(reasons, 1):
        tally.settled(Result(place := Position("x.csv", line, 0), Status.INVALID, Row(place, {}), reason=reason))
    said = failed_rows(tally.summary(started_at=0, ended_at=1, exit_code=1, version="0"), FOLDER)
    assert said.startswith("5 of 5 rows failed, all others are delivered: 2 invalid: b is empty; 1 invalid: a is empty")
    assert "; and 1 more causes. A retry would not help: see" in said
    assert f"{FOLDER / 'dead-letter.ndjson'} can be corrected and uploaded" in said
