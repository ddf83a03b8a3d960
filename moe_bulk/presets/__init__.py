"""What known exports look like: a small table each, and the form that a table of one's own has."""

from moe_bulk.presets.form import Preset
from moe_bulk.presets.shelf import as_mapping, as_setting, from_mapping, listing, load, names

__all__ = ["Preset", "as_mapping", "as_setting", "from_mapping", "listing", "load", "names"]
