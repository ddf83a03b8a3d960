"""Runs that send only what changed, on a virtual clock: what is left out, what is sent all the same, and what stops."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from moe_bulk.config import Network, Rate, Retry
from moe_bulk.engine import ROOM
from moe_bulk.errors import JournalError, RunRefused, StateRefused
from moe_bulk.known import DAY, ChangedOnly, Known
from moe_bulk.outcome import ATTEMPTS_KEPT
from tests.fake_service import accept, answer, device, devices
from tests.runs import EPOCH, Cut, Ended, Way, deliver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import httpx

TWICE = Retry(tries=2, first_wait=0.5, longest_wait=0.5)


class Runs:
    """Run after run with one state file, each in a folder of its own, and what MoEngage has then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.changed_only = ChangedOnly(folder / "a.known")
        self.there: dict[tuple[str, str], dict[str, Any]] = {}
        self.sent = 0

    def __call__(
        self,
        rows: Sequence[dict[str, object]],
        decide: Callable[[dict[str, Any]], httpx.Response] = accept,
        **more: Any,
    ) -> Ended:
        """Make a run; later ones begin later."""
        self.count += 1

        def apply(said: dict[str, Any]) -> httpx.Response:
            answered = decide(said)
            if answered.status_code == 200:
                self.apply(said)
            return answered

        settings = {"changed_only": self.changed_only, "clock": (1000.0 * self.count, EPOCH), "retry": TWICE, **more}
        ended = deliver(rows, settings.pop("out", self.folder / f"{self.count}.run"), apply, **settings)
        self.sent = len(ended.service.seen)
        return ended

    def apply(self, said: dict[str, Any]) -> None:
        """Be MoEngage, which deletes who has the same token."""
        token = said["attributes"]["push_id"]
        gone = [who for who, there in self.there.items() if there["push_id"] == token]
        for who in gone:
            del self.there[who]
        self.there[said["customer_id"], said["device_id"]] = said["attributes"]

    def check(self, rows: Sequence[dict[str, object]], ended: Ended) -> None:
        """What was left out is what MoEngage has."""
        for result in ended.written.results:
            if result["status"] == "unchanged":
                row = dict(rows[result["line"] - 1])
                who = str(row.pop("customer_id")), str(row.pop("device_id"))
                assert row == self.there[who]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """Give runs with a new state file."""
    return Runs(tmp_path)


def statuses(ended: Ended) -> list[str]:
    """Give the statuses in the order of the input."""
    return [each["status"] for each in sorted(ended.written.results, key=lambda each: each["line"])]


def test_only_what_changed_is_sent(runs: Runs) -> None:
    """More rows than are looked at together; those left out count as done."""
    rows = devices(1300)
    assert {"accepted": 1300} == Counter(statuses(runs(rows)))
    rows[7] = device(7, model="Pixel 9")
    rows[1200] = device(1200, push_id="another")
    ended = runs(rows)
    assert {"accepted": 2, "unchanged": 1298} == Counter(statuses(ended))
    assert ["accepted", "accepted"] == [statuses(ended)[7], statuses(ended)[1200]]
    assert (2, 0) == (runs.sent, ended.written.summary["exit_code"])
    runs.check(rows, ended)


def test_it_is_decided_when_the_rows_before_are_settled(runs: Runs) -> None:
    """A device that stands several times in one file ends as its last row says."""
    runs([device(1)])
    rows = [device(1), device(1, model="x"), device(1, model="x"), device(1), device(1)]
    assert ["unchanged", "accepted", "unchanged", "accepted", "unchanged"] == statuses(runs(rows))
    assert ["unchanged"] == statuses(runs([device(1)]))


def test_who_takes_over_a_token_has_the_other_sent_again(runs: Runs) -> None:
    """MoEngage deleted it."""
    runs(devices(2))
    ended = runs([device(0, push_id="token-1"), device(1)])
    assert ["accepted", "accepted"] == statuses(ended)
    assert ["accepted", "unchanged"] == statuses(runs([device(0), device(1)]))


@pytest.mark.parametrize(("status", "error", "expected"), [(400, "ValueError", "rejected"), (503, "Oops", "exhausted")])
def test_what_was_not_accepted_is_sent_again(runs: Runs, status: int, error: str, expected: str) -> None:
    """Nobody knows what MoEngage has then."""
    runs(devices(1))
    assert [expected] == statuses(runs([device(0, model="x")], lambda _: answer(status, error)))
    assert ["accepted"] == statuses(runs(devices(1)))


