"""What Airflow learns of this package; that it likes it is tested where Airflow is."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import moe_bulk
from moe_bulk.airflow.get_provider_info import get_provider_info

ROOT = Path(moe_bulk.__file__).parents[1]


def test_every_name_in_it_leads_somewhere() -> None:
    """Modules that need Airflow are not imported for that; their files are there."""
    told: dict[str, Any] = get_provider_info()
    modules = [name for kind in ("hooks", "operators") for each in told[kind] for name in each["python-modules"]]
    (connection,) = told["connection-types"]
    module, _, hook = connection["hook-class-name"].rpartition(".")
    for name in [*modules, module]:
        assert (ROOT / name.replace(".", "/")).with_suffix(".py").exists()
    assert f"class {hook}(" in (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")


def test_the_entry_point_leads_to_it() -> None:
    """By the name that Airflow looks for, for the package of that name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["apache_airflow_provider"]["provider_info"].partition(":")
    assert get_provider_info is getattr(import_module(module), name)
    assert project["name"] == get_provider_info()["package-name"]
