"""What ids and tokens must not be, by MoEngage's list and by what exports put there; and which are plain."""

from __future__ import annotations

import re
import string
from itertools import chain, repeat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def words(*lines: str) -> frozenset[str]:
    """The words in these lines."""
    return frozenset(" ".join(lines).split())


# "Any string of more than one characters is allowed for customer_id except the following values" (data overview).
FORBIDDEN = words(
    "unknown guest null 0 1 true false user_attribute_unique_id (empty) na n/a dummy_seller_code user_id id",
    "customer_id uid userid none -2 -1 2",
)

PLACEHOLDERS = words(
    "na n/a n.a n null nil none nan nsnull undefined undef unknown unset unavailable missing empty blank void",
    "true false notset not_set notavailable not_available notapplicable optedout optout blacklisted",
) | {"not set", "not available", "not applicable", "opted out", "no token"}
_LONG = max(map(len, PLACEHOLDERS)) + 1
"""Characters of what cannot be a placeholder."""

EDGES = string.punctuation + string.whitespace + "\u2010\u2013\u2014\u2026\u2212"  # dashes and an ellipsis
EDGES_AND_ZERO = EDGES + "0"
_NOT_TIGHT = bytes((*range(32), *b" <\x7f"))
_LONGEST_IDS = 50_000
"""Characters of a row's ids and tokens from which on its body's size is looked at.

JSON doubles plain ones at worst, and all other texts of such a row take 12 KB: together less than a body may have.
"""

_HEX = re.compile(r"[0-9A-Fa-f]+")


def token_key(push_id: str) -> str:
    """A push token as it is compared: hex ones without case."""
    return push_id.casefold() if push_id.isalnum() and _HEX.fullmatch(push_id) else push_id


def plain_ids(customer_id: str, push_id: str, other: str, tight: str) -> bool:
    """True where ids, tokens and any `other` id, `tight` when put together, need no folding and break no rule."""
    return (
        tight.isascii()
        and len(tight) < _LONGEST_IDS
        and len(tight.encode().translate(None, _NOT_TIGHT)) == len(tight)  # a third of what `isprintable` alone takes
        and len(customer_id) > 1
        and customer_id.lower() not in FORBIDDEN
        and len(push_id.strip(EDGES_AND_ZERO)) >= _LONG
        and (not other or len(other.strip(EDGES_AND_ZERO)) >= _LONG)
    )


def _core_lengths(tokens: Iterable[str]) -> Iterator[int]:
    """How long tokens are without what stands around placeholders."""
    return map(len, map(str.strip, tokens, repeat(EDGES_AND_ZERO)))


def all_plain(
    customer_ids: Sequence[str], device_ids: Sequence[str], push_ids: Sequence[str], others: Sequence[str]
) -> bool:
    """True only where `plain_ids` is so of each row, given by columns, and none lacks its device id.

    Asked of hundreds of rows at once it takes a third of the time.
    """
    tight = "".join(chain(customer_ids, device_ids, push_ids, others))
    columns = (customer_ids, device_ids, push_ids, others)
    return (
        tight.isascii()
        and len(tight.encode().translate(None, _NOT_TIGHT)) == len(tight)
        # all of them together are shorter than those of one row may be, or the longest of each column are
        and (len(tight) < _LONGEST_IDS or sum(max(map(len, each), default=0) for each in columns) < _LONGEST_IDS)
        and all(device_ids)
        and min(map(len, customer_ids), default=2) > 1
        and FORBIDDEN.isdisjoint(map(str.lower, customer_ids))
        and min(_core_lengths(push_ids), default=_LONG) >= _LONG
        and min(_core_lengths(filter(None, others)), default=_LONG) >= _LONG
    )
