"""What partitions have in common, told by small samples of their keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.spark.sampling import InCommon, Sample, Sampler, in_common


def sample_of(keys: list[str], kept: int = 64) -> Sample:
    """Take them all in."""
    sampler = Sampler(kept)
    for key in keys:
        sampler.add(key)
    return sampler.sample()


@given(st.lists(st.lists(st.text(max_size=3), max_size=60), max_size=5))
def test_few_keys_are_compared_exactly(partitions: list[list[str]]) -> None:
    """As often as they come, in whatever order."""
    expected = sum(sum(key in each for each in partitions) > 1 for key in {key for each in partitions for key in each})
    assert InCommon(expected) == in_common([sample_of(each) for each in partitions])


@given(st.lists(st.integers(0, 400), max_size=800))
def test_a_sample_is_the_same_in_any_order_and_bounded(numbers: list[int]) -> None:
    """It holds the smallest hashes, so that what one partition keeps another one keeps, too."""
    keys = [str(number) for number in numbers]
    sample = sample_of(keys)
    assert sample == sample_of(sorted(keys))
    assert len(sample.hashes) == min(64, len(set(keys)))
    assert sample.whole == (len(set(keys)) <= 64)


def test_many_keys_are_estimated() -> None:
    """Of 20,000 keys in each of two partitions 5,000 are the same; the sample says about so many."""
    one = sample_of([f"u{number}" for number in range(20_000)], 1_000)
    other = sample_of([f"u{number}" for number in range(15_000, 35_000)], 1_000)
    found = in_common([one, other])
    assert 4_000 < found.keys < 6_000
    assert not found.exact
    assert str(found).startswith("about ")


def test_partitions_that_share_nothing_never_seem_to() -> None:
    """A warning is never a false alarm: only equal hashes of 64 bits count."""
    samples = [sample_of([f"{part}-{number}" for number in range(5_000)], 100) for part in range(8)]
    assert InCommon(0, exact=False) == in_common(samples)
    assert InCommon() == in_common([Sample(), sample_of(["a"])])
