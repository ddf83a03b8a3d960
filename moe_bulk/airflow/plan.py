"""What a task is to do: the options of `moe-bulk upload`, by their names, as the values that the library takes."""

from __future__ import annotations

import os
import types
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from moe_bulk.columns import Columns
from moe_bulk.config import FailureLimit, Network, Rate, Retry, parse_duration
from moe_bulk.errors import ConfigError
from moe_bulk.intake import Files, Query, Reading
from moe_bulk.known import ChangedOnly
from moe_bulk.naming import expand
from moe_bulk.options import Changes, Destination, Input, Output, Pacing
from moe_bulk.pacing.address import SCHEMES, RedisPace, pace_said
from moe_bulk.settings import read_query
from moe_bulk.spelling import did_you_mean
from moe_bulk.uploader import Uploader

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from moe_bulk.config import Credentials
    from moe_bulk.pacing.sharing import PaceOf
    from moe_bulk.reuse import IfChanged

_GROUPS = (Pacing, Input, Changes, Output, Destination)

_ACCOUNT = "the connection says where to send and with whose key"
_SHOWN = "the task's log shows the run, and its report is in XCom"
NOT_HERE: Mapping[str, str] = {
    "fresh": "a retry would throw away what the try before it delivered. To send all again, remove the run folder",
    "out": "it is an argument of the operator's",
    **dict.fromkeys(("workspace-id", "api-key-file", "data-center", "base-url"), _ACCOUNT),
    "sandbox": "for a rehearsal let a connection lead to `moe-bulk sandbox`",
    **dict.fromkeys(("progress", "log-json", "json", "verbose", "quiet", "metrics-file"), _SHOWN),
}
"""Options of `moe-bulk upload` that a task does not take, and why."""


@dataclass(frozen=True)
class Means:
    """How to send: what an `Uploader` takes."""

    rate: Rate
    pace: PaceOf
    retry: Retry
    network: Network

    def uploader(self, credentials: Credentials) -> Uploader:
        """An Uploader that is not open yet."""
        return Uploader(credentials, rate=self.rate, retry=self.retry, network=self.network, pace=self.pace)


@dataclass(frozen=True)
class Plan:
    """What to send, how, and what to do about earlier runs."""

    means: Means
    rows: Files | Query
    reading: Reading
    max_failures: FailureLimit | None
    check_first: bool
    changed_only: ChangedOnly | None
    if_changed: IfChanged
    keep_runs: int | None


def means_of(options: Mapping[str, object], environ: Mapping[str, str] = os.environ) -> Means:
    """How to send by these options; raises ConfigError for one that there is not, or that makes no sense."""
    return _means(_Said(options), environ)


def planned(
    source: object,
    options: Mapping[str, object],
    cwd: Path,
    environ: Mapping[str, str] = os.environ,
) -> Plan:
    """What to do with `source` (a path, a glob, a URL, or several) by these options; raises ConfigError as above."""
    said = _Said(options)
    pacing, changes, output = said.group(Pacing), said.group(Changes), said.group(Output)
    reading = said.group(Input)
    return Plan(
        means=_means(said, environ),
        rows=_rows(source, reading.query, cwd, environ),
        reading=_reading(reading),
        max_failures=None if pacing.max_failures is None else FailureLimit.parse(pacing.max_failures),
        check_first=pacing.check_first,
        changed_only=_changed_only(changes),
        if_changed=output.if_changed,
        keep_runs=output.keep_runs,
    )


def _means(said: _Said, environ: Mapping[str, str]) -> Means:
    pacing = said.group(Pacing)
    ca_bundle = said.group(Destination).ca_bundle or environ.get("SSL_CERT_FILE") or None
    return Means(
        Rate.parse(pacing.rate),
        pace_said(pacing.pace, pacing.pace_fallback, ()),
        Retry(tries=pacing.tries, outage_limit=parse_duration(pacing.outage_limit)),
        Network(timeout=parse_duration(pacing.timeout), in_flight=pacing.in_flight, ca_bundle=ca_bundle),
    )


def _rows(source: object, query: str | None, cwd: Path, environ: Mapping[str, str]) -> Files | Query:
    named = _named(source)
    if query is None:
        if not named:
            raise ConfigError("upload what? source=… names a file, a glob or a URL, or several of them")
        if "-" in named:
            raise ConfigError("a task has no standard input: name a file")
        return Files(expand(named, cwd))
    named = named or list(filter(None, [environ.get("MOE_BULK_SQL_URL", "").strip()]))
    if len(named) != 1 or "://" not in named[0]:
        raise ConfigError("a query goes with one source, a database's URL, or with MOE_BULK_SQL_URL in its place")
    return Query(named[0], read_query(query))


