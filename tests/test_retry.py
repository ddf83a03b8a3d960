"""Settle, wait or stop; and what is an outage."""

from __future__ import annotations

import random
from itertools import pairwise
from types import SimpleNamespace

import pytest

from moe_bulk.config import Retry
from moe_bulk.errors import (
    AccountRefused,
    CredentialsRejected,
    DestinationWrong,
    RunStopped,
    ServiceUnavailable,
)
from moe_bulk.outcome import Outcome, Status, Verdict
from moe_bulk.retry import (
    DOOM_RECORDS,
    LONGEST_PROBE,
    OUTAGE_RECORDS,
    Decision,
    Outage,
    Policy,
    Settle,
    Stop,
    Trials,
    Wait,
)
from tests.builders import ACCEPTED, BROKEN, DOOMED, MISDIRECTED, REJECTED, SILENCE, UNAUTHORIZED, throttled


def policy(draw: float = 1.0, **settings: float) -> Policy:
    """Give a policy whose jitter is always this share of the longest wait."""
    return Policy(Retry(**settings), lambda: draw)  # type: ignore[arg-type]  # tries are whole numbers in the tests


def decide(of: Policy, record: object, outcome: Outcome, trials: Trials | None = None, now: float = 0.0) -> Decision:
    """Ask once."""
    return of.decide(record, outcome, trials or Trials(), now)


def declare(of: Policy, now: float = 0.0) -> None:
    """Let so many different records fail that an outage is declared."""
    for number in range(OUTAGE_RECORDS):
        decide(of, f"failed {number}", BROKEN, now=now)
    assert of.outage.declared


def failed_probe(of: Policy, record: object, trials: Trials) -> Decision:
    """Send a record as the probe at the earliest moment, and let it fail a second later."""
    at = of.outage.send_at(0.0)
    assert at is not None
    of.outage.sending(record)
    return decide(of, record, BROKEN, trials, at + 1)


# --- one record ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(ACCEPTED, Status.ACCEPTED), (REJECTED, Status.REJECTED), (DOOMED, Status.REJECTED)],
)
def test_settled_at_the_first_try(outcome: Outcome, status: Status) -> None:
    """An acceptance or a refusal is the last word, and counts as one try."""
    trials = Trials()
    assert Settle(status) == decide(policy(), "r", outcome, trials)
    assert (1, 0, 1) == (trials.tries, trials.free, trials.attempts)


@pytest.mark.parametrize("outcome", [BROKEN, SILENCE])
@pytest.mark.parametrize("tries", [1, 2, 8])
def test_trouble_is_tried_so_many_times(outcome: Outcome, tries: int) -> None:
    """A record gives up after as many tries as were allowed, not one more or less."""
    of, trials = policy(tries=tries), Trials()
    decisions = [decide(of, "r", outcome, trials) for _ in range(tries)]
    assert [True] * (tries - 1) == [isinstance(decision, Wait) for decision in decisions[:-1]]
    assert Settle(Status.EXHAUSTED) == decisions[-1]


def test_a_429_is_free_a_hundred_times() -> None:
    """A 429 uses up no try; after a hundred free ones the record gives up too."""
    of, trials = policy(tries=1), Trials()
    decisions = [decide(of, "r", throttled(2.0), trials) for _ in range(100)]
    assert {Wait(2.0)} == set(decisions[:99])
    assert Settle(Status.EXHAUSTED) == decisions[99]
    assert (0, 100) == (trials.tries, trials.free)


def test_waits_double_up_to_the_longest() -> None:
    """The longest possible wait doubles with each attempt, free ones included, up to a minute."""
    of, trials = policy(tries=99), Trials(free=1)
    waits = [decide(of, "r", BROKEN, trials) for _ in range(8)]
    assert [Wait(seconds) for seconds in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)] == waits


def test_waits_stay_finite_after_many_attempts() -> None:
    """No number of attempts makes the wait overflow."""
    assert Wait(60.0) == decide(policy(free_tries=10_000), "r", throttled(), Trials(free=5_000))


