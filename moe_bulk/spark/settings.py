"""The options of `df.write.format("moengage")`: what each is called and what they come to, before anything is sent."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from moe_bulk.columns import Columns
from moe_bulk.config import FailureLimit, Network, Rate, Retry, parse_duration
from moe_bulk.device import FIELDS
from moe_bulk.errors import ConfigError
from moe_bulk.pacing.address import SCHEMES, RedisPace, parse_fallback, read_url
from moe_bulk.sources import masked
from moe_bulk.sources.values import refuse_twins
from moe_bulk.spark.access import Access
from moe_bulk.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from moe_bulk.device import Validation

KNOWN = frozenset(
    {
        *("out", "run_id"),
        *("workspace_id", "data_center", "base_url", "api_key_file", "api_key_env", "api_key_secret"),
        *("workspace_column", "workspaces_file", "ca_bundle"),
        *(
            "rate",
            "pace",
            "pace_secret",
            "pace_fallback",
            "in_flight",
            "timeout",
            "tries",
            "outage_limit",
            "max_failures",
        ),
        *("preset", "validate", "order_by"),
    }
)
"""Options with one value. Beside them there are `column.FIELD` and `set.FIELD`."""

_SPARKS = frozenset({"path", "checkpointlocation", "queryname"})
"""What Spark itself adds to the options."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,99}")
_SPARKS_S3 = re.compile(r"^s3[an]://")
_ON_A_HOST = ("host", "process")
_REQUIRED = ("customer_id", "device_id")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the options say. It travels to the tasks, so what it holds of a key is told by nobody: see `Access`."""

    out: str
    access: Access
    run_id: str | None = None
    columns: Columns = field(default_factory=Columns)
    rate: Rate = field(default_factory=Rate)
    retry: Retry = field(default_factory=Retry)
    network: Network = field(default_factory=Network)
    pace: str = field(default="host", repr=False)
    pace_share: int = 0
    """Into how many parts the limit is divided while the pace's Redis is away; 0 where nothing is sent then."""
    max_failures: FailureLimit | None = None
    order_by: str | None = None
    secrets: tuple[str, ...] = ()
    """The options that were given and must not be seen."""

    @property
    def over_network(self) -> bool:
        """Whether the pace is shared by hosts, and not only on one."""
        return self.pace not in _ON_A_HOST

    def shared_pace(self) -> RedisPace:
        """The server that keeps it; to be called in a task, since its URL may stand in a file there.

        Raises ConfigError, which tells nothing of the URL.
        """
        if not self.pace.startswith("@"):
            return RedisPace(self.pace, self.pace_share)
        path = self.pace[1:]
        try:
            url = read_url(path)
        except ConfigError as error:
            said = str(error).replace("--pace", "the option pace")
            raise ConfigError(f"{said}. It has to be on every executor") from None
        try:
            return RedisPace(url, self.pace_share)
        except ConfigError as error:
            raise ConfigError(f"{path}, which the option pace names: {error}") from None

    @property
    def customer_columns(self) -> tuple[str, ...]:
        """Which columns may name the customer: the first one does that says something."""
        if (said := self.columns.columns.get("customer_id")) is not None:
            return (said,)
        preset = self.columns.in_use
        return (preset.columns.get("customer_id") if preset is not None else None) or ("customer_id",)

    @property
    def together(self) -> str:
        """By what a DataFrame is repartitioned so that a customer's rows stay together, as a program says it."""
        names = ", ".join(f'"{each}"' for each in self.customer_columns)
        customer = f"coalesce({names})" if len(self.customer_columns) > 1 else names
        return f'"{self.access.column}", {customer}' if self.access.column is not None else customer


def read_options(options: Mapping[str, str], names: Collection[str] = ()) -> Settings:
    """Read the options of a write of columns with these names. Raises ConfigError, which says what to write instead."""
    said = {name.replace("-", "_"): value for name, value in options.items() if name not in _SPARKS}
    _check_names(said)
    columns = _columns(said)
    _check_columns(columns, said, names)
    pace, pace_share = _pace(said)
    return Settings(
        out=_out(said, options),
        access=Access.read(said),
        run_id=_run_id(said.get("run_id")),
        columns=columns,
        rate=Rate.parse(said["rate"]) if "rate" in said else Rate(),
        retry=_retry(said),
        network=Network(
            timeout=parse_duration(said.get("timeout", "30s")),
            in_flight=_whole("in_flight", said["in_flight"]) if "in_flight" in said else None,
            ca_bundle=said.get("ca_bundle"),
        ),
        pace=pace,
        pace_share=pace_share,
        max_failures=FailureLimit.parse(said["max_failures"]) if "max_failures" in said else None,
        order_by=said.get("order_by"),
        secrets=tuple(sorted(name for name in said if name.endswith("_secret"))),
    )


