"""What a run promises, whatever happens to it: each function holds a story of the simulation against one promise."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from moe_bulk.errors import ServiceUnavailable
from moe_bulk.outcome import Status, Verdict
from moe_bulk.pacing.guard import GRACE
from moe_bulk.retry import LONGEST_PROBE, OUTAGE_RECORDS, Settle
from tests.builders import TIMEOUT, Exchange, busiest, busiest_possible

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation import Disaster, Judged, Session, Story

SLACK = 0.05
"""Virtual seconds: each turn of the loop takes a microsecond."""


def one_result_a_row(story: Story) -> None:
    """Every row is settled exactly once over all sessions; what can never be delivered is told apart from the rest."""
    world = story.world
    assert list(range(len(world.rows))) == sorted(result.position.line for result in story.results)
    for result in story.results:
        if result.status is Status.REJECTED:
            assert result.position.line in world.forbidden | world.wrong
        elif result.status is Status.ACCEPTED:
            assert result.position.line not in world.undeliverable
        else:
            assert result.status is Status.EXHAUSTED


def counts_add_up(story: Story) -> None:
    """What results and trials tell of attempts is what was sent."""
    for session in story.sessions:
        sent = Counter(exchange.number for exchange in session.exchanges)
        last = {judged.number: judged for judged in session.judged}
        for result in session.results:
            judged = last[result.position.line]
            assert result.tries == judged.tries + judged.free == sent[result.position.line]


def no_more_tries_than_allowed(story: Story) -> None:
    """Eight of its own and a hundred free ones, and nobody is given up before."""
    retry = story.world.retry
    for session in story.sessions:
        for judged in session.judged:
            assert judged.tries <= retry.tries
            assert judged.free <= retry.free_tries
            if judged.decision == Settle(Status.EXHAUSTED):
                assert judged.tries == retry.tries or judged.free == retry.free_tries


def no_window_over_the_limit(story: Story) -> None:
    """Neither by sendings nor by what may have arrived until the answer, session by session."""
    rate = story.world.rate
    for session in story.sessions:
        spans = [(exchange.sent, _reach(exchange)) for exchange in session.exchanges]
        assert busiest([sent for sent, _ in spans], rate.per) <= rate.limit
        assert busiest_possible(spans, rate.per) <= rate.limit


def _reach(exchange: Exchange) -> float:
    if exchange.outcome is not None and exchange.outcome.http_status is not None:
        return exchange.over
    return exchange.over if exchange.outcome is None else max(exchange.sent + TIMEOUT, exchange.over) + GRACE


def never_more_in_flight(story: Story) -> None:
    """No more requests are on their way at a time than are allowed."""
    for session in story.sessions:
        moments = [(exchange.sent, 1) for exchange in session.exchanges]
        moments += [(exchange.over, -1) for exchange in session.exchanges]
        there = 0
        for _, step in sorted(moments):
            there += step
            assert there <= story.world.in_flight


def in_order(story: Story) -> None:
    """Per key, sending and application follow the file; of a row and a later one, never two at a time."""
    for session in story.sessions:
        applied, sent = defaultdict(list), defaultdict(list)
        for exchange, _ in session.applied:
            for key in keys_of(exchange):
                applied[key].append(exchange.number)
        for exchange in session.exchanges:
            for key in keys_of(exchange):
                sent[key].append(exchange)
        assert all(sorted(numbers) == numbers for numbers in applied.values())
        for exchanges in sent.values():
            for before, after in pairwise(exchanges):
                assert before.number <= after.number
                assert before.over <= after.sent


def the_last_word_is_the_last_row(story: Story) -> None:
    """Per key, what the service accepted last is the last row that was delivered, and nothing older overwrote it."""
    accepted = {result.position.line for result in story.results if result.status is Status.ACCEPTED}
    rows, last_accepted, last_applied = defaultdict(list), {}, {}
    for row in story.world.rows:
        for key in tuple(row.device.keys()):
            rows[key].append(row.position.line)
    for exchange, _ in story.server.applied:
        for key in keys_of(exchange):
            last_applied[key] = exchange.number
            if exchange.outcome is not None and exchange.outcome.verdict is Verdict.ACCEPTED:
                last_accepted[key] = exchange.number
    for key, numbers in rows.items():
        delivered = [number for number in numbers if number in accepted]
        if delivered:
            # A kill may forget that a row was accepted; if it is then given up, the service knows better than we do.
            assert last_accepted[key] >= delivered[-1]
            assert last_accepted[key] == delivered[-1] or story.world.kills
            # A later row can only stand there if it was applied and its answers were lost until it was given up.
            assert last_applied[key] >= last_accepted[key]


# --- outages ---------------------------------------------------------------------------------------------------------


def probes_only(story: Story) -> None:
    """While an outage is declared one request at a time is sent, each another record's, at growing intervals."""
    for session in story.sessions:
        for declared, ended in outages(session):
            probes = [exchange for exchange in session.exchanges if declared.now < exchange.sent < ended]
            last_look = declared.now + story.world.retry.outage_limit
            interval, before = 1.0, declared.now
            for probe in probes:
                assert probe.sent >= min(before + interval, last_look) - SLACK
                interval, before = min(LONGEST_PROBE, 2 * interval), probe.over
            for early, late in pairwise(probes):
                others = ready(session, early.sent, without=early.number)
                assert early.number != late.number or not others
            _in_time(story, session, declared, probes)


