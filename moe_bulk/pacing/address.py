"""Where the pace of several hosts is kept: a Redis server's URL, whose password nobody sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from moe_bulk.config import Secret
from moe_bulk.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMES = ("redis://", "rediss://")
HOW = "write it like redis://HOST:6379/0, or rediss://USER:PASSWORD@HOST:6379/0 for TLS"
MOST_SHARES = 1000


@dataclass(frozen=True, slots=True, init=False, eq=False)
class RedisPace:
    """A limit kept together by uploads on any number of hosts, through one Redis (or Valkey) server.

    `share` is what an upload does while that server is away: 0, nothing is sent; N, it takes an Nth of the limit by
    itself, which is safe as long as no more than N uploads are at work. The password is never shown; whoever needs it
    asks for it by `secret`.

    >>> RedisPace("rediss://:hunter2@pace.example.org")
    RedisPace('rediss://pace.example.org:6379/0')
    """

    host: str
    port: int
    database: int
    encrypted: bool
    user: str | None
    share: int
    _password: Secret | None

    def __init__(self, url: str, share: int = 0) -> None:
        # Nothing of the URL is told where it cannot be read: what is wrong with it may be where the password stands.
        wrong = ConfigError(f"the URL of the Redis server that keeps the pace cannot be read: {HOW}")
        if not url.startswith(SCHEMES) or not url.isascii() or not url.isprintable() or " " in url:
            raise wrong
        scheme, rest = url.split("://", 1)
        if rest.partition("/")[0].count("@") > 1 or set(rest) & set("?#\\"):
            raise ConfigError(
                f"{wrong}; nothing may follow the number of the database, and in a password these are spelt with %XX: "
                "@ is %40, : is %3A, / is %2F, ? is %3F, # is %23, % is %25"
            )
        try:
            parts = urlsplit(url)
            host, port, database = parts.hostname or "", parts.port or 6379, int(parts.path.strip("/") or 0)
        except ValueError:
            raise wrong from None
        if not host or parts.port == 0 or database < 0:
            raise wrong
        if type(share) is not int or not 0 <= share <= MOST_SHARES:
            raise ConfigError(f"the share of --pace-fallback is a whole number from 1 to {MOST_SHARES}; got {share!r}")
        password = unquote(parts.password) if parts.password else None
        for name, value in (
            ("host", host),
            ("port", port),
            ("database", database),
            ("encrypted", scheme == "rediss"),
            ("user", unquote(parts.username) if parts.username else None),
            ("share", share),
            ("_password", None if password is None else Secret(password)),
        ):
            object.__setattr__(self, name, value)

    @property
    def secret(self) -> str | None:
        """The password itself: for the connection, and for masking."""
        return None if self._password is None else self._password.reveal()

    @property
    def place(self) -> str:
        """The URL as everybody may see it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.encrypted else 'redis'}://{host}:{self.port}/{self.database}"

    def __str__(self) -> str:
        return self.place

    def __repr__(self) -> str:
        return f"RedisPace({self.place!r}{f', share={self.share}' if self.share else ''})"


def parse_fallback(said: str | None) -> int:
    """Read `share=N`: what an upload does while the server is away; 0 where nothing was said."""
    if said is None:
        return 0
    name, _, number = said.partition("=")
    if name.strip() != "share" or not (digits := number.strip()).isdecimal() or not digits.isascii() or int(digits) < 1:
        raise ConfigError(f"{said!r} is nothing to fall back on: write share=N, N being how many uploads there are")
    return int(digits)


def pace_said(pace: str, fallback: str | None, words: Sequence[str]) -> str | RedisPace:
    """What --pace and --pace-fallback say: `host`, `process`, a URL, or @FILE with one. `words` is the command line.

    Raises ConfigError for a password on the command line, which all users of the machine can read in the process list.
    """
    said = read_url(pace[1:]) if pace.startswith("@") else pace.strip()
    if not said.startswith(SCHEMES):
        if fallback is not None:
            raise ConfigError("--pace-fallback is for --pace redis://…: nothing else can be away")
        if said in ("host", "process"):
            return said
        raise ConfigError(f"there is no such --pace: it is host, process, or the URL of a Redis server; {HOW}")
    found = RedisPace(said, parse_fallback(fallback))
    if found.secret is not None and any(said in word for word in words):
        raise ConfigError(
            "a password on the command line stands in the process list, and in the shell's history: put the URL into "
            "the environment as MOE_BULK_PACE, or into a file, and say --pace @FILE. Change the password"
        )
    return found


def read_url(path: str) -> str:
    """The URL that stands in a file, as its only line."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"the file {path} of --pace cannot be read: {why}") from None
