"""The hook for MoEngage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moe_bulk.airflow.connection import Fields, read_connection
from moe_bulk.airflow.get_provider_info import CONN_TYPE, HIDDEN, NAME, PLACEHOLDERS, RELABELED
from moe_bulk.airflow.plan import means_of
from moe_bulk.airflow.sdk import BaseHook
from moe_bulk.airflow.trying import try_account

if TYPE_CHECKING:
    from moe_bulk.airflow.connection import Account
    from moe_bulk.uploader import Uploader


class MoEngageHook(BaseHook):
    """One workspace of MoEngage's, by a connection: host = data center or URL, login = workspace id, password = key.

    >>> async with MoEngageHook("moengage_shop").get_conn() as uploader:
    ...     result = await uploader.send({"customer_id": "u-1", "device_id": "d-1", "platform": "iOS", "push_id": "t"})
    """

    conn_name_attr = "moengage_conn_id"
    default_conn_name = "moengage_default"
    conn_type = CONN_TYPE
    hook_name = NAME

    def __init__(self, moengage_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.moengage_conn_id = moengage_conn_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """What the form for such a connection calls its fields."""
        return {"hidden_fields": HIDDEN, "relabeling": RELABELED, "placeholders": PLACEHOLDERS}

    def get_account(self) -> Account:
        """What the connection says; raises ConfigError where it is incomplete."""
        found = self.get_connection(self.moengage_conn_id)
        return read_connection(
            Fields(
                conn_id=self.moengage_conn_id,
                host=found.host,
                login=found.login,
                password=found.password,
                schema=found.schema,
                port=found.port,
                extra=found.extra,
            )
        )

    def get_conn(self) -> Uploader:
        """An Uploader with the connection's rate and pace: enter it, then `send`, `stream` or `run`."""
        account = self.get_account()
        return means_of(account.options).uploader(account.credentials)

    def test_connection(self) -> tuple[bool, str]:
        """Whether the host is reached and the key is right, as `moe-bulk doctor` looks at it; no device is sent."""
        return try_account(self.get_account)