def test_jitter_is_full() -> None:
    """Waits are spread from nothing to the longest, so that records do not come back all together."""
    of = Policy(Retry(first_wait=8.0), random.Random(1).random)
    waits = [decision.seconds for _ in range(500) if isinstance(decision := decide(of, "r", throttled()), Wait)]
    assert 500 == len(waits)
    assert 0 <= min(waits) < 0.2
    assert 7.8 < max(waits) <= 8.0
    assert 3.6 < sum(waits) / 500 < 4.4


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (throttled(7.0), 7.0),
        (throttled(0.1), 0.1),
        (throttled(), 0.5),
        (throttled(reset_after=9.0), 0.5),
        (throttled(0.0), 0.5),
        (Outcome(Verdict.TROUBLE, 503, retry_after=7.0), 7.0),
        (Outcome(Verdict.TROUBLE, 503, retry_after=0.1), 0.5),
    ],
)
def test_what_the_service_asks_for(outcome: Outcome, expected: float) -> None:
    """A 429's `Retry-After` is obeyed to the letter, else the backoff holds; for trouble the longer of the two."""
    assert Wait(expected) == decide(policy(), "r", outcome)


# --- the run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "error", "words"),
    [
        (UNAUTHORIZED, CredentialsRejected, "(401 Authentication required)"),
        (Outcome(Verdict.UNAUTHORIZED, 401), CredentialsRejected, "(401 Unauthorized)"),
        (MISDIRECTED, DestinationWrong, "(404 Not Found)"),
        (Outcome(Verdict.MISDIRECTED, 302), DestinationWrong, "(302 Found)"),
    ],
)
def test_the_wrong_door_stops_at_once(outcome: Outcome, error: type[RunStopped], words: str) -> None:
    """A refused key or a wrong address stops the run at its first answer, costs the record nothing, and says why."""
    trials = Trials()
    decision = decide(policy(), "r", outcome, trials)
    assert isinstance(decision, Stop)
    assert error is type(decision.error)
    assert words in str(decision.error)
    assert 0 == trials.attempts


def test_doom_needs_three_different_records() -> None:
    """The first two are rejected, the third stops the run and is not settled."""
    of = policy()
    assert Settle(Status.REJECTED) == decide(of, "a", DOOMED)
    assert Settle(Status.REJECTED) == decide(of, "b", DOOMED)
    decision = decide(of, "c", DOOMED)
    assert isinstance(decision, Stop)
    assert AccountRefused is type(decision.error)
    assert "(403 Account Suspended)" in str(decision.error)
    assert "Account Suspended: suspended" == decision.error.service_said


def test_doom_without_words() -> None:
    """A bare status is told as one."""
    of = policy()
    bare = Outcome(Verdict.DOOMED, 409)
    decision = [decide(of, name, bare) for name in "abc"][-1]
    assert isinstance(decision, Stop)
    assert "(409 Conflict)" in str(decision.error)
    assert decision.error.service_said is None


@pytest.mark.parametrize("verdict", [Verdict.UNAUTHORIZED, Verdict.MISDIRECTED, Verdict.DOOMED])
@pytest.mark.parametrize("status", [401, 404, 499])
def test_what_the_service_says_is_no_part_of_the_message(verdict: Verdict, status: int) -> None:
    """It may repeat a row: it is there for who may see rows."""
    of = policy()
    said = Outcome(verdict, status, "no such thing", "user-0 is unknown")
    decision = [decide(of, name, said) for name in "abc"][-1]
    assert isinstance(decision, Stop)
    assert f"({status}" in str(decision.error)
    assert not {"such", "user-0"} & set(str(decision.error).split())
    assert "no such thing: user-0 is unknown" == decision.error.service_said


@pytest.mark.parametrize(
    ("between", "stops"),
    [(ACCEPTED, False), (REJECTED, True), (BROKEN, True), (throttled(), True)],
)
def test_only_an_acceptance_lifts_the_doom(between: Outcome, stops: bool) -> None:  # noqa: FBT001  a table's column
    """Doom answers count on across anything but an acceptance."""
    of = policy()
    decide(of, "a", DOOMED)
    decide(of, "b", DOOMED)
    decide(of, "other", between)
    assert stops == isinstance(decide(of, "c", DOOMED), Stop)


def test_acceptances_that_come_together_lift_the_doom() -> None:
    """As a single one does: nearly all acceptances come that way."""
    of, records = policy(), [SimpleNamespace(trials=None), SimpleNamespace(trials=Trials(1))]
    for number in range(2 * DOOM_RECORDS):
        assert Settle(Status.REJECTED) == decide(of, number, DOOMED)
        of.accepted([(record, None, ACCEPTED, 0.0) for record in records])
    assert [None, Trials(1 + 2 * DOOM_RECORDS)] == [record.trials for record in records]


def test_one_record_is_no_doom() -> None:
    """The same record refused three times over is one record."""
    of = policy()
    assert {Settle(Status.REJECTED)} == {decide(of, "a", DOOMED) for _ in range(5)}


