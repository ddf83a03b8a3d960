"""What a connection of Airflow's says: where to send, with whose key, and the options of all its uploads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from moe_bulk.config import Credentials
from moe_bulk.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

RUNS = "runs"
"""The one thing in the extra that is no option of an upload: the folder in which run folders are made."""


@dataclass(frozen=True)
class Fields:
    """A connection's fields, as Airflow calls them; the key shows in no `repr`."""

    conn_id: str
    host: str | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    schema: str | None = None
    port: int | None = None
    extra: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Account:
    """One workspace: its credentials, the options of all its uploads, and where their run folders are made."""

    credentials: Credentials
    options: Mapping[str, object] = field(default_factory=dict)
    runs: str | None = None


def read_connection(said: Fields) -> Account:
    """Read it; raises ConfigError, which names the connection and what is wrong with it, and no value of its extra.

    The host is a data center (`01`, `api-01.moengage.com`), a URL, or a host, whose port and schema go along. The extra
    is a JSON object with options by the names that they have on the command line, and `runs`.
    """
    name = f"the connection {said.conn_id!r}"
    for missing, value, what in (
        ("host", said.host, "the data center, such as 01, or a URL"),
        ("login", said.login, "the workspace id"),
        ("password", said.password, "the Data API key"),
    ):
        if not (value or "").strip():
            raise ConfigError(f"{name} has no {missing}: fill in {what}")
    options = _options(name, said.extra)
    runs = options.pop(RUNS, None)
    if runs is not None and not isinstance(runs, str):
        raise ConfigError(f"{name}: {RUNS!r} in its extra is a folder's path; got {type(runs).__name__}")
    try:
        credentials = _credentials(said)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    return Account(credentials, options, runs)


def _credentials(said: Fields) -> Credentials:
    host, workspace, key = ((value or "").strip() for value in (said.host, said.login, said.password))
    port = f":{said.port}" if said.port else ""
    if "://" in host:
        return Credentials(workspace, key, base_url=host.rstrip("/") + port)
    if port or said.schema:
        return Credentials(workspace, key, base_url=f"{said.schema or 'https'}://{host}{port}")
    try:
        return Credentials(workspace, key, data_center=host)
    except ConfigError:
        if "." not in host:  # neither a host nor one of the data centers: say which there are
            raise
        return Credentials(workspace, key, base_url=f"https://{host}")


def _options(name: str, extra: str | None) -> dict[str, object]:
    """What the extra holds, without what the form left empty."""
    if not (extra or "").strip():
        return {}
    try:
        found = json.loads(extra or "")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f'{name}: its extra is no JSON object; write it like {{"rate": "10000/min"}}')
    return {option: value for option, value in found.items() if value not in (None, "")}