def _named(source: object) -> list[str]:
    """The sources; they may come out of another task's XCom, so that anything may be among them."""
    found = [] if source is None else [source] if isinstance(source, (str, os.PathLike)) else source
    if not isinstance(found, (list, tuple)) or not all(isinstance(each, (str, os.PathLike)) for each in found):
        raise ConfigError(f"source is a text or a list of texts; got {type(source).__name__}")
    return [str(each) for each in found if str(each).strip()]


def _reading(said: Input) -> Reading:
    columns = Columns.parse(
        said.column,
        said.set_,
        said.where,
        validate=said.validate,
        include_superseded=said.include_superseded,
        preset=said.preset,
    )
    return Reading(columns, said.format, said.limit)


def _changed_only(said: Changes) -> ChangedOnly | None:
    if not said.changed_only:
        if said.state:
            raise ConfigError("state says where changed-only remembers what was accepted: give both, or neither")
        return None
    return ChangedOnly(said.state, parse_duration(said.resend_after))


# --- names and values ------------------------------------------------------------------------------------------------


class _Said:
    """Options as they were given, checked against those of `moe-bulk upload`."""

    def __init__(self, options: Mapping[str, object]) -> None:
        said = {dashed(name): value for name, value in options.items()}
        known = {
            dashed(each.name): (group, each.name, hints[each.name])
            for group in _GROUPS
            for hints in [get_type_hints(group)]
            for each in fields(group)
        }
        self._values: dict[type, dict[str, Any]] = {group: {} for group in _GROUPS}
        for name, value in said.items():
            if name in NOT_HERE:
                raise ConfigError(f"{name!r} is no option of a task: {NOT_HERE[name]}")
            if name not in known:
                raise ConfigError(f"there is no option {name!r}.{did_you_mean(name, known.keys() - NOT_HERE.keys())}")
            group, field, hint = known[name]
            self._values[group][field] = _value(name, value, hint)

    def group(self, kind: type[Any]) -> Any:
        """The options of one kind."""
        return kind(**self._values[kind])


def merged(account: Mapping[str, object], own: Mapping[str, object] | None) -> dict[str, object]:
    """The options of a task: its own before those of its connection, however their names are written.

    Raises ConfigError for a password among its own, which Airflow shows to all who may see the task.
    """
    if own is not None and not hasattr(own, "items"):
        raise ConfigError(f"options are a mapping of names to values; got {type(own).__name__}")
    its_own = {dashed(name): value for name, value in (own or {}).items()}
    if str(pace := its_own.get("pace", "")).strip().startswith(SCHEMES) and RedisPace(str(pace).strip()).secret:
        raise ConfigError(
            "a password among a task's options stands on its page in Airflow: put the pace's URL into the connection's "
            "extra, or into a file, and say pace=@FILE. Change the password"
        )
    return {dashed(name): value for name, value in account.items()} | its_own


def dashed(name: object) -> str:
    """The name as it stands on the command line: `max-failures` for `max_failures`, `set` for `set_`."""
    return str(name).strip("-_").replace("_", "-")


def _value(name: str, value: object, hint: Any) -> object:
    """The value as its option wants it: templates make a text of everything."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and types.NoneType in kinds:
        return None
    wanted = [kind for kind in kinds if kind is not types.NoneType]
    for kind in wanted:
        if (found := _as(kind, value)) is not None:
            return found
    forms = " or ".join(_WANTED.get(kind) or _choice(kind) for kind in wanted)
    raise ConfigError(f"the option {name!r} wants {forms}; got {_shown(value)}")


def _as(kind: Any, value: object) -> object | None:
    """The value as that kind, or None where it is none."""
    if get_origin(kind) is Literal:
        return value if value in get_args(kind) else None
    if get_origin(kind) is tuple:
        return _texts(value)
    if isinstance(value, bool):
        return value if kind is bool else None
    if kind is bool:
        return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None
    if kind is int:
        digits = isinstance(value, str) and value.strip().isdecimal()
        return int(str(value)) if digits or isinstance(value, int) else None
    return str(value) if isinstance(value, (str, int, float)) else None


def _texts(value: object) -> tuple[str, ...] | None:
    """`FIELD=COLUMN`, several of them, or the same as a mapping."""
    if isinstance(value, str):
        return (value,)
    if hasattr(value, "items"):
        return tuple(f"{name}={each}" for name, each in value.items())
    if isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value):
        return tuple(value)
    return None


_WANTED: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    str: "a text",
    tuple[str, ...]: "NAME=VALUE, several of them, or a mapping",
}


def _choice(kind: Any) -> str:
    return "one of " + ", ".join(map(str, get_args(kind)))


def _shown(value: object) -> str:
    """What a message may show of it: a URL may hold a password."""
    return repr(value) if isinstance(value, (bool, int, float)) or value is None else type(value).__name__
