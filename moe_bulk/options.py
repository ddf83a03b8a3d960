"""The options of the commands: what each is called, means, and is when nobody says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from cyclopts import Group, Parameter


def option(
    text: str,
    takes: str | None = None,
    *,
    name: str | list[str] | None = None,
    env: str | None = None,
    group: Group | None = None,
) -> Parameter:
    """An option with its help, what it `takes`, the variable that may give it, and where it stands in the help."""
    said = Parameter(
        name=name,
        help=text,
        metavar=takes,
        env_var=env,
        negative="",
        consume_multiple=False,
        show_default=_default_worth_telling,
    )
    return said if group is None else Parameter.combine(said, Parameter(group=group))


def _default_worth_telling(value: object) -> str | None:
    """What is not set, a flag that is off and a list that is empty need no telling."""
    return None if value in (None, False, (), "") else str(value)


def _group(title: str, place: int) -> Group:
    return Group(title, sort_key=place)


DESTINATION = _group("Where to", 1)
PACING = _group("How fast, how patiently", 2)
INPUT = _group("How rows become devices", 3)
CHANGES = _group("What need not be sent again", 4)
OUTPUT = _group("What is written and shown", 5)
SETTINGS = _group("Other options", 9)


Sources: TypeAlias = Annotated[
    list[str] | None,
    Parameter(
        help="A path, a glob, a URL, or - for standard input; or several.", allow_leading_hyphen=True, negative=""
    ),
]
"""What a command reads."""


@Parameter(name="*", group=DESTINATION)
@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where to, with whose key."""

    workspace_id: Annotated[
        str | None, option("The workspace's id (formerly app id).", "ID", env="MOENGAGE_WORKSPACE_ID")
    ] = None
    api_key_file: Annotated[
        str | None,
        option("A file that holds the Data API key, in place of MOENGAGE_API_KEY; never an option itself.", "FILE"),
    ] = None
    data_center: Annotated[
        str | None,
        option("The number in your dashboard's address: 01 to 06, 101. [env var: MOENGAGE_DATA_CENTER]", "NUMBER"),
    ] = None
    base_url: Annotated[str | None, option("Another host in its place. [env var: MOENGAGE_BASE_URL]", "URL")] = None
    ca_bundle: Annotated[
        str | None, option("Certificates to trust, in place of the usual ones.", "FILE", env="SSL_CERT_FILE")
    ] = None
    sandbox: Annotated[bool, option("An embedded sandbox in place of MoEngage: needs no credentials.")] = False


RATE = option("The workspace's limit: COUNT/min, COUNT/s or COUNT/6s.", "RATE", env="MOE_BULK_RATE")
IN_FLIGHT = option("Requests on their way at most; by default found from the latency.", "N")
TIMEOUT = option("How long one request may take, connecting included.", "TIME")
PACES = ("host", "process")
"""What --pace takes beside URLs and files, for shells."""
PACE = option(
    "For whom the limit holds together: host, your uploads here; process, this one alone; redis://HOST, all that name "
    "this Redis; or @FILE with such a URL.",
    "PACE",
    env="MOE_BULK_PACE",
)
CONFIG = option("A TOML file with the same names; else ./moe-bulk.toml.", "FILE", group=SETTINGS)


@Parameter(name="*", group=PACING)
@dataclass(frozen=True, kw_only=True)
class Load:
    """What an upload would put on the network and this machine."""

    rate: Annotated[str, RATE] = "10000/min"
    in_flight: Annotated[int | None, IN_FLIGHT] = None
    timeout: Annotated[str, TIMEOUT] = "30s"
    pace: Annotated[str, PACE] = "host"


