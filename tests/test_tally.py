"""The numbers of a run: right at any size, in memory that does not grow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.device import problems
from moe_bulk.outcome import Result, Status
from moe_bulk.record import Position, Row
from moe_bulk.tally import Busiest, Latency, Summary, Tally, cause_of, lines, remedy_for

if TYPE_CHECKING:
    from collections.abc import Sequence

AGAIN = "run `moe-bulk upload dead-letter.ndjson`"
CORRECT = f"correct {{}} in dead-letter.ndjson, then {AGAIN}"


def result(
    status: Status = Status.REJECTED,
    reason: str | None = None,
    line: int = 2,
    *,
    http_status: int | None = None,
    error_type: str | None = None,
    source: str = "devices.csv",
    readable: bool = True,
) -> Result:
    """Give the last word on a row."""
    place = Position(source, line, line * 10)
    row = Row(place, {"customer_id": "u-1"}) if readable else Row(place, None, "unreadable", b"\xff", 1)
    return Result(place, status, row, http_status=http_status, error_type=error_type, reason=reason)


def summary_of(tally: Tally, pauses: int = 0) -> Summary:
    """Give the summary of a run of ten seconds."""
    return tally.summary(started_at=1.0, ended_at=11.0, exit_code=1, pauses=pauses, version="0.1.0")


def test_summary_of_an_empty_run() -> None:
    """A run that read nothing has a complete summary without invented numbers."""
    expected = {
        "format": 1,
        "version": "0.1.0",
        "exit_code": 1,
        "started_at": 1.0,
        "ended_at": 11.0,
        "counts": {"read": 0, **{status.value: 0 for status in Status}, "unsettled": 0},
        "requests": 0,
        "retries": 0,
        "pauses": 0,
        "latency_ms": {"p50": None, "p95": None, "p99": None},
        "rate": {"limit": 100, "per": 60.0, "busiest_window": {"count": 0, "at": None}, "used_share": None},
        "failures": [],
    }

    assert expected == summary_of(Tally(100, 60.0))


def test_summary_of_a_run() -> None:
    """Requests, retries, pauses, latency and the busiest window stand in the summary, in epoch seconds."""
    tally = Tally(60, 60.0, epoch=1_000.0)
    for at in (5.0, 6.0, 9.0):
        tally.sent(at)
        tally.answered(100.0, ok=True)
    tally.retried()
    tally.answered(30_000.0, ok=False)

    said = summary_of(tally, pauses=4)

    assert (said["requests"], said["retries"], said["pauses"]) == (3, 1, 4)
    assert said["rate"]["busiest_window"] == {"count": 3, "at": 1_005.0}
    assert said["rate"]["used_share"] == 0.5
    assert said["latency_ms"]["p99"] == pytest.approx(100.0, rel=0.01)
    assert tally.unanswered == 1


def test_settings_and_the_reason_to_stop_stand_in_the_summary_when_given() -> None:
    """What the caller wants to remember of its settings travels along."""
    said = Tally(1, 1.0).summary(
        started_at=0.0, ended_at=0.0, exit_code=0, pauses=0, version="1", settings={"host": "api-01"}, stopped="--limit"
    )

    assert said["settings"] == {"host": "api-01"}
    assert said["stopped"] == "--limit"


@given(st.lists(st.sampled_from(list(Status))), st.integers(0, 50))
def test_every_row_that_was_read_is_counted_once(statuses: list[Status], waiting: int) -> None:
    """Read = the sum of all statuses + unsettled, always."""
    tally = Tally(1, 1.0)
    tally.read(waiting)
    for status in statuses:
        tally.read()
        tally.settled(result(status))

    counts = dict(tally.counts)

    assert len(statuses) + waiting == counts.pop("read")
    assert len(statuses) + waiting == sum(counts.values())
    assert waiting == counts["unsettled"]
    assert {status.value: statuses.count(status) for status in Status} == {s.value: counts[s.value] for s in Status}
    assert sum(result(status).failed for status in statuses) == tally.failed_rows
    assert len(statuses) == tally.settled_rows


def busiest_by_hand(times: Sequence[float], per: float) -> int:
    """Count every window that begins with a request."""
    return max((sum(start <= at and at - start < per for at in times) for start in times), default=0)


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 40))
def test_busiest_window_is_the_one_that_counting_by_hand_finds(whole: list[int], per: int) -> None:
    """No window, wherever it starts, holds more than the one that is reported; and that one holds as many."""
    times = sorted(at / 4 for at in whole)
    busiest = Busiest(per / 4)
    for at in times:
        busiest.add(at)

    assert busiest_by_hand(times, per / 4) == busiest.count
    start = busiest.at
    counted = 0 if start is None else sum(start <= at < start + per / 4 for at in times)
    assert counted == busiest.count


def test_busiest_window_forgets_what_is_older_than_a_window() -> None:
    """The memory holds one window's requests, not the run's."""
    busiest = Busiest(1.0)
    for n in range(10_000):
        busiest.add(n * 0.1)

    assert len(busiest._recent) <= 11


@pytest.mark.parametrize(
    ("times", "share"),
    [
        ([], None),
        ([5.0], None),
        ([5.0, 5.0], 1.0),
        ([0.0, 0.25, 0.5], 1.0),
        ([0.0, 1.0, 2.0], 0.5),
        ([0.0, 0.1, 0.2], 1.0),
        ([0.0, 10.0], 0.05),
    ],
)
def test_used_share(times: list[float], share: float | None) -> None:
    """Two a second for as long as requests went out is all of a limit of 120 a minute; more is never said."""
    tally = Tally(120, 60.0)
    for at in times:
        tally.sent(at)

    assert share == tally.used_share if share is None else pytest.approx(share) == tally.used_share


def test_latency_without_answers_is_none() -> None:
    """Nothing is made up where nothing was measured."""
    assert Latency().percentile(0.5) is None


@given(st.lists(st.floats(0.001, 1e7), min_size=1), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_latency_is_right_to_one_percent(values: list[float], share: float) -> None:
    """Each percentile is within 1 % of the one that sorting all values gives."""
    latency = Latency()
    for value in values:
        latency.add(value)

    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]

    assert latency.percentile(share) == pytest.approx(exact, rel=0.01)


def test_latency_memory_is_bounded() -> None:
    """From a microsecond to three hours there are some hundred buckets to a power of ten, and no more."""
    latency = Latency()
    for n in range(20_000):
        latency.add(0.001 * 1.00115**n)

    assert len(latency._buckets) < 1_300


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (result(Status.INVALID, "customer_id 'na' is forbidden; push_id is empty"), "customer_id … is forbidden"),
        (result(Status.INVALID, "customer_id 'a; b' is forbidden; x"), "customer_id … is forbidden"),
        (result(Status.INVALID, """push_id "it's" is bad"""), "push_id … is bad"),
        (result(Status.INVALID, r"push_id 'it\'s' is bad"), "push_id … is bad"),
        (result(Status.INVALID, "the device's push_id is bad"), "the device's push_id is bad"),
        (result(Status.INVALID, "push_id 'a long one that was cu…"), "push_id …"),
        (result(Status.INVALID, f"model 'a {'x' * 77}… is long; idfv 'y' is odd"), "model … is long"),
        (result(Status.INVALID, f"""model "a 'b' {"x" * 73}… is long; idfv "(y" is odd"""), "model … is long"),
        (result(Status.INVALID, "model 'a… b' is odd; idfv 'y' is odd"), "model … is odd"),
        (result(Status.INVALID, """model "a… b" is odd; idfv 'y' is odd"""), "model … is odd"),
        (result(Status.INVALID, "model b'some bytes' is no text"), "model … is no text"),
        (result(Status.INVALID, "body of 130,000 bytes, 128,000 allowed"), "body of … bytes, … allowed"),
        (result(Status.INVALID, "5 columns, 7 wanted"), "… columns, … wanted"),
        (result(Status.INVALID), "no reason given"),
        (result(Status.EXHAUSTED, "connection refused"), "connection refused"),
        (result(Status.EXHAUSTED, "worker bob is sad", http_status=503), "HTTP 503"),
        (result(reason="no user bob", http_status=400, error_type="ValueError"), "HTTP 400 ValueError"),
        (result(reason="push_id missing", http_status=400, error_type="Missing"), "HTTP 400 Missing push_id"),
        (result(reason="'push_id' missing", error_type="Missing"), "Missing push_id"),
        (result(reason="value 'push_id' of model", http_status=400), "HTTP 400 model"),
        (result(error_type="Bad id u-77 here", http_status=400), "HTTP 400 Bad id … here"),
    ],
)
def test_cause(given_: Result, expected: str) -> None:
    """The cause is what rows with the same trouble have in common, and none of their values."""
    assert expected == cause_of(given_)


