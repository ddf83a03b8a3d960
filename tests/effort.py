"""How many examples a property is tried with: fewer in CI, where they are the same ones every time."""

from __future__ import annotations

import os

IN_CI = bool(os.environ.get("CI"))


def examples(at_a_desk: int) -> int:
    """As many at a desk; half in CI, where the same ones come each time and a second half would show nothing new."""
    return max(at_a_desk // 2, 1) if IN_CI else at_a_desk
