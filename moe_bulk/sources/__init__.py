"""Bytes → rows, one file a format. Opening and decompressing is the work of smart_open and the standard library."""

from moe_bulk.sources.base import Source
from moe_bulk.sources.doors import open_source
from moe_bulk.sources.masking import masked
from moe_bulk.sources.memory import row_in_memory
from moe_bulk.sources.opening import open_raw
from moe_bulk.sources.replay import Spool
from moe_bulk.sources.sql import QUERY, Query, QueryRows, is_database
from moe_bulk.sources.tables import Table, rows_of_table

__all__ = [
    "QUERY",
    "Query",
    "QueryRows",
    "Source",
    "Spool",
    "Table",
    "is_database",
    "masked",
    "open_raw",
    "open_source",
    "row_in_memory",
    "rows_of_table",
]
