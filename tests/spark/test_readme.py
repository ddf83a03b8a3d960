"""The README's job in Spark, as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest
    from pyspark.sql import SparkSession

    from moe_bulk.sandbox import Sandbox

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_block_runs(spark: SparkSession, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its folder is another one; `devices` is any table with MoEngage's names and the column that orders it."""
    from pyspark.sql import functions as f  # noqa: PLC0415  it is there

    (block,) = re.findall(r"<!-- spark -->\n```python\n(.*?)```", README, re.DOTALL)
    devices = spark.range(20).select(
        f.concat(f.lit("readme-"), "id").alias("customer_id"),
        f.concat(f.lit("readme-d"), "id").alias("device_id"),
        f.lit("ANDROID").alias("platform"),
        f.concat(f.lit("token-readme-"), "id").alias("push_id"),
        f.col("id").alias("updated_at"),
    )
    exec(block.replace("s3://bucket/moengage", str(tmp_path)), {"spark": spark, "devices": devices})  # noqa: S102  ours
    assert 20 == sum((each.device_id or "").startswith("readme-d") for each in sandbox.requests)
    assert (tmp_path / "2026-11-25" / "summary.json").is_file()
