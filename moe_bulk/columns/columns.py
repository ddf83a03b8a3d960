"""Which column is which field, what is the same for all rows, which rows are left out: a plain value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from moe_bulk.device import FIELDS, Validation
from moe_bulk.errors import ConfigError
from moe_bulk.presets import Preset, as_mapping, from_mapping, load
from moe_bulk.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Columns:
    """How rows become devices: which column holds which field, what is the same for all, which rows are left out.

    `columns` maps fields to columns, `constants` fields to values (they replace whatever the row has), `where` keeps
    only rows whose columns have these values. `preset` is the name of a known export, or the path of a TOML table of
    that form; what else is said here stands above it. Columns are named with dots where they lie in nested objects.
    Dead letters carry the mapping with which they were read; it is applied again, beneath this one.

    >>> Columns.parse(column=["customer_id=uid"], set_=["platform=iOS"]).columns
    {'customer_id': 'uid'}
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    where: tuple[tuple[str, str], ...] = ()
    validate: Validation = "strict"
    include_superseded: bool = False
    preset: str | Preset | None = None
    in_use: Preset | None = field(init=False, repr=False, compare=False)
    """The preset itself, where there is one."""
    mapping: dict[str, object] | None = field(init=False, repr=False, compare=False)
    """What is needed to read a row in the same way again; None where plain field names did."""

    def __post_init__(self) -> None:
        for name in (*self.columns, *self.constants):
            if name not in FIELDS:
                raise ConfigError(
                    f"there is no field {name!r}.{did_you_mean(name, FIELDS)} Fields: {', '.join(FIELDS)}"
                )
        if self.validate not in get_args(Validation):
            raise ConfigError(f"there is no validation {self.validate!r}: use strict or basic")
        for name, column in self.columns.items():
            if not column:
                raise ConfigError(f"{name} is given no column: write --column {name}=COLUMN")
            if name in self.constants:
                raise ConfigError(f"{name} has both a column and a constant: keep one of --column and --set")
        object.__setattr__(self, "in_use", load(self.preset) if isinstance(self.preset, str) else self.preset)
        self._ask()
        object.__setattr__(self, "mapping", self._mapping())

    def _ask(self) -> None:
        """Refuse a preset that needs to be told something, and is not."""
        preset = self.in_use
        if preset is None:
            return
        for name, why in preset.ask.items():
            if name not in self.columns and name not in self.constants:
                raise ConfigError(f"--preset {preset.name}: which {name}? {why[:1].upper()}{why[1:]}")

    @classmethod
    def parse(
        cls,
        column: Sequence[str] = (),
        set_: Sequence[str] = (),
        where: Sequence[str] = (),
        *,
        validate: Validation = "strict",
        include_superseded: bool = False,
        preset: str | None = None,
    ) -> Columns:
        """Read the texts of `--column FIELD=COLUMN`, `--set FIELD=VALUE`, `--where COLUMN=VALUE` and `--preset`."""
        return cls(
            {name: said.strip() for name, said in _pairs("--column", "FIELD=COLUMN", column).items()},
            _pairs("--set", "FIELD=VALUE", set_),
            tuple(_pairs("--where", "COLUMN=VALUE", where).items()),
            validate,
            include_superseded,
            preset,
        )

    def _mapping(self) -> dict[str, object] | None:
        said: dict[str, object] = {}
        if self.in_use is not None:
            said["preset"] = as_mapping(self.in_use)
        if self.columns:
            said["columns"] = dict(self.columns)
        if self.constants:
            said["set"] = dict(self.constants)
        if self.validate != "strict":
            said["validate"] = self.validate
        return said or None

    def on_top_of(self, mapping: object) -> Columns:
        """This mapping, and beneath it the one that a dead letter carries. Raises ConfigError where that is none."""
        if not isinstance(mapping, dict):
            raise ConfigError("it must be an object with columns and set")
        preset = self.in_use
        if preset is None and mapping.get("preset") is not None:
            preset = from_mapping(mapping["preset"])
        columns, constants = _texts(mapping, "columns"), _texts(mapping, "set")
        for name in (*self.columns, *self.constants):
            columns.pop(name, None)
            constants.pop(name, None)
        validate: Validation = "basic" if "basic" in (self.validate, mapping.get("validate")) else "strict"
        return Columns(
            {**columns, **self.columns},
            {**constants, **self.constants},
            self.where,
            validate,
            self.include_superseded,
            preset,
        )


def _texts(mapping: Mapping[str, object], name: str) -> dict[str, str]:
    found = mapping.get(name, {})
    if not isinstance(found, dict) or not all(isinstance(text, str) for pair in found.items() for text in pair):
        raise ConfigError(f"{name} must map fields to text")
    return dict(found)


def _pairs(option: str, form: str, texts: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ConfigError(f"{option} {text!r}: write it like {option} {form}")
        if name in pairs:
            raise ConfigError(f"{option} names {name} twice: {pairs[name]!r} and {value!r}")
        pairs[name] = value
    return pairs