@pytest.mark.parametrize("throttled", [1, ATTEMPTS_KEPT])
def test_what_may_still_be_applied_may_undo_what_came_after_it(runs: Runs, throttled: int) -> None:
    """A request without a final answer, however long ago among the row's attempts: not all of them are remembered."""
    answers = iter([answer(503, "Oops"), *[answer(429, "Rate limit")] * throttled])
    old = [device(0, model="old")]
    assert ["accepted"] == statuses(runs(old, lambda said: next(answers, None) or accept(said), retry=Retry()))
    assert ["accepted"] == statuses(runs(devices(1)))
    assert ["accepted"] == statuses(runs(devices(1)))


def test_what_was_accepted_long_ago_is_sent_again(runs: Runs) -> None:
    """It may be gone there."""
    runs(devices(3))
    assert ["unchanged"] * 3 == statuses(runs(devices(3), clock=(29 * DAY, EPOCH)))
    assert ["accepted"] * 3 == statuses(runs(devices(3), clock=(31 * DAY, EPOCH)))


def test_what_need_not_be_sent_waits_for_nobody(runs: Runs) -> None:
    """The pace holds up what is to be sent, and only that: more than may be held fills no room that others need."""
    rows = devices(2 * ROOM)
    runs(rows)
    changed = [device(number, model="x") for number in range(2)]
    ended = runs([*changed, *rows[2:]], rate=Rate(1, per=3600))
    order = [each["status"] for each in ended.written.results]
    assert {"accepted": 2, "unchanged": 2 * ROOM - 2} == Counter(order)
    assert "accepted" == order[-1]


def test_what_has_to_wait_for_long_is_looked_at_again(runs: Runs) -> None:
    """Others respect for some hours only that something is about to be sent."""
    rows = devices(9)
    assert ["accepted"] * 9 == statuses(runs(rows, rate=Rate(1, per=3600)))
    assert ["unchanged"] * 9 == statuses(runs(rows, clock=(DAY, EPOCH)))


@pytest.mark.parametrize("way", ["cancel", "signal", "401", "crash"])
def test_a_stopped_run_goes_on(runs: Runs, way: Way, tmp_path: Path) -> None:
    """Whatever ended it, what is left out then is what MoEngage has, and the next run sends nothing."""
    rng = random.Random(way)
    before = devices(60)
    runs(before)
    rows = [device(number, model="x") if rng.random() < 0.5 else one for number, one in enumerate(before)]
    rows += [device(number, push_id=f"token-{rng.randrange(60)}") for number in range(100, 110)]
    out, few = tmp_path / "stopped.run", Network(in_flight=4)
    assert runs(rows, out=out, cut=Cut(way, 9), network=few).error is not None
    ended = runs(rows, out=out, network=few)
    assert ended.written.checkpoint.finished
    assert {"accepted", "unchanged"} == set(statuses(ended))
    again = runs(rows)
    runs.check(rows, again)


def test_it_is_a_setting_that_matters(runs: Runs, tmp_path: Path) -> None:
    """A run that began with it does not go on without it."""
    out = tmp_path / "one.run"
    runs(devices(9), out=out, cut=Cut("signal", 3), network=Network(in_flight=2))
    ended = runs(devices(9), out=out, changed_only=None)
    assert isinstance(ended.error, RunRefused)
    assert "begun with --changed-only, now no --changed-only" in str(ended.error)


def test_a_file_that_is_not_ours_sends_nothing(runs: Runs, tmp_path: Path) -> None:
    """And begins no run."""
    (tmp_path / "a.known").write_bytes(b"something else that somebody needs" * 100)
    (tmp_path / "a.known").chmod(0o600)
    out = tmp_path / "one.run"
    ended = runs(devices(3), out=out)
    assert isinstance(ended.error, StateRefused)
    assert (0, False) == (runs.sent, out.exists())


def test_a_full_disk_stops_the_run(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written down is not sent; with room there again the run goes on."""
    decide = Known.decide
    asked: list[int] = []

    def fill(known: Known, portion: Any, now: float) -> Any:
        if asked:
            known._db.execute("PRAGMA max_page_count = 1")
        asked.append(len(portion))
        return decide(known, portion, now)

    rows = devices(2 * ROOM)
    out = tmp_path / "full.run"
    with monkeypatch.context() as patched:
        patched.setattr(Known, "decide", fill)
        ended = runs(rows, out=out, network=Network(in_flight=8))
    assert isinstance(ended.error, JournalError)
    assert 3 == ended.error.exit_code
    assert "Make room on that disk" in str(ended.error)
    assert runs.sent <= sum(asked[:-1])
    ended = runs(rows, out=out)
    assert ended.written.checkpoint.finished
    assert set(statuses(ended)) <= {"accepted", "unchanged"}
    runs.check(rows, ended)
