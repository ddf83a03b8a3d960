"""`report.html`: one run on one page, plotted; under 200 KB however long the run was and whatever its data holds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from moe_bulk import chart, recap
from moe_bulk.amounts import counted, lasting
from moe_bulk.axis import clock_time, moment
from moe_bulk.causes import first_place
from moe_bulk.chart import Piece, Plot, Shade
from moe_bulk.outcome import FAILED, FORMAT, Status
from moe_bulk.page import Markup, command, element, escaped, facts, joined, page, paragraph, section, table, visible
from moe_bulk.tally import several
from moe_bulk.usage import used

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from moe_bulk.causes import Failures
    from moe_bulk.latency import Latency
    from moe_bulk.tally import Summary
    from moe_bulk.timeline import Bin, Timeline

_CAUSES_SHOWN = 15
_SETTINGS_SHOWN = 20
_TEXT_SHOWN = 160
"""Characters of a text from data that are shown: the files beside the page have all of it."""
_COMMAND_SHOWN = 8_000
"""Bytes of HTML that the command to type may take: it cannot be cut."""
_TOLD = 24
"""Rows of the table that tells a plot in numbers."""

_STYLE = (
    chart.STYLE
    + """
.lead { font-size: 1.1rem; }
.sum td { font-weight: 600; border-bottom: 0; }
.shares { display: flex; height: .7rem; margin: .75rem 0; border-radius: 4px; overflow: hidden; gap: 1px; }
.shares span { min-width: 3px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.s-accepted { background: var(--good); } .s-rejected, .s-exhausted { background: var(--bad); }
.s-invalid { background: var(--warn); } .s-other { background: var(--quiet); }
.cause { margin: 1rem 0; padding: .1rem 0 .1rem .9rem; border-left: 3px solid var(--bad); break-inside: avoid; }
.cause.invalid { border-color: var(--warn); }
.time { white-space: nowrap; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--quiet); font-size: .92rem; }
footer { margin-top: 3rem; color: var(--quiet); font-size: .88rem; }
"""
)


@dataclass(frozen=True, slots=True)
class Told:
    """What there is to tell of a run: its numbers, what it did when, how long answers took, and where it is."""

    summary: Summary
    timeline: Timeline
    latency: Latency
    folder: Path


def document(told: Told) -> str:
    """The page."""
    summary = told.summary
    parts = [
        *_head(summary),
        _counts(summary),
        _failures(summary["failures"], several=several(summary)),
        _next(told),
        _over_time(told),
        _latency(told),
        _requests(summary),
        _settings(summary),
        _foot(told),
    ]
    return page(_title(told), [part for part in parts if part], style=_STYLE)


def _title(told: Told) -> str:
    name = told.folder.name.removesuffix(".run")
    if recap.rehearsed(told.summary, told.folder):
        return f"Rehearsal of {_short(name.removesuffix('.sandbox'))}"
    return f"Upload of {_short(name)}"


def _short(text: str, most: int = _TEXT_SHOWN) -> str:
    """At most so many characters, and twice as many bytes of HTML: a quote takes six."""
    text = visible(text[: most + 1])  # what is spelt out counts in full
    if len(text) <= most and _bytes(text) <= 2 * most:
        return text
    sizes = accumulate(map(_bytes, text[: most - 1]), initial=_bytes("…"))
    return text[: sum(size <= 2 * most for size in sizes) - 1] + "…"


def _bytes(text: str) -> int:
    return len(escaped(text).encode())


def _head(summary: Summary) -> list[Markup]:
    counts = summary["counts"]
    mostly = 2 * sum(counts[status] for status in FAILED) > counts["read"]
    mood = "bad" if mostly else "warn" if "stopped" in summary or summary["failures"] else "good"
    said = [paragraph(element("strong", recap.headline(summary), class_=mood), class_="lead")]
    if "stopped" in summary:
        said.append(paragraph(f"Why it stopped: {_short(summary['stopped'], 1_000)}"))
    if "service_said" in summary:
        said.append(paragraph(f"What MoEngage said: {_short(summary['service_said'], 1_000)}"))
    return [*said, paragraph(recap.duration(summary), class_="quiet")]


def _counts(summary: Summary) -> Markup:
    counts = recap.by_status(summary)
    read = summary["counts"]["read"]
    share = [(name, f"{count:,}", f"{count / read:.1%}" if read else "", meaning) for name, count, meaning in counts]
    *body, total = share
    made = table(["Status", "Rows", "Share", "Meaning"], body, numeric=[1, 2], words=[0, 3])
    last = table_row(total)
    made = Markup(made.replace("</tbody>", f"{last}</tbody>"))
    return section("Rows", [_bar(summary), made, paragraph(recap.equation(summary), class_="quiet")])


def table_row(cells: Sequence[str]) -> Markup:
    """The sum under a table of numbers."""
    name, count, share, meaning = cells
    numbers = (element("td", each, class_="number") for each in (count, share))
    words = [element("td", each, class_="word") for each in (name, meaning)]
    return element("tr", words[0], *numbers, words[1], class_="sum")


def _bar(summary: Summary) -> Markup:
    """What became of the rows, as one bar; the table below it says the same."""
    counts = summary["counts"]
    colors = {Status.ACCEPTED, Status.REJECTED, Status.INVALID, Status.EXHAUSTED}
    parts = (
        element("span", class_=f"s-{name if name in colors else 'other'}", style=f"flex:{count}", title=name)
        for name, count in counts.items()
        if name != "read" and count
    )
    return element("div", *parts, class_="shares", aria_hidden="true") if counts["read"] else Markup()


def _failures(failures: Sequence[Failures], *, several: bool) -> Markup:
    if not failures:
        return Markup()
    count = sum(each["count"] for each in failures)
    reasons = "one reason" if len(failures) == 1 else f"{len(failures)} reasons"
    order = ", the most frequent first" if len(failures) > 1 else ""
    parts = [paragraph(f"{counted(count, 'row')} failed for {reasons}{order}.")]
    parts += [_cause(each, _short(first_place(each, several=several))) for each in failures[:_CAUSES_SHOWN]]
    if len(failures) > _CAUSES_SHOWN:
        parts.append(paragraph(f"And {len(failures) - _CAUSES_SHOWN} more reasons: see summary.json."))
    return section("Why rows failed", parts)


def _cause(each: Failures, place: str) -> Markup:
    head = element("strong", f"{each['count']:,} {each['status']}: {_short(each['cause'])}")
    said = [("First", place)]
    if each["example"]:
        said.append(("Example", _short(each["example"])))
    remedy = _short(each["remedy"], 240)
    said.append(("What to do", _with_commands(remedy[:1].upper() + remedy[1:])))
    return element("div", paragraph(head), facts(said), class_=f"cause {Status(each['status']).value}")


def _with_commands(text: str) -> Markup:
    """The text, with what stands between backticks as something to type."""
    return joined(element("code", part) if at % 2 else part for at, part in enumerate(text.split("`")))


def _next(told: Told) -> Markup:
    summary = told.summary
    if "stopped" in summary:
        said = "What is settled stays settled. The same command that began it goes on where it stopped."
        return section("To go on", [paragraph(said)])
    if not summary["failures"]:
        return Markup()
    said = "The failed rows stand in dead-letter.ndjson as they were read. Corrected there or not, they are sent by:"
    typed = recap.again(summary, told.folder)
    if _bytes(typed) > _COMMAND_SHOWN:
        typed = "moe-bulk report RUN  # shows the command, which is too long for this page"
    parts = [paragraph(said), command(typed)]
    where = recap.destination(summary, told.folder)
    return section("To send the failed rows again", [*parts, *([paragraph(_short(where, 400))] if where else [])])


# -- over time -----------------------------------------------------------------------------------------------------


def _over_time(told: Told) -> Markup:
    bins = told.timeline.bins()
    if not bins:
        return Markup()
    shades = _shades(bins)
    named = {"pause": "pause, as MoEngage asked", "outage": "outage: nothing was accepted"}
    shaded = [(kind, named[kind]) for kind in named if any(shade.kind == kind for shade in shades)]
    step = f"{bins[0].seconds:g} s" if bins[0].seconds < 60 else lasting(bins[0].seconds)
    parts = [
        paragraph(f"Each step is {step}; times are UTC.", class_="quiet"),
        *_throughput(told, bins, shades, shaded),
        *_latencies(bins, shades, shaded),
        *_troubles(bins, shades, shaded),
        _in_numbers(bins),
    ]
    return section("Over time", parts)


def _shades(bins: Sequence[Bin]) -> list[Shade]:
    """Where everybody waited, neighbours as one; what took less than a tenth of a bin is not seen at this scale."""
    found: list[Shade] = []
    for each in bins:
        for kind, seconds in (("pause", each.paused), ("outage", each.out)):
            if seconds < 0.1 * each.seconds:
                continue
            begin, end = each.at + min(0.0, each.seconds - seconds), each.at + each.seconds
            before = next((shade for shade in reversed(found) if shade.kind == kind), None)
            if before is not None and begin - before.end < 2.5:
                found[found.index(before)] = Shade(before.begin, end, kind)
            else:
                found.append(Shade(begin, end, kind))
    return found


def _pieces(bins: Sequence[Bin], *values: Sequence[float | None]) -> list[Piece]:
    return [
        Piece(each.at, each.at + each.seconds, numbers)
        for each, numbers in zip(bins, zip(*values, strict=True), strict=True)
    ]


def _lasted(bins: Sequence[Bin], summary: Summary) -> list[float]:
    """For how long the run was at it in each bin: it began within the first and ended within the last."""
    began, ended = summary["started_at"], summary["ended_at"]
    inside = (min(each.at + each.seconds, ended) - max(each.at, began) for each in bins)
    return [max(seconds, each.seconds / 4) for seconds, each in zip(inside, bins, strict=True)]


def _throughput(
    told: Told, bins: Sequence[Bin], shades: Sequence[Shade], shaded: Sequence[tuple[str, str]]
) -> list[Markup]:
    rate = told.summary["rate"]
    limits = [(since, limit / per) for since, limit, per in told.timeline.rates]
    limits = limits or [(bins[0].at, rate["limit"] / rate["per"])]
    lasted = _lasted(bins, told.summary)
    first = [(each.requests - each.retries) / seconds for each, seconds in zip(bins, lasted, strict=True)]
    again = [each.retries / seconds for each, seconds in zip(bins, lasted, strict=True)]
    peak = max(one + other for one, other in zip(first, again, strict=True))
    label = (
        f"Requests a second over time: at most {peak:,.1f} in a step, "
        f"{sum(each.requests for each in bins):,} in all; the limit is {limits[-1][1]:,.1f} a second"
    )
    beyond = recap.is_far_beyond(min(value for _, value in limits), peak)
    line = [] if beyond else limits
    plot = Plot(label, "requests a second", _pieces(bins, first, again), bars=True, shades=shades, limit=line)
    named = [("0", "first tries"), ("1", "retries")] if any(again) else [("0", "requests")]
    caption = f"The limit is {rate['limit']:,} in any {rate['per']:g} s. " + (
        "That is far beyond what was sent, and not in the picture."
        if beyond
        else "It holds for whole windows: within one, single seconds may be above the line, to catch up with what was "
        "not sent just before."
    )
    return [_figure(plot, [*named, *shaded], caption)]


def _latencies(bins: Sequence[Bin], shades: Sequence[Shade], shaded: Sequence[tuple[str, str]]) -> list[Markup]:
    half, most = [each.percentile(0.5) for each in bins], [each.percentile(0.95) for each in bins]
    known = [ms for ms in most if ms is not None]
    if not known:
        return []
    label = f"How long answers took over time: 95 % of them no longer than {min(known):,.0f} to {max(known):,.0f} ms"
    plot = Plot(label, "ms until the answer", _pieces(bins, half, most), shades=shades)
    return [_figure(plot, [("0", "half of the answers (p50)"), ("1", "95 % of them (p95)"), *shaded])]


def _troubles(bins: Sequence[Bin], shades: Sequence[Shade], shaded: Sequence[tuple[str, str]]) -> list[Markup]:
    throttled, troubled = sum(each.throttled for each in bins), sum(each.troubled for each in bins)
    if not throttled and not troubled:
        return [paragraph("No answer was a 429 or a 5xx, and none was missing.", class_="quiet")]
    label = f"Trouble over time: {throttled:,} answers were 429, {troubled:,} were 5xx or did not come"
    values = [float(each.throttled) for each in bins], [0.0] * len(bins), [float(each.troubled) for each in bins]
    plot = Plot(label, "requests in a step", _pieces(bins, *values), bars=True, shades=shades, whole=True)
    named = [("0", "429: too many requests")] * bool(throttled) + [("2", "5xx, or no answer")] * bool(troubled)
    return [_figure(plot, [*named, *shaded])]


def _figure(plot: Plot, named: Sequence[tuple[str, str]], caption: str = "") -> Markup:
    said = [element("figcaption", caption)] if caption else []
    return element("figure", chart.keys(named), chart.over_time(plot), *said)


def _in_numbers(bins: Sequence[Bin]) -> Markup:
    """The plots as a table, in few rows: for those who cannot see them."""
    grouped = _grouped(bins)
    body = [
        (
            _time(each.at, dated=at == 0 or _new_day(grouped, at)),
            f"{each.requests / each.seconds:,.1f}",
            f"{each.retries:,}",
            f"{each.throttled:,}",
            f"{each.troubled:,}",
            *(_ms(each.percentile(share)) for share in (0.5, 0.95)),
            lasting(each.paused + each.out) if each.paused + each.out else "",
        )
        for at, each in enumerate(grouped)
    ]
    head = ["From (UTC)", "Requests/s", "Retries", "429", "5xx, none", "p50 ms", "p95 ms", "Waited"]
    made = table(head, body, numeric=range(1, len(head)))
    return element("details", element("summary", "The same in numbers"), made)


def _time(epoch: float, *, dated: bool) -> Markup:
    said = [moment(epoch)[:10], clock_time(epoch)] if dated else [clock_time(epoch)]
    return joined(element("span", f"{part} ", class_="time") for part in said)


def _new_day(bins: Sequence[Bin], at: int) -> bool:
    return moment(bins[at].at)[:10] != moment(bins[at - 1].at)[:10]


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _grouped(bins: Sequence[Bin]) -> list[Bin]:
    """Neighbours together, so that there are few; their seconds are those that their bins last."""
    together = -(-len(bins) // _TOLD)
    found = []
    for at in range(0, len(bins), together):
        members = bins[at : at + together]
        made = type(members[0])(members[0].at, sum(each.seconds for each in members))
        for each in members:
            made.add(each)
        found.append(made)
    return found


# -- numbers -------------------------------------------------------------------------------------------------------


def _latency(told: Told) -> Markup:
    counts = told.latency.distribution(together=5)
    if not counts:
        return Markup()
    marks = [(name, ms) for name, ms in told.summary["latency_ms"].items() if isinstance(ms, (int, float))]
    said = ", ".join(f"{name} {ms:,.0f} ms" for name, ms in marks)
    label = f"How the answers' latencies are distributed, on a logarithmic axis: {said}"
    drawn = chart.distribution(counts, marks, label)
    caption = f"{said}. The axis is logarithmic. Requests without an answer are not among them."
    return section("How long answers took", [element("figure", drawn, element("figcaption", caption))])


def _requests(summary: Summary) -> Markup:
    rate = summary["rate"]
    said = [("Requests", recap.requests(summary)), ("Limit", f"{rate['limit']:,} in any {rate['per']:g} s")]
    if (busiest := recap.busiest(summary)) is not None:
        said.append(("Busiest window", busiest))
    seconds = summary["ended_at"] - summary["started_at"] if summary["sessions"] == 1 else None
    said += [
        ("Pace", line) for line in used(summary["requests"], rate["limit"], rate["per"], rate["used_share"], seconds)
    ]
    return section("Requests and the limit", [facts(said)])


def _settings(summary: Summary) -> Markup:
    said = dict(summary.get("settings", {}))
    if isinstance(options := said.get("options"), list):
        said["options"] = " ".join(map(str, options))
    names = [name for name, value in said.items() if value not in (None, "", [], {}, False)]
    found = [(_short(name.replace("_", " ").capitalize(), 40), _told(said[name])) for name in names[:_SETTINGS_SHOWN]]
    return section("Settings", [facts([*found, ("API key", "•••••••• (written nowhere)")])])


def _told(value: object) -> str:
    if isinstance(value, dict):
        value = [f"{name} = {each}" for name, each in value.items()]
    elif isinstance(value, list):
        value = [" = ".join(map(str, each)) if isinstance(each, list) else str(each) for each in value]
    said = ", ".join(value) if isinstance(value, list) else "yes" if value is True else str(value)
    return _short(said, 200)


def _foot(told: Told) -> Markup:
    where = _short(str(told.folder), 300)
    said = joined(
        [
            f"moe-bulk {_short(told.summary['version'], 40)}, format {FORMAT}. This page and the run's files lie in ",
            element("code", where),
            ". They hold personal data: keep them where only you can read them.",
        ]
    )
    return element("footer", paragraph(said))