@Parameter(name="*", group=PACING)
@dataclass(frozen=True, kw_only=True)
class Pacing:
    """How fast, how patiently."""

    rate: Annotated[str, RATE] = "10000/min"
    pace: Annotated[str, PACE] = "host"
    pace_fallback: Annotated[
        str | None,
        option("While that Redis is away, send an Nth of the limit; N uploads at most may be at work.", "share=N"),
    ] = None
    in_flight: Annotated[int | None, IN_FLIGHT] = None
    timeout: Annotated[str, TIMEOUT] = "30s"
    tries: Annotated[int, option("How often a record is tried before it is given up.", "N")] = 8
    outage_limit: Annotated[str, option("How long to wait for a service that is gone before stopping.", "TIME")] = (
        "30min"
    )
    max_failures: Annotated[str | None, option("Stop, resumable, when more rows fail than that.", "N|N%")] = None
    check_first: Annotated[
        bool, option("Read the whole input first; send nothing if more rows would fail than --max-failures allows.")
    ] = False


@Parameter(name="*", group=INPUT)
@dataclass(frozen=True, kw_only=True)
class Input:
    """How rows become devices."""

    format: Annotated[Literal["auto", "csv", "ndjson", "parquet"], option("The input's format.")] = "auto"
    query: Annotated[
        str | None,
        option("An SQL select, or @FILE with one; SOURCE is then a database's URL. [env var: MOE_BULK_SQL_URL]", "SQL"),
    ] = None
    column: Annotated[tuple[str, ...], option("Which column holds a field. Repeatable.", "FIELD=COLUMN")] = ()
    set_: Annotated[
        tuple[str, ...], option("The same value for every row. Repeatable.", "FIELD=VALUE", name="--set")
    ] = ()
    preset: Annotated[
        str | None, option("A known export's columns, see `moe-bulk presets`; or a TOML file of that form.", "NAME")
    ] = None
    where: Annotated[tuple[str, ...], option("Skip rows that differ. Repeatable.", "COLUMN=VALUE")] = ()
    validate: Annotated[
        Literal["strict", "basic"], option("All rules of the API, or only that the two ids are there.")
    ] = "strict"
    include_superseded: Annotated[
        bool, option("Take dead letters even where a later row of the device was accepted.")
    ] = False
    limit: Annotated[
        int | None, option("Read so many rows at most, over all sessions; an upload stays unfinished.", "N")
    ] = None


@Parameter(name="*", group=CHANGES)
@dataclass(frozen=True, kw_only=True)
class Changes:
    """What need not be sent again."""

    changed_only: Annotated[bool, option("Send only devices that changed since MoEngage accepted them.")] = False
    state: Annotated[
        str | None,
        option("The file for --changed-only; by default one for each workspace in your state folder.", "FILE"),
    ] = None
    resend_after: Annotated[
        str, option("Send an unchanged device again when it was accepted longer ago than this.", "TIME")
    ] = "30d"


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class Output:
    """What is written and shown."""

    out: Annotated[str | None, option("The run folder; by default SOURCE.run beside a file, else here.", "DIR")] = None
    fresh: Annotated[bool, option("Move an earlier run in that folder aside and start over.")] = False
    if_changed: Annotated[
        Literal["refuse", "fresh"], option("When an unfinished run there is of other bytes: refuse, or start over.")
    ] = "refuse"
    keep_runs: Annotated[int | None, option("Remove all but the N newest runs that were moved aside.", "N")] = None
    progress: Annotated[
        Literal["auto", "bar", "plain", "json", "none"], option("How to show the run while it goes on.")
    ] = "auto"
    log_json: Annotated[bool, option("Say everything as JSON lines on standard error, in place of the text.")] = False
    metrics_file: Annotated[
        str | None, option("Write metrics for Prometheus into this file, every 15 s and at the end.", "FILE")
    ] = None
    json: Annotated[bool, option("Print the summary as JSON on standard output.")] = False
    verbose: Annotated[
        bool, option("Say first where rows go, how fast and how patiently.", name=["--verbose", "-v"])
    ] = False
    quiet: Annotated[bool, option("Say only what went wrong.", name=["--quiet", "-q"])] = False
