"""A run in plain words, for a terminal and for the head of its page."""

from __future__ import annotations

import shlex
import textwrap
from typing import TYPE_CHECKING

from moe_bulk.amounts import counted, lasting
from moe_bulk.axis import moment
from moe_bulk.causes import first_place, without_values
from moe_bulk.outcome import FAILED, Status
from moe_bulk.page import visible
from moe_bulk.tally import several

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from moe_bulk.tally import Summary
    from moe_bulk.timeline import Bin

WIDTH = 80
CAUSES_SHOWN = 10

MEANINGS = {
    Status.ACCEPTED: "MoEngage has them",
    Status.REJECTED: "MoEngage refused these records",
    Status.INVALID: "not sent: no valid device",
    Status.EXHAUSTED: "tried again and again, in vain",
    Status.SUPERSEDED: "left out: a later row of the device was accepted",
    Status.UNCHANGED: "left out: MoEngage has them just so",
    Status.SKIPPED: "left out by a filter or a preset",
}

FAR = 20
"""So many times what was sent is no scale for it."""
_BLOCKS = "▁▂▃▄▅▆▇█"


def headline(summary: Summary) -> str:
    """What happened, in one plain sentence."""
    counts = summary["counts"]
    read, accepted = counts["read"], counts[Status.ACCEPTED]
    failed, rows = sum(counts[status] for status in FAILED), counted(read, "row")
    if "stopped" in summary:
        left = f", {counts['unsettled']:,} have no result yet" if counts["unsettled"] else ""
        return f"Not finished: {accepted:,} of {rows} read so far were accepted, {failed:,} failed{left}."
    if not read:
        return "Nothing to do: the input holds no rows."
    if accepted == read:
        return f"All {rows} were accepted." if read > 1 else "The one row was accepted."
    left_out = read - accepted - failed
    said = f"{accepted:,} of {rows} were accepted" if accepted else f"None of {rows} was accepted"
    if left_out:
        said += f", {left_out:,} needed no sending"
    if failed:
        causes = len(summary["failures"])
        said += f", {failed:,} failed for {'one reason' if causes == 1 else f'{causes} reasons'}"
    return said + "."


def equation(summary: Summary) -> str:
    """`300 read = 298 accepted + 2 rejected`: the first law, with what is not nothing."""
    counts = summary["counts"]
    parts = [f"{count:,} {name}" for name, count in counts.items() if name != "read" and count]
    return f"{counts['read']:,} read = {' + '.join(parts) or '0'}".replace("unsettled", "not yet settled")


def duration(summary: Summary) -> str:
    """From when to when, how long, and in how many sessions."""
    began, ended = summary["started_at"], summary["ended_at"]
    said = f"{moment(began)} to {moment(ended)}, {lasting(ended - began)}"
    return said + (f", in {summary['sessions']:,} sessions" if summary["sessions"] > 1 else "")


def requests(summary: Summary) -> str:
    """How many were sent, and how many of them not for the first time."""
    retries, pauses = counted(summary["retries"], "retry", "retries"), counted(summary["pauses"], "pause")
    return f"{summary['requests']:,} ({retries}, {pauses})"


def busiest(summary: Summary) -> str | None:
    """The busiest window, against the limit; None where nothing was sent."""
    rate = summary["rate"]
    window = rate["busiest_window"]
    if window["at"] is None:
        return None
    said = (
        f"{window['count']:,} requests in {rate['per']:g} s, from {moment(window['at'])} on; "
        f"the limit is {rate['limit']:,}"
    )
    if "counted_since" in rate:
        said += f" (looked for since {moment(rate['counted_since'])})"
    return said


def rehearsed(summary: Summary, folder: Path) -> bool:
    """Whether it went to an embedded sandbox: the run knows; of older ones the folder's name tells."""
    known = summary.get("settings", {}).get("sandbox")
    return known if isinstance(known, bool) else ".sandbox.run" in folder.name  # moved aside, it has a time behind it


def again(summary: Summary, folder: Path) -> str:
    """What to type to send the dead letters again, to where they were sent before; a rehearsal's go to a sandbox."""
    words = _options(summary) or []
    if rehearsed(summary, folder) and not any(word.partition("=")[0] == "--sandbox" for word in words):
        words = ["--sandbox", *words]
    return shlex.join(map(visible, ["moe-bulk", "upload", str(folder / "dead-letter.ndjson"), *words]))


def destination(summary: Summary, folder: Path) -> str:
    """Where the rows went, where nobody knows which options said so; else the command has them."""
    settings = summary.get("settings", {})
    if rehearsed(summary, folder) or _options(summary) is not None or "destination" not in settings:
        return ""
    place = f"workspace {visible(str(settings.get('workspace_id')))} at {visible(str(settings['destination']))}"
    return f"They went to {place}: where options said so (--config, --data-center, …), add them again."


