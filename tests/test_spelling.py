"""What somebody who misspelt a name is told."""

from __future__ import annotations

from moe_bulk.spelling import did_you_mean


def test_the_closest_name_is_suggested() -> None:
    """Whatever its case, and nothing where none is close."""
    known = ["--rate", "--out"]
    assert (" Did you mean --rate?", " Did you mean --rate?", "") == tuple(
        did_you_mean(name, known) for name in ("--rte", "--RATE", "--zzz")
    )