def test_a_cause_is_found_quickly_in_an_unfriendly_reason() -> None:
    """A reason full of quotes and backslashes costs no more than others."""
    for piece in ("'a ", "'\\", "a" * 10, '"', "' \""):
        assert cause_of(result(Status.INVALID, piece * 100_000))


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (result(Status.EXHAUSTED, http_status=429), f"others used up the workspace's limit: {AGAIN} later"),
        (result(Status.EXHAUSTED, http_status=503), f"this is passing trouble: {AGAIN} when it is over"),
        (result(Status.EXHAUSTED, "timeout"), f"this is passing trouble: {AGAIN} when it is over"),
        (
            result(reason="too big", http_status=413, error_type="PayloadTooLarge"),
            f"MoEngage finds these records too large: {CORRECT.format('what the reason names')}",
        ),
        (
            result(reason="'push_id' is required", http_status=400, error_type="MissingAttributeError"),
            f"fill in push_id in dead-letter.ndjson, then {AGAIN}",
        ),
        (
            result(reason="platform: wrong", http_status=400, error_type="ValueError"),
            CORRECT.format("platform"),
        ),
        (
            result(Status.INVALID, "customer_id 'na' is forbidden; push_id is missing"),
            CORRECT.format("customer_id"),
        ),
        (result(Status.INVALID, "push_id is missing; model"), "fill in push_id, or leave these rows out"),
        (
            result(Status.INVALID, "unclosed quote", readable=False),
            "repair these lines in the source and upload them again",
        ),
    ],
)
def test_remedy(given_: Result, expected: str) -> None:
    """Each cause comes with a plain next step that names the field."""
    assert expected == remedy_for(given_)


