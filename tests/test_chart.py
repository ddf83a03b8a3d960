"""Plots: what is in the numbers is in the picture, in well-formed SVG with a text for those who cannot see it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.chart import Piece, Plot, Shade, distribution, keys, over_time
from tests.test_page import Reader

BEGIN = 1_764_072_000.0


def pieces(*values: tuple[float | None, ...], seconds: float = 10.0) -> list[Piece]:
    """Stretch them over time, one behind the other."""
    return [Piece(BEGIN + at * seconds, BEGIN + (at + 1) * seconds, each) for at, each in enumerate(values)]


def coordinates(svg: str) -> list[float]:
    """Give all numbers of all paths."""
    return [float(each) for path in re.findall(r' d="([^"]*)"', svg) for each in re.findall(r"-?[0-9.]+", path)]


def test_bars_stand_on_each_other() -> None:
    """One path a series; the second begins where the first one ends, and nothing is drawn of nothing."""
    said = over_time(Plot("label", "unit", pieces((100.0, 50.0), (0.0, 0.0)), bars=True))
    broad = said.split("</svg>")[0]
    (first,) = re.findall(r'class="f0" d="([^"]*)"', broad)
    (second,) = re.findall(r'class="f1" d="([^"]*)"', broad)
    assert ("M46 174V72.7H449V174z", "M46 72.7V22H449V72.7z") == (first, second)


def test_lines_are_interrupted_where_nothing_is_known() -> None:
    """A step for each stretch; the next one is joined, the one behind a hole begins anew."""
    said = over_time(Plot("label", "unit", pieces((1.0,), (2.0,), (None,), (1.0,))))
    (path, *_) = re.findall(r'class="l0" d="([^"]*)"', said)
    assert (2, 1) == (path.count("M"), path.count("V"))


def test_the_limit_changes_when_it_changed() -> None:
    """It goes all across, in steps; the plot is high enough for it."""
    said = over_time(Plot("l", "u", pieces((1.0,), (1.0,)), bars=True, limit=[(BEGIN, 100.0), (BEGIN + 10, 200.0)]))
    (path, *_) = re.findall(r'class="limit" d="([^"]*)"', said)
    assert "M46 98H449L449 22H852" == path
    assert "the limit" in said


def test_waiting_is_shaded() -> None:
    """At the time when it was."""
    said = over_time(Plot("l", "u", pieces((1.0,), (1.0,)), shades=[Shade(BEGIN, BEGIN + 10, "outage")]))
    assert '<rect class="outage" x="46" y="22" width="403" height="152">' in said


def test_each_plot_is_there_for_pages_and_for_telephones() -> None:
    """Both tell in words what they show, and a gap says how long it was."""
    gap = [Piece(BEGIN, BEGIN + 10, (1.0,)), Piece(BEGIN + 9_000, BEGIN + 9_010, (1.0,))]
    said = over_time(Plot("1 < 2", "u", gap))
    assert 2 == said.count('role="img" aria-label="1 &lt; 2"') == said.count("<title>1 &lt; 2</title>")
    assert 2 == said.count("nothing for 2 h 30 min")
    assert ["0 0 860 210", "0 0 350 210"] == re.findall(r'viewBox="([^"]*)"', said)


def test_whole_numbers_have_whole_ticks() -> None:
    """There is no half a request."""
    said = over_time(Plot("l", "u", pieces((1.0,)), bars=True, whole=True))
    assert ">1</text>" in said
    assert ">0.5</text>" not in said


def test_a_distribution_has_its_marks() -> None:
    """Shares of all, on a logarithmic axis, with the percentiles by name."""
    said = distribution([(10.0, 20.0, 1), (20.0, 40.0, 3)], [("p50", 30.0), ("p99", 39.0)], "label")
    assert ["20 ms", "30 ms"] == re.findall(r">(2?3?0 ms)<", said.split("</svg>")[0])
    assert 2 == said.count(">p99</text>")
    assert "of the answers" in said


def test_the_colors_are_explained() -> None:
    """The swatch is for the eye, the name for all."""
    assert '<p class="keys"><span><span class="key k0" aria-hidden="true"></span>a &amp; b</span></p>' == keys(
        [("0", "a & b")]
    )


@given(
    values=st.lists(st.tuples(st.none() | st.floats(0, 1e9), st.floats(0, 1e9)), max_size=30),
    bars=st.booleans(),
    seconds=st.sampled_from([0.25, 64.0, 1e6]),
)
def test_whatever_the_numbers_the_picture_is_within_its_frame(
    *,
    values: list[tuple[float | None, float]],
    bars: bool,
    seconds: float,
) -> None:
    """Well-formed, finite, and not outside."""
    said = over_time(Plot("l", "u", pieces(*values, seconds=seconds), bars=bars, limit=[(BEGIN, 5.0)]))
    assert Reader(said).balanced
    assert "nan" not in said
    assert "inf" not in said
    assert all(-20 <= each <= 900 for each in coordinates(said))


@given(st.lists(st.tuples(st.floats(0.001, 1e6), st.integers(1, 10**9)), min_size=1, max_size=20))
def test_whatever_the_latencies_they_are_within_the_frame(said: list[tuple[float, int]]) -> None:
    """From a microsecond to a quarter of an hour, one value or many."""
    counts = [(low, low * 1.1, count) for low, count in sorted(dict(said).items())]
    svg = distribution(counts, [("p50", counts[0][0]), ("p95", counts[-1][1]), ("p99", counts[-1][1])], "l")
    assert Reader(svg).balanced
    assert all(-20 <= each <= 900 for each in coordinates(svg))
