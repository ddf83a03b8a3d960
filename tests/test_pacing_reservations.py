"""The script at the server: it does what the model does, and no window ever holds more than the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_bulk.config import Rate
from moe_bulk.pacing.remote import CREDIT
from moe_bulk.pacing.reservations import (
    SCHEDULED,
    STALE,
    Call,
    Garbled,
    Granted,
    OtherWindow,
    Report,
    Run,
    Terms,
    horizon,
    key_of,
    script,
    understood,
)
from tests.effort import examples
from tests.redis_server import running_redis
from tests.reservations_model import Model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

redis = pytest.importorskip("redis")

START = 1_790_000_000_000_000
"""Microseconds of a server's clock."""

CLOCK = "local clock = redis.call('TIME')"
SERVER = "local server = server_id()"


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Give a client of a server that runs."""
    with running_redis() as server, redis.Redis(port=server.port, protocol=2) as found:
        yield found


@pytest.fixture(scope="module")
def at_a_moment(client: Any) -> Callable[[list[str | int], int, str], list[str]]:
    """Give a function that carries the script out as if the server's clock and its id were these."""
    text = script()
    assert (1, 1) == (text.count(CLOCK), text.count(SERVER))
    text = text.replace(CLOCK, "local clock = {ARGV[#ARGV - 1], 0}")
    text = text.replace("tonumber(clock[1]) * 1000000", "tonumber(clock[1])").replace(
        SERVER, "local server = ARGV[#ARGV]"
    )
    text = text.replace("while at < #ARGV do", "while at < #ARGV - 2 do")
    found = client.register_script(text)

    def call(words: list[str | int], now: int, server: str) -> list[str]:
        return [each.decode() for each in found(keys=["k"], args=[*words, now, server])]

    return call


CALLS = st.fixed_dictionaries(
    {
        "member": st.integers(0, 3),
        "after": st.sampled_from([300_000] * 12 + [8_000_000] * 4 + [200_000_000, -1_500_000]).flatmap(
            lambda most: st.integers(min(0, most), max(0, most))
        ),
        "want": st.one_of(st.integers(0, 40), st.just(-1)),
        "unused": st.integers(0, 3),
        "answered": st.integers(0, 30),
        "again": st.sampled_from([""] * 30 + ["clock"]),
        "server": st.sampled_from(["a"] * 30 + ["b"]),
        "forgets": st.sampled_from([False] * 10 + [True]),
        "lost": st.sampled_from([False] * 5 + [True]),
    }
)