# --- outages ---------------------------------------------------------------------------------------------------------


def test_twenty_different_records_make_an_outage() -> None:
    """It is declared with the twentieth different record that fails in a row; one that fails often is one."""
    outage = Outage(1800.0)
    for number in range(OUTAGE_RECORDS - 1):
        trials = Trials()
        for _ in range(3):
            outage.trouble(number, trials, 5.0)
    assert not outage.declared
    outage.trouble("last", Trials(), 7.0)
    assert 7.0 == outage.declared_at


def test_what_led_to_an_outage_is_given_back() -> None:
    """Whoever failed since the last sign of life has paid for nothing when the outage is declared; before, for all."""
    of, through = policy(tries=9), [Trials(tries=1) for _ in range(OUTAGE_RECORDS)]
    decide(of, 0, BROKEN, through[0])
    decide(of, "other", ACCEPTED)
    for number, trials in enumerate(through):
        for _ in range(1 + number % 3):
            decide(of, number, BROKEN, trials)
    assert of.outage.declared
    assert [2] + [1] * (OUTAGE_RECORDS - 1) == [trials.tries for trials in through]
    assert [1 + number % 3 for number in range(OUTAGE_RECORDS - 1)] == [trials.free for trials in through[:-1]]


def test_the_last_try_that_declares_an_outage_is_not_the_last() -> None:
    """The record whose failure tells that the service is gone is not given up for it."""
    of, trials = policy(tries=8), Trials(tries=7)
    for number in range(OUTAGE_RECORDS - 1):
        decide(of, number, BROKEN)
    assert Wait(0.0) == decide(of, "last", BROKEN, trials)
    assert (7, 1) == (trials.tries, trials.free)


def test_a_record_that_was_not_sent_is_not_to_blame() -> None:
    """Without a connection every try is a sign of an outage, whosever it is: 20 of three records' make one."""
    of, through = policy(), [Trials() for _ in range(3)]
    for number in range(OUTAGE_RECORDS):
        assert not of.outage.declared
        refused = Outcome(Verdict.TROUBLE, error="connection refused")
        decide(of, number % 3, refused, through[number % 3])
    assert of.outage.declared
    assert [(0, 7), (0, 7), (0, 6)] == [(trials.tries, trials.free) for trials in through]
    decide(of, "good", ACCEPTED)
    decide(of, 0, refused, through[0])
    assert 0 == through[0].outlived


def test_others_go_first_after_two_failures() -> None:
    """From the second failure in a row on it is worth finding out whether all fail, until a sign of life."""
    of = policy()
    suspected = []
    for trials in (Trials(outlived=3), Trials()):
        decide(of, "a", BROKEN, trials)
        suspected.append(of.outage.suspected)
    assert [False, True] == suspected
    decide(of, "other", ACCEPTED)
    assert not of.outage.suspected
    declare(of)
    assert of.outage.suspected


def test_429s_neither_make_an_outage_nor_lift_one() -> None:
    """Between failures they are no sign of life, and they are no failures themselves."""
    of = policy()
    for number in range(3 * OUTAGE_RECORDS):
        decide(of, number, throttled())
    assert not of.outage.declared
    for number in range(OUTAGE_RECORDS):
        decide(of, number, BROKEN)
        decide(of, f"throttled {number}", throttled())
    assert of.outage.declared


@pytest.mark.parametrize("sign", [ACCEPTED, REJECTED])
def test_a_sign_of_life_starts_the_count_again(sign: Outcome) -> None:
    """An acceptance, or a refusal for the record's own sake, shows that the service is there."""
    of = policy()
    for number in range(OUTAGE_RECORDS - 1):
        decide(of, number, BROKEN)
    decide(of, "other", sign)
    for number in range(OUTAGE_RECORDS - 1):
        decide(of, number, BROKEN)
    assert not of.outage.declared


def test_without_an_outage_everybody_sends() -> None:
    """Nobody waits for a probe while the service is there."""
    outage = Outage(1800.0)
    outage.sending("a")
    assert (3.0, False) == (outage.send_at(3.0), outage.over_limit(1e9))


def test_one_probe_at_a_time_at_growing_intervals() -> None:
    """The first probe goes a second after the declaration, the next ones after 2, 4 … 30 s; one at a time."""
    of = policy()
    declare(of, 100.0)
    now, intervals = 100.0, []
    for number in range(8):
        at = of.outage.send_at(now)
        assert at is not None
        intervals.append(at - now)
        of.outage.sending(number)
        assert of.outage.send_at(at) is None
        now = at + 0.25
        decide(of, number, SILENCE, now=now)
    assert [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PROBE, LONGEST_PROBE, LONGEST_PROBE] == intervals


