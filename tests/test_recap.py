"""A run in plain words: true at once, at 80 columns, and with nothing in it that a terminal would obey."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from moe_bulk import recap
from moe_bulk.outcome import Status
from moe_bulk.tally import Tally
from moe_bulk.timeline import Bin

if TYPE_CHECKING:
    from moe_bulk.tally import Summary


def summary(stopped: str | None = None, failures: int = 0, **counts: int) -> Summary:
    """Make one with these counts, and so many reasons for its failures."""
    made = Tally(10_000, 60.0).summary(
        started_at=1_764_072_000.0, ended_at=1_764_072_100.0, exit_code=0, version="1", stopped=stopped
    )
    made["counts"] |= counts
    made["counts"]["read"] = sum(counts.values())
    made["failures"] = [
        {
            "cause": f"cause {number} \x1b[31m",
            "status": "invalid",
            "count": 1_000,
            "first_line": 7,
            "example": "a secret",
            "remedy": "\x1bcorrect this, " * 12 + "then `moe-bulk upload`",
        }
        for number in range(failures)
    ]
    return made


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "Nothing to do: the input holds no rows."),
        ({"accepted": 1}, "The one row was accepted."),
        ({"accepted": 2_000}, "All 2,000 rows were accepted."),
        (
            {"accepted": 296, "rejected": 1, "invalid": 3, "failures": 2},
            "296 of 300 rows were accepted, 4 failed for 2 reasons.",
        ),
        ({"exhausted": 5, "failures": 1}, "None of 5 rows was accepted, 5 failed for one reason."),
        ({"accepted": 1, "unchanged": 2, "skipped": 3}, "1 of 6 rows were accepted, 5 needed no sending."),
        (
            {"accepted": 1, "unsettled": 2, "stopped": "because"},
            "Not finished: 1 of 3 rows read so far were accepted, 0 failed, 2 have no result yet.",
        ),
    ],
)
def test_what_happened_is_one_sentence(said: dict[str, Any], expected: str) -> None:
    """For each kind of ending."""
    assert expected == recap.headline(summary(**said))


def test_the_counts_add_up_before_one_s_eyes() -> None:
    """The first law, with those that are not zero."""
    said = summary(accepted=1_200, rejected=2, unsettled=1)
    assert "1,203 read = 1,200 accepted + 2 rejected + 1 not yet settled" == recap.equation(said)
    assert "0 read = 0" == recap.equation(summary())
    *parts, total = recap.by_status(said)
    assert total[1] == sum(count for _, count, _ in parts)
    assert "not yet settled" in [name for name, *_ in parts]


def test_all_statuses_have_a_meaning() -> None:
    """A new one cannot be forgotten."""
    assert set(Status) == set(recap.MEANINGS)


def test_the_command_to_send_again_can_be_typed() -> None:
    """Quoted where the shell asks for it; a rehearsal's dead letters do not go to MoEngage."""
    assert "moe-bulk upload 'a b.run/dead-letter.ndjson'" == recap.again(summary(), Path("a b.run"))
    assert "moe-bulk upload a.sandbox.run/dead-letter.ndjson --sandbox" == recap.again(summary(), Path("a.sandbox.run"))


@pytest.mark.parametrize(
    ("settings", "folder", "expected"),
    [
        ({"sandbox": True}, "weekly.run", "--sandbox"),
        ({"sandbox": True, "options": ["--sandbox"]}, "weekly.run", "--sandbox"),
        ({"sandbox": False, "options": []}, "x.sandbox.run", ""),
        ({"sandbox": "yes"}, "weekly.run", ""),
        ({"sandbox": True, "options": ["--sandbox=true"]}, "weekly.run", "--sandbox=true"),
        ({}, "a.csv.sandbox.run-2026-11-25T17-05-30Z", "--sandbox"),
        ({"sandbox": False, "options": ["--config", "my x.toml"]}, "weekly.run", "--config 'my x.toml'"),
        ({"options": ["$(x)", "\x1b"]}, "weekly.run", "'$(x)' '\\x1b'"),
        ({"options": "no list"}, "weekly.run", ""),
    ],
)
def test_dead_letters_go_where_they_went(settings: dict[str, object], folder: str, expected: str) -> None:
    """To the sandbox after a rehearsal, whatever its folder is called, else with the options that the upload had."""
    said = summary(failures=1, invalid=1)
    said["settings"] = settings
    assert f"moe-bulk upload {folder}/dead-letter.ndjson {expected}".rstrip() == recap.again(said, Path(folder))


def test_where_rows_went_is_told_where_nobody_noted_the_options() -> None:
    """A program's run, or an older one, knows the workspace and the host."""
    said = summary(failures=1, invalid=1)
    said["settings"] = {"workspace_id": "W", "destination": "api-01.moengage.com"}
    told = "\n".join(recap.told(said, Path("x.run"), []))
    assert "They went to workspace W at api-01.moengage.com:" in told
    said["settings"]["options"] = []
    assert "They went to" not in "\n".join(recap.told(said, Path("x.run"), []))


def test_requests_over_time_in_one_line() -> None:
    """A full block is the limit; time without requests is blank."""
    bins = [Bin(float(at), 1.0, requests=count) for at, count in ((0, 100), (1, 50), (3, 1))]
    assert ("█▅ ▁", 100.0) == recap.sparkline(bins, 100.0)
    assert ("", 100.0) == recap.sparkline([], 100.0)
    long = [Bin(float(at), 1.0, requests=100) for at in range(1_000)]
    assert "█" * 60 == recap.sparkline(long, 100.0)[0]


def test_a_limit_far_beyond_is_no_scale() -> None:
    """Of what is far below it nothing would be seen."""
    bins = [Bin(float(at), 1.0, requests=count) for at, count in ((0, 100), (1, 50))]
    assert ("▁▁", 2000.0) == recap.sparkline(bins, 2000.0)
    assert ("█▅", 100.0) == recap.sparkline(bins, 2001.0)
    said = summary(accepted=150)
    said["rate"]["limit"], said["rate"]["per"] = 200_000, 60.0
    assert "a full block is 100.0 requests a second" in "\n".join(recap.told(said, Path("x.run"), bins))


def test_a_run_is_told_within_80_columns() -> None:
    """However long the reasons are, and nothing of any row among them; the command alone stays in one piece."""
    said = summary("somebody\x07 asked for 'a secret'", failures=12, accepted=1, invalid=12_000)
    told = recap.told(said, Path("x.run"), [], ["n" * 9])
    assert 80 >= max(map(len, told))
    text = "\n".join(told)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "secret" not in text
    assert "\\x1b[31m" in text
    for expected in ("and 2 more reasons: see summary.json", "Stopped", "Note", "give the command again"):
        assert expected in text


def test_a_busiest_window_says_since_when_it_was_looked_for() -> None:
    """Where that is not from the beginning on."""
    said = summary(accepted=1)
    assert None is recap.busiest(said)
    said["rate"]["busiest_window"] = {"count": 7, "at": 1_764_072_000.0}
    said["rate"]["counted_since"] = 1_764_072_000.0
    assert (
        "7 requests in 60 s, from 2025-11-25 12:00:00Z on; the limit is 10,000 (looked for since 2025-11-25 12:00:00Z)"
        == recap.busiest(said)
    )


def test_sessions_and_single_things_are_told_right() -> None:
    """One retry is no retries."""
    said = summary(accepted=1)
    said["sessions"], said["retries"], said["pauses"], said["requests"] = 2, 1, 1, 2
    assert "2 (1 retry, 1 pause)" == recap.requests(said)
    assert recap.duration(said).endswith("1 min 40 s, in 2 sessions")
