"""Where a task's run folder is: the same for each try of it, and another for each Dag run, task and map index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moe_bulk.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_OUT = (
    "{{ dag.dag_id }}/{{ run_id }}/{{ task.task_id }}{% if ti.map_index >= 0 %}.{{ ti.map_index }}{% endif %}.run"
)
"""A template of Airflow's, for a folder within that of all runs."""


def run_folder(out: str, runs: str | None, environ: Mapping[str, str]) -> Path:
    """The folder that `out`, once rendered, means: as it stands where it is absolute, else within that of all runs.

    That is `runs`, what the connection says, else `MOE_BULK_RUNS`, else `moe_bulk` in Airflow's own folder.
    """
    if not out or out != out.strip() or "{{" in out or "\0" in out:
        raise ConfigError(f"out={out!r} names no folder: leave it out, or give a path or a template of one")
    path = Path(out).expanduser()
    if ".." in path.parts:
        raise ConfigError(f"out={out!r} leads out of its folder: write it without `..`")
    if path.is_absolute():
        return path
    home = environ.get("AIRFLOW_HOME") or "~/airflow"
    base = Path(runs or environ.get("MOE_BULK_RUNS") or Path(home) / "moe_bulk").expanduser()
    if not base.is_absolute():
        raise ConfigError(f"the folder of all runs, {str(base)!r}, is no absolute path: tasks run anywhere")
    return base / path