def _check_names(said: Mapping[str, str]) -> None:
    for name in said:
        if name == "api_key":
            raise ConfigError(
                "the option api_key would stand in Spark's plans and UI: set MOENGAGE_API_KEY for the executors, name "
                "a file with api_key_file, or give the key as api_key_secret, which Spark redacts"
            )
        if name not in KNOWN and name.partition(".")[0] not in ("column", "set"):
            raise ConfigError(f"there is no option {name!r}.{did_you_mean(name, KNOWN)}")


def _columns(said: Mapping[str, str]) -> Columns:
    mapped = {name.removeprefix("column."): value for name, value in said.items() if name.startswith("column.")}
    constants = {name.removeprefix("set."): value for name, value in said.items() if name.startswith("set.")}
    for field_ in (*mapped, *constants):
        if field_ not in FIELDS:
            raise ConfigError(
                f"there is no field {field_!r}.{did_you_mean(field_, FIELDS)} Fields: {', '.join(FIELDS)}"
            )
    return Columns(
        mapped, constants, validate=cast("Validation", said.get("validate", "strict")), preset=said.get("preset")
    )


def _check_columns(columns: Columns, said: Mapping[str, str], names: Collection[str]) -> None:
    """Refuse what names a column that the DataFrame does not have: every row would be invalid."""
    if not names:
        return
    refuse_twins("the DataFrame", names)
    asked = {f"column.{name}": column for name, column in columns.columns.items()}
    asked |= {name: said[name] for name in ("order_by", "workspace_column") if name in said}
    if columns.in_use is None:
        asked |= {name: name for name in _REQUIRED if name not in columns.columns and name not in columns.constants}
    for option, column in asked.items():
        if column not in names and column.partition(".")[0] not in names:
            how = f"{option} names it" if option != column else f"say which one it is: option column.{column}"
            raise ConfigError(f"the DataFrame has no column {column!r} ({how}).{did_you_mean(column, names)}")


def _out(said: Mapping[str, str], options: Mapping[str, str]) -> str:
    out, path = said.get("out", ""), options.get("path", "")
    if out and path and out != path:
        raise ConfigError("save() names one folder and the option out another: keep one of them")
    # Spark's own names for a path of this host and for S3
    place = _SPARKS_S3.sub("s3://", (out or path).removeprefix("file://"))
    if not place:
        raise ConfigError(
            "where do results go? Name a folder with the option out: a path that all hosts share, or s3://…"
        )
    if "://" in place and not place.startswith("s3://"):
        raise ConfigError(f"{masked(place)} cannot be written to: out is a path that all hosts share, or s3://…")
    if "://" not in place and not place.startswith("/"):
        raise ConfigError(f"{place!r} is another folder for each process: out is an absolute path, or s3://…")
    return place.rstrip("/") or "/"


def _run_id(said: str | None) -> str | None:
    if said is not None and not _RUN_ID.fullmatch(said):
        raise ConfigError(f"the run_id {said!r} becomes a folder: use up to 100 letters, digits, dots, - and _")
    return said


def _retry(said: Mapping[str, str]) -> Retry:
    default = Retry()
    return Retry(
        tries=_whole("tries", said["tries"]) if "tries" in said else default.tries,
        outage_limit=parse_duration(said["outage_limit"]) if "outage_limit" in said else default.outage_limit,
    )


def _whole(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text.strip(), re.ASCII):
        raise ConfigError(f"{name} is a whole number; got {text!r}")
    return int(text)


def _pace(said: Mapping[str, str]) -> tuple[str, int]:
    """Where the pace is kept, and into how many parts it is divided while that is away.

    No message tells anything of a URL: what is wrong with it may be where the password stands.
    """
    if "pace" in said and "pace_secret" in said:
        raise ConfigError("pace and pace_secret are both given: keep one of them")
    pace = (said.get("pace_secret") or said.get("pace") or "host").strip()
    if pace in _ON_A_HOST:
        if said.get("pace_fallback") is not None:
            raise ConfigError("pace_fallback is for a pace of redis://…: nothing else can be away")
        return pace, 0
    if "@" in said.get("pace", "").strip()[1:]:
        raise ConfigError(
            "the option pace has an @, before which a user and a password stand, and would stand in Spark's plans and "
            "UI: give the URL as pace_secret, which Spark redacts, or as @FILE with a file on the executors"
        )
    share = parse_fallback(said.get("pace_fallback"))
    if pace.startswith("@") and len(pace) > 1:
        return pace, share
    if not pace.startswith(SCHEMES):
        raise ConfigError("there is no such pace: it is host, process, the URL of a Redis server, or @FILE with one")
    RedisPace(pace, share)  # refused here, and not in every task
    return pace, share