@pytest.mark.parametrize(
    ("http_status", "error_type"),
    [(403, "BlockedClient"), (409, None), (415, None), (400, "Invalid Params"), (400, "Blacklisted")],
)
def test_remedy_for_what_is_not_in_the_record(http_status: int, error_type: str | None) -> None:
    """Where the record is not at fault, nobody is sent to correct it."""
    said = remedy_for(result(http_status=http_status, error_type=error_type))

    assert "ask their support" in said


@given(st.sampled_from(Status), st.none() | st.integers(100, 599), st.none() | st.text(), st.none() | st.text())
def test_every_failure_has_a_cause_and_a_remedy(
    status: Status, http_status: int | None, error_type: str | None, reason: str | None
) -> None:
    """Whatever the service or a row says, the tally takes it."""
    tally = Tally(1, 1.0)
    given_ = result(status, reason, http_status=http_status, error_type=error_type)

    tally.settled(given_)

    assert [1] * given_.failed == [each["count"] for each in summary_of(tally)["failures"]]
    assert all(each["remedy"] for each in summary_of(tally)["failures"])


def test_many_failures_are_few_causes() -> None:
    """Forty-eight thousand rows with three troubles are three lines, the most frequent first."""
    tally = Tally(1, 1.0)
    for n in range(4_000):
        tally.settled(result(Status.INVALID, f"push_id 'tok{n}' is a placeholder", n))
        tally.settled(result(Status.EXHAUSTED, f"no answer {n}", n, http_status=503))
        if n % 2:
            tally.settled(result(reason=f"u{n} unknown", line=n, http_status=400, error_type="ValueError"))

    failures = summary_of(tally)["failures"]

    assert [each["cause"] for each in failures] == ["push_id … is a placeholder", "HTTP 503", "HTTP 400 ValueError"]
    assert [each["count"] for each in failures] == [4_000, 4_000, 2_000]
    assert [each["status"] for each in failures] == ["invalid", "exhausted", "rejected"]


