"""What the provider takes from Airflow, by the names of Airflow 3.1 and later; those of 3.0 stand elsewhere."""

from __future__ import annotations

from airflow.sdk import BaseOperator

try:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # pragma: no cover  not the Airflow that the tests have
    from airflow.exceptions import AirflowException, AirflowFailException  # type: ignore[attr-defined,no-redef]
    from airflow.hooks.base import BaseHook  # type: ignore[attr-defined,no-redef]

__all__ = ["AirflowException", "AirflowFailException", "BaseHook", "BaseOperator"]
