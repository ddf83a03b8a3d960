"""Why rows failed: told in few groups, in words that hold no value of any row, each with a next step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NotRequired, Self, TypedDict

from moe_bulk.deadletter import clean
from moe_bulk.outcome import FAILED, Result, Status
from moe_bulk.page import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CAUSES_KEPT = 100
_CAUSES_SHOWN = 10
_EXAMPLE_KEPT = 500
_REASON_READ = 1_000
_COUNTED = 2**53
_FAILED = frozenset(status.value for status in FAILED)

_FIELD = re.compile(
    r"\b((?:customer|device|push)_id|platform|model|(?:app|os)_version|moe_(?:gaid|push_\w*opted)|idfv|forwarded_for)\b"
)
# a value's `repr`: whole; cut after 80 characters, as `device` shows long ones; whole with a `…` of its own; else all
_QUOTED = re.compile(
    r"""(?<!\w)b?(?:'(?:[^'\\…]|\\[^…])*'(?!\w)|"(?:[^"\\…]|\\[^…])*"(?!\w)|['"].{79}…"""
    r"""|'(?:[^'\\]|\\.){,80}'(?!\w)|"(?:[^"\\]|\\.){,80}"(?!\w)|['"].*)""",
    re.DOTALL,
)

_THERE = " in dead-letter.ndjson, then send that file again"
_RETRY = "send dead-letter.ndjson again"
_CORRECT = f"correct {{field}}{_THERE}"
_DISLIKED = "MoEngage, or a firewall on the way, dislikes these records: ask their support why, by `request_id`"
_REMEDIES: tuple[tuple[Status, str, str], ...] = (
    (Status.EXHAUSTED, "429 .*", f"others used up the workspace's limit: {_RETRY} later"),
    (Status.EXHAUSTED, ".*", f"this is passing trouble: {_RETRY} when it is over"),
    (Status.REJECTED, "413 .*", f"MoEngage finds these records too large: {_CORRECT}"),
    (Status.REJECTED, "(403|409|415) .*", _DISLIKED),
    (Status.REJECTED, r"\w+ (invalidparams|paramsrequired|blacklisted).*", _DISLIKED),
    (Status.REJECTED, r"\w+ missing.*", f"fill in {{field}}{_THERE}"),
    (Status.REJECTED, ".*", _CORRECT),
    (Status.INVALID, ".* devices in this run already", f"leave these rows out, or {_CORRECT}"),
    (Status.INVALID, "unreadable", "repair these lines in the source and upload them again"),
    (Status.INVALID, r".*\b(missing|empty|required)\b.*", "fill in {field}, or leave these rows out"),
    (Status.INVALID, ".*", _CORRECT),
)
"""By status and by what `_trouble` says, the first that fits: a plain next step."""


class Failures(TypedDict):
    """Failures with one cause. `cause` holds no value of any row, `example` does: it stays in the run folder."""

    cause: str
    status: str
    count: int
    first_line: int
    example: str
    remedy: str
    first_source: NotRequired[str]
    """Where the first line stands; runs before it was noted do not tell."""


@dataclass(slots=True)
class _Cause:
    """Failures that are told together, and the source of the first of them."""

    said: Failures
    source: str

    def told(self) -> Failures:
        return Failures(**{**self.said, "first_source": self.source})

    def add(self, result: Result) -> None:
        self.said["count"] += 1
        # results come as they settle: an earlier line may come later
        if _source(result) == self.source and result.position.line < self.said["first_line"]:
            self.said["first_line"], self.said["example"] = result.position.line, _example(result)


class Causes:
    """Failures by their cause: a hundred causes at most, what comes after them is `other`.

    Texts are told as result lines tell them, so that a row read back from its line counts as it did when it settled.

    >>> causes = Causes()
    >>> causes.told()
    []
    """

    def __init__(self, remedy: Callable[[Result], str] | None = None) -> None:
        self._causes: dict[tuple[str, str], _Cause] = {}
        self._remedy = remedy or remedy_for

    def add(self, result: Result) -> None:
        """Count a failed row."""
        text = cause_of(result)
        if (result.status, text) not in self._causes and len(self._causes) >= _CAUSES_KEPT:
            text = "other"
        key = (result.status.value, text)
        if key not in self._causes:
            self._causes[key] = _Cause(_first(result, text, self._remedy), _source(result))
        self._causes[key].add(result)

    @property
    def rows(self) -> int:
        """Failed rows, whatever their cause."""
        return sum(cause.said["count"] for cause in self._causes.values())

    def told(self) -> list[Failures]:
        """The causes, the most frequent first."""
        return sorted(self.as_they_came(), key=lambda said: -said["count"])

    def as_they_came(self) -> list[Failures]:
        """The causes in the order in which they came up; another thread may ask."""
        return [cause.told() for cause in list(self._causes.values())]

    def state(self) -> list[dict[str, object]]:
        """What `restored` needs, as JSON can hold it."""
        return [{"source": cause.source, **cause.said} for cause in self._causes.values()]

    @classmethod
    def restored(cls, state: object) -> Self:
        """Go on counting from a `state`; raises ValueError for what is none."""
        if not isinstance(state, list) or len(state) > _CAUSES_KEPT + len(FAILED):
            raise ValueError("the causes of failures are no list, or too many")
        self = cls()
        self._causes.update(_restored(entry) for entry in state)
        if len(self._causes) < len(state):
            raise ValueError("a cause of failures stands there twice")
        return self


