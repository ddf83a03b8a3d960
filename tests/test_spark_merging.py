"""One summary of what all tasks told."""

from __future__ import annotations

import pickle
from dataclasses import replace

from moe_bulk.spark.merging import Delivered, JobEnd, PartitionReport, merged
from moe_bulk.spark.sampling import Sampler


def delivered(accepted: int, invalid: int = 0, keys: tuple[str, ...] = ()) -> Delivered:
    """Tell of a partition with so many rows."""
    sampler = Sampler()
    for key in keys:
        sampler.add(key)
    return Delivered(
        folder="/a/part",
        attempt=1,
        exit_code=1 if invalid else 0,
        started_at=100.0 + accepted,
        ended_at=200.0 + accepted,
        counts={"read": accepted + invalid, "accepted": accepted, "invalid": invalid},
        requests=accepted,
        retries=1,
        pauses=2,
        failures=[{"cause": "no token", "status": "invalid", "count": invalid, "remedy": "add one"}] if invalid else [],
        customers=sampler.sample(),
        keys=sampler.sample(),
    )


def test_counts_add_up() -> None:
    """Over all partitions, those without rows included; a summary is as bad as the worst of them."""
    reports = [
        PartitionReport(2, "r", (delivered(5, 2),)),
        PartitionReport(0, "r", (delivered(10, 1),)),
        PartitionReport(1, "r"),
    ]
    found = merged("r", pickle.loads(pickle.dumps(reports)), "1.0")  # noqa: S301  as they travel
    assert {"read": 18, "accepted": 15, "invalid": 3} == {name: n for name, n in found["counts"].items() if n}
    assert (3, 15, 2, 4) == (found["partitions"], found["requests"], found["retries"], found["pauses"])
    assert (True, 1, 105.0, 210.0) == (found["finished"], found["exit_code"], found["started_at"], found["ended_at"])
    assert [{"cause": "no token", "status": "invalid", "count": 3, "remedy": "add one"}] == found["failures"]
    assert [(0, 10), (2, 5)] == [(part["partition"], part["counts"]["accepted"]) for part in found["parts"]]
    assert [] == found["warnings"]
    assert 2 == next(each.failures[0]["count"] for each in reports[0].delivered)  # nothing was added to what was told


def test_a_failed_job_says_that_it_knows_too_little() -> None:
    """Tasks that failed tell nothing; what they sent stands in their folders."""
    found = merged("r", [PartitionReport(0, "r", (delivered(10),))], "1.0", JobEnd(3, aborted=True))
    assert (False, 3, 4) == (found["finished"], found["exit_code"], found["partitions"])
    assert "3 of its tasks told nothing: all numbers here are too low" in found["warnings"][0]
    assert merged("r", [], "1.0", JobEnd(1, aborted=True))["started_at"] is None
    assert 0 == merged("r", [], "1.0")["counts"]["accepted"]


def test_rows_of_one_customer_in_several_partitions_are_warned_about() -> None:
    """And so are devices and tokens; not where each partition is another workspace's."""
    one, other = delivered(1, keys=("a", "b")), delivered(1, keys=("b", "c"))
    found = merged("r", [PartitionReport(0, "r", (one,)), PartitionReport(1, "r", (other,))], "1.0")
    assert [True, True] == [each.startswith("1 ") for each in found["warnings"]]
    assert 'add .repartition(n, "customer_id")' in found["warnings"][0]
    reports = [PartitionReport(0, "r", (one,)), PartitionReport(1, "r", (other,))]
    named = merged("r", reports, "1.0", JobEnd(together='"user.id"'))
    assert 'add .repartition(n, "user.id") before' in named["warnings"][0]
    apart = (replace(one, workspace="A"), replace(other, workspace="B"))
    assert [] == merged("r", [PartitionReport(0, "r", apart)], "1.0")["warnings"]


def test_what_partitions_say_is_told_once() -> None:
    """With how many of them said so."""
    said = replace(delivered(1), warnings=("field 'x' is not sent",), started_over=True)
    reports = [PartitionReport(number, "r", (said,), ("late",) if number else ()) for number in range(3)]
    warnings = merged("r", reports, "1.0")["warnings"]
    assert "3 partitions were sent again from their first row" in warnings[0]
    assert ["field 'x' is not sent (3 partitions)", "late (2 partitions)"] == sorted(warnings[1:])
