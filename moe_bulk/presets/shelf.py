"""Where presets come from: those of the package by their name, one's own by its file, those of dead letters."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from textwrap import wrap

from moe_bulk.errors import ConfigError
from moe_bulk.presets.form import Preset
from moe_bulk.spelling import did_you_mean

_FOLDER = "moe_bulk.presets"
_WIDTH = 80
_INDENT = "    "


@cache
def names() -> tuple[str, ...]:
    """The presets of the package."""
    return tuple(sorted(each.name.removesuffix(".toml") for each in files(_FOLDER).iterdir() if _is_toml(each.name)))


def load(said: str) -> Preset:
    """The preset of this name or, where it is a path or ends in `.toml`, in this file; ConfigError where it is none."""
    if said in names():
        return _built_in(said)
    if _is_toml(said) or "/" in said:
        return _own(said)
    raise ConfigError(
        f"there is no preset {said!r}.{did_you_mean(said, names())} There are: {', '.join(names())}; a file of your "
        "own is named with its ending: --preset ./mine.toml"
    )


def from_mapping(said: object) -> Preset:
    """The preset that a dead letter carries: a name or a whole table, never a file."""
    if isinstance(said, Mapping):
        return Preset.from_table("in it", said)
    if isinstance(said, str) and said in names():
        return _built_in(said)
    raise ConfigError("its preset is neither a table nor one of the package's")


def as_mapping(preset: Preset) -> object:
    """What a dead letter carries: by it the preset is there again, whatever became of its file."""
    return preset.name if preset.built_in else dict(preset.table)


def as_setting(preset: Preset) -> str:
    """By what it is known again: its name, and for one's own what stands in it."""
    if preset.built_in:
        return preset.name
    content = json.dumps(preset.table, sort_keys=True, default=str).encode("utf-8", "backslashreplace")
    return f"{Path(preset.name).name} ({hashlib.sha256(content).hexdigest()[:12]})"


def listing() -> str:
    """All presets of the package for people: what each is for, and the columns that it expects."""
    told = []
    for preset in map(_built_in, names()):
        asked = [f"{_INDENT}needs --set {field}=VALUE" for field in preset.ask]
        about, columns = f"{preset.name}: {preset.about}", _INDENT + ", ".join(preset.expected)
        told.append("\n".join([*_wrapped(about), *_wrapped(columns), *asked]))
    return "\n\n".join(told)


def _wrapped(text: str) -> list[str]:
    return wrap(text, _WIDTH, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False)


@cache
def _built_in(name: str) -> Preset:
    text = files(_FOLDER).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return Preset.from_table(name, tomllib.loads(text), built_in=True)


def _own(path: str) -> Preset:
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # no text and no TOML are ValueErrors
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"the preset {path} cannot be read: {why}. It must be a TOML table; `moe-bulk presets` lists those that "
            "need no file"
        ) from None
    return Preset.from_table(path, table)


def _is_toml(name: str) -> bool:
    return name.endswith(".toml")
