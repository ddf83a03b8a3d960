"""What holds for all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.promises")  # a broken promise says what was there and what should have been

# No deadlines: how long an example takes is the machine's affair. In CI the same examples every time, so that a change
# is judged by what it changes; at a desk new ones each time, to find what nobody thought of.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
