"""The options of a task: those of `moe-bulk upload`, as the library's values."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Literal

import pytest

from moe_bulk.airflow.plan import NOT_HERE, Plan, _value, dashed, means_of, merged, planned
from moe_bulk.config import FailureLimit, Network, Rate, Retry
from moe_bulk.errors import ConfigError
from moe_bulk.intake import Files, Query
from moe_bulk.known import ChangedOnly
from moe_bulk.options import Changes, Destination, Input, Output, Pacing
from moe_bulk.pacing.address import RedisPace
from tests.fake_service import CREDENTIALS

if TYPE_CHECKING:
    from pathlib import Path

OF_UPLOAD = {dashed(each.name) for kind in (Pacing, Input, Changes, Output, Destination) for each in fields(kind)}


def plan(tmp_path: Path, **options: object) -> Plan:
    """Plan an upload of one file."""
    return planned("devices.csv", options, tmp_path, {})


def test_nothing_said_is_what_the_command_line_does(tmp_path: Path) -> None:
    """The same defaults, the pace that the host shares included."""
    found = plan(tmp_path)
    assert (Rate(), "host", Retry(), Network()) == (
        found.means.rate,
        found.means.pace,
        found.means.retry,
        found.means.network,
    )
    assert (Files(("devices.csv",)), "auto", None) == (found.rows, found.reading.format, found.reading.limit)
    assert (None, False, None, "refuse", None) == (
        found.max_failures,
        found.check_first,
        found.changed_only,
        found.if_changed,
        found.keep_runs,
    )


SAID: dict[str, tuple[object, object]] = {
    "rate": ("8000/min", lambda plan: plan.means.rate == Rate(8000)),
    "pace": ("process", lambda plan: plan.means.pace == "process"),
    "in-flight": ("32", lambda plan: plan.means.network.in_flight == 32),
    "timeout": (5, lambda plan: plan.means.network.timeout == 5.0),
    "ca-bundle": ("/ca.pem", lambda plan: plan.means.network.ca_bundle == "/ca.pem"),
    "tries": (3, lambda plan: plan.means.retry.tries == 3),
    "outage-limit": ("5min", lambda plan: plan.means.retry.outage_limit == 300.0),
    "max-failures": (100, lambda plan: plan.max_failures == FailureLimit(count=100)),
    "check-first": ("True", lambda plan: plan.check_first),
    "format": ("csv", lambda plan: plan.reading.format == "csv"),
    "column": ({"push_id": "token"}, lambda plan: dict(plan.reading.columns.columns) == {"push_id": "token"}),
    "set": ("platform=iOS", lambda plan: dict(plan.reading.columns.constants) == {"platform": "iOS"}),
    "where": (["country=DE"], lambda plan: dict(plan.reading.columns.where) == {"country": "DE"}),
    "preset": ("onesignal", lambda plan: plan.reading.columns.preset == "onesignal"),
    "validate": ("basic", lambda plan: plan.reading.columns.validate == "basic"),
    "include-superseded": (True, lambda plan: plan.reading.columns.include_superseded),
    "limit": (10, lambda plan: plan.reading.limit == 10),
    "changed-only": ("true", lambda plan: plan.changed_only == ChangedOnly(None, 30 * 86400.0)),
    "if-changed": ("fresh", lambda plan: plan.if_changed == "fresh"),
    "keep-runs": ("7", lambda plan: plan.keep_runs == 7),
}
"""Each option as a task may give it, and how the plan shows that it was heard."""
ELSEWHERE = {"query", "state", "resend-after", "pace-fallback"}
"""Options that mean something beside others only: tests of their own are below."""


@pytest.mark.parametrize("name", SAID)
def test_an_option_is_heard(name: str, tmp_path: Path) -> None:
    """With dashes or underscores, as the value itself or as the text that a template makes of it."""
    value, heard = SAID[name]
    assert callable(heard)
    assert heard(plan(tmp_path, **{name: value}))
    assert heard(plan(tmp_path, **{name.replace("-", "_"): value}))


def test_a_pace_through_redis_may_come_from_a_file(tmp_path: Path) -> None:
    """Its password need not stand in a Dag then; and what is done while Redis is away belongs to it."""
    (tmp_path / "pace").write_text("redis://:S3CR3T@pace.example.org/1\n", encoding="utf-8")
    found = plan(tmp_path, **{"pace": f"@{tmp_path / 'pace'}", "pace-fallback": "share=3"}).means.pace
    assert isinstance(found, RedisPace)
    assert ("redis://pace.example.org:6379/1", "S3CR3T", 3) == (found.place, found.secret, found.share)
    with pytest.raises(ConfigError, match="nothing else can be away"):
        plan(tmp_path, pace_fallback="share=3")


def test_each_option_of_upload_is_heard_or_refused() -> None:
    """A new option of `moe-bulk upload` cannot be taken by a task and then not be obeyed."""
    assert OF_UPLOAD == {*SAID, *ELSEWHERE, *NOT_HERE}
    assert set() == {*SAID, *ELSEWHERE} & NOT_HERE.keys()


@pytest.mark.parametrize("name", NOT_HERE)
def test_an_option_that_makes_no_sense_is_refused(name: str, tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(ConfigError, match="is no option of a task: "):
        plan(tmp_path, **{name: "x"})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max-failure", "5%", "there is no option 'max-failure'. Did you mean max-failures?"),
        ("rate", "fast", "is no rate"),
        ("tries", "many", "the option 'tries' wants a whole number; got str"),
        ("tries", True, "the option 'tries' wants a whole number; got True"),
        ("tries", None, "the option 'tries' wants a whole number; got None"),
        ("limit", -1, "-1"),
        ("check-first", "maybe", "the option 'check-first' wants true or false; got str"),
        ("validate", "lax", "the option 'validate' wants one of strict, basic; got str"),
        ("preset", ["a"], "the option 'preset' wants a text; got list"),
        ("column", [1], "the option 'column' wants NAME=VALUE, several of them, or a mapping; got list"),
        ("column", "push_id", "push_id"),
        ("state", "x.sqlite", "give both, or neither"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(name: str, value: object, said: str, tmp_path: Path) -> None:
    """Naming the option, and what it wants."""
    with pytest.raises(ConfigError) as raised:
        plan(tmp_path, **{name: value})
    assert said in str(raised.value)


def test_none_stands_for_what_may_be_missing(tmp_path: Path) -> None:
    """An optional setting that a template leaves out."""
    assert plan(tmp_path) == plan(tmp_path, **{"max-failures": None, "keep-runs": None})


def test_a_password_is_no_option_of_a_task() -> None:
    """Airflow shows a task's options; a connection's extra may hold one, or a file."""
    with pytest.raises(ConfigError, match=r"pace=@FILE\. Change the password") as caught:
        merged({}, {"pace": " rediss://:S3CR3T@pace.example.org"})
    assert "S3CR3T" not in str(caught.value)
    for account, own in (({"pace": "redis://:x@h"}, {}), ({}, {"pace": "redis://h"}), ({}, {"pace": "@/run/pace"})):
        assert account | own == merged(account, own)


def test_a_task_s_own_options_go_first() -> None:
    """Before those of its connection, however either is written."""
    assert {"max-failures": "5%", "rate": "1/s"} == merged({"max_failures": 3, "rate": "1/s"}, {"max-failures": "5%"})
    assert {"rate": "1/s"} == merged({"rate": "1/s"}, None)
    with pytest.raises(ConfigError, match="options are a mapping of names to values; got list"):
        merged({}, ["rate"])  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [None, [], "", [""], "-"])
def test_there_must_be_a_source(source: object, tmp_path: Path) -> None:
    """A task has no standard input."""
    with pytest.raises(ConfigError, match=r"upload what\?|a task has no standard input"):
        planned(source, {}, tmp_path, {})


@pytest.mark.parametrize("source", [3, {"a": 1}, ["a.csv", None]])
def test_what_another_task_hands_on_must_be_names(source: object, tmp_path: Path) -> None:
    """XCom brings anything."""
    with pytest.raises(ConfigError, match="source is a text or a list of texts; got "):
        planned(source, {}, tmp_path, {})


def test_several_sources_and_globs(tmp_path: Path) -> None:
    """They are one run, as on the command line."""
    for name in "ab":
        (tmp_path / f"{name}.csv").touch()
    found = planned([str(tmp_path / "*.csv"), tmp_path / "c.ndjson"], {}, tmp_path, {})
    assert Files(tuple(str(tmp_path / name) for name in ("a.csv", "b.csv", "c.ndjson"))) == found.rows


def test_a_query(tmp_path: Path) -> None:
    """Its database is the source, or comes from the worker's environment, for its password's sake."""
    (tmp_path / "devices.sql").write_text("select 1", encoding="utf-8")
    said, url = {"query": f"@{tmp_path / 'devices.sql'}"}, "postgresql://db/crm"
    expected = Query(url, "select 1")
    assert expected == planned(url, said, tmp_path, {}).rows
    assert expected == planned(None, said, tmp_path, {"MOE_BULK_SQL_URL": url}).rows
    with pytest.raises(ConfigError, match="a query goes with one source"):
        planned("devices.csv", said, tmp_path, {})


def test_changed_only_has_two_more(tmp_path: Path) -> None:
    """Where it is remembered, and for how long it is believed."""
    said = {"changed-only": True, "state": "/srv/state.sqlite", "resend-after": "7d"}
    assert ChangedOnly("/srv/state.sqlite", 7 * 86400.0) == plan(tmp_path, **said).changed_only


def test_the_worker_s_certificates_are_trusted() -> None:
    """As on the command line; what an option says goes before them."""
    env = {"SSL_CERT_FILE": "/worker.pem"}
    assert "/worker.pem" == means_of({}, env).network.ca_bundle
    assert "/own.pem" == means_of({"ca-bundle": "/own.pem"}, env).network.ca_bundle


def test_the_means_make_an_uploader() -> None:
    """With the rate that was said."""
    assert Rate(100) == means_of({"rate": "100/min"}, {}).uploader(CREDENTIALS).rate


def test_an_option_of_several_forms() -> None:
    """Names of ours, or any other text: as an option may be that names a place, too."""
    hint = Literal["host", "process"] | str | None  # noqa: PYI051  help tells the names
    assert ["host", "redis://h", None] == [_value("pace", value, hint) for value in ("host", "redis://h", None)]
    with pytest.raises(ConfigError, match="the option 'pace' wants one of host, process or a text; got list"):
        _value("pace", ["host"], hint)
