"""Rows become devices: rename, fill in, fold."""

from moe_bulk.columns.columns import Columns
from moe_bulk.columns.portion import Portion
from moe_bulk.columns.reader import REASON_KEPT, WARNINGS_KEPT, Made, Reader, Unsent

__all__ = ["REASON_KEPT", "WARNINGS_KEPT", "Columns", "Made", "Portion", "Reader", "Unsent"]
