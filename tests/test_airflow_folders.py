"""Where a task's run folder is."""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_bulk.airflow.folders import run_folder
from moe_bulk.errors import ConfigError


@pytest.mark.parametrize(
    ("out", "runs", "environ", "expected"),
    [
        ("/srv/x.run", "/srv/runs", {}, "/srv/x.run"),
        ("d/x.run", "/srv/runs", {"MOE_BULK_RUNS": "/else"}, "/srv/runs/d/x.run"),
        ("d/x.run", None, {"MOE_BULK_RUNS": "/else", "AIRFLOW_HOME": "/home/airflow"}, "/else/d/x.run"),
        ("d/x.run", None, {"AIRFLOW_HOME": "/home/airflow"}, "/home/airflow/moe_bulk/d/x.run"),
        ("d/x.run", None, {}, "~/airflow/moe_bulk/d/x.run"),
        ("d/x.run", "~/runs", {}, "~/runs/d/x.run"),
    ],
)
def test_the_folder(out: str, runs: str | None, environ: dict[str, str], expected: str) -> None:
    """Where it says, else within the connection's folder, the environment's, or Airflow's own."""
    assert Path(expected).expanduser() == run_folder(out, runs, environ)


@pytest.mark.parametrize("out", ["", " ", "a\0b", "{{ run_id }}.run", "../x.run", "a/../../x.run"])
def test_what_is_no_folder_is_refused(out: str) -> None:
    """Whatever a template came to, and one that was not rendered."""
    with pytest.raises(ConfigError, match="out="):
        run_folder(out, "/srv/runs", {})


def test_the_folder_of_all_runs_is_the_same_for_all_workers() -> None:
    """A relative one would be another one in each process."""
    with pytest.raises(ConfigError, match="is no absolute path"):
        run_folder("x.run", "runs", {})
