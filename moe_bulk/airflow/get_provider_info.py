"""What Airflow learns of this package through its entry point `apache_airflow_provider`."""

from __future__ import annotations

NAME = "MoEngage"
CONN_TYPE = "moengage"
HIDDEN = ["schema", "port"]
RELABELED = {
    "host": "Data center or URL",
    "login": "Workspace id",
    "password": "Data API key",
    "extra": "Options of all its uploads",
}
PLACEHOLDERS = {
    "host": "01",
    "login": "the dashboard's Settings > Account > APIs",
    "extra": '{"rate": "10000/min"}',
}


def get_provider_info() -> dict[str, object]:
    """All of it, in the form of Airflow's `provider_info.schema.json`."""
    hook, operator = "moe_bulk.airflow.hooks.moengage", "moe_bulk.airflow.operators.moengage"
    return {
        "package-name": "moe-bulk",
        "name": NAME,
        "description": "Delivers device records in bulk to MoEngage's Track Device API.",
        "integrations": [
            {
                "integration-name": NAME,
                "external-doc-url": "https://www.moengage.com/docs/api/device/create-device",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": NAME, "python-modules": [hook]}],
        "operators": [{"integration-name": NAME, "python-modules": [operator]}],
        "connection-types": [
            {
                "connection-type": CONN_TYPE,
                "hook-class-name": f"{hook}.MoEngageHook",
                "hook-name": NAME,
                "conn-fields": {
                    "rate": _field("Rate", "The workspace's limit, such as 10000/min."),
                    "pace": _field("Pace", "Whose requests the limit is kept for, as --pace."),
                    "runs": _field("Run folders", "Where run folders are made; on a disk that all workers share."),
                },
                "ui-field-behaviour": {
                    "hidden-fields": HIDDEN,
                    "relabeling": RELABELED,
                    "placeholders": PLACEHOLDERS,
                },
            }
        ],
    }


def _field(label: str, description: str) -> dict[str, object]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"]}}
