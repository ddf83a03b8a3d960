"""Settings of the command line from flag > environment > file > default: what a file may say, and who may say it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from moe_bulk.errors import ConfigError
from moe_bulk.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DEFAULT_FILE = "moe-bulk.toml"

DESTINATION_VARIABLES = ("MOENGAGE_DATA_CENTER", "MOENGAGE_BASE_URL")

ONLY_NAMED = frozenset({"workspace-id", "api-key-file", "data-center", "base-url", "ca-bundle", "sandbox"})
"""Where the rows go and who may read them: never from a file that merely lies in the current folder."""


def config_argument(argv: Sequence[str]) -> str | None:
    """The file that `--config FILE` or `--config=FILE` names."""
    for index, word in enumerate(argv):
        if word == "--config" and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return None


def read_settings(named: str | None, known: Iterable[str], folder: Path) -> tuple[str, Mapping[str, object]]:
    """The settings that stand in the named file, or else in `moe-bulk.toml` of `folder`; names as on the command line.

    `known` holds the options' names without dashes. Raises ConfigError for a name that is none of them, and for a
    destination or key in a file that was not named.
    """
    path = Path(named) if named is not None else folder / DEFAULT_FILE
    if named is None and not path.is_file():
        return str(path), {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    said = {name.replace("_", "-"): value for name, value in found.items()}
    for name in said:
        if name not in known:
            raise ConfigError(f"{path}: there is no setting {name!r}.{did_you_mean(name, known)}")
        if named is None and name in ONLY_NAMED:
            raise ConfigError(
                f"{path}: {name} is taken only from a file that you name, so that no folder can redirect your data: "
                f"run with --config {path}"
            )
    return str(path), said


def read_key_file(path: str) -> str:
    """The API key in a file: its only line."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the key file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_query(said: str) -> str:
    """The query as it is said, or as it stands in the file that `@FILE` names."""
    if not said.startswith("@"):
        return said
    try:
        return Path(said[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"the query's file {said[1:]} cannot be read: {why}") from None


def one_destination(
    data_center: str | None, base_url: str | None, environ: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """The data center or the base URL, not both: what flags or a file say, else what the environment says."""
    if not data_center and not base_url:
        data_center, base_url = (environ.get(name) for name in DESTINATION_VARIABLES)
    if data_center and base_url:
        raise ConfigError("a data center and a base URL are both given: keep one of them")
    return data_center or None, base_url or None