class Caller:
    """A process as the script sees it: it remembers what it was told, and what it has to tell."""

    def __init__(self, number: int, rate: Rate, share: int) -> None:
        self.terms = Terms(f"m{number}", rate, 0.7 * number + 0.1, share, 20.0 if share else 0.0)
        self.known, self.turn, self.number = "", 0, 0
        self.open: list[int] = []
        self.reports: list[Report] = []

    def call(self, said: dict[str, Any], now: int, width: int) -> Call:
        """Put a question: some of the slots that it has were answered just now."""
        if said["forgets"]:
            self.known, self.turn = "", 0
        bins: dict[int, int] = {}
        for _ in range(min(said["answered"], len(self.open))):
            counted = self.open.pop(0)
            for number, by in ((counted, -1), (-(-now // width), 1)):
                bins[number] = bins.get(number, 0) + by
        if not said["lost"]:
            self.reports.clear()
        self.number += 1
        self.reports.append(Report(self.number, bins, said["unused"]))
        quiet = None if said["answered"] % 2 else said["answered"] / 10
        return Call(self.known, self.turn, said["want"], tuple(self.reports), quiet, said["again"])


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limits=st.lists(st.sampled_from([1, 7, 40, 1000]), min_size=4, max_size=4),
    per=st.sampled_from([0.05, 1.0, 6.0, 60.0]),
    other=st.sampled_from([None, None, None, 2.0]),
    shares=st.lists(st.sampled_from([0, 0, 2, 3]), min_size=4, max_size=4),
    calls=st.lists(CALLS, min_size=1, max_size=80),
)
def test_it_does_what_the_model_does(
    client: Any,
    at_a_moment: Callable[[list[str | int], int, str], list[str]],
    limits: list[int],
    per: float,
    other: float | None,
    shares: list[int],
    calls: list[dict[str, Any]],
) -> None:
    """Word for word, over processes that come and go, lost answers, restarts, and clocks that are set."""
    client.delete("k")
    model, now = Model(), START
    rates = [Rate(limit, other if number == 3 and other else per) for number, limit in enumerate(limits)]
    callers = [Caller(number, rate, share) for number, (rate, share) in enumerate(zip(rates, shares, strict=True))]
    for said in calls:
        now += said["after"]
        caller = callers[said["member"]]
        words = caller.call(said, now, max(1000, -(-int(caller.terms.rate.per * 1e6) // 512))).words(caller.terms)
        model.server = said["server"]
        expected, found = model.call(list(words), now), at_a_moment(words, now, said["server"])
        assert expected == found
        if isinstance(reply := understood(found), Granted):
            caller.known, caller.turn = reply.generation, reply.turn
            caller.open += [run.bin for run in reply.runs for _ in range(run.count)]
            stored = {int(key): int(count) for key, count in client.hgetall("k").items() if key.isdigit()}
            assert model.hash is not None
            assert {number: count for number, count in model.hash.bins.items() if count} == stored
            assert sum(stored.values()) == int(client.hget("k", "held"))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        5,
        b"ok",
        [],
        [b"no"],
        [b"ok"] * 11,
        ["ok", *["1"] * 11],
        ["ok", "1", "g", "1", "", "0", *["1"] * 5],
        ["ok", "1", "g", "1", "", "1", *["1"] * 5, "9", "8", "1", "1"],
        ["ok", "1", "g", "1", "", "1", *["1"] * 5, "8", "9", "0", "1"],
        ["per"],
        ["per", "1", "g", "1", "", "x", "1"],
        [5, 6],
        [b"\xff" * 20],
    ],
)
def test_answers_that_make_no_sense(answer: object) -> None:
    """Whatever a server says that is none of ours is told as such, without what it said."""
    with pytest.raises(Garbled, match="it answers nonsense"):
        understood(answer)


def test_answers_are_understood() -> None:
    """Times in seconds, slots in runs; text or bytes."""
    words = ["ok", "1500000", "g", "7", "empty", "100000", "50", "2", "9000000", "2000000", "36000000"]
    found = understood([*(word.encode() for word in words), "3000000", "4000000", "5", "40"])
    assert Granted(1.5, "g", 7, "empty", 0.1, 50, 2, 9.0, 2.0, 36.0, (Run(3.0, 4.0, 5, 40),)) == found
    assert OtherWindow(60.0, 100) == understood(["per", "1", "g", "1", "", "60000000", "100"])


def test_the_keys_name_does_not_tell_the_workspace() -> None:
    """It is the same for the same destination and workspace, and another one for any other."""
    key = key_of("api-01.moengage.com:443", "WORKSPACE")
    assert key == key_of("api-01.moengage.com:443", "WORKSPACE")
    assert key.startswith("moe-bulk:pace:")
    assert "WORKSPACE" not in key
    assert 3 == len(
        {key, key_of("api-02.moengage.com:443", "WORKSPACE"), key_of("api-01.moengage.com:443", "WORKSPACE2")}
    )


def test_python_and_the_script_agree() -> None:
    """What both know stands in both: horizon, share of the limit, credit, and after which silence one is not heard."""
    text = script()
    for line in (
        "SCHEDULED = 0.98",
        "STALE = 10000000",
        f"CREDIT = {CREDIT * 1e6:.0f} ",
        "math.max(math.floor(per / 12), 1000000)",
    ):
        assert line in text
    assert (0.98, 10.0, 5.0, 1.0) == (SCHEDULED, STALE, horizon(60.0), horizon(6.0))
