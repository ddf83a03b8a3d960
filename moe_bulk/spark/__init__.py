"""The same uploader as a data source of Spark's: each task delivers its partition, the driver sums up.

>>> from moe_bulk.spark import MoEngageDataSource  # doctest: +SKIP
>>> spark.dataSource.register(MoEngageDataSource)  # doctest: +SKIP

PySpark is imported in `datasource` alone, when that name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_bulk.spark.datasource import MoEngageDataSource as MoEngageDataSource
else:

    def __getattr__(name: str) -> object:
        """Import the data source when it is asked for: the other rooms here need no PySpark."""
        if name == "MoEngageDataSource":
            from moe_bulk.spark.datasource import MoEngageDataSource  # noqa: PLC0415  for those who have PySpark

            return MoEngageDataSource
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["MoEngageDataSource"]
