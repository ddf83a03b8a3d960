"""Files behind URLs, opened by smart_open: object stores and the web, each with the packages of its extra."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from moe_bulk.errors import SourceError
from moe_bulk.sources.masking import masked

if TYPE_CHECKING:
    from moe_bulk.sources.opening import Readable

_EXTRAS = {
    **dict.fromkeys(("s3", "s3a", "s3n"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gs"),
    **dict.fromkeys(("az", "azure"), "azure"),
    **dict.fromkeys(("http", "https"), "http"),
}

_SILENCE = 60
"""Seconds without a byte after which a web server counts as gone: requests itself would wait for ever."""

_AZURE = "AZURE_STORAGE_CONNECTION_STRING"


def open_remote(url: str) -> Readable:
    """The stored bytes behind a URL. Raises SourceError where packages are missing, and what smart_open raises."""
    import smart_open  # noqa: PLC0415  a tenth of a second that local files need not wait for

    scheme, _, rest = url.partition("://")
    extra = _EXTRAS.get(scheme.lower())
    try:
        params = _params(extra)
        where = f"azure://{rest}" if extra == "azure" else url
        return cast("Readable", smart_open.open(where, "rb", compression="disable", transport_params=params))
    except ImportError:
        package = f"moe-bulk[{extra}]" if extra else f"smart_open[{scheme}]"
        raise SourceError(f"{masked(url)} needs more packages: install them with pip install '{package}'") from None


def _params(extra: str | None) -> dict[str, Any]:
    if extra == "http":
        return {"timeout": _SILENCE}
    if extra == "azure":
        from azure.storage.blob import BlobServiceClient  # noqa: PLC0415  for those who have it

        if not (said := os.environ.get(_AZURE)):
            raise SourceError(f"az:// is opened with what {_AZURE} says: set it")
        return {"client": BlobServiceClient.from_connection_string(said)}
    return {}
