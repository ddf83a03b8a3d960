"""The operator that uploads to MoEngage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from moe_bulk.airflow.delivery import Delivery
from moe_bulk.airflow.folders import DEFAULT_OUT, run_folder
from moe_bulk.airflow.hooks.moengage import MoEngageHook
from moe_bulk.airflow.plan import merged, planned
from moe_bulk.airflow.sdk import AirflowException, AirflowFailException, BaseOperator
from moe_bulk.airflow.verdicts import failed_rows, retry_helps, told
from moe_bulk.airflow.xcom import discreet, report
from moe_bulk.errors import MoeBulkError
from moe_bulk.tally import lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context


class MoEngageUploadOperator(BaseOperator):
    """Upload `source` (a path, a glob, a URL, or several) into a run folder, and return a small report.

    A retry goes on in the same folder: by default `DEFAULT_OUT`, one for each Dag run, task and map index, within the
    folder `runs` of the connection's extra, else `$MOE_BULK_RUNS`, else `$AIRFLOW_HOME/moe_bulk`. `options` are those
    of `moe-bulk upload`, by their names; they go before the connection's. With `failed_rows="allow"` a task whose dead
    letter is not empty succeeds all the same.

    >>> MoEngageUploadOperator.partial(task_id="upload", options={"preset": "onesignal"}).expand(source=files)
    """

    template_fields: Sequence[str] = ("source", "options", "out", "moengage_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"options": "json"}
    ui_color = "#dfe8f7"

    def __init__(
        self,
        *,
        source: str | Sequence[str] | None = None,
        moengage_conn_id: str = MoEngageHook.default_conn_name,
        options: Mapping[str, Any] | None = None,
        out: str = DEFAULT_OUT,
        failed_rows: Literal["fail", "allow"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if failed_rows not in ("fail", "allow"):
            raise ValueError(f"failed_rows is 'fail' or 'allow'; got {failed_rows!r}")
        self.source = source
        self.moengage_conn_id = moengage_conn_id
        self.options = options
        self.out = out
        self.failed_rows = failed_rows
        self._delivery: Delivery | None = None
        self._killed = False

    def execute(self, context: Context) -> dict[str, object]:
        """Upload it; raises AirflowFailException where a retry would not help, AirflowException where it may."""
        try:
            account = MoEngageHook(self.moengage_conn_id).get_account()
            folder = run_folder(self.out, account.runs, os.environ)
            plan = planned(self.source, merged(account.options, self.options), Path.cwd())
        except MoeBulkError as error:
            _fail(error)
        self._delivery = delivery = Delivery(account.credentials, plan, folder)
        if self._killed:
            delivery.stop()
        try:
            summary = discreet(delivery.result())
        except MoeBulkError as error:
            if delivery.summary is not None:
                self._leave(report(delivery.summary, folder, error), context)
            _fail(error, folder)
        for line in lines(summary):
            self.log.info(line)
        said = report(summary, folder)
        if summary["exit_code"] and self.failed_rows == "fail":
            self._leave(said, context)
            raise AirflowFailException(failed_rows(summary, folder))
        return said

    def on_kill(self) -> None:
        """Stop in an orderly way, and leave a run with which the next try goes on."""
        self._killed = True
        if self._delivery is not None:
            self._delivery.stop()

    def _leave(self, said: dict[str, object], context: Context) -> None:
        """Leave the report of a task that fails: Airflow itself takes that of one that succeeds."""
        if self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=said)


def _fail(error: MoeBulkError, folder: Path | None = None) -> NoReturn:
    kind = AirflowException if retry_helps(error) else AirflowFailException
    raise kind(told(error, folder)) from None
