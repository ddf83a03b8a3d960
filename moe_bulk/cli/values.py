"""The values of options, read; of one that is wrong it is told who said it: a flag, the environment, a file's line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

from cyclopts import CycloptsError

from moe_bulk.config import Network, parse_duration
from moe_bulk.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from moe_bulk.options import Destination
    from moe_bulk.pacing.sharing import PaceOf

V = TypeVar("V")
T = TypeVar("T")


def read(command: str, name: str, parse: Callable[[V], T], said: V) -> T:
    """What an option of a command says; raises ConfigError that tells where it was said."""
    try:
        return parse(said)
    except ConfigError as error:
        raise ConfigError(f"{_place(command, name)}: {error}") from None


def read_network(command: str, destination: Destination, timeout: str, in_flight: int | None) -> Network:
    """What options say about connections."""
    seconds = read(command, "timeout", lambda said: Network(timeout=parse_duration(said)).timeout, timeout)

    def network(most: int | None) -> Network:
        return Network(timeout=seconds, in_flight=most, ca_bundle=destination.ca_bundle)

    return read(command, "in-flight", network, in_flight)


def read_pace(command: str, pace: str, fallback: str | None) -> PaceOf:
    """What options say about with whom the limit is shared."""
    from moe_bulk.pacing.address import pace_said, parse_fallback  # noqa: PLC0415  --help needs no pacing

    read(command, "pace-fallback", parse_fallback, fallback)
    return read(command, "pace", lambda said: pace_said(said, fallback, sys.argv), pace)


def _place(command: str, name: str) -> str:
    """Where it was said, as `moe-bulk config` tells it; the option's name where that is all there is to tell."""
    from moe_bulk.cli.config import settings_of  # noqa: PLC0415  only where something is wrong

    words, option = sys.argv[1:], f"--{name}"
    if words[:1] != [command]:  # a program has called the command itself
        return option
    try:
        said = next(each for each in settings_of(words) if each.name == name)
    except (ConfigError, CycloptsError, StopIteration):
        return option
    return f"{said.place}: {name}" if said.source == "file" else said.place or option
