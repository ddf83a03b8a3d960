"""What a check found, in plain lines for people, and as a page."""

from __future__ import annotations

import textwrap
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Literal, get_args

from moe_bulk.amounts import counted, duration
from moe_bulk.page import Markup, facts, page, paragraph, section, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from moe_bulk.checking.findings import Cause, Collision, Findings, Group, Oddity, Place, Skipped, Users

_Count = Literal["rows", "valid", "invalid", "skipped", "superseded"]
_COUNTS: tuple[_Count, ...] = get_args(_Count)
SHOWN = 5
"""Groups and causes of a kind on a terminal; the page and `--json` have all causes, and more of the groups."""
WIDTH = 80

_SHARED = {
    "push_id": "push token",
    "moe_gaid": "advertising id (moe_gaid)",
    "idfv": "vendor id (idfv)",
}


def lines(findings: Findings) -> list[str]:
    """All of it for a terminal; values of rows are cut short."""
    return [_plain(line) for block in _blocks(findings) for line in block]


def _blocks(findings: Findings) -> Iterator[list[str]]:
    yield [headline(findings)]
    yield from _failures(findings)
    if skips := findings["skips"]:
        yield ["", "Rows that are left out:"]
        yield from (_item(f"{_counted(each['count'], each, findings)}: {each['cause']}") for each in skips[:SHOWN])
        yield _more(len(skips), "reasons")
    for title, collision in _collisions(findings):
        yield ["", *_wrapped(title)]
        yield from (_item(_group(findings, group)) for group in collision["worst"][:SHOWN])
        yield _more_groups(collision)
    if findings["suspicious"]:
        yield ["", "Allowed, and perhaps not meant:"]
        yield from (_item(_odd(findings, each)) for each in findings["suspicious"])
    yield from (["", *_wrapped(f"Note: {note}")] for note in findings["notes"][:SHOWN])
    yield _more(len(findings["notes"]), "notes")
    yield ["", *_wrapped(upload(findings))]


def _failures(findings: Findings) -> Iterator[list[str]]:
    if not findings["would_fail"]:
        return
    yield ["", "Rows that would fail:"]
    for each in findings["failures"][:SHOWN]:
        yield _item(f"{_counted(each['count'], each, findings)}: {each['example']}. {_sentence(each['remedy'])}")
    yield _more(len(findings["failures"]), "causes")
    if beyond := findings["users"]["rows_left_out"]:
        yield _item(f"{_times('row', beyond)}: their users have {_most(findings)} devices already, see below")


def _odd(findings: Findings, oddity: Oddity) -> str:
    remedy = _sentence(oddity["remedy"])
    if not oddity["first_line"]:
        return f"{oddity['what']}: {remedy}"
    return f"{_counted(oddity['count'], oddity, findings)}: {oddity['what']}: {oddity['example']}. {remedy}"


def _counted(count: int, first: Cause | Skipped | Oddity, findings: Findings) -> str:
    """`1 row, line 7`, or `20 rows, such as line 7`."""
    such = ", " if count == 1 else ", such as "
    return f"{_times('row', count)}{such}{_place(findings, first['source'], first['first_line'])}"


def headline(findings: Findings) -> str:
    """Rows, and what would become of them, in one line."""
    would_fail = findings["would_fail"]
    parts = [
        f"{findings['valid'] - findings['users']['rows_left_out']:,} to send",
        f"{would_fail:,} that would fail" if would_fail else "none that would fail",
        *([f"{findings['skipped']:,} left out"] if findings["skipped"] else []),
        *([f"{findings['superseded']:,} superseded"] if findings["superseded"] else []),
    ]
    return f"{_times('row', findings['rows'])}: {', '.join(parts)}"


def upload(findings: Findings) -> str:
    """How long sending will take, and what it writes."""
    effort = findings["upload"]
    if not effort["requests"]:
        return "There is nothing to send."
    return (
        f"Sending takes {takes(effort['seconds'])} at {effort['rate']}, the largest body has "
        f"{effort['largest_body']:,} bytes, the results need about "
        f"{size(effort['results_bytes'] + effort['dead_letter_bytes'])}."
    )


def _collisions(findings: Findings) -> Iterator[tuple[str, Collision]]:
    """What rows share, as far as they do, each with a line that says what it means."""
    users = findings["users"]
    kinds = [(_repeated, findings["repeated"])]
    kinds += [(partial(_shared, _SHARED[name]), collision) for name, collision in findings["shared"].items()]
    kinds += [(partial(_crowded, users), users["over_the_most_devices"]), (_hurried, users["over_the_rates"])]
    yield from ((title(collision), collision) for title, collision in kinds if collision["values"])


def _repeated(found: Collision) -> str:
    return (
        f"{_times('device', found['values'])} in more than one row, {found['rows']:,} rows in all. Each row is sent, "
        "in the order of the input, and the last one stays:"
    )


def _shared(what: str, found: Collision) -> str:
    return (
        f"{_times(what, found['values'])} that several devices have, {found['devices']:,} devices in all. MoEngage "
        "knows one device by each: a row deletes the device that had it before, and the last one stays:"
    )


def _crowded(users: Users, found: Collision) -> str:
    return (
        f"{_times('user', found['values'])} with more than {users['most_devices']:,} devices, after which MoEngage "
        f"blocks a user: {_times('row', users['rows_left_out'])} of later devices would fail:"
    )


