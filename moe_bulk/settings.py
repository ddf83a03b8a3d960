"""Settings of the command line from flag > environment > file > default: what a file may say, and who may say it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from moe_bulk.errors import ConfigError
from moe_bulk.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

DEFAULT_FILE = "moe-bulk.toml"

_TABLE = re.compile(r"\s*\[\s*([A-Za-z0-9_-]+)\s*\]")
_NAME = re.compile(r"""\s*["']?([A-Za-z0-9_-]+)["']?\s*=""")

KEY_VARIABLE = "MOENGAGE_API_KEY"
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


@dataclass(frozen=True, slots=True)
class FileSettings:
    """What a settings file says to one command: by the options' names without dashes, and in which lines of it."""

    path: str
    said: Mapping[str, object] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)

    def without(self, names: Iterable[str]) -> FileSettings:
        """The same without these."""
        gone = set(names)
        return replace(self, said={name: value for name, value in self.said.items() if name not in gone})


def read_settings(named: str | None, command: str, known: Mapping[str, Collection[str]], folder: Path) -> FileSettings:
    """What the named file, or else `moe-bulk.toml` of `folder`, says to a command; names as on the command line.

    A name at the top is for every command that has it, one in a table `[COMMAND]` for that command alone, and it goes
    first. `known` holds the options' names, without dashes, of each command that reads settings. Raises ConfigError for
    a name that is none of them, and for a destination or key in a file that was not named.
    """
    path = Path(named) if named is not None else folder / DEFAULT_FILE
    if named is None and not path.is_file():
        return FileSettings(str(path))
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    tables = {name: value for name, value in found.items() if isinstance(value, dict)}
    tops = {name: value for name, value in found.items() if name not in tables}
    everything = {name for names in known.values() for name in names}
    for table in tables:
        if table not in known:
            raise ConfigError(f"{path}: there is no command for the table [{table}].{did_you_mean(table, known)}")
    for table, said, allowed in (
        ("", tops, everything),
        *((name, value, known[name]) for name, value in tables.items()),
    ):
        _check_names(path, table, said, allowed, named=named is not None)
    lines = _lines(text)
    told: dict[str, tuple[object, int | None]] = {}
    for table, said in (("", tops), (command, tables.get(command, {}))):
        told |= {_dashed(name): (value, lines.get((table, name))) for name, value in said.items()}
    mine = {name: each for name, each in told.items() if name in known[command]}
    return FileSettings(
        str(path),
        {name: value for name, (value, _) in mine.items()},
        {name: line for name, (_, line) in mine.items() if line is not None},
    )


def _check_names(path: Path, table: str, said: Iterable[str], allowed: Collection[str], *, named: bool) -> None:
    where = f"{path}: [{table}]" if table else f"{path}:"
    for name in map(_dashed, said):
        if name not in allowed:
            raise ConfigError(f"{where} there is no setting {name!r}.{did_you_mean(name, allowed)}")
        if not named and name in ONLY_NAMED:
            raise ConfigError(
                f"{where} {name} is taken only from a file that you name, so that no folder can redirect your data: "
                f"run with --config {path}"
            )


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _lines(text: str) -> dict[tuple[str, str], int]:
    """In which line each plain name stands, by its table: for people, so that what is written otherwise has none."""
    found: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if head := _TABLE.match(line):
            table = head[1]
        elif name := _NAME.match(line):
            found.setdefault((table, name[1]), number)
    return found


def outranked(argv: Sequence[str], environ: Mapping[str, str]) -> frozenset[str]:
    """Settings of a file that do not count, because a flag or the environment says the same by another name.

    One place says where the data goes, and one says with whose key: a flag, else the environment, else the file.
    """
    flags = {word.partition("=")[0] for word in argv}
    gone: set[str] = set()
    if any(environ.get(name) for name in DESTINATION_VARIABLES) or flags & {"--data-center", "--base-url"}:
        gone |= {"data-center", "base-url"}
    if environ.get(KEY_VARIABLE):
        gone.add("api-key-file")
    return frozenset(gone)


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