def test_an_acceptance_ends_the_outage() -> None:
    """Full pace from the first acceptance on, and the next outage begins with a probe after a second again."""
    of = policy()
    declare(of)
    for number in range(4):
        failed_probe(of, number, Trials())
    decide(of, "other", ACCEPTED, now=40.0)
    assert (False, 40.0) == (of.outage.declared, of.outage.send_at(40.0))
    declare(of, 50.0)
    assert 51.0 == of.outage.send_at(50.0)


@pytest.mark.parametrize("told", [throttled(3.0), DOOMED])
def test_a_probe_that_tells_nothing_makes_room_for_the_next(told: Outcome) -> None:
    """A 429 or a firewall's refusal neither ends the outage nor blocks the probes; they come more seldom, as ever."""
    of = policy()
    declare(of)
    of.outage.sending("probe")
    decide(of, "probe", told, now=5.0)
    assert (True, 7.0) == (of.outage.declared, of.outage.send_at(5.0))
    of.outage.sending("another")
    decide(of, "another", told, now=7.0)
    assert 11.0 == of.outage.send_at(7.0)


@pytest.mark.parametrize("told", [throttled(), throttled(3.0), BROKEN])
def test_an_outage_ends_at_its_limit_whatever_the_probes_are_told(told: Outcome) -> None:
    """Also a service that answers 429 to each of them: it has accepted nothing for so long."""
    of = policy(outage_limit=600.0)
    declare(of)
    for number in range(100):  # pragma: no branch  it stops before
        at = of.outage.send_at(0.0)
        assert at is not None
        of.outage.sending(number)
        decision = decide(of, number, told, now=at)
        if isinstance(decision, Stop):
            break
    assert isinstance(decision, Stop)
    assert isinstance(decision.error, ServiceUnavailable)
    assert (600.0, True) == (at, number < 30)


def test_a_firewall_s_refusals_in_an_outage_end_as_what_they_are() -> None:
    """Three of them tell more than the end of the patience; a single one ends at that."""
    of = policy(outage_limit=60.0)
    declare(of)
    for number in range(2):
        assert Settle(Status.REJECTED) == decide(of, f"doomed {number}", DOOMED, now=1.0)
    decision = decide(of, "doomed 2", DOOMED, now=60.0)
    assert isinstance(decision, Stop)
    assert isinstance(decision.error, AccountRefused)
    decision = decide(of, "doomed 3", DOOMED, now=61.0)
    assert isinstance(decision, Stop)
    assert isinstance(decision.error, ServiceUnavailable)


def test_others_on_their_way_do_not_disturb_the_probe() -> None:
    """What was sent before the outage and fails now changes nothing about the probe that is on its way."""
    of = policy()
    declare(of)
    of.outage.sending("probe")
    decide(of, "late", BROKEN, now=5.0)
    decide(of, "late", throttled(), now=5.0)
    assert of.outage.send_at(5.0) is None


def test_tries_in_an_outage_are_free() -> None:
    """Those that fail while it is declared cost nothing, as probe or because they were on their way."""
    of, trials = policy(tries=1), Trials()
    declare(of)
    assert Wait(0.0) == decide(of, "late", BROKEN, trials)
    assert Wait(0.0) == failed_probe(of, "late", trials)
    assert (0, 2) == (trials.tries, trials.free)


def test_in_an_outage_the_probes_intervals_are_the_waiting() -> None:
    """A failed record may be a probe again as soon as its turn comes, unless the service asked for more."""
    of = policy()
    declare(of)
    of.outage.sending("a")
    assert Wait(0.0) == decide(of, "a", BROKEN)
    assert Wait(9.0) == decide(of, "b", Outcome(Verdict.TROUBLE, 503, retry_after=9.0))
    assert Wait(0.5) == decide(of, "c", throttled())


def test_a_hundred_free_tries_in_outages_are_enough() -> None:
    """After a hundred free tries a record gives up, outage or not."""
    of, trials = policy(outage_limit=1e6), Trials()
    declare(of)
    decisions = [failed_probe(of, "r", trials) for _ in range(100)]
    assert Settle(Status.EXHAUSTED) == decisions[-1]
    assert Wait(0.0) == decisions[-2]


