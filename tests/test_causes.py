"""Why rows failed: few causes, each with a next step, and no value of any row in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.causes import Causes, cause_of, first_place, remedy_for, shown
from moe_bulk.deadletter import clean
from moe_bulk.device import problems
from moe_bulk.outcome import FAILED, Result, Status
from moe_bulk.record import Position, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moe_bulk.causes import Failures

AGAIN = "send dead-letter.ndjson again"
THERE = "in dead-letter.ndjson, then send that file again"
CORRECT = f"correct {{}} {THERE}"


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


def causes_of(results: Iterable[Result]) -> Causes:
    """Count failed rows."""
    causes = Causes()
    for each in results:
        causes.add(each)
    return causes


def told(*results: Result) -> list[Failures]:
    """Give the causes of failed rows."""
    return causes_of(results).told()


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
        (result(Status.INVALID, f"model 'a{'x' * 77}\\… is long; idfv 'y' is odd"), "model … is long"),
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
            f"fill in push_id {THERE}",
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


@given(st.sampled_from(sorted(FAILED)), st.none() | st.integers(100, 599), st.none() | st.text(), st.none() | st.text())
def test_every_failure_has_a_cause_and_a_remedy(
    status: Status, http_status: int | None, error_type: str | None, reason: str | None
) -> None:
    """Whatever the service or a row says, it is counted, and there is something to do about it."""
    (failure,) = told(result(status, reason, http_status=http_status, error_type=error_type))

    assert (status.value, 1, True) == (failure["status"], failure["count"], bool(failure["remedy"]))


def test_many_failures_are_few_causes() -> None:
    """Ten thousand rows with three troubles are three causes, the most frequent first."""
    causes = Causes()
    for n in range(4_000):
        causes.add(result(Status.INVALID, f"push_id 'tok{n}' is a placeholder", n))
        causes.add(result(Status.EXHAUSTED, f"no answer {n}", n, http_status=503))
        if n % 2:
            causes.add(result(reason=f"u{n} unknown", line=n, http_status=400, error_type="ValueError"))

    assert [
        ("push_id … is a placeholder", 4_000, "invalid"),
        ("HTTP 503", 4_000, "exhausted"),
        ("HTTP 400 ValueError", 2_000, "rejected"),
    ] == [(each["cause"], each["count"], each["status"]) for each in causes.told()]
    assert 10_000 == causes.rows


def test_example_is_the_earliest_line_of_its_source() -> None:
    """Results come as they settle; the example is the first line of the file all the same."""
    places = ((9, "a.csv"), (4, "a.csv"), (7, "a.csv"), (2, "b.csv"))

    (failure,) = told(
        *(result(Status.INVALID, f"push_id 'tok{line}' is bad", line, source=source) for line, source in places)
    )

    assert (4, 4, "push_id 'tok4' is bad") == (failure["count"], failure["first_line"], failure["example"])


def test_example_is_cut() -> None:
    """A reason of a megabyte does not make a summary of one."""
    assert "x" * 500 + "…" == told(result(Status.INVALID, "x" * 1_000_000))[0]["example"]


def word(n: int) -> str:
    """Give a word without digits."""
    return "".join("abcdefghij"[int(digit)] for digit in str(n))


def test_after_a_hundred_causes_the_rest_is_other() -> None:
    """An API that answers something else each time does not fill the memory."""
    failures = told(*(result(http_status=400, error_type=word(n)) for n in (*range(1_000), 0)))

    assert 101 == len(failures)
    assert ("other", 900, "see the reasons in dead-letter.ndjson") == tuple(
        failures[0][key] for key in ("cause", "count", "remedy")
    )
    assert 1_001 == sum(each["count"] for each in failures)


def test_what_was_told_does_not_change_afterwards() -> None:
    """A list of causes stays as it was while the run goes on."""
    causes = causes_of([result(Status.INVALID, "a")])
    first, state = causes.told(), causes.state()

    causes.add(result(Status.INVALID, "a"))

    assert (1, 1) == (first[0]["count"], state[0]["count"])


def test_lines_for_people() -> None:
    """A cause is two lines: how many, what, the first of them; and what to do."""
    failures = told(result(Status.INVALID, "push_id 'SECRET' is empty", 7))

    assert [
        "  1 invalid: push_id … is empty (first: line 7)",
        "    Fill in push_id, or leave these rows out",
    ] == shown(failures)


@pytest.mark.parametrize("status", sorted(FAILED))
@pytest.mark.parametrize("code", [429, 413, 400, None])
def test_no_remedy_is_a_command_that_works_nowhere(status: Status, code: int | None) -> None:
    """The file lies in the run folder, and where it goes takes options: the command stands where both are known."""
    assert "moe-bulk" not in remedy_for(result(status, "x", http_status=code))


def test_where_the_first_one_stands() -> None:
    """With its source where there are several, as far as it is known; a hostile name shows as it is."""
    (failure,) = told(result(Status.INVALID, "a", 1_234, source="b\x1b.csv"))
    assert "b\x1b.csv" == failure["first_source"]
    assert "line 1,234" == first_place(failure, several=False)
    assert "b\\x1b.csv, line 1,234" == first_place(failure, several=True)
    assert "  1 invalid: a (first: b\\x1b.csv, line 1,234)" == shown([failure], several=True)[0]
    failure["cause"] = failure["remedy"] = "\x1b[31m"
    assert "\x1b" not in "".join(shown([failure], several=True))
    del failure["first_source"]
    assert "line 1,234" == first_place(failure, several=True)


def test_lines_show_ten_causes() -> None:
    """A terminal is no report: the rest is in the summary."""
    lines = shown(told(*(result(Status.INVALID, letter) for letter in "abcdefghijkl")))

    assert (21, "  and 2 more causes: see summary.json") == (len(lines), lines[-1])


FAILURES = st.builds(
    result,
    st.sampled_from(sorted(FAILED)),
    st.none() | st.sampled_from(["push_id 'x' is bad", "push_id is empty", "a\udc80"]) | st.text(max_size=20),
    st.integers(1, 50),
    http_status=st.none() | st.sampled_from([400, 413, 503]),
    error_type=st.none() | st.sampled_from(["Missing", "ValueError"]),
    source=st.sampled_from(["a.csv", "b\udce4.csv"]),
    readable=st.booleans(),
)


@given(st.lists(FAILURES, max_size=30), st.integers(0, 30))
def test_counting_goes_on_from_a_state(results: list[Result], cut: int) -> None:
    """Causes that were cut off and restored at any point are told as if nothing had happened."""
    state = orjson.loads(orjson.dumps(causes_of(results[:cut]).state()))

    restored = Causes.restored(state)
    for each in results[cut:]:
        restored.add(each)

    assert causes_of(results).told() == restored.told()
    assert len(results) == restored.rows


@pytest.mark.parametrize("cut", [0, 50, 100, 101, 150, 299])
def test_other_causes_go_on_from_a_state(cut: int) -> None:
    """Also when the hundred causes are full, of every status."""
    results = [result(status, http_status=400, error_type=word(n)) for n in range(100) for status in sorted(FAILED)]

    restored = Causes.restored(causes_of(results[:cut]).state())
    for each in results[cut:]:
        restored.add(each)

    assert causes_of(results).told() == restored.told()
    assert 103 == len(restored.told())


@given(FAILURES)
def test_a_row_read_back_from_its_line_counts_as_when_it_settled(failed: Result) -> None:
    """A cause is the same whether the result is at hand or only its line, and whether its row could be read."""
    place = failed.position._replace(source=clean(failed.position.source))
    reason = None if failed.reason is None else clean(failed.reason)
    line = failed._replace(position=place, reason=reason).line()

    assert told(failed) == told(Result.from_line(line, unreadable=failed.row.fields is None))


def test_a_state_is_bounded() -> None:
    """However long and however many the reasons are, a state is of some hundred kilobytes at most."""
    reasons = ("€" * 2_000 + word(n) for n in range(200))

    causes = causes_of(result(status, reason[n:]) for n, reason in enumerate(reasons) for status in FAILED)

    assert len(orjson.dumps(causes.state())) < 1_000_000


SOUND: dict[str, Any] = causes_of([result(Status.INVALID, "model is bad")]).state()[0]


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        "causes",
        [None],
        [[]],
        [{}],
        [SOUND, SOUND],
        [{**SOUND, "cause": f"{n}"} for n in range(104)],
        *([{name: value for name, value in SOUND.items() if name != left_out}] for left_out in SOUND),
        *([{**SOUND, name: None}] for name in SOUND),
        *([{**SOUND, "count": count}] for count in (0, -1, True, 1.0, "1", 2**63)),
        *([{**SOUND, "first_line": line}] for line in (-1, False, 2.0, "2", 2**63)),
        *([{**SOUND, "status": status}] for status in ("accepted", "failed", "", 1)),
    ],
)
def test_nonsense_is_no_state(state: object) -> None:
    """What is damaged is refused, and not counted on."""
    with pytest.raises(ValueError, match="cause"):
        Causes.restored(state)


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_value_of_a_row_is_in_its_cause(value: str, other: str) -> None:
    """What the terminal shows of a failure holds nothing of the row, however the value is written."""
    reasons = problems({"customer_id": "u-1", "device_id": "d-1", "platform": f"symbian§§{value}", "push_id": other})

    cause = cause_of(result(Status.INVALID, "; ".join(reasons)))

    assert cause.startswith("platform … is")
    assert "§" not in cause
    assert cause == cause_of(result(Status.INVALID, reasons[0]))
