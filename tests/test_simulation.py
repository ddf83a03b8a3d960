"""The whole engine on a virtual clock against a model of the service: every promise, over hundreds of seeded worlds.

A failing seed is named, and replays alone:

    MOE_BULK_SEED=1234 python -m pytest tests/test_simulation.py

`MOE_BULK_SEEDS=20000` looks at more of them than usual.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from moe_bulk.errors import ServiceUnavailable
from moe_bulk.outcome import Status
from tests.promises import PROMISES, outages
from tests.simulation import play, world_of

SEEDS = int(os.environ.get("MOE_BULK_SEEDS", "300"))
"""About half a minute of one core; CI sets 500 (`.ci/run`)."""

CHUNK = 20
"""Seeds a test: a second, so that the limit of a test holds on a slow machine and with coverage, too."""

ONLY = os.environ.get("MOE_BULK_SEED")
FIRSTS = [int(ONLY)] if ONLY else list(range(0, SEEDS, CHUNK))


@pytest.mark.parametrize("first", FIRSTS)
def test_every_promise_holds_in_every_world(first: int) -> None:
    """Whatever fails, hangs, is throttled, goes down or is killed: all of `promises` hold."""
    for seed in range(first, first + 1 if ONLY else min(first + CHUNK, SEEDS)):
        try:
            story = play(world_of(seed))
            for holds in PROMISES:
                holds(story)
        except BaseException as error:
            error.add_note(f"seed {seed}: MOE_BULK_SEED={seed} python -m pytest tests/test_simulation.py")
            raise


def test_a_seed_is_one_story() -> None:
    """Played twice a world comes to the same, to the microsecond: a failing seed fails again."""
    first, second = (
        [(exchange.number, exchange.sent, exchange.over) for exchange in play(world_of(12)).server.exchanges]
        for _ in range(2)
    )
    assert first == second


def test_the_worlds_are_bad_enough() -> None:
    """What the promises are about does happen: outages, kills, stops, each status, tries without an end."""
    seen: Counter[str] = Counter()
    for seed in range(60):
        story = play(world_of(seed))
        seen.update(result.status.value for result in story.results)
        for session in story.sessions:
            seen["outages"] += len(outages(session))
            seen["over"] += sum(ended < float("inf") for _, ended in outages(session))
            seen["kills"] += session.killed
            seen["stops"] += isinstance(session.error, ServiceUnavailable)
            seen["applied unheard"] += len(session.applied) - sum(r.status is Status.ACCEPTED for r in session.results)
    assert {"accepted", "rejected", "exhausted"} <= set(seen)
    wanted = {"outages": 15, "over": 10, "kills": 15, "stops": 1, "applied unheard": 50}
    assert not {what: seen[what] for what, least in wanted.items() if seen[what] < least}