def _in_time(story: Story, session: Session, declared: Judged, probes: list[Exchange]) -> None:
    """Probes come as soon as they may where nothing else holds them up: no 429, no full window, no lack of records."""
    world = story.world
    if world.rate.limit < 1000 or any(judged.outcome.verdict is Verdict.THROTTLED for judged in session.judged):
        return
    interval, before = 1.0, declared.now
    for probe in probes:
        if ready(session, before + interval - 2 * TIMEOUT):
            assert probe.sent <= before + interval + SLACK
        interval, before = min(LONGEST_PROBE, 2 * interval), probe.over


def full_pace_after_it(story: Story) -> None:
    """Within two seconds of the first acceptance after an outage as much is sent as the pace allows in one."""
    rate = story.world.rate
    for session in story.sessions:
        if rate.limit < 1000 or any(judged.outcome.verdict is Verdict.THROTTLED for judged in session.judged):
            continue
        ends = [ended for _, ended in outages(session)]
        starts = [declared.now for declared, _ in outages(session)]
        for ended in ends:
            if ended + 2 >= min((start for start in (*starts, _last_moment(session)) if start >= ended), default=0):
                continue
            wanted = min(len(ready(session, ended)), int(rate.per_second), story.world.in_flight)
            assert wanted <= sum(ended <= exchange.sent <= ended + 2 for exchange in session.exchanges)


def nothing_is_lost_in_an_outage(story: Story) -> None:
    """No deliverable row is given up for a service that was away, where enough others could show that it was.

    The failures that may count are those that have nothing to do with it.
    """
    away = [story.server.ends[disaster] for disaster in story.server.ends if _seen_by_many(story, disaster)]
    for session in story.sessions:
        over = {(exchange.number, exchange.over): exchange for exchange in session.exchanges}
        for judged in session.judged:
            if judged.decision != Settle(Status.EXHAUSTED) or judged.free == story.world.retry.free_tries:
                continue
            if judged.number in story.world.poison or judged.to_blame:
                continue
            failures = [
                exchange
                for exchange in over.values()
                if exchange.number == judged.number
                and exchange.outcome is not None
                and exchange.outcome.verdict is Verdict.TROUBLE
                and not any(exchange.sent < end and start < exchange.over for start, end in away)
            ]
            assert len(failures) >= story.world.retry.tries


def _seen_by_many(story: Story, disaster: Disaster) -> bool:
    """Whether enough rows could be sent independently of each other when it began to tell that the service is away."""
    if disaster.kind == "slow":
        return False
    began, _ = story.server.ends[disaster]
    sessions = [session for session in story.sessions if session.exchanges and session.exchanges[0].sent <= began]
    away = {exchange.number for exchange in sessions[-1].exchanges if exchange.sent <= began < exchange.over}
    return len(heads(sessions[-1], began) - away - story.world.poison) >= OUTAGE_RECORDS


