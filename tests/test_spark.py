"""The door of the room for Spark, which opens without PySpark."""

from __future__ import annotations

import subprocess
import sys

import pytest

from moe_bulk import spark


def test_only_the_data_source_needs_pyspark() -> None:
    """All that decides can be imported, and tested, where Spark is not."""
    rooms = (
        "access attempts claims delivery dividing merging mirror order places plan rows rules sampling settings shelf"
    )
    program = "; ".join(f"import moe_bulk.spark.{room}" for room in rooms.split())
    check = "import sys; sys.exit('pyspark' in sys.modules)"
    subprocess.run([sys.executable, "-c", f"{program}; {check}"], check=True)


def test_there_is_one_name() -> None:
    """Another one is told as any module tells it."""
    assert ["MoEngageDataSource"] == spark.__all__
    with pytest.raises(AttributeError, match="has no attribute 'MoEngageSource'"):
        _ = spark.MoEngageSource  # type: ignore[attr-defined]