def test_a_poison_record_pays_again() -> None:
    """Three failed probes are free; if others were accepted after each of them, the fourth one is paid for."""
    of, trials = policy(), Trials()
    for _ in range(5):
        declare(of)
        failed_probe(of, "poison", trials)
        decide(of, "good", ACCEPTED)
    assert (2, 3) == (trials.tries, trials.free)


def test_on_its_way_or_given_back_counts_like_a_failed_probe() -> None:
    """A record that is met by outage after outage, others having got through, pays however it was met."""
    of, led, away = policy(), Trials(), Trials()
    for _ in range(5):
        for number in range(OUTAGE_RECORDS - 1):
            decide(of, number, BROKEN)
        decide(of, "led to it", BROKEN, led)
        decide(of, "one more", BROKEN)
        decide(of, "on its way", BROKEN, away)
        decide(of, "good", ACCEPTED)
    assert [(2, 3), (2, 3)] == [(led.tries, led.free), (away.tries, away.free)]


def test_those_to_blame_make_no_outage() -> None:
    """Records that failed time after time while others got through say nothing about the service, however many."""
    of, poison = policy(tries=8), [Trials() for _ in range(3 * OUTAGE_RECORDS)]
    for _ in range(4):
        for number, trials in enumerate(poison):
            decide(of, number, BROKEN, trials)
            decide(of, "good", ACCEPTED)
    assert {(4, 0)} == {(trials.tries, trials.free) for trials in poison}
    decisions = [decide(of, n, BROKEN, trials) for _ in range(4) for n, trials in enumerate(poison)]
    assert [Settle(Status.EXHAUSTED)] * len(poison) == decisions[-len(poison) :]
    assert not of.outage.declared


def test_a_probe_to_blame_makes_room_for_the_next() -> None:
    """It pays, and the outage goes on with another probe, more seldom."""
    of, poison = policy(), Trials(outlived=3)
    declare(of)
    failed_probe(of, "poison", poison)
    assert (1, True, 4.0) == (poison.tries, of.outage.declared, of.outage.send_at(2.0))


def test_without_acceptances_probes_stay_free() -> None:
    """As long as nobody gets through it is not the record's fault."""
    of, trials = policy(), Trials()
    declare(of)
    for _ in range(6):
        failed_probe(of, "r", trials)
    assert (0, 6) == (trials.tries, trials.free)


def test_the_last_look_is_at_the_limit() -> None:
    """The last probe goes when the patience ends, not up to 30 s later; when it fails the run stops."""
    of = policy(outage_limit=60.0)
    declare(of, 1000.0)
    moments, decision = [], None
    for number in range(10):
        at = of.outage.send_at(0.0)
        assert at is not None
        moments.append(at)
        of.outage.sending(number)
        decision = decide(of, number, BROKEN, now=at + 0.5)
        if isinstance(decision, Stop):
            break
    assert [1.0, 3.5, 8.0, 16.5, 33.0, 60.0] == [moment - 1000.0 for moment in moments]
    assert all(early < late for early, late in pairwise(moments))
    assert isinstance(decision, Stop)
    assert ServiceUnavailable is type(decision.error)
    assert "nothing for 1 min (--outage-limit)" in str(decision.error)


@pytest.mark.parametrize(("limit", "said"), [(3.0, "3 s"), (90.0, "1 min 30 s"), (1800.0, "30 min"), (7200.0, "2 h")])
def test_the_patience_is_told_as_people_say_it(limit: float, said: str) -> None:
    """Three seconds are no 0.05 minutes."""
    of = policy(outage_limit=limit)
    declare(of)
    of.outage.sending("a")
    decision = decide(of, "a", BROKEN, now=limit)
    assert isinstance(decision, Stop)
    assert f"accepted nothing for {said} (--outage-limit)" in str(decision.error)


def test_an_acceptance_at_the_limit_saves_the_run() -> None:
    """The last probe decides: when it is accepted the run goes on."""
    of = policy(outage_limit=60.0)
    declare(of)
    of.outage.sending("a")
    assert Settle(Status.ACCEPTED) == decide(of, "a", ACCEPTED, now=90.0)
    assert not of.outage.over_limit(90.0)


def test_a_record_to_blame_gets_back_what_was_not_its_fault() -> None:
    """Of its tries before an outage those without a connection are given back, the others stay paid."""
    of, poison = policy(), Trials(outlived=3)
    decide(of, "poison", Outcome(Verdict.TROUBLE, error="connection refused"), poison)
    decide(of, "poison", BROKEN, poison)
    declare(of)
    assert (1, 1) == (poison.tries, poison.free)
