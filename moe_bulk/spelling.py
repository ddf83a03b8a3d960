"""Names that somebody misspelt: what they probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message: ` Did you mean customer_id?`, or nothing where no known name is close.

    >>> did_you_mean("Customer-ID", ["device_id", "customer_id"])
    ' Did you mean customer_id?'
    """
    close = get_close_matches(name.lower(), list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""
