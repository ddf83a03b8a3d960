"""A table as somebody wrote it: the parts of it, or what is wrong and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from moe_bulk.errors import ConfigError
from moe_bulk.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class PresetTable:
    """Reads a table of the preset `name`, which may have these keys only; ConfigError where it makes no sense."""

    def __init__(self, name: str, table: Mapping[str, object], keys: Sequence[str]) -> None:
        self._name = name
        self._table = table
        self.refuse_unknown("", table, keys, "key")

    def wrong(self, where: str, why: str) -> ConfigError:
        """The error for one place of it."""
        return ConfigError(f"the preset {self._name}: {where} {why}")

    def refuse_unknown(self, where: str, found: Iterable[str], known: Sequence[str], kind: str) -> None:
        """Refuse a name that is none of those."""
        for name in found:
            if name not in known:
                place = f"{where}: " if where else ""
                raise ConfigError(
                    f"the preset {self._name}: {place}there is no {kind} {name!r}.{did_you_mean(str(name), known)} "
                    f"There are: {', '.join(known)}"
                )

    def section(self, part: str) -> Mapping[str, object]:
        """A table within it."""
        found = self._table.get(part, {})
        if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
            raise self.wrong(part, "must be a table")
        return found

    def text(self, part: str) -> str:
        """A text, the empty one where it is not there."""
        return self._text(part, self._table.get(part, ""))

    def texts(self, part: str) -> tuple[str, ...]:
        """One text or several."""
        return self._texts(part, self._table.get(part, ()))

    def pairs(self, part: str) -> dict[str, str]:
        """A table of texts."""
        return {name: self._text(f"{part}.{name}", said) for name, said in self.section(part).items()}

    def lists(self, part: str) -> dict[str, tuple[str, ...]]:
        """A table of texts, or of several each."""
        found = {name: self._texts(f"{part}.{name}", said) for name, said in self.section(part).items()}
        for name, said in found.items():
            if not all(said) or not said:
                raise self.wrong(f"{part}.{name}", "names no column")
        return found

    def maps(self, part: str) -> dict[str, dict[str, str]]:
        """A table of tables of texts."""
        found: dict[str, dict[str, str]] = {}
        for name, inner in self.section(part).items():
            if not isinstance(inner, Mapping):
                raise self.wrong(f"{part}.{name}", "must be a table of values")
            found[name] = {str(key): self._text(f"{part}.{name}.{key}", said) for key, said in inner.items()}
        return found

    def _text(self, where: str, said: object) -> str:
        if not isinstance(said, str):
            raise self.wrong(where, f"must be text in quotes; it is {said!r}"[:200])
        return said

    def _texts(self, where: str, said: object) -> tuple[str, ...]:
        if isinstance(said, str):
            return (said,)
        if not isinstance(said, (list, tuple)):
            raise self.wrong(where, f"must be text or a list of texts; it is {said!r}"[:200])
        return tuple(self._text(where, each) for each in said)
