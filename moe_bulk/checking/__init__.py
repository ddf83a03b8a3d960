"""Everything that can be known of an input without sending it."""

from moe_bulk.checking.checking import check as check
from moe_bulk.checking.checking import refuse_above as refuse_above
from moe_bulk.checking.findings import Findings as Findings
