"""The hook, and what Airflow learns of the package."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("airflow.sdk", reason="needs Airflow, in an environment of its own: pip install '.[airflow]'")

from airflow.providers_manager import ProvidersManager
from airflow.sdk import Connection

from moe_bulk.airflow.hooks.moengage import MoEngageHook
from moe_bulk.airflow.operators.moengage import MoEngageUploadOperator
from moe_bulk.airflow.sdk import BaseHook
from moe_bulk.config import Rate
from moe_bulk.errors import ConfigError
from moe_bulk.outcome import Result, Status
from tests.fake_service import device

if TYPE_CHECKING:
    from collections.abc import Callable

    from moe_bulk.sandbox import Sandbox


def test_airflow_finds_the_provider() -> None:
    """By its entry point, in the form that it asks for; every name that stands in there leads somewhere."""
    manager = ProvidersManager()  # type: ignore[no-untyped-call]
    assert "moe-bulk" in manager.providers
    hook = manager.hooks["moengage"]
    assert hook is not None
    assert ("MoEngage", "moengage_conn_id") == (hook.hook_name, hook.connection_id_attribute_name)
    assert f"{MoEngageHook.__module__}.MoEngageHook" == hook.hook_class_name
    modules = [
        module
        for kind in ("hooks", "operators")
        for each in manager.providers["moe-bulk"].data[kind]
        for module in each["python-modules"]
    ]
    assert [MoEngageHook.__module__, MoEngageUploadOperator.__module__] == modules


def test_the_form_for_its_connections() -> None:
    """What the fields are called, and which there are besides."""
    manager = ProvidersManager()  # type: ignore[no-untyped-call]
    behaviour = manager.field_behaviours["moengage"]
    assert {"schema", "port"} == {*behaviour["hidden_fields"]}
    assert "Data API key" == behaviour["relabeling"]["password"]
    assert behaviour["relabeling"] == MoEngageHook.get_ui_field_behaviour()["relabeling"]
    found = {name for name in manager.connection_form_widgets if name.startswith("extra__moengage__")}
    assert {f"extra__moengage__{name}" for name in ("rate", "pace", "runs")} == found


def test_the_hook_sends(sandbox: Sandbox, connect: Callable[..., None]) -> None:
    """`get_conn` is an Uploader, with what the connection says of the pace."""
    connect("moengage_shop", extra={"rate": "500/s"})

    async def send() -> Result:
        async with MoEngageHook("moengage_shop").get_conn() as uploader:
            assert Rate(500, per=1) == uploader.rate
            return await uploader.send(device(1))

    assert (Status.ACCEPTED, 1) == (asyncio.run(send()).status, len(sandbox.devices))


def test_airflow_makes_the_hook_of_a_connection(connect: Callable[..., None]) -> None:
    """By its type."""
    connect("moengage_shop")
    assert isinstance(BaseHook.get_hook("moengage_shop"), MoEngageHook)


def test_a_connection_can_be_tested(sandbox: Sandbox, connect: Callable[..., None]) -> None:
    """With the right key, a wrong one, and none."""
    connect()
    well, said = MoEngageHook().test_connection()
    assert (True, True) == (well, "MoEngage knows workspace SANDBOX" in said)
    connect(password="wrong-key-of-somebody")
    well, said = MoEngageHook().test_connection()
    assert (False, False) == (well, "wrong-key" in said)
    connect(password="")
    well, said = MoEngageHook().test_connection()
    assert (False, True) == (well, "has no password" in said)
    assert 0 == len(sandbox.devices)


def test_a_connection_as_a_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Airflow reads one; and one that is no object in its extra."""
    monkeypatch.setenv("AIRFLOW_CONN_MOENGAGE_SHOP", "moengage://WORKSPACE:key%2F1@api-02.moengage.com/?rate=100%2Fs")
    found = MoEngageHook("moengage_shop").get_account()
    assert ("key/1", "https://api-02.moengage.com") == (found.credentials.api_key, found.credentials.base_url)
    assert {"rate": "100/s"} == found.options
    assert "key/1" not in repr(found)
    monkeypatch.setattr(
        BaseHook, "get_connection", lambda *_: Connection(conn_id="x", conn_type="moengage", host="01", extra="x")
    )
    with pytest.raises(ConfigError, match="has no login"):
        MoEngageHook("x").get_account()