def test_example_is_the_earliest_line_of_its_source() -> None:
    """Results come as they settle; the example is the first line of the file all the same."""
    tally = Tally(1, 1.0)
    for place, source in ((9, "a.csv"), (4, "a.csv"), (7, "a.csv"), (2, "b.csv")):
        tally.settled(result(Status.INVALID, f"push_id 'tok{place}' is bad", place, source=source))

    (failure,) = summary_of(tally)["failures"]

    assert (failure["count"], failure["first_line"], failure["example"]) == (4, 4, "push_id 'tok4' is bad")


def test_example_is_cut() -> None:
    """A reason of a megabyte does not make a summary of one."""
    tally = Tally(1, 1.0)
    tally.settled(result(Status.INVALID, "x" * 1_000_000))

    assert summary_of(tally)["failures"][0]["example"] == "x" * 500 + "…"


def test_after_a_hundred_causes_the_rest_is_other() -> None:
    """An API that answers something else each time does not fill the memory."""
    tally = Tally(1, 1.0)
    for n in range(1_000):
        word = "".join("abcdefghij"[int(digit)] for digit in str(n))
        tally.settled(result(http_status=400, error_type=word))
    tally.settled(result(http_status=400, error_type="a"))

    failures = summary_of(tally)["failures"]

    assert len(failures) == 101
    assert tuple(failures[0][key] for key in ("cause", "count", "remedy")) == (
        "other",
        900,
        "see the reasons in dead-letter.ndjson",
    )
    assert sum(each["count"] for each in failures) == 1_001


def test_a_summary_does_not_change_afterwards() -> None:
    """What was summed up stays as it was while the run goes on."""
    tally = Tally(1, 1.0)
    tally.settled(result(Status.INVALID, "a"))
    said = summary_of(tally)

    tally.settled(result(Status.INVALID, "a"))

    assert said["failures"][0]["count"] == 1


def test_lines_for_people() -> None:
    """The terminal shows counts, pace, latency and causes with their remedy."""
    tally = Tally(60, 60.0, epoch=1_000_000.0)
    tally.read(1_234)
    tally.settled(result(Status.ACCEPTED))
    tally.settled(result(Status.INVALID, "push_id 'SECRET' is empty", 7))
    tally.sent(0.0)
    tally.sent(2.0)
    tally.answered(100.0, ok=True)
    tally.retried()

    expected = [
        "Read 1,234 rows: 1 accepted, 1 invalid, 1,232 unsettled",
        "Sent 2 requests (1 retries, 3 pauses)",
        "At most 2 in any 60 s (from 1970-01-12 13:46:40Z), the limit is 60; 50.0% of the limit was used",
        "Answers took 100 ms (p50), 100 ms (p95), 100 ms (p99)",
        "  1 invalid: push_id … is empty (first: line 7). Fill in push_id, or leave these rows out",
    ]
    assert expected == lines(summary_of(tally, pauses=3))


def test_lines_of_short_runs() -> None:
    """An empty run, and one with a single request, have no share and no latency to tell."""
    tally = Tally(60, 60.0)
    empty = lines(summary_of(tally))
    tally.sent(0.0)

    assert empty == ["Read 0 rows: nothing to do", "Sent 0 requests (0 retries, 0 pauses)"]
    assert lines(summary_of(tally))[2] == "At most 1 in any 60 s (from 1970-01-01 00:00:00Z), the limit is 60"


def test_lines_show_ten_causes() -> None:
    """A terminal is no report: the rest is in the summary."""
    tally = Tally(60, 60.0)
    for letter in "abcdefghijkl":
        tally.settled(result(Status.INVALID, letter))

    told = lines(summary_of(tally))

    assert (len(told), told[-1]) == (13, "  and 2 more causes: see summary.json")


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_value_of_a_row_is_in_its_cause(value: str, other: str) -> None:
    """What the terminal shows of a failure holds nothing of the row, however the value is written."""
    reasons = problems({"customer_id": "u-1", "device_id": "d-1", "platform": f"symbian§§{value}", "push_id": other})

    cause = cause_of(result(Status.INVALID, "; ".join(reasons)))

    assert cause.startswith("platform … is")
    assert "§" not in cause
    assert cause == cause_of(result(Status.INVALID, reasons[0]))
