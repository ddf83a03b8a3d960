"""The doctor's findings as lines for people and as JSON for machines."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from moe_bulk.doctor.findings import Worth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moe_bulk.doctor.findings import Finding

FORMAT = 1
"""The version of the JSON form."""

_WORTH, _CHECK = 5, 13
_INDENT = " " * (_WORTH + _CHECK)


def as_text(finding: Finding, width: int = 80) -> str:
    """One finding: `ok`, `warn` or `fail`, what was looked at, what was seen; below it what to do."""
    head = f"{finding.worth:<{_WORTH}}{finding.check:<{_CHECK}}"
    lines = _wrapped(finding.said, head, _INDENT, width)
    if finding.remedy:
        lines += _wrapped(finding.remedy, f"{_INDENT}→ ", f"{_INDENT}  ", width)
    return "\n".join(lines)


def _wrapped(text: str, first: str, further: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        max(width, 40),
        initial_indent=first,
        subsequent_indent=further,
        break_on_hyphens=False,
        break_long_words=False,
    )


def closing(findings: Sequence[Finding]) -> str:
    """The last line: what it comes to."""
    fails, warnings = (sum(each.worth is worth for each in findings) for worth in (Worth.FAIL, Worth.WARN))
    said = "" if not warnings else "1 warning" if warnings == 1 else f"{warnings} warnings"
    said = f", {said}" if said else ""
    if not fails:
        return f"An upload can go: nothing fails{said}. No device was sent"
    unseen = "" if any(each.check == "key" for each in findings) else ". The key and all behind it were not looked at"
    return f"An upload would not go well: {fails} of {len(findings)} fail{'s' if fails == 1 else ''}{said}{unseen}"


def as_json(findings: Sequence[Finding]) -> dict[str, object]:
    """All of it, for programs."""
    return {
        "format": FORMAT,
        "ok": exit_code(findings) == 0,
        "findings": [
            {
                "check": each.check,
                "status": each.worth.value,
                "said": each.said,
                "remedy": each.remedy or None,
                "figures": dict(each.figures),
            }
            for each in findings
        ],
    }


def exit_code(findings: Sequence[Finding]) -> int:
    """0 where nothing fails, else 1."""
    return int(any(each.worth is Worth.FAIL for each in findings))
