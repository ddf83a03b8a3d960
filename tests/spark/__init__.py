"""Tests with Spark itself, in an environment of their own: see `.ci/run`."""
