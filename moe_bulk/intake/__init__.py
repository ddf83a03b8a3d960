"""Rows from anywhere, as batches of records: files and standard input in a thread, rows in memory as they come."""

from moe_bulk.intake.intake import Intake
from moe_bulk.intake.reading import Batch, Files, Reading, Rows
from moe_bulk.sources import Query

__all__ = ["Batch", "Files", "Intake", "Query", "Reading", "Rows"]
