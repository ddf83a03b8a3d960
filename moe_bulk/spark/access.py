"""Where to, with whose key: what the options say, and what it comes to on the executor, which alone knows the key."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from moe_bulk.config import Credentials, Rate
from moe_bulk.errors import ConfigError
from moe_bulk.settings import one_destination, read_key_file
from moe_bulk.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

_OF_A_WORKSPACE = ("api_key", "api_key_file", "api_key_env", "data_center", "base_url", "rate")
_KEYS = ("api_key_file", "api_key_env", "api_key_secret")


@dataclass(frozen=True, slots=True)
class Access:
    """How a task finds its credentials: what the options say, else the executor's environment.

    `column` names the column with each row's workspace, and `file` the TOML file, on the executors, with a table for
    each of them.
    """

    workspace_id: str | None = None
    data_center: str | None = None
    base_url: str | None = None
    key_file: str | None = None
    key_env: str | None = None
    key: str | None = field(default=None, repr=False)
    column: str | None = None
    file: str | None = None

    @classmethod
    def read(cls, said: Mapping[str, str]) -> Access:
        """What the options say; raises ConfigError where they contradict each other."""
        given = [name for name in _KEYS if said.get(name)]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} both say where the key is: keep one of them")
        column, file = said.get("workspace_column"), said.get("workspaces_file")
        if (column is None) != (file is None):
            raise ConfigError(
                "workspace_column says which column names a row's workspace, workspaces_file where their keys are: "
                "give both, or neither"
            )
        single = [name for name in (*_KEYS, "workspace_id", "data_center", "base_url") if said.get(name)]
        if column is not None and single:
            raise ConfigError(f"{single[0]} is for one workspace; with workspace_column each has its own, in the file")
        return cls(
            workspace_id=said.get("workspace_id"),
            data_center=said.get("data_center"),
            base_url=said.get("base_url"),
            key_file=said.get("api_key_file"),
            key_env=said.get("api_key_env"),
            key=said.get("api_key_secret"),
            column=column,
            file=file,
        )

    def credentials(self, environ: Mapping[str, str]) -> Credentials:
        """The credentials for the one workspace; raises ConfigError where something is missing."""
        workspace_id = self.workspace_id or environ.get("MOENGAGE_WORKSPACE_ID", "")
        if not workspace_id:
            raise ConfigError(
                "which workspace? Give the option workspace_id, or MOENGAGE_WORKSPACE_ID to the executors"
            )
        data_center, base_url = one_destination(self.data_center, self.base_url, environ)
        key = self.key or _key(self.key_file, self.key_env or "MOENGAGE_API_KEY", environ)
        return Credentials(workspace_id, key.strip(), data_center=data_center, base_url=base_url or "")


def _key(file: str | None, variable: str, environ: Mapping[str, str]) -> str:
    if file is not None:
        return read_key_file(file)
    key = environ.get(variable, "")
    if not key:
        raise ConfigError(
            f"no API key: the executor has no {variable} in its environment. Set it there (spark.executorEnv would "
            "stand in the UI: use a secret of the cluster's), or name a file with api_key_file"
        )
    return key


@dataclass(frozen=True, slots=True)
class Workspace:
    """One of several workspaces: its credentials, and its limit where it has one of its own."""

    credentials: Credentials
    rate: Rate | None = None


class Workspaces:
    """The file that holds a table for each workspace, as `[WORKSPACE_ID]` with `data_center` and a key.

    The key is `api_key`, or `api_key_file` or `api_key_env`, which name the place where it is. `rate` is the limit.
    """

    def __init__(self, path: str, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = environ
        try:
            self._tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            # TOML's own message may show what stands there
            why = error.strerror if isinstance(error, OSError) else "it is no TOML"
            raise ConfigError(f"the workspaces' file {path} cannot be read: {why}") from None

    def find(self, name: object) -> Workspace:
        """The workspace that a row names; raises ConfigError where the file has no table for it, or a wrong one."""
        table = self._tables.get(name) if isinstance(name, str) else None
        if not isinstance(name, str) or not isinstance(table, dict):
            raise ConfigError(f"a row names the workspace {str(name)[:100]!r}, and {self._path} has no table for it")
        for entry, value in table.items():
            if entry not in _OF_A_WORKSPACE:
                raise ConfigError(
                    f"{self._path}, [{name}]: there is no {entry!r}.{did_you_mean(entry, _OF_A_WORKSPACE)}"
                )
            if not isinstance(value, str):
                raise ConfigError(f"{self._path}, [{name}]: {entry} is text, in quotes")
        try:
            return self._read(name, dict(table))
        except ConfigError as error:
            raise ConfigError(f"{self._path}, [{name}]: {error}") from None

    def _read(self, name: str, said: Mapping[str, str]) -> Workspace:
        key, file, variable = (said.get(entry) for entry in ("api_key", "api_key_file", "api_key_env"))
        if not (key or file or variable):
            raise ConfigError("there is no API key: give api_key_file, api_key_env or api_key")
        key = key or _key(file, variable or "", self._environ)
        credentials = Credentials(
            name, key.strip(), data_center=said.get("data_center"), base_url=said.get("base_url", "")
        )
        return Workspace(credentials, Rate.parse(said["rate"]) if "rate" in said else None)