def _hurried(found: Collision) -> str:
    return (
        f"{_times('user', found['values'])} with so many rows close together that MoEngage would block them at full "
        "pace. The upload holds those rows back, while others go on:"
    )


def _group(findings: Findings, group: Group) -> str:
    value = f"{group['value']}: " if group["value"] is not None else ""
    devices = f" of {group['devices']:,} devices" if group["devices"] > 1 else ""
    more = ", …" if len(group["places"]) < group["rows"] else ""
    return f"{value}{_times('row', group['rows'])}{devices}, {_places(findings, group['places'])}{more}"


def _places(findings: Findings, places: Sequence[Place]) -> str:
    """`lines 2, 3`, with their source where there are several."""
    told = []
    for source, group in groupby(places, lambda place: place["source"]):
        numbers = [str(place["line"]) for place in group]
        word = "line" if len(numbers) == 1 else "lines"
        told.append(f"{'' if len(findings['sources']) == 1 else f'{source}, '}{word} {', '.join(numbers)}")
    return "; ".join(told)


def _place(findings: Findings, source: str, line: int) -> str:
    return f"line {line}" if len(findings["sources"]) == 1 else f"{source}, line {line}"


def _most(findings: Findings) -> str:
    return f"{findings['users']['most_devices']:,}"


def _times(word: str, count: int) -> str:
    """`1 row`, `2,000 rows`, `2 vendor ids (idfv)`."""
    noun, bracket, rest = word.partition(" (")
    return f"{counted(count, noun)}{bracket}{rest}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _item(text: str) -> list[str]:
    return _wrapped(text, "  ")


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _more(count: int, what: str) -> list[str]:
    return [f"  and {count - SHOWN:,} more {what}: see --html or --json"] if count > SHOWN else []


def _more_groups(collision: Collision) -> list[str]:
    """How many groups are not shown; of many nobody is told but their number."""
    if not (cut := _cut(collision)):
        return _more(collision["values"], "of them")
    return [f"  and {collision['values'] - SHOWN:,} more of them: see --html or --json for {cut}"]


def _cut(collision: Collision) -> str:
    """`the worst 10`, or nothing where the findings have all groups."""
    worst = len(collision["worst"])
    return f"the worst {worst}" if collision["values"] > worst else ""


def _plain(text: str) -> str:
    # A stranger's text on its way to a terminal: no control characters.
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def takes(seconds: float) -> str:
    """`17 h 20 min`: how long sending will take, which nobody knows to less than a second."""
    return "less than a second" if seconds < 1 else duration(round(seconds))


def size(count: int) -> str:
    """`1.4 GB`, in powers of ten."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return f"{count} bytes"


# -- as a page ---------------------------------------------------------------------------------------------------------


def as_page(findings: Findings) -> str:
    """All of it as one HTML document."""
    return page(f"Check of {_titled(findings['sources'])}", _parts(findings))


def _titled(sources: Sequence[str]) -> str:
    return sources[0] if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1:,} more"


def _parts(findings: Findings) -> Iterator[Markup]:
    yield paragraph(headline(findings), class_="bad" if findings["would_fail"] else "good")
    yield paragraph(upload(findings))
    yield facts((name, f"{findings[name]:,}") for name in _COUNTS)
    if findings["failures"]:
        failures = (_row(findings, each, each["example"], _sentence(each["remedy"])) for each in findings["failures"])
        head = ("Rows", "First", "Why", "What to do")
        yield section("Rows that would fail", [table(head, failures, numeric=(0,))])
    if findings["skips"]:
        skips = (_row(findings, each, each["cause"]) for each in findings["skips"])
        yield section("Rows that are left out", [table(("Rows", "First", "Why"), skips, numeric=(0,))])
    for title, collision in _collisions(findings):
        shown = f"Of {collision['values']:,}, {cut}:" if (cut := _cut(collision)) else ""
        yield section(title.rstrip(":"), [*([paragraph(shown)] if shown else []), _groups(findings, collision)])
    if findings["suspicious"]:
        odd = (
            _row(findings, each, each["what"], each["example"], _sentence(each["remedy"]))
            for each in findings["suspicious"]
        )
        named = ("Rows", "First", "What", "Such as", "What to do")
        yield section("Allowed, and perhaps not meant", [table(named, odd, numeric=(0,))])
    if findings["platforms"]:
        counted = ((name or "(none)", f"{count:,}") for name, count in findings["platforms"].items())
        yield section("Platforms", [table(("Platform", "Rows"), counted, numeric=(1,))])
    if findings["notes"]:
        yield section("Notes", map(paragraph, findings["notes"]))
    yield section("Sources", map(paragraph, findings["sources"]))


def _row(findings: Findings, first: Cause | Skipped | Oddity, *more: str) -> tuple[str, ...]:
    """How many rows, where the first one is, and more to say of them."""
    where = _place(findings, first["source"], first["first_line"]) if first["first_line"] else ""
    return f"{first['count']:,}", where, *more


def _groups(findings: Findings, collision: Collision) -> Markup:
    rows: Iterable[tuple[object, ...]] = (
        (
            group["value"] or "",
            f"{group['rows']:,}",
            f"{group['devices']:,}" if group["devices"] else "",
            _places(findings, group["places"]),
        )
        for group in collision["worst"]
    )
    return table(("Value, cut short", "Rows", "Devices", "The first ones"), rows, numeric=(1, 2))