def an_outage_costs_no_tries(story: Story) -> None:
    """A record pays for its failures, but not for those of an outage nor for those that led to it.

    Unless it is itself to blame: three times it failed again though others had got through since.
    """
    for session in story.sessions:
        account = Account()
        for judged in session.judged:
            account.enter(judged)
            assert account.tries[judged.number] == judged.tries
            assert (account.outlived[judged.number] >= 3) == judged.to_blame


class Account:
    """Keeps the books of one session for itself, from outcomes and from when outages were declared."""

    def __init__(self) -> None:
        self.tries: Counter[int] = Counter()
        self.outlived: Counter[int] = Counter()
        self._since_life: list[int] = []
        """The rows that paid for a failure after the last sign of life."""
        self._failed: set[int] = set()
        """Those that failed, and others have not got through since."""
        self._outlivable: set[int] = set()

    def enter(self, judged: Judged) -> None:
        """Enter one decision."""
        row, verdict = judged.number, judged.outcome.verdict
        if verdict is Verdict.TROUBLE:
            self._trouble(judged)
        elif verdict is not Verdict.THROTTLED:
            self.tries[row] += 1
        if verdict in {Verdict.ACCEPTED, Verdict.REJECTED}:
            self._since_life.clear()
            self._outlivable |= self._failed
            self._failed.clear()

    def _trouble(self, judged: Judged) -> None:
        row, was_sent = judged.number, judged.outcome.error != "connection refused"
        if was_sent:
            self.outlived[row] += row in self._outlivable
            self._outlivable.discard(row)
            self._failed.add(row)
        to_blame = was_sent and self.outlived[row] >= 3
        if not judged.declared[0] or to_blame:
            self.tries[row] += 1
            if not to_blame:
                self._since_life.append(row)
        if judged.declared == (False, True):
            self.tries.subtract(self._since_life)
            self._since_life.clear()


def patience_ends_resumable(story: Story) -> None:
    """A run that stops because nothing was accepted for so long has given nothing up meanwhile."""
    for session in story.sessions:
        if not isinstance(session.error, ServiceUnavailable):
            continue
        declared = outages(session)[-1][0].now
        given_up = {j.number for j in session.judged if j.now > declared and j.decision == Settle(Status.EXHAUSTED)}
        blamed = {judged.number for judged in session.judged if judged.to_blame}
        assert given_up <= blamed
        assert session.judged[-1].now >= declared + story.world.retry.outage_limit


# --- what they look at -----------------------------------------------------------------------------------------------


def keys_of(exchange: Exchange) -> tuple[tuple[str, ...], ...]:
    """The lanes of a request's row."""
    return exchange.record.device.keys()


def outages(session: Session) -> list[tuple[Judged, float]]:
    """The decision that declared each outage, and when it ended."""
    found: list[tuple[Judged, float]] = []
    for judged in session.judged:
        if judged.declared == (False, True):
            found.append((judged, float("inf")))
        elif judged.declared == (True, False):
            found[-1] = (found[-1][0], judged.now)
    return found


def heads(session: Session, at: float) -> set[int]:
    """The rows that were unsettled at a moment and had none before them that shares a key."""
    settled = {judged.number for judged in session.judged if judged.now <= at and isinstance(judged.decision, Settle)}
    taken: set[tuple[str, ...]] = set()
    found = set()
    for row in session.rows:
        if row.position.line in settled:
            continue
        keys = set(row.device.keys())
        if not keys & taken:
            found.add(row.position.line)
        taken |= keys
    return found


def ready(session: Session, at: float, without: int | None = None) -> set[int]:
    """Those of them that were neither on their way nor waiting for their next try."""
    away = {exchange.number for exchange in session.exchanges if exchange.sent <= at < exchange.over}
    due = {judged.number: judged.due for judged in session.judged if judged.now <= at}
    return {n for n in heads(session, at) - away - {without} if due.get(n, 0.0) <= at}


def _last_moment(session: Session) -> float:
    return max((exchange.over for exchange in session.exchanges), default=0.0)


PROMISES: tuple[Callable[[Story], None], ...] = (
    one_result_a_row,
    counts_add_up,
    no_more_tries_than_allowed,
    no_window_over_the_limit,
    never_more_in_flight,
    in_order,
    the_last_word_is_the_last_row,
    probes_only,
    full_pace_after_it,
    nothing_is_lost_in_an_outage,
    an_outage_costs_no_tries,
    patience_ends_resumable,
)