def _restored(entry: object) -> tuple[tuple[str, str], _Cause]:
    match entry:
        case {
            "source": str(source),
            "cause": str(cause),
            "status": str(status),
            "count": int(count),
            "first_line": int(line),
            "example": str(example),
            "remedy": str(remedy),
        } if status in _FAILED and _is_number(count, 1) and _is_number(line, 0):
            said = Failures(cause=cause, status=status, count=count, first_line=line, example=example, remedy=remedy)
            return (status, cause), _Cause(said, source)
    raise ValueError("a cause of failures lacks something, or holds what it cannot")


def _is_number(value: int, least: int) -> bool:
    return type(value) is int and least <= value < _COUNTED


def _first(result: Result, cause: str, remedy_for_it: Callable[[Result], str]) -> Failures:
    remedy = "see the reasons in dead-letter.ndjson" if cause == "other" else remedy_for_it(result)
    line, example = result.position.line, _example(result)
    return Failures(cause=cause, status=result.status.value, count=0, first_line=line, example=example, remedy=remedy)


def _source(result: Result) -> str:
    return clean(result.position.source)


def _example(result: Result) -> str:
    reason = clean(result.reason or "")
    return reason if len(reason) <= _EXAMPLE_KEPT else f"{reason[:_EXAMPLE_KEPT]}…"


def cause_of(result: Result) -> str:
    """Why it failed, in words that other rows with the same trouble share, and without a value of any row.

    What the service says may repeat values, so of its answers only the kind and the field count; of our own reasons the
    first, with `…` for what is quoted or holds digits.
    """
    if result.error_type is None and result.http_status is None:
        return _pattern(_reason(result))
    status = f"HTTP {result.http_status}" if result.http_status else ""
    kind = _without_numbers(clean(result.error_type or "")[:80])
    return " ".join(filter(None, (status, kind, _field(_reason(result)))))


def without_values(text: str) -> str:
    """A text of ours with `…` for what is quoted in it."""
    return _QUOTED.sub("…", text)


def remedy_for(result: Result) -> str:
    """What to do about it, in one line."""
    trouble = _trouble(result)
    found = next(text for status, form, text in _REMEDIES if status is result.status and re.fullmatch(form, trouble))
    field = _field(_reason(result).partition("; ")[0])
    return found.replace("{field}", field or "what the reason names")


def remedy_beforehand(result: Result) -> str:
    """What to do about a row that was not sent yet, in one line."""
    return remedy_for(result).replace(_THERE, " in the input")


def _trouble(result: Result) -> str:
    if result.status is Status.INVALID:
        return "unreadable" if result.row.fields is None else _pattern(_reason(result))
    kind = "".join(filter(str.isalnum, result.error_type or "")).lower()
    return f"{result.http_status or 'no'} {kind}"


def _reason(result: Result) -> str:
    return clean(result.reason or "no reason given")[:_REASON_READ]


def _pattern(reason: str) -> str:
    return _without_numbers(without_values(reason).partition("; ")[0])


def _without_numbers(text: str) -> str:
    # word by word: a pattern for it would be slow on long words without digits
    return " ".join("…" if any(map(str.isdigit, word)) else word for word in text.split())


def _field(reason: str) -> str | None:
    found = _FIELD.search(without_values(reason)) or _FIELD.search(reason)
    return found[1] if found else None


def first_place(each: Failures, *, several: bool) -> str:
    """Where the first one stands: `line 7`, with the source in front of it where the run has `several`."""
    source = each.get("first_source") if several else None
    return f"{f'{visible(source)}, ' if source else ''}line {each['first_line']:,}"


def shown(failures: Sequence[Failures], *, several: bool = False) -> list[str]:
    """The first few causes in two plain lines each, what and what to do; they hold no value of any row.

    `several` says that the run has more than one source.
    """
    told: list[str] = []
    for each in failures[:_CAUSES_SHOWN]:
        place = first_place(each, several=several)
        told.append(f"  {each['count']:,} {each['status']}: {visible(each['cause'])} (first: {place})")
        told.append(visible(f"    {each['remedy'][:1].upper()}{each['remedy'][1:]}"))
    if len(failures) > _CAUSES_SHOWN:
        told.append(f"  and {len(failures) - _CAUSES_SHOWN} more causes: see summary.json")
    return told
