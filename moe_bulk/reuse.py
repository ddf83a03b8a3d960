"""The same command again: what happens to the run that a folder already holds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, TypeAlias

from moe_bulk.deadletter import clean
from moe_bulk.errors import RunRefused
from moe_bulk.presets import as_setting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from moe_bulk.columns import Columns
    from moe_bulk.config import Credentials

IfChanged: TypeAlias = Literal["refuse", "fresh"]
"""What to do about an unfinished run of other data: refuse the command, or move the run aside and start over."""

_OPTIONS = {"columns": "--column", "constants": "--set", "destination": "destination"}
_NAMES_TOLD = 3


class Action(Enum):
    """What to do with a run folder."""

    START = "start"
    """There is nothing in it: a new run begins."""
    GO_ON = "go on"
    """Its run is continued."""
    DONE = "done"
    """Its run has settled every row: nothing is sent."""
    MOVE_ASIDE = "move aside"
    """Its run makes room for a new one."""


@dataclass(frozen=True, slots=True)
class Found:
    """The run that a folder holds, seen from the command that is given now.

    `changed` names the sources whose bytes are not those of that run, be they changed, added or gone. `differing` is
    what `differences` says of the settings.
    """

    folder: Path
    finished: bool = False
    changed: Sequence[str] = ()
    differing: Sequence[str] = ()


def decide(found: Found | None, *, fresh: bool, if_changed: IfChanged = "refuse") -> Action:
    """What to do; `found` is None for a folder without a run. Raises RunRefused, which says what to type next.

    With `fresh` it matters only that there is a run, not which.
    """
    if found is None:
        return Action.START
    if fresh:
        return Action.MOVE_ASIDE
    if found.changed:
        if found.finished or if_changed == "fresh":
            return Action.MOVE_ASIDE
        raise RunRefused(_other_bytes(found))
    if found.differing:
        raise RunRefused(_other_settings(found))
    return Action.DONE if found.finished else Action.GO_ON


def _other_bytes(found: Found) -> str:
    told = ", ".join(clean(name) for name in found.changed[:_NAMES_TOLD])
    more = len(found.changed) - _NAMES_TOLD
    told += f" and {more:,} more" if more > 0 else ""
    return (
        f"{clean(str(found.folder))} holds an unfinished run of other data (changed: {told}). To finish that run, give "
        "it the data that it began with. To leave it and start over, add --fresh, or --if-changed fresh where this is "
        "usual; it will be moved aside"
    )


def _other_settings(found: Found) -> str:
    again = "see its results again" if found.finished else "go on"
    state = "a finished" if found.finished else "an unfinished"
    return (
        f"{clean(str(found.folder))} holds {state} run of the same data, begun with other settings: "
        f"{'; '.join(found.differing)}. To {again}, use the settings that it began with. To start over, add --fresh; "
        "it will be moved aside. To keep both, choose another folder with --out"
    )


def settings_that_matter(
    credentials: Credentials, columns: Columns, format_: str, *, changed_only: bool = False
) -> dict[str, object]:
    """The settings that the sessions of one run must have in common, as JSON has them; the key is not among them."""
    preset = {"preset": clean(as_setting(columns.in_use))} if columns.in_use is not None else {}
    return preset | {
        "workspace_id": credentials.workspace_id,
        "destination": credentials.host,
        "format": format_,
        "columns": {clean(name): clean(column) for name, column in columns.columns.items()},
        "constants": {clean(name): clean(value) for name, value in columns.constants.items()},
        "where": sorted([clean(column), clean(value)] for column, value in columns.where),
        "validate": columns.validate,
        "include_superseded": columns.include_superseded,
        "changed_only": changed_only,
    }


def differences(before: Mapping[str, object], now: Mapping[str, object]) -> tuple[str, ...]:
    """The settings in which a run and a command differ: `begun with --format csv, now --format ndjson`.

    A setting that is missing is the same as one that is empty.
    """
    names = [*before, *(name for name in now if name not in before)]
    return tuple(
        f"begun with {_told(name, before.get(name))}, now {_told(name, now.get(name))}"
        for name in names
        if (before.get(name) or None) != (now.get(name) or None)
    )


def _told(name: str, value: object) -> str:
    """A setting as it is typed."""
    option = _OPTIONS.get(name) or f"--{_word(name).replace('_', '-')}"
    if not value:
        return f"no {option}"
    if value is True:
        return option
    if isinstance(value, Mapping):
        value = list(value.items())
    if not isinstance(value, (list, tuple)):
        return f"{option} {_word(value)}"
    return " ".join(f"{option} {_word(each)}" for each in value)


def _word(value: object) -> str:
    """A value as one word of a command line; what does not print is spelt out."""
    text = "=".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return shlex.quote(text) if text.isprintable() else repr(text)
