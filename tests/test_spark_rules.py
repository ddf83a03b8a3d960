"""What a task of Spark's refuses to begin, and when several may send at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moe_bulk.errors import ConfigError
from moe_bulk.spark.attempts import run_name
from moe_bulk.spark.rules import Task, alone, is_shared, refuse, refuse_overwrite
from moe_bulk.spark.settings import read_options

LOCAL = Task(0, master="local[2]")
SETTINGS = read_options({"out": "/a"})


def test_overwriting_is_refused() -> None:
    """Nothing can be taken back from MoEngage."""
    with pytest.raises(ConfigError, match=r'use mode\("append"\)'):
        refuse_overwrite(overwrite=True)
    refuse_overwrite(overwrite=False)


@pytest.mark.parametrize("said", ["true", " TRUE "])
def test_speculation_is_refused(said: str) -> None:
    """A second copy of a task would send its rows once more, beside the first."""
    with pytest.raises(ConfigError, match=r"Set spark\.speculation=false"):
        refuse(SETTINGS, replace(LOCAL, speculation=said))
    refuse(SETTINGS, replace(LOCAL, speculation="false"))
    refuse(SETTINGS, LOCAL)


@pytest.mark.parametrize(
    ("pattern", "visible"),
    [("(?i)secret|password", False), ("api.key", False), ("(?i)nothing", True), ("(", True)],
)
def test_a_secret_that_spark_would_show_is_refused(pattern: str, visible: bool) -> None:  # noqa: FBT001
    """Somebody may have set another pattern for what is redacted in plans and the UI."""
    settings = read_options({"out": "/a", "api_key_secret": "S3CR3T"})
    task = replace(LOCAL, redaction=pattern)
    if not visible:
        refuse(settings, task)
        return
    with pytest.raises(ConfigError, match=r"does not match the option api_key_secret") as refused:
        refuse(settings, task)
    assert "S3CR3T" not in str(refused.value)


def test_a_stream_s_run_is_its_query() -> None:
    """Another name for it would be the same for all its batches."""
    with pytest.raises(ConfigError, match="leave out run_id"):
        refuse(replace(SETTINGS, run_id="x"), replace(LOCAL, query_id="q", batch_id=1))


def test_a_job_within_a_stream_has_a_run_of_its_own() -> None:
    """`foreachBatch` writes as a batch job does, and its tasks know of the query all the same."""
    within = replace(LOCAL, query_id="q", batch_id=1, streams=False)
    refuse(replace(SETTINGS, run_id="x"), within)
    assert "x" == run_name("x", within)
    with pytest.raises(ConfigError, match="their limit has to be shared"):
        refuse(replace(SETTINGS, run_id="x"), replace(within, master="yarn"))


def test_a_stream_on_a_cluster_needs_a_pace_that_travels() -> None:
    """Its batches follow each other on any host, within one window of the limit."""
    stream = Task(0, master="yarn", query_id="q", batch_id=1)
    with pytest.raises(ConfigError, match="redis://"):
        refuse(SETTINGS, stream)
    refuse(replace(SETTINGS, pace="redis://host/0"), stream)
    refuse(SETTINGS, replace(stream, master="local[*]"))
    with pytest.raises(ConfigError, match="on a local master leave it out"):
        refuse(replace(SETTINGS, pace="process"), replace(stream, master="local[*]"))


@pytest.mark.parametrize(
    ("pace", "master", "expected"),
    [
        ("host", "local", True),
        ("host", "local[2]", True),
        ("host", "local[*,4]", True),
        ("host", "local-cluster[2,1,1024]", False),
        ("host", "yarn", False),
        ("host", "spark://host:7077", False),
        ("host", "", False),
        ("process", "local[2]", False),
        ("redis://host/0", "yarn", True),
    ],
)
def test_several_partitions_send_only_with_one_pace(pace: str, master: str, expected: bool) -> None:  # noqa: FBT001
    """One host's window holds for all tasks only where all of them are on it."""
    assert expected == is_shared(replace(SETTINGS, pace=pace), Task(0, master=master))


def test_a_second_partition_is_told_what_to_do() -> None:
    """By the numbers of both."""
    said = str(alone(replace(SETTINGS, pace="process"), 3, [1, 7]))
    assert "partitions 1, 3, 7 have rows for one workspace" in said
    assert "df.coalesce(1)" in said
