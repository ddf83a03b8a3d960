"""What one of Airflow's connections says."""

from __future__ import annotations

import pytest

from moe_bulk.airflow.connection import Account, Fields, read_connection
from moe_bulk.errors import ConfigError
from tests.fake_service import KEY


def account(host: str | None = "01", **more: object) -> Account:
    """Read a connection that is complete, but for what the test says of it."""
    fields: dict[str, object] = {"login": "WORKSPACE", "password": KEY, **more}
    return read_connection(Fields("moengage_crm", host, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({"host": "1"}, "https://api-01.moengage.com"),
        ({"host": " DC-101 "}, "https://api-101.moengage.com"),
        ({"host": "dashboard-02"}, "https://api-02.moengage.com"),
        ({"host": "api-03.moengage.com"}, "https://api-03.moengage.com"),
        ({"host": "https://moengage.example.org/"}, "https://moengage.example.org"),
        ({"host": "moengage.example.org"}, "https://moengage.example.org"),
        ({"host": "http://127.0.0.1:8080"}, "http://127.0.0.1:8080"),
        ({"host": "127.0.0.1", "port": 8080, "schema": "http"}, "http://127.0.0.1:8080"),
        ({"host": "http://127.0.0.1", "port": 8080}, "http://127.0.0.1:8080"),
        ({"host": "moengage.example.org", "port": 8443}, "https://moengage.example.org:8443"),
    ],
)
def test_the_host_says_where_to(fields: dict[str, object], base_url: str) -> None:
    """A data center in its spellings, a URL, or a host with its port and schema, as Airflow takes URIs apart."""
    assert base_url == account(**fields).credentials.base_url  # type: ignore[arg-type]


def test_login_and_password_say_with_whose_key() -> None:
    """The workspace id and the key, without the space that a form lets in."""
    found = account(login=" WORKSPACE ", password=f"{KEY}\n").credentials
    assert ("WORKSPACE", KEY) == (found.workspace_id, found.api_key)


def test_the_extra_says_the_rest() -> None:
    """Options, and the folder for runs, which is none; what the form left empty says nothing."""
    found = account(extra='{"rate": "8000/min", "pace": null, "runs": "/srv/runs", "max-failures": ""}')
    assert ({"rate": "8000/min"}, "/srv/runs") == (found.options, found.runs)


@pytest.mark.parametrize("extra", [None, "", "  ", "{}"])
def test_there_need_be_no_extra(extra: str | None) -> None:
    """Then there are no options, and runs have no folder of their own."""
    assert ({}, None) == (account(extra=extra).options, account(extra=extra).runs)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"host": None}, "has no host: fill in the data center"),
        ({"login": ""}, "has no login: fill in the workspace id"),
        ({"password": " "}, "has no password: fill in the Data API key"),
        ({"host": "07"}, "is no data center of MoEngage: use one of 01, 02"),
        ({"host": "http://example.org"}, "would send the key unencrypted"),
        ({"login": "a b"}, "the workspace id holds ' '"),
        ({"extra": "rate=1"}, "its extra is no JSON object"),
        ({"extra": "[1]"}, "its extra is no JSON object"),
        ({"extra": '{"runs": 3}'}, "is a folder's path; got int"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, object], said: str) -> None:
    """With the connection that it stands in."""
    with pytest.raises(ConfigError, match=r"the connection 'moengage_crm'") as raised:
        account(**fields)  # type: ignore[arg-type]
    assert said in str(raised.value)


@pytest.mark.parametrize("fields", [{"host": f"https://u:{KEY}@h"}, {"extra": f"{KEY}"}, {"login": f"{KEY}!"}])
def test_the_key_is_never_shown(fields: dict[str, object]) -> None:
    """Not by a message, even where it stands in the wrong field, and by no `repr`."""
    with pytest.raises(ConfigError) as raised:
        account(**fields)  # type: ignore[arg-type]
    assert KEY not in str(raised.value)
    assert KEY not in repr(account()) + repr(Fields("c", "01", "w", KEY, extra=KEY))