def _options(summary: Summary) -> list[str] | None:
    """The words of the upload's command that say where to, as it noted them; None where it did not."""
    said = summary.get("settings", {}).get("options")
    return list(map(str, said)) if isinstance(said, list) else None


def is_far_beyond(limit: float, peak: float) -> bool:
    """True where a picture with the limit in it would show nothing of the requests, of which there were some."""
    return 0 < peak < limit / FAR


def sparkline(bins: Sequence[Bin], limit: float, width: int = 60) -> tuple[str, float]:
    """Requests a second over time, one character for as much time as it takes, and how many a full block is.

    That is the limit, where it is not far beyond all of them.
    """
    if not bins:
        return "", limit
    first, last = bins[0].at, bins[-1].at + bins[-1].seconds
    step = max((last - first) / width, bins[0].seconds)
    counts = [0] * (int((last - first) / step + 0.999))
    for each in bins:
        counts[min(int((each.at - first) / step), len(counts) - 1)] += each.requests
    peak = max(counts) / step
    top = peak if is_far_beyond(limit, peak) else max(limit, peak)
    return "".join(_BLOCKS[round(7 * count / step / top)] if count else " " for count in counts), top


def told(summary: Summary, folder: Path, bins: Sequence[Bin], notes: Sequence[str] = ()) -> list[str]:
    """The run in lines of at most 80 columns; they hold no value of any row."""
    lines = [*_wrapped(headline(summary)), ""]
    lines += [f"  {name:<16}{count:>14,}  {meaning}".rstrip() for name, count, meaning in by_status(summary)]
    lines += ["", *_fact("Time", duration(summary)), *_fact("Requests", requests(summary))]
    if (said := busiest(summary)) is not None:
        lines += _fact("Busiest", said)
    latency = summary["latency_ms"]
    if latency["p50"] is not None:
        lines += _fact("Answers took", ", ".join(f"{ms:,.0f} ms ({name})" for name, ms in latency.items()))
    lines += _over_time(summary, bins)
    if "stopped" in summary:
        lines += _fact("Stopped", visible(without_values(summary["stopped"])))
    if "service_said" in summary:  # it may repeat a row's values
        lines += _fact("", "What MoEngage said of it stands in summary.json and on the page.")
    for note in notes:
        lines += _fact("Note", visible(note))
    return lines + _failures(summary) + _next(summary, folder)


def by_status(summary: Summary) -> list[tuple[str, int, str]]:
    """Rows by status, with what it means; those that were left out only where there are any. The last is their sum."""
    counts = summary["counts"]
    always = {Status.ACCEPTED, *FAILED}
    found = [
        (status.value, counts[status], meaning)
        for status, meaning in MEANINGS.items()
        if counts[status] or status in always
    ]
    if counts["unsettled"]:
        found.append(("not yet settled", counts["unsettled"], "read, and without a result when it stopped"))
    return [*found, ("read", counts["read"], "all of the above")]


def _over_time(summary: Summary, bins: Sequence[Bin]) -> list[str]:
    rate = summary["rate"]
    limit = rate["limit"] / rate["per"]
    line, top = sparkline(bins, limit)
    if len(line) < 2:
        return []
    explained = f"a full block is {'the limit, ' if top == limit else ''}{top:,.1f} requests a second"
    return [*_fact("Over time", line), *_fact("", explained)]


def _failures(summary: Summary) -> list[str]:
    failures = summary["failures"]
    lines = ["", "Why rows failed"] if failures else []
    for each in failures[:CAUSES_SHOWN]:
        place = first_place(each, several=several(summary))
        said = f"{each['count']:,} {each['status']}: {visible(each['cause'])} (first: {place})"
        lines += _wrapped(said, "  ", "    ")
        lines += _wrapped(visible(f"{each['remedy'][:1].upper()}{each['remedy'][1:]}"), "    ", "    ")
    if len(failures) > CAUSES_SHOWN:
        lines.append(f"  and {len(failures) - CAUSES_SHOWN} more reasons: see summary.json")
    return lines


def _next(summary: Summary, folder: Path) -> list[str]:
    if "stopped" in summary:
        return ["", "To go on, give the command again that began it."]
    if not summary["failures"]:
        return []
    # in one piece, however long it is: somebody copies it
    said = ["", "Send the failed rows again, corrected or not:", f"  {again(summary, folder)}"]
    return [*said, *_wrapped(destination(summary, folder))]


def _fact(name: str, text: str) -> list[str]:
    return _wrapped(text, f"{name:<14}", " " * 14)


def _wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,  # a path is copied in one piece
    )
