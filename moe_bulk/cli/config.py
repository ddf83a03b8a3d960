"""`moe-bulk config`."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from moe_bulk.cli.app import app, examples, options_of
from moe_bulk.cli.configuration import file_settings, reads_settings
from moe_bulk.errors import ConfigError
from moe_bulk.options import CONFIG, OUTPUT, option
from moe_bulk.page import visible
from moe_bulk.settings import DESTINATION_VARIABLES, KEY_VARIABLE
from moe_bulk.spelling import did_you_mean
from moe_bulk.streams import Unbreakable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cyclopts.argument import Argument

    from moe_bulk.settings import FileSettings

WIDTH = 80
_HIDDEN = "***"
_CONTROLS = re.compile(r"[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its value, and which of flag, environment, file and default it comes from; there, `place` says."""

    name: str
    value: object
    source: str
    place: str = ""


@app.command(
    usage="Usage: moe-bulk config [OPTIONS] [COMMAND [OPTIONS OF COMMAND...]]",
    help_epilogue=examples(
        "moe-bulk config",
        "moe-bulk config doctor --json",
        "moe-bulk config upload --rate 5000/min > nightly.toml",
    ),
)
def config(
    *command: Annotated[
        str, Parameter(help="A command, and options as they would follow it; else upload.", allow_leading_hyphen=True)
    ],
    json: Annotated[bool, option("Print the settings as JSON on standard output.", group=OUTPUT)] = False,
    config: Annotated[str | None, CONFIG] = None,
) -> int:
    """Show each setting of a command, and where it comes from.

    A flag goes before the environment, that before the file, that before the
    default. What is printed can stand in a file for --config as it is; the API
    key is never shown, and what holds another secret is commented out.
    """
    words = list(command) or ["upload"]
    if words[0].startswith("-"):
        words.insert(0, "upload")
    if not reads_settings(words[0]):
        known = [name for name in app if reads_settings(name)]
        raise ConfigError(f"{words[0]} is no command that reads settings.{did_you_mean(words[0], known)}")
    found = file_settings(words[0], [*words, *(["--config", config] if config is not None else [])])
    settings = list(_settings(words, found))
    found = replace(found, path=_short(found.path))
    file = found.path if Path(found.path).is_file() else None
    out = Unbreakable(sys.stdout)
    if json:
        out.say_json(_as_json(words[0], file, settings))
    else:
        out.say(_as_toml(words[0], file, settings))
    return 0


def settings_of(words: Sequence[str]) -> Iterator[Setting]:
    """All that a command line's command would be given; the command comes first."""
    found = file_settings(words[0], words)
    return _settings(words, replace(found, path=_short(found.path)))


def _settings(words: Sequence[str], found: FileSettings) -> Iterator[Setting]:
    """All that the command would be given, as the command line's own reader finds it."""
    arguments = {each.name.lstrip("-"): each for each in _parsed(words, found) if each.name.startswith("--")}
    elsewhere = next((name for name in DESTINATION_VARIABLES if os.environ.get(name)), None)
    if any(arguments[name].tokens for name in ("data-center", "base-url") if name in arguments):
        elsewhere = None
    for name, argument in arguments.items():
        if name == "config":
            continue
        if elsewhere is not None and elsewhere == f"MOENGAGE_{name.upper().replace('-', '_')}":
            yield Setting(name, os.environ[elsewhere], "environment", elsewhere)
            continue
        yield _setting(name, argument, found)
        if name == "api-key-file":
            yield _key(argument)


def _parsed(words: Sequence[str], found: FileSettings) -> Sequence[Argument]:
    from cyclopts.config import Dict  # noqa: PLC0415  this command's only

    caught: list[Argument] = []

    def catch(_app: object, _commands: object, arguments: Sequence[Argument]) -> None:
        caught.extend(arguments)

    for word in words[1:]:
        name = word.partition("=")[0]
        if word.startswith("-") and word != "-" and name not in set(options_of(words[0])):
            raise ConfigError(f"{words[0]} has no option {name}.{did_you_mean(name, options_of(words[0]))}")
    before, app.config = app.config, (Dict({words[0]: dict(found.said)}, source=found.path), catch)
    try:
        app.parse_args(list(words), exit_on_error=False, print_error=True)
    finally:
        app.config = before
    return caught


def _setting(name: str, argument: Argument, found: FileSettings) -> Setting:
    tokens = argument.tokens
    if not tokens:
        return Setting(name, argument.field_info.default, "default")
    value = argument.value
    if tokens[0].source == "cli":
        return Setting(name, value, "flag")
    if tokens[0].source == "env":
        return Setting(name, value, "environment", tokens[0].keyword or "")
    line = found.lines.get(name)
    return Setting(name, value, "file", found.path if line is None else f"{found.path}:{line}")


def _key(file: Argument) -> Setting:
    """The key itself, which nobody is shown: where an upload would take it from."""
    if file.tokens:
        return Setting("API key", _HIDDEN, "key file", str(file.value))
    if os.environ.get(KEY_VARIABLE, "").strip():
        return Setting("API key", _HIDDEN, "environment", KEY_VARIABLE)
    return Setting("API key", None, "default")


def _short(path: str) -> str:
    """The file's name alone where it lies in the current folder."""
    return Path(path).name if Path(path).parent.absolute() == Path.cwd() else path


# --- how they are shown ----------------------------------------------------------------------------------------------


def _as_json(command: str, file: str | None, settings: Sequence[Setting]) -> bytes:
    import orjson  # noqa: PLC0415

    told = [
        {"name": each.name, "value": _plain(each.value), "source": each.source, "place": each.place or None}
        for each in settings
    ]
    return orjson.dumps({"command": command, "file": file, "settings": told}, option=orjson.OPT_INDENT_2)


def _as_toml(command: str, file: str | None, settings: Sequence[Setting]) -> str:
    lines = [f"# moe-bulk {command}: flag > environment > {file or 'file'} > default"]
    for each in settings:
        # A key has no place in a file, nor has a setting that is not there.
        said = f"{each.name} = {_toml(each.value)}" if each.value is not None else f"# {each.name}"
        note = "not set" if each.value is None else visible(f"{each.source} {each.place}".strip())
        if each.value == _HIDDEN:
            said = f"# {each.name}: {_HIDDEN}"
        elif _plain(each.value) != _listed(each.value):
            said, note = f"# {said}", f"{note}: a secret in it is not shown"
        line = f"{said:<36}  # {note}"
        lines += [line] if len(line) <= WIDTH else [f"# {note}:", said]
    return "\n".join(lines)


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _plain(value: object) -> object:
    from moe_bulk.sources.masking import masked  # noqa: PLC0415

    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return masked(value) if isinstance(value, str) else value


def _toml(value: object) -> str:
    """As TOML writes it; JSON's strings are TOML's, too, but for the characters that control a terminal."""
    import orjson  # noqa: PLC0415

    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", orjson.dumps(_plain(value)).decode())
