"""The options of a write into Spark's data source: what they come to, and what is refused before anything begins."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest

from moe_bulk.config import FailureLimit, Rate
from moe_bulk.errors import ConfigError, SourceError
from moe_bulk.spark.settings import Settings, read_options

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("customer_id", "device_id", "platform", "push_id", "updated_at")


def test_an_option_says_what_it_says_on_the_command_line() -> None:
    """The same words for the same things; what Spark adds of its own is none of ours."""
    said = {
        "out": "/shared/moe/",
        "run_id": "nightly-1",
        "rate": "600000/min",
        "pace": "redis://host/0",
        "timeout": "10s",
        "tries": "3",
        "in_flight": "64",
        "outage-limit": "5min",
        "max_failures": "5%",
        "column.push_id": "updated_at",
        "set.platform": "iOS",
        "order_by": "updated_at",
        "checkpointlocation": "/x",
        "queryname": "q",
    }
    settings = read_options(said, NAMES)
    assert ("/shared/moe", "nightly-1", Rate(600_000)) == (settings.out, settings.run_id, settings.rate)
    assert (10.0, 64) == (settings.network.timeout, settings.network.in_flight)
    assert (3, 300.0) == (settings.retry.tries, settings.retry.outage_limit)
    assert ({"push_id": "updated_at"}, {"platform": "iOS"}) == (settings.columns.columns, settings.columns.constants)
    assert (FailureLimit(share=0.05), "updated_at", True) == (
        settings.max_failures,
        settings.order_by,
        settings.over_network,
    )


def test_what_nobody_says_is_as_everywhere() -> None:
    """The folder is all that has to be said; save("folder") says it, too."""
    settings = read_options({"path": "/shared/moe"})
    assert (Rate(), "host", None) == (settings.rate, settings.pace, settings.run_id)
    assert settings == read_options({"out": "file:///shared/moe"})
    assert "s3://bucket/moe" == read_options({"out": "s3a://bucket/moe/"}).out


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "where do results go"),
        ({"out": "moe"}, "another folder for each process"),
        ({"out": "gs://bucket/x"}, "gs://bucket/x cannot be written to"),
        ({"out": "/a", "path": "/b"}, "keep one of them"),
        ({"out": "/a", "rat": "1/s"}, "there is no option 'rat'. Did you mean rate"),
        ({"out": "/a", "column.psh_id": "x"}, "there is no field 'psh_id'. Did you mean push_id"),
        ({"out": "/a", "api_key": "S3CR3T"}, "api_key would stand in Spark's plans"),
        ({"out": "/a", "run_id": "../x"}, "run_id '../x' becomes a folder"),
        ({"out": "/a", "run_id": ".hidden"}, "becomes a folder"),
        ({"out": "/a", "tries": "many"}, "tries is a whole number"),
        ({"out": "/a", "rate": "fast"}, "'fast' is no rate"),
        ({"out": "/a", "pace": "alone"}, "there is no such pace: it is host, process"),
        ({"out": "/a", "pace": "http://host"}, "there is no such pace"),
        ({"out": "/a", "pace": "@"}, "there is no such pace"),
        *(
            ({"out": "/a", "pace": url}, "give the URL as pace_secret")
            for url in (
                *(
                    "redis://:S3CR3T@host/0",
                    "redis://:S3CR3T/x@host",
                    "redis://:S3CR3T#x@host",
                    "redis://:S3CR3T[@host",
                ),
                *("redis:/:S3CR3T@host", "S3CR3T@host", "@@S3CR3T"),
            )
        ),
        *(
            ({"out": "/a", "pace_secret": url}, why)
            for url, why in (
                ("redis://:S3CR3T/x@host", "write it like redis://HOST:6379/0, or rediss://USER:PASSWORD@HOST:6379/0"),
                *(("redis://:S3CR3T#x@host", "# is %23"), ("redis://:S3CR3T[@host", "cannot be read")),
                *(("nowhere://:S3CR3T@host/0", "there is no such pace"), ("S3CR3T", "there is no such pace")),
            )
        ),
        ({"out": "/a", "pace": "@/run/secrets/pace", "pace_fallback": "3"}, "write share=N"),
        ({"out": "/a", "pace": "host", "pace_secret": "redis://host/0"}, "keep one of them"),
        ({"out": "/a", "pace_fallback": "share=3"}, "nothing else can be away"),
        ({"out": "/a", "pace": "redis://host/0", "pace_fallback": "3"}, "write share=N"),
        ({"out": "/a", "api_key_file": "/k", "api_key_secret": "S3CR3T"}, "keep one of them"),
        ({"out": "/a", "workspace_column": "w"}, "give both, or neither"),
        ({"out": "/a", "workspace_column": "w", "workspaces_file": "/f", "workspace_id": "W"}, "each has its own"),
        ({"out": "/a", "validate": "some"}, "there is no validation"),
    ],
)
def test_what_cannot_be_meant_is_refused(said: dict[str, str], why: str) -> None:
    """Each with what to write instead, and without a secret."""
    with pytest.raises(ConfigError) as refused:
        read_options(said)
    assert why in str(refused.value)
    assert "S3CR3T" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "names", "why"),
    [
        (
            {"column.push_id": "tokn"},
            (*NAMES, "token"),
            "no column 'tokn' (column.push_id names it). Did you mean token",
        ),
        ({"order_by": "updated"}, NAMES, "no column 'updated' (order_by names it)"),
        ({}, ("device_id", "platform", "push_id"), "say which one it is: option column.customer_id"),
    ],
)
def test_a_column_that_is_not_there_is_told_before_the_job_begins(
    said: dict[str, str], names: tuple[str, ...], why: str
) -> None:
    """Or every row would be invalid."""
    with pytest.raises(ConfigError) as refused:
        read_options({"out": "/a", **said}, names)
    assert why in str(refused.value)


def test_a_column_that_stands_twice_is_refused() -> None:
    """A row could hold only one of them."""
    with pytest.raises(SourceError, match="names the column 'push_id' twice"):
        read_options({"out": "/a"}, (*NAMES, "push_id"))


def test_a_column_may_lie_in_a_struct_or_come_from_a_preset() -> None:
    """Dots reach into it; a preset says itself which columns it reads."""
    said = {"out": "/a", "column.customer_id": "user.id", "column.device_id": "user.device"}
    assert ("user.id",) == read_options(said, ("user", "push_id")).customer_columns
    assert ("user_id",) == read_options({"out": "/a", "preset": "segment"}, ("user_id",)).customer_columns
    assert ("customer_id",) == read_options({"out": "/a"}).customer_columns


def test_a_pace_may_stand_in_a_file_of_the_executors(tmp_path: Path) -> None:
    """As on the command line, but read in a task: the driver may not have it, and never holds what is in it."""
    file = tmp_path / "pace"
    said = {"out": "/a", "pace": f"@{file}", "pace_fallback": "share=3"}
    settings = read_options(said)
    assert (True, f"@{file}") == (settings.over_network, settings.pace)
    with pytest.raises(ConfigError, match=r"pace of the option pace cannot be read: No such file .* on every executor"):
        settings.shared_pace()
    file.write_text("rediss://:S3CR3T@host\n")
    pace = settings.shared_pace()
    assert ("rediss://host:6379/0", "S3CR3T", 3) == (pace.place, pace.secret, pace.share)
    file.write_text("redis://:S3CR3T@host@")
    with pytest.raises(ConfigError, match=r"pace, which the option pace names: the URL .* @ is %40") as refused:
        settings.shared_pace()
    assert "S3CR3T" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, '"customer_id"'),
        ({"column.customer_id": "user.id"}, '"user.id"'),
        ({"preset": "onesignal"}, '"external_user_id"'),
        ({"preset": "moengage-export"}, 'coalesce("customer_id", "uid")'),
        ({"workspace_column": "brand", "workspaces_file": "/w"}, '"brand", "customer_id"'),
    ],
)
def test_what_keeps_a_customer_s_rows_together(said: dict[str, str], expected: str) -> None:
    """In the columns that there are."""
    assert expected == read_options({"out": "/a", **said}).together


def test_a_secret_travels_to_the_tasks_and_is_told_by_nobody() -> None:
    """It is pickled, because a task has to have it; no repr shows it."""
    said = {"out": "/a", "api_key_secret": "S3CR3T", "pace_secret": "redis://:S3CR3T@host/0"}
    settings: Settings = pickle.loads(pickle.dumps(read_options(said)))  # noqa: S301  our own
    assert "S3CR3T" not in repr(settings)
    assert ("api_key_secret", "pace_secret") == settings.secrets
    assert "redis://:S3CR3T@host/0" == settings.pace
    environ = {"MOENGAGE_WORKSPACE_ID": "W", "MOENGAGE_DATA_CENTER": "01"}
    assert "S3CR3T" == settings.access.credentials(environ).api_key
